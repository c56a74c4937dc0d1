// SPDX-License-Identifier: Apache-2.0
//! The files of a base sync, which nobody changes while they are held.

use super::end::End;
use crate::datastore::{Backup, Datastore};
use crate::types::Epoch;
use crate::vfs::Open;
use crate::wal::names;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For so many time-outs a set is kept of which nobody takes anything.
const KEPT_TIMEOUTS: u32 = 3;

/// What is sent: a backup that is open, kept from one attempt to the next, so that each goes on where the last one
/// stopped and none rotates the log again.
pub(super) struct BaseSet {
    backup: Backup,
    pub(super) files: Vec<BaseFile>,
    /// When a replica was last seen to take something of it.
    progressed_at: Instant,
}

/// A file of it.
pub(super) struct BaseFile {
    pub(super) path: PathBuf,
    /// Below the data directory.
    pub(super) name: String,
    pub(super) size: u64,
    /// Known when the file has been offered once.
    pub(super) crc: Option<u32>,
}

impl BaseSet {
    /// Begins a backup; waits for what is being written as long as a backup does.
    pub(super) fn begin(store: &Datastore, patience: Duration) -> Result<BaseSet, End> {
        let backup = store.begin_detailed_backup(patience).map_err(|e| End::Local(e.to_string()))?;
        let file = |path: &Path| -> Result<BaseFile, End> {
            let name = path.strip_prefix(store.location()).unwrap_or(path).to_string_lossy().into_owned();
            let opened = store.vfs().open(path, Open::Read).and_then(|file| file.len());
            let size = opened.map_err(|e| unreadable(path, e))?;
            Ok(BaseFile { path: path.to_owned(), name, size, crc: None })
        };
        // The replica gets the history with the handshake.
        let wanted = backup.files().iter().filter(|listed| !listed.source.ends_with(names::HISTORY));
        let files = wanted.map(|listed| file(&listed.source)).collect::<Result<_, End>>()?;
        Ok(BaseSet { backup, files, progressed_at: Instant::now() })
    }

    /// Whether nobody has taken anything of it for so long that a compaction must not wait for it any more.
    pub(super) fn is_stale(&self, timeout: Duration) -> bool {
        self.progressed_at.elapsed() > timeout * KEPT_TIMEOUTS
    }

    /// A replica has taken something of it.
    pub(super) fn progressed(&mut self) {
        self.progressed_at = Instant::now();
    }

    /// Everything up to this epoch is in it.
    pub(super) fn epoch(&self) -> Epoch {
        self.backup.log_finish()
    }
}

pub(super) fn unreadable(path: &Path, e: std::io::Error) -> End {
    End::Local(format!("cannot read {}: {e}", path.display()))
}

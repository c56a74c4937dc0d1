// SPDX-License-Identifier: Apache-2.0
//! How an operator asks for a compaction: with the file `ctrl/start_compaction` (public API §16.4).

use crate::error::{Error, Result};
use crate::vfs::{FileKind, Vfs};
use crate::wal::names;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Makes the directory in which operators ask.
pub fn make_control_directory(vfs: &dyn Vfs, location: &Path) -> Result<()> {
    let control = location.join(names::CONTROL_DIR);
    match vfs.create_dir(&control) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|e| Error::io("cannot create the directory", &control, e)),
    }
}

/// The file by which an operator asks.
#[derive(Debug)]
pub struct CompactionRequest {
    vfs: Arc<dyn Vfs>,
    file: PathBuf,
    /// The last look failed, which has been logged.
    failed: bool,
}

impl CompactionRequest {
    /// Where operators of this directory ask.
    pub fn new(vfs: Arc<dyn Vfs>, location: &Path) -> CompactionRequest {
        let file = location.join(names::CONTROL_DIR).join(names::START_COMPACTION);
        CompactionRequest { vfs, file, failed: false }
    }

    /// Whether somebody asks; the file is then deleted. One that cannot be deleted does not count, because it would ask
    /// for ever.
    pub fn take(&mut self) -> bool {
        match self.try_take() {
            Ok(asked) => {
                self.failed = false;
                asked
            }
            Err(e) => {
                if !self.failed {
                    log::error!("a request for a compaction is not carried out: {e}");
                }
                self.failed = true;
                false
            }
        }
    }

    fn try_take(&self) -> Result<bool> {
        let kind = self.vfs.kind(&self.file).map_err(|e| Error::io("cannot look at", &self.file, e))?;
        if kind != Some(FileKind::File) {
            return Ok(false);
        }
        self.vfs.unlink(&self.file).map_err(|e| Error::io("cannot delete", &self.file, e))?;
        Ok(true)
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What the parts of a replica's store share: the directory, how far it is recorded, and the failure after which
//! everything is refused.

use crate::directory::LogDirectory;
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::Vfs;
use crate::wal::file_sync::NameSync;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;

/// What the parts of a store share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) location: PathBuf,
    /// Gone when the store is closed.
    pub(super) directory: Mutex<Option<LogDirectory>>,
    /// The durable epoch.
    pub(super) recorded: AtomicU64,
    /// The epoch that is recorded or is being recorded.
    pub(super) covered: AtomicU64,
    pub(super) failure: Mutex<Option<String>>,
    /// Makes the names of the lanes' files durable.
    pub(super) names: Arc<NameSync>,
}

impl Shared {
    /// Refuses everything after a failure.
    pub(super) fn check(&self) -> Result<()> {
        match &*self.failure.lock() {
            Some(failure) => Err(Error::Poisoned(failure.clone())),
            None if self.directory.lock().is_none() => Err(closed()),
            None => Ok(()),
        }
    }

    /// Notes the failure of a write or sync; nothing is acknowledged from now on. Other errors pass.
    pub(super) fn fail(&self, error: Error) -> Error {
        if matches!(error, Error::Io { .. } | Error::Blob { .. }) {
            self.failure.lock().get_or_insert_with(|| error.to_string());
        }
        error
    }

    pub(super) fn recorded(&self) -> Epoch {
        Epoch(self.recorded.load(SeqCst))
    }

    pub(super) fn covered(&self) -> Epoch {
        Epoch(self.covered.load(SeqCst))
    }
}

pub(super) fn closed() -> Error {
    Error::WrongState("the store of the replica is closed".to_owned())
}

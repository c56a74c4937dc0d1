// SPDX-License-Identifier: Apache-2.0
//! What the parts of a replica's store share: the directory, how far it is recorded, and the failure after which
//! everything is refused.

use super::gate::Gate;
use crate::directory::LogDirectory;
use crate::error::{Error, Result};
use crate::lock_order::Mutex;
use crate::types::Epoch;
use crate::vfs::Vfs;
use crate::wal::file_sync::NameSync;
use crate::wal::journal::Journal;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

/// Why nothing is acknowledged any more; the first reason stays.
#[derive(Clone, Debug, Default)]
pub(super) struct Failure(Arc<OnceLock<String>>);

impl Failure {
    pub(super) fn get(&self) -> Option<&String> {
        self.0.get()
    }

    pub(super) fn note(&self, error: &Error) {
        // A later one is a consequence.
        let _ = self.0.set(error.cause());
    }
}

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
    /// Log files that got a rotated name while the store was open.
    pub(super) renamed: AtomicU64,
    /// Where sessions wait for a cut of the log.
    pub(super) gate: Gate,
    pub(super) failure: Failure,
    /// Makes durable what the lanes hand over; without it they sync their files.
    pub(super) journal: Option<Arc<Journal>>,
    /// Makes the names of the lanes' files durable.
    pub(super) names: Arc<NameSync>,
}

impl Shared {
    /// Refuses everything after a failure.
    pub(super) fn check(&self) -> Result<()> {
        match self.failure.get() {
            Some(failure) => Err(Error::Poisoned(failure.clone())),
            None if self.directory.lock().is_none() => Err(closed()),
            None => Ok(()),
        }
    }

    /// What the directory says; an error when it is closed.
    pub(super) fn with_directory<T>(&self, ask: impl FnOnce(&mut LogDirectory) -> T) -> Result<T> {
        self.directory.lock().as_mut().map(ask).ok_or_else(closed)
    }

    /// Files are about to get a rotated name: nobody who copies takes others of their names for them.
    pub(super) fn count_renamed(&self) {
        self.renamed.fetch_add(1, SeqCst);
    }

    /// Notes the failure of a write or sync; nothing is acknowledged from now on. Other errors pass.
    pub(super) fn fail(&self, error: Error) -> Error {
        if matches!(error, Error::Io { .. } | Error::Blob { .. }) {
            self.failure.note(&error);
            if let Some(journal) = &self.journal {
                journal.refuse(&error.cause());
            }
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

// SPDX-License-Identifier: Apache-2.0
//! Makes durable what has ended: the last step before an epoch is STORED. Without a journal the threads that end
//! sessions have synced them, so that an epoch record is all that is left; with one, a group is. Only the coordinator's
//! leader uses it, and whoever records on a replica; after an error nobody may again.

use crate::error::Result;
use crate::lock_order::Mutex;
use crate::types::Epoch;
use crate::vfs::Vfs;
use crate::wal::epoch_file::{self, EpochFile};
use crate::wal::journal::Journal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Committer {
    /// Shared with the journal, which records what it has settled.
    epoch_file: Arc<Mutex<EpochFile>>,
    journal: Option<Arc<Journal>>,
    /// Durable with the journal, or with the epoch file.
    recorded: Epoch,
}

impl Committer {
    pub(crate) fn new(epoch_file: Arc<Mutex<EpochFile>>, journal: Option<Arc<Journal>>) -> Committer {
        let recorded = epoch_file.lock().recorded();
        Committer { epoch_file, journal, recorded }
    }

    /// All sessions up to `last_written`, which is the epoch of some, have ended: when this returns they count for the
    /// next start.
    pub(crate) fn commit(&mut self, last_written: Epoch) -> Result<()> {
        match &self.journal {
            Some(journal) => journal.commit(Some(last_written))?,
            None => self.epoch_file.lock().record(last_written)?,
        }
        self.recorded = self.recorded.max(last_written);
        Ok(())
    }

    /// As [`Self::commit`], with a record in the epoch file in any case.
    pub(super) fn record(&mut self, last_written: Epoch) -> Result<()> {
        self.commit(last_written)?;
        self.settle()
    }

    /// Records `epoch` although no session of it, or of one since the last record, was written.
    pub(crate) fn record_without_sessions(&mut self, epoch: Epoch) -> Result<()> {
        self.settle()?;
        self.epoch_file.lock().record_without_sessions(epoch)?;
        self.recorded = self.recorded.max(epoch);
        Ok(())
    }

    /// Everything that counts does so by the files themselves.
    fn settle(&self) -> Result<()> {
        self.journal.as_ref().map_or(Ok(()), |journal| journal.settle())
    }

    /// The largest epoch that counts for the next start.
    pub(crate) fn recorded(&self) -> Epoch {
        self.recorded
    }

    /// Fails when the directory is not the one under its name any more: then nothing may be reported.
    pub(super) fn confirm_place(&self) -> Result<()> {
        self.epoch_file.lock().confirm_place()
    }

    /// Repeats the last record in a file with a rotated name, which is returned and has `current` in it. A failure
    /// leaves everything as it was.
    pub(super) fn put_aside(&self, vfs: &dyn Vfs, directory: &Path, current: Epoch) -> Result<PathBuf> {
        self.settle()?;
        epoch_file::write_rotated(vfs, directory, self.recorded(), current)
    }

    /// Goes on with a new epoch file that repeats the last record, when the one put aside is on the disk: at no moment
    /// is there a directory without one.
    pub(super) fn renew(&mut self, vfs: &dyn Vfs, directory: &Path) -> Result<()> {
        epoch_file::sync_names(vfs, directory)?;
        self.epoch_file.lock().renew()
    }
}

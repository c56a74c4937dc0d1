// SPDX-License-Identifier: Apache-2.0
//! Makes durable what has ended: the last step before an epoch is STORED. The threads that end sessions have synced them,
//! so that an epoch record is all that is left. Only the coordinator's leader uses it; after an error nobody may again.

use crate::error::Result;
use crate::types::Epoch;
use crate::vfs::Vfs;
use crate::wal::epoch_file::{self, EpochFile};
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) struct Committer {
    epoch_file: EpochFile,
}

impl Committer {
    pub(super) fn new(epoch_file: EpochFile) -> Committer {
        Committer { epoch_file }
    }

    /// All sessions up to `last_written`, which is the epoch of some, have ended: when this returns they count for the next
    /// start.
    pub(super) fn commit(&mut self, last_written: Epoch) -> Result<()> {
        self.epoch_file.record(last_written)
    }

    /// Records `epoch` although no session of it, or of one since the last record, was written.
    pub(super) fn record_without_sessions(&mut self, epoch: Epoch) -> Result<()> {
        self.epoch_file.record_without_sessions(epoch)
    }

    /// The largest epoch in the epoch file.
    pub(super) fn recorded(&self) -> Epoch {
        self.epoch_file.recorded()
    }

    /// Puts the records aside under a rotated name, which is returned and has `current` in it, and goes on with a new epoch
    /// file that repeats the last record: at no moment is there a directory without one.
    pub(super) fn rotate(&mut self, vfs: &dyn Vfs, directory: &Path, current: Epoch) -> Result<PathBuf> {
        let rotated = epoch_file::write_rotated(vfs, directory, self.recorded(), current)?;
        self.epoch_file.renew()?;
        Ok(rotated)
    }
}

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

    /// Fails when the directory is not the one under its name any more: then nothing may be reported.
    pub(super) fn confirm_place(&self) -> Result<()> {
        self.epoch_file.confirm_place()
    }

    /// Repeats the last record in a file with a rotated name, which is returned and has `current` in it. A failure leaves
    /// everything as it was.
    pub(super) fn put_aside(&self, vfs: &dyn Vfs, directory: &Path, current: Epoch) -> Result<PathBuf> {
        epoch_file::write_rotated(vfs, directory, self.recorded(), current)
    }

    /// Goes on with a new epoch file that repeats the last record, when the one put aside is on the disk: at no moment is
    /// there a directory without one.
    pub(super) fn renew(&mut self, vfs: &dyn Vfs, directory: &Path) -> Result<()> {
        epoch_file::sync_names(vfs, directory)?;
        self.epoch_file.renew()
    }
}

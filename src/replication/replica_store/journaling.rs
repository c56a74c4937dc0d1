// SPDX-License-Identifier: Apache-2.0
//! The commit journal of a replica: what surrounds it. The lanes hand over what has ended, and a record is a group.

use super::shared::Failure;
use crate::datastore::Commit;
use crate::directory::{LogDirectory, ManifestOnDisk};
use crate::error::{Error, Result};
use crate::lock_order::Mutex;
use crate::wal::epoch_file::EpochFile;
use crate::wal::journal::{Host, Journal, JournalId};
use std::sync::Arc;

struct Surroundings {
    manifest: Arc<ManifestOnDisk>,
    failure: Failure,
}

impl Host for Surroundings {
    /// Nothing: an epoch is recorded when the names of its BLOBs are on the disk (see
    /// [`super::BlobReceiver::sync_names`]), and before that no session of it counts that is in a group.
    fn before_group(&self) -> Result<()> {
        Ok(())
    }

    fn set_in_use(&self, journal: Option<&JournalId>) -> Result<()> {
        self.manifest.set_journal(journal)
    }

    fn failed(&self, error: Error) {
        self.failure.note(&error);
    }
}

/// Starts the journal if there is to be one; nothing is written before the first group.
pub(super) fn start(
    commit: Commit,
    directory: &LogDirectory,
    epoch_file: Arc<Mutex<EpochFile>>,
    failure: Failure,
) -> Result<Option<Arc<Journal>>> {
    let Commit::Journal(settings) = commit else {
        return Ok(None);
    };
    let surroundings = Arc::new(Surroundings { manifest: directory.manifest(), failure });
    let (vfs, location) = (directory.vfs().clone(), directory.location());
    let journal = Arc::new(Journal::new(vfs, location, settings, surroundings, epoch_file));
    journal.start()?;
    Ok(Some(journal))
}

// SPDX-License-Identifier: Apache-2.0
//! What callers of a data store say and ask about compaction.

use super::compactor::Outcome;
use super::retention::{HeldBack, Retained};
use super::store::Datastore;
use crate::backup::Ticket;
use crate::error::{Error, Result};
use crate::scrub::{Damage, Known, Scrubbed};
use crate::types::{Epoch, WriteVersion};
use std::sync::Arc;

impl Datastore {
    /// Merges all log files but those that are being written into the compacted file, and takes them out of the log:
    /// the catalog lists them, and they may be deleted. Sessions go on meanwhile. Waits until everything up to the
    /// current epoch is durable, which needs a switch of epochs unless it is already; a shutdown ends the wait. One at
    /// a time: a second call waits for the first.
    ///
    /// While a backup is open it is postponed, and when a replica needs all of the log, for which it waits some
    /// seconds: a thread of the data store does it as soon as it can. What a replica needs only in part is compacted
    /// for the other part now.
    ///
    /// # Errors [`Error::WrongState`] before [`Self::ready`], after or because of a shutdown, before the first epoch,
    /// and within a callback; [`Error::Io`] and [`Error::Corrupted`]. Nothing is lost then, and the data store works on
    /// unless the error is one of writing the log. When a log file does not hold any more what was written, it is kept
    /// and nothing is compacted; that is done when the file is whole again.
    pub fn compact(&self) -> Result<Outcome> {
        self.compactor.run()
    }

    /// The same, and deletes the log files afterwards that it has taken out of the log; what a crash leaves of them,
    /// the next start deletes. While a backup is open nothing is done and nothing postponed.
    ///
    /// # Errors
    /// As [`Self::compact`]. Files that cannot be deleted are an error, too, and are deleted later.
    pub fn compact_and_delete(&self) -> Result<Outcome> {
        self.compactor.run_by_itself()
    }

    /// Declares that nobody reads versions below this one any more, but for the newest of a key: an online compaction
    /// then deletes BLOBs that only older ones refer to, here and on replicas, which are told. Cheap; callable at any
    /// time.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a version below the current one, which stays.
    pub fn switch_available_boundary_version(&self, version: WriteVersion) -> Result<()> {
        if self.compactor.raise_boundary(version) {
            self.note_boundary(version);
            return Ok(());
        }
        let current = self.compactor.boundary();
        Err(Error::InvalidArgument(format!(
            "The new boundary version ({}, {}) is smaller than the current boundary version ({}, {})",
            version.major, version.minor, current.major, current.minor
        )))
    }

    /// The version given last to [`Self::switch_available_boundary_version`].
    pub fn available_boundary_version(&self) -> WriteVersion {
        self.compactor.boundary()
    }

    /// Begins a backup: from here on no compaction gives a log file another name, replaces a file, or deletes a BLOB.
    /// Waits for the end of a compaction's last step and of a running deletion of unused BLOBs; a compaction that has
    /// not come so far is postponed.
    pub(super) fn hold_files(&self) -> Ticket {
        let ticket = self.backups.begin();
        self.names.end_cut();
        self.coordinator.progress.wake();
        // A session that begins just now may have seen the cut.
        for channel in self.channels.read().iter() {
            channel.pass();
        }
        self.blobs.wait_for_collection();
        ticket
    }

    /// Says which log files are still needed as they are, by a replica that lags behind: compactions leave them in the
    /// log, and a start leaves BLOBs. `None`, as at first, means that none are.
    pub fn retain(&self, retained: Option<Retained>) {
        self.compactor.retain(retained);
    }

    /// Log beyond this epoch is needed, as [`Self::retain`] was told last.
    pub fn retained_epoch(&self) -> Option<Epoch> {
        self.compactor.retained_epoch()
    }

    /// The log files that do not hold any more what was written. Any thread.
    pub fn scrubbed(&self) -> &Arc<Scrubbed> {
        self.compactor.known().scrubbed()
    }

    /// Takes note of what log files hold, for compactions until the shutdown.
    pub fn know(&self, known: &Arc<Known>) {
        self.compactor.known().know(known);
    }

    /// A log file does not hold any more what was written: says so, once, and compacts nothing before it does.
    pub fn found_damage(&self, damage: &Damage) {
        self.compactor.known().found(damage);
    }

    /// Who holds back a compaction that was asked for; `None` when nobody does. Any thread.
    pub fn held_back_compaction(&self) -> Option<HeldBack> {
        self.compactor.held_back()
    }
}

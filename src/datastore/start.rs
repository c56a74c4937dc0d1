// SPDX-License-Identifier: Apache-2.0
//! The start of a data store: recovers what was acknowledged, puts the directory right, begins the epochs.

use super::committer::Committer;
use super::events::EventKind;
use super::journaling::{Journaling, Leads};
use super::settings::Commit;
use super::store::{Datastore, Lifecycle, State};
use super::turns::Turn;
use crate::compaction::own;
use crate::directory::data_directory::Directory;
use crate::directory::make_control_directory;
use crate::directory::start::{self, Found, Reading, Record, Started};
use crate::error::{Error, Result};
use crate::lock_order::{Mutex, Rank};
use crate::types::{BlobId, Epoch};
use crate::wal::epoch_file::EpochFile;
use std::sync::Arc;
use std::time::Instant;

/// What a start found.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// The durable epoch of the directory before the start.
    pub durable_epoch: Epoch,
    /// What [`Datastore::last_epoch`] now gives.
    pub last_epoch: Epoch,
    /// Entries read, all versions.
    pub entries: u64,
    /// The largest BLOB id that a durable entry refers to or the catalog knows.
    pub max_blob_id: BlobId,
    /// What was cut off or otherwise put right, a line each; also logged.
    pub warnings: Vec<String>,
}

impl Datastore {
    /// Recovers what was acknowledged, puts the directory right and starts the epochs. After [`Self::open`], and again
    /// after each [`Self::shutdown`]: then the directory is opened anew.
    ///
    /// # Errors [`Error::Corrupted`] when acknowledged data is damaged: then no file has been changed.
    /// [`Error::Poisoned`] when a write or sync has failed: only another process may start. [`Error::WrongState`] when
    /// it runs, and within a callback.
    pub fn ready(&self) -> Result<RecoveryReport> {
        self.ready_in(&self.turn_to_start()?, |_| Ok(()))
    }

    /// As [`Self::ready`], for somebody who has the turn; `before_change` is told the durable epoch before the
    /// directory is changed. When it fails, nothing is.
    pub(crate) fn ready_in(
        &self,
        _turn: &Turn<'_>,
        before_change: impl FnOnce(Epoch) -> Result<()>,
    ) -> Result<RecoveryReport> {
        let begun = Instant::now();
        let result = self.recover(before_change);
        if let Ok(report) = &result {
            self.metrics().note_recovery(begun.elapsed(), report.entries);
        }
        let epoch = result.as_ref().map_or(Epoch(0), |report| report.last_epoch);
        self.emit(EventKind::WalStarted, epoch, result.is_ok());
        result
    }

    fn recover(&self, before_change: impl FnOnce(Epoch) -> Result<()>) -> Result<RecoveryReport> {
        let mut lifecycle = self.lifecycle.lock();
        if lifecycle.state == State::Shutdown {
            self.open_again(&mut lifecycle)?;
        }
        let Lifecycle { state, directory } = &mut *lifecycle;
        let directory = match (&state, directory) {
            (State::NotReady, Some(directory)) => directory,
            _ => return Err(Error::WrongState("ready() was already called".to_owned())),
        };
        self.coordinator.check()?;
        let channels = self.channels.read();
        // No session begins before all is put right and the epochs are known.
        let mut writers: Vec<_> = channels.iter().map(|channel| channel.lock()).collect();
        writers.iter().try_for_each(|writer| writer.check_idle("ready() called"))?;
        directory.reload()?;
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let found = start::read(
            directory,
            Reading {
                threads: self.settings.recovery_threads.min(processors.max(2)),
                snapshot_memory_bytes: Some(self.settings.recovery_memory_bytes),
                marks: None,
            },
        )?;
        let blob_files = self.blobs.scan()?;
        before_change(found.durable())?;
        let above_recovered = self.settings.replicated && self.settings.sessions_above_recovered;
        let instance = directory.identity();
        self.begin_run(directory.place(&instance), &found, above_recovered)?;
        // What an open backup lists stays.
        if let Some(_change) = self.backups.try_change() {
            own::delete_left(self.vfs(), self.location(), &directory.catalog);
        }
        let started = self.put_right(found).map_err(|e| self.coordinator.poison(e))?;
        let Started { epoch_file, durable, last_epoch, entries, max_blob_id, snapshot, warnings, marks } = started;
        self.names.sync().marks().replace(marks);
        let report = RecoveryReport { durable_epoch: durable, last_epoch, entries, max_blob_id, warnings };
        *self.max_blob_id.write() = report.max_blob_id;
        let committer = self.committer(directory, epoch_file).map_err(|e| self.coordinator.poison(e))?;
        self.coordinator.start(committer, report.last_epoch, above_recovered);
        writers.iter_mut().for_each(|writer| writer.begin_run());
        drop(writers);
        drop(channels);
        // What an open backup lists, and what a replica may lack, stays, whether anything refers to it or not.
        let needed = self.compactor.retained_epoch().is_some_and(|epoch| epoch < durable);
        let collects = self.backups.try_change().filter(|_| !needed);
        self.blobs.start(report.max_blob_id, blob_files, collects.as_ref().map(|_| snapshot.share()));
        drop(collects);
        *self.snapshot.write() = Some(snapshot);
        self.compactor.start(directory.catalog.clone(), directory.has_end_markers());
        self.maintenance.start(&self.settings, self.compactor.clone());
        *state = State::Ready;
        Ok(report)
    }

    /// Starts the commit journal, if there is to be one.
    fn committer(&self, directory: &Directory, epoch_file: EpochFile) -> Result<Committer> {
        let epoch_file = Arc::new(Mutex::new(Rank::EpochFile, epoch_file));
        let Commit::Journal(settings) = self.settings.commit else {
            return Ok(Committer::new(epoch_file, None));
        };
        let leads: Arc<dyn Leads> = self.coordinator.clone();
        let surroundings = (directory.manifest(), self.blobs.clone(), Arc::downgrade(&leads));
        let (vfs, location) = (self.settings.vfs.clone(), &self.settings.location);
        let journaling = Journaling::start(vfs, location, settings, epoch_file.clone(), surroundings)?;
        self.pauses.follow(&journaling)?;
        journaling.commit_in_background(&leads)?;
        self.coordinator.set_journaling(Some(journaling.clone()));
        Ok(Committer::new(epoch_file, Some(journaling.journal.clone())))
    }

    fn put_right(&self, found: Found<'_>) -> Result<Started> {
        let started = found.put_right(Record::Last)?;
        make_control_directory(&*self.settings.vfs, &self.settings.location)?;
        Ok(started)
    }
}

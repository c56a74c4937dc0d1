// SPDX-License-Identifier: Apache-2.0
//! The run of a data store in the history of its directory: begun before anything is written, ended in good order, or
//! ended for good when another primary has taken over.

use super::store::Datastore;
use crate::directory::start::Found;
use crate::error::{Error, Result};
use crate::wal::history_file::{DirectoryHistory, Place};

impl Datastore {
    /// The runs of the directory, the present one last; none before [`Self::ready`].
    pub fn history(&self) -> Option<DirectoryHistory> {
        self.history.lock().clone()
    }

    /// Begins a run, durably.
    pub(super) fn begin_run(&self, place: Place<'_>, found: &Found<'_>, above_recovered: bool) -> Result<()> {
        let durable = found.durable();
        // Sessions before the first switch of epochs may be of the epoch that the start records.
        let is_shared = !above_recovered && found.last_epoch() <= durable;
        let first_epoch = if is_shared { durable } else { durable.next() };
        *self.history.lock() = Some(DirectoryHistory::begin_run(place, durable, first_epoch)?);
        Ok(())
    }

    /// Notes an orderly end. The caller holds the life cycle and the lock of the directory.
    pub(super) fn leave(&self) {
        let mut history = self.history.lock();
        if self.coordinator.has_failed() {
            return;
        }
        let Some(history) = &mut *history else { return };
        // What a replica has been told of its primary's run stays as it is.
        let is_told = self.settings.replicated && self.settings.sessions_above_recovered;
        let first_used = (!is_told).then(|| self.coordinator.first_used());
        history.leave(self.coordinator.epochs().recorded(), first_used);
        if let Err(e) = history.save(&*self.settings.vfs, &self.settings.location) {
            log::warn!("{e}; the next start takes this end for a crash");
        }
    }

    /// So many replicas as are needed have noted the term: notes that durably, unless it was noted before. To be called
    /// before the first epoch of a term is reported as PROPAGATED.
    ///
    /// # Errors
    /// [`Error::Io`]; then nothing of the term may be reported.
    pub fn note_known_term(&self) -> Result<()> {
        let lifecycle = self.lifecycle.lock();
        let mut history = self.history.lock();
        let (Some(_), Some(history)) = (&lifecycle.directory, &mut *history) else {
            return Err(Error::WrongState("the directory is closed".to_owned()));
        };
        if history.is_unknown() {
            let mut known = history.clone();
            known.become_known();
            known.save(&*self.settings.vfs, &self.settings.location)?;
            *history = known;
        }
        Ok(())
    }

    /// Another primary has taken over: nothing is acknowledged any more, for good, and no engine starts on the
    /// directory before it has followed that one or has been forced. `reason` says who says so.
    pub fn fence(&self, reason: &str) {
        let text = format!("fenced: another primary has taken over from this one ({reason})");
        let _ = self.coordinator.poison(Error::WrongState(text));
        // With the life cycle the directory is this data store's until the mark is written.
        let lifecycle = self.lifecycle.lock();
        let mut history = self.history.lock();
        let (Some(_), Some(history)) = (&lifecycle.directory, &mut *history) else { return };
        history.fenced.get_or_insert_with(|| reason.to_owned());
        if let Err(e) = history.save(&*self.settings.vfs, &self.settings.location) {
            log::error!(
                "{e}; the next start does not know that this primary is fenced, until a replica tells it again"
            );
        }
    }
}

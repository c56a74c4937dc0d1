// SPDX-License-Identifier: Apache-2.0
//! Decides when an epoch is durable: all its sessions have ended and are synced, and a synced epoch record covers
//! the last epoch that wrote anything. The numbered invariants are in `docs/durability.md`.
//!
//! Whoever switches an epoch or ends a session asks to *advance*. One thread at a time *leads*: it looks what has
//! ended, has it made durable, and posts what is to be told. Whoever finds a leader leaves a request, which the leader
//! sees before it goes, so nobody waits. Callbacks run when the lead is over (see [`Callbacks`]).

use super::callbacks::{Callbacks, EpochEvent};
use super::committer::Committer;
use super::epochs::Epochs;
use super::events::{EventKind, Events};
use super::journaling::{Ask, Journaling, Leads};
use super::open_sessions::{OpenSessions, Slot};
use super::progress::{NotifyLevel, Progress};
use super::tap::TapHandle;
use crate::error::{Error, Result};
use crate::lock_order::{Mutex, Rank, RwLock};
use crate::metrics::{Histogram, Metrics};
use crate::types::{Durability, Epoch};
use crate::vfs::Vfs;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, OnceLock};

pub(super) struct Coordinator {
    /// No session begins in an epoch before this one. 0 without replication.
    floor: AtomicU64,
    /// The recovered epoch, and whether a session has begun in it.
    recovered: AtomicU64,
    recovered_used: AtomicBool,
    pub(super) progress: Progress,
    pub(super) sessions: OpenSessions,
    pub(super) callbacks: Callbacks,
    pub(super) events: Events,
    /// Counts requests to advance, so that the leader sees those that came while it was at work.
    requests: AtomicU64,
    leader: Mutex<Leader>,
    /// From the start to the shutdown, if sessions go through a journal.
    journaling: RwLock<Option<Arc<Journaling>>>,
    /// Replication.
    tap: RwLock<Option<TapHandle>>,
    failure: OnceLock<String>,
    pub(super) metrics: Arc<Metrics>,
    started: AtomicBool,
    shut_down: AtomicBool,
    /// Counts the runs from one opening of the directory to the next.
    run: AtomicU64,
}

/// What only the leader touches; no committer before the start and after the shutdown.
#[derive(Default)]
struct Leader {
    committer: Option<Committer>,
    /// The first and the last stored epoch that wrote anything and is not propagated; the first may be taken too small.
    unpropagated: Option<(Epoch, Epoch)>,
}

impl Coordinator {
    pub(super) fn new(level: NotifyLevel, replicated: bool, metrics: Arc<Metrics>) -> Coordinator {
        Coordinator {
            floor: AtomicU64::new(0),
            recovered: AtomicU64::new(0),
            recovered_used: AtomicBool::new(false),
            progress: Progress::new(level, replicated),
            sessions: OpenSessions::new(),
            callbacks: Callbacks::new(),
            events: Events::default(),
            requests: AtomicU64::new(0),
            leader: Mutex::new(Rank::Leader, Leader::default()),
            journaling: RwLock::default(),
            tap: RwLock::new(Rank::Tap, None),
            failure: OnceLock::new(),
            metrics,
            started: AtomicBool::new(false),
            shut_down: AtomicBool::new(false),
            run: AtomicU64::new(0),
        }
    }

    /// How far the epochs have come.
    pub(super) fn epochs(&self) -> &Epochs {
        &self.progress.epochs
    }

    /// The largest epoch beyond the stored one in which a session is open or has ended.
    pub(super) fn unstored(&self) -> Option<Epoch> {
        self.sessions.last().filter(|&epoch| epoch > self.epochs().stored())
    }

    pub(super) fn is_shut_down(&self) -> bool {
        self.shut_down.load(SeqCst)
    }

    /// Whether the start has read the directory and put it right.
    pub(super) fn is_started(&self) -> bool {
        self.started.load(SeqCst)
    }

    /// Sets or removes the tap that is told about stored epochs.
    pub(super) fn set_tap(&self, tap: Option<TapHandle>) {
        let former = std::mem::replace(&mut *self.tap.write(), tap);
        // Its end is not told under the lock.
        drop(former);
    }

    pub(super) fn tap(&self) -> Option<TapHandle> {
        self.tap.read().clone()
    }

    /// Begins to count epochs at the recovered one, which the epoch file covers. With `above_recovered` no session
    /// begins in it.
    pub(super) fn start(&self, committer: Committer, recovered: Epoch, above_recovered: bool) {
        let mut leader = self.leader.lock();
        self.recovered.store(recovered.0, SeqCst);
        self.sessions.forget_all_written();
        self.progress.start(recovered, committer.recorded());
        leader.committer = Some(committer);
        if above_recovered {
            // A replica that has the recovered epoch would take a session in it for one that it has.
            self.floor.store(recovered.0 + 1, SeqCst);
        }
        self.started.store(true, SeqCst);
    }

    /// Sessions that end from now on go through a journal, or do not any more.
    pub(super) fn set_journaling(&self, journaling: Option<Arc<Journaling>>) -> Option<Arc<Journaling>> {
        std::mem::replace(&mut *self.journaling.write(), journaling)
    }

    pub(super) fn journaling(&self) -> Option<Arc<Journaling>> {
        self.journaling.read().clone()
    }

    /// The first epoch that sessions since the start may have written to; at the earliest the recovered one.
    pub(super) fn first_used(&self) -> Epoch {
        let recovered = Epoch(self.recovered.load(SeqCst));
        match self.recovered_used.load(SeqCst) {
            true => recovered,
            false => recovered.next(),
        }
    }

    /// Whether nothing is acknowledged any more because of a failure.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    /// The present run. Its end is a shutdown, whether or not another one has begun.
    pub(super) fn run(&self) -> u64 {
        self.run.load(SeqCst)
    }

    /// As [`Self::check`], for somebody who began in this run.
    pub(super) fn check_in(&self, run: u64) -> Result<()> {
        self.check()?;
        match self.run() == run {
            true => Ok(()),
            false => Err(shut_down()),
        }
    }

    /// Fails when a write or sync has failed before, or after the shutdown.
    pub(super) fn check(&self) -> Result<()> {
        self.check_failure()?;
        match self.is_shut_down() {
            true => Err(shut_down()),
            false => Ok(()),
        }
    }

    /// Fails when a write or sync has failed before.
    pub(super) fn check_failure(&self) -> Result<()> {
        match self.failure.get() {
            Some(failure) => Err(Error::Poisoned(failure.clone())),
            None => Ok(()),
        }
    }

    /// Stops all acknowledgement for good: after a failed write or sync nobody knows what is on disk. What is due is
    /// not told any more.
    pub(super) fn poison(&self, error: Error) -> Error {
        // Whoever was refused for the failure may come here before the one that failed.
        let cause = error.cause();
        let first = self.failure.set(cause.clone()).is_ok();
        self.callbacks.close();
        if let Some(journaling) = self.journaling() {
            journaling.journal.refuse(&cause);
        }
        if first {
            self.metrics.failed.set(1);
            log::error!("nothing is acknowledged from now on: {cause}");
            self.progress.wake();
        }
        error
    }

    /// Opens a session in the current epoch. Either a racing switch sees the session in the old epoch, or the session
    /// sees the new epoch. In the first case the session may then move to the new epoch; what it held back for that
    /// moment is reported with the next switch or end, because the callback is never called from here.
    pub(super) fn begin(&self, slot: &Slot) -> Epoch {
        self.begin_with(slot, || {})
    }

    /// `between` runs where a switch of epochs is most dangerous; tests switch there.
    fn begin_with(&self, slot: &Slot, mut between: impl FnMut()) -> Epoch {
        loop {
            let switched = self.epochs().switched();
            let epoch = Epoch(switched.0.max(self.floor.load(Relaxed)));
            between();
            slot.set(epoch);
            if self.epochs().switched() == switched {
                if epoch.0 <= self.recovered.load(Relaxed) {
                    self.recovered_used.store(true, Relaxed);
                }
                return epoch;
            }
        }
    }

    pub(super) fn switch(&self, epoch: Epoch) -> Result<()> {
        self.check()?;
        self.metrics.epochs.begin(epoch.0);
        let before = self.epochs().raise_switched(epoch);
        if epoch <= before {
            log::warn!("switch to epoch_id_type of {epoch} (<={before}) is curious");
        } else if let Some(tap) = self.tap() {
            tap.0.switched(epoch);
        }
        self.advance()
    }

    /// Completes every epoch that can be completed, and tells about it. When another thread is at it, that one also
    /// does it for this call. To be called without any lock.
    pub(super) fn advance(&self) -> Result<()> {
        // Nothing to do in the midst of an epoch: whoever switches to the next one sees what ended before.
        if self.epochs().switched().previous() <= self.epochs().stored() && !self.progress.is_pending() {
            return Ok(());
        }
        self.requests.fetch_add(1, SeqCst);
        match self.journaling() {
            Some(journaling) => {
                journaling.bell.ring(Ask::Advance);
                Ok(())
            }
            None => self.lead(),
        }
    }

    /// So much has gathered for the journal that it should not wait for an epoch.
    pub(super) fn ask_for_group(&self) -> Result<()> {
        if let Some(journaling) = self.journaling() {
            journaling.bell.ring(Ask::Group);
        }
        Ok(())
    }

    /// So much has gathered for the journal that the caller waits. To be called without any lock.
    pub(super) fn wait_for_room(&self) -> Result<()> {
        let waited = self.journaling().map_or(Ok(()), |journaling| journaling.wait_for_room());
        waited.map_err(|e| self.poison(e))
    }

    /// What [`Self::advance`] asks for.
    fn lead(&self) -> Result<()> {
        loop {
            let Some(mut leader) = self.leader.try_lock() else {
                return Ok(());
            };
            let seen = self.requests.load(SeqCst);
            let result = self.complete(&mut leader);
            drop(leader);
            self.callbacks.deliver();
            result?;
            if self.requests.load(SeqCst) == seen {
                return Ok(());
            }
        }
    }

    /// Does something with what only the leader touches. Whoever was turned away meanwhile relies on the advance that
    /// follows; a failure of that is kept for the next call.
    fn instead_of_leading<T>(&self, work: impl FnOnce(&mut Leader) -> Result<T>) -> Result<T> {
        let done = work(&mut self.leader.lock());
        let advanced = self.advance();
        done.and_then(|done| advanced.map(|()| done))
    }

    /// The largest epoch that no open session holds back.
    fn ended(&self) -> Epoch {
        let switched = self.epochs().switched();
        let open = self.sessions.first_open();
        self.epochs().raise_ended(switched.min(open.unwrap_or(switched)).previous())
    }

    fn complete(&self, leader: &mut Leader) -> Result<()> {
        if self.is_shut_down() || leader.committer.is_none() {
            return Ok(());
        }
        self.check()?;
        self.store(leader)?;
        if let Some(epoch) = self.epochs().next_propagated() {
            let had_writes = leader.unpropagated.is_some_and(|(first, _)| first <= epoch);
            let rest = leader.unpropagated.filter(|&(_, last)| last > epoch);
            leader.unpropagated = rest.map(|(first, last)| (first.max(Epoch(epoch.0 + 1)), last));
            // Counted when whoever waits is woken.
            self.measure(epoch, &self.metrics.propagated);
            self.progress.raise_propagated(epoch);
            self.callbacks.post(EpochEvent { epoch, state: Durability::Propagated, had_writes });
        }
        if let Some(epoch) = self.progress.next_notified() {
            self.progress.raise_notified(epoch);
            self.callbacks.post_notified(epoch);
        }
        Ok(())
    }

    /// Makes the epochs durable that have ended.
    fn store(&self, leader: &mut Leader) -> Result<()> {
        let Leader { committer: Some(committer), unpropagated } = leader else {
            return Ok(());
        };
        let (ended, stored) = (self.ended(), self.epochs().stored());
        if ended <= stored {
            return Ok(());
        }
        let last_written = self.sessions.last_written(ended);
        if let Some(last_written) = last_written {
            if let Some(tap) = self.tap() {
                tap.0.recording(last_written);
            }
            let committed = committer.commit(last_written);
            self.note_record(committer, last_written, committed)?;
            self.sessions.forget_written(last_written);
            let first = unpropagated.map_or(Epoch(stored.0 + 1), |(first, _)| first);
            *unpropagated = Some((first, last_written));
        } else {
            committer.confirm_place().map_err(|e| self.poison(e))?;
        }
        self.measure(ended, &self.metrics.stored);
        last_written.into_iter().for_each(|written| self.epochs().raise_written(written));
        self.progress.raise_stored(ended);
        if let Some(tap) = self.tap() {
            if let Some(confirmed) = tap.0.stored(ended, last_written) {
                self.epochs().confirm(confirmed);
            }
        }
        let had_writes = last_written.is_some();
        self.callbacks.post(EpochEvent { epoch: ended, state: Durability::Stored, had_writes });
        Ok(())
    }

    /// Counts how long ago the epoch ended.
    fn measure(&self, epoch: Epoch, histogram: &Histogram) {
        if let Some(time) = self.metrics.epochs.since_end_of(epoch.0) {
            histogram.observe(time);
        }
    }

    fn note_record(&self, committer: &Committer, epoch: Epoch, result: Result<()>) -> Result<()> {
        self.events.emit(EventKind::WalStored, epoch, result.is_ok());
        result.map_err(|e| self.poison(e))?;
        self.epochs().raise_recorded(committer.recorded());
        Ok(())
    }

    pub(super) fn record(&self, epoch: Epoch) -> Result<()> {
        self.check()?;
        self.instead_of_leading(|leader| {
            let ended = self.ended();
            if epoch > ended {
                let message = format!("epoch {epoch} cannot be recorded: only epochs up to {ended} have ended");
                return Err(Error::WrongState(message));
            }
            let Some(committer) = &mut leader.committer else {
                return Err(Error::WrongState("an epoch can be recorded only after ready()".to_owned()));
            };
            // Without a session up to it the record must not say that anything is durable.
            let recorded = match self.sessions.last_written(epoch) {
                Some(_) => committer.record(epoch),
                None => committer.record_without_sessions(epoch),
            };
            self.note_record(committer, epoch, recorded)
        })
    }

    /// Puts the records aside under a rotated name and goes on with a new epoch file.
    pub(super) fn rotate_epoch_file(&self, vfs: &dyn Vfs, directory: &Path) -> Result<PathBuf> {
        self.check()?;
        self.instead_of_leading(|leader| {
            let Some(committer) = &mut leader.committer else {
                return Err(Error::WrongState("the epoch file can be rotated only after ready()".to_owned()));
            };
            // Nothing depends on this file: without it the rotation has failed, and no more.
            let rotated = committer.put_aside(vfs, directory, self.epochs().switched())?;
            committer.renew(vfs, directory).map_err(|e| self.poison(e))?;
            Ok(rotated)
        })
    }

    /// After a shutdown: everything is as before the first start.
    pub(super) fn open_again(&self) {
        let mut leader = self.leader.lock();
        // Before the counters: who waits in the former run must not take those of this one for its own.
        self.run.fetch_add(1, SeqCst);
        leader.unpropagated = None;
        self.sessions.forget_all_written();
        self.progress.reset();
        self.floor.store(0, SeqCst);
        self.started.store(false, SeqCst);
        self.callbacks.open_again();
        self.shut_down.store(false, SeqCst);
    }

    /// Waits for a running sync, and for a running callback unless this is called from within it.
    pub(super) fn shut_down(&self) {
        self.shut_down.store(true, SeqCst);
        self.progress.wake();
        self.leader.lock().committer = None;
        self.callbacks.close_and_wait();
    }
}

impl Leads for Coordinator {
    fn lead(&self) -> Result<()> {
        Coordinator::lead(self)
    }

    fn poison(&self, error: Error) -> Error {
        Coordinator::poison(self, error)
    }
}

fn shut_down() -> Error {
    Error::WrongState("the data store was shut down".to_owned())
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Coordinator({:?}, failure {:?})", self.epochs(), self.failure.get())
    }
}

#[cfg(test)]
#[path = "coordinator_tests.rs"]
mod tests;

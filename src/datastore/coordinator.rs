// SPDX-License-Identifier: Apache-2.0
//! Decides when an epoch is durable: all its sessions have ended and are synced, and a synced epoch record covers
//! the last epoch that wrote anything. The numbered invariants are in `docs/durability.md`.
//!
//! Sessions begin and end without a common lock. Whoever switches an epoch or ends a session tries to advance; one
//! thread at a time does (the leader), and it looks again when somebody asked meanwhile, so nobody waits.

use super::events::{EventKind, Events};
use super::progress::{NotifyLevel, Progress};
use super::tap::TapHandle;
use crate::error::{Error, Result};
use crate::types::{Durability, Epoch};
use crate::vfs::Vfs;
use crate::wal::epoch_file::{self, EpochFile};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;

/// What the callback is told; epochs of one state strictly increase and may skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEvent {
    /// Everything of this epoch and of all before it has reached `state`.
    pub epoch: Epoch,
    pub state: Durability,
    /// Whether a session ended in any epoch that is reported for the first time. Exact for [`Durability::Stored`]; for
    /// [`Durability::Propagated`] it may also be true when none did but one did in a later epoch that is stored.
    pub had_writes: bool,
}

/// Called on the thread that completed the epoch: inside a switch of epochs, the end of a session, or the confirmation
/// of a replica. It may call back into the data store.
pub type PersistentCallback = Arc<dyn Fn(EpochEvent) + Send + Sync>;

/// Told each epoch once, when it has reached the notify level; epochs strictly increase and may skip. Same threads and
/// rules as for [`PersistentCallback`], with which it never runs at the same time.
pub type NotifyCallback = Arc<dyn Fn(Epoch) + Send + Sync>;

/// The epoch of a channel's open session.
#[derive(Debug)]
pub(super) struct Slot(AtomicU64);

const NO_SESSION: u64 = u64::MAX;

impl Slot {
    pub(super) fn new() -> Slot {
        Slot(AtomicU64::new(NO_SESSION))
    }

    fn open_epoch(&self) -> Option<Epoch> {
        match self.0.load(SeqCst) {
            NO_SESSION => None,
            epoch => Some(Epoch(epoch)),
        }
    }
}

pub(super) struct Coordinator {
    switched: AtomicU64,
    /// No session begins in an epoch before this one. 0 without replication.
    floor: AtomicU64,
    pub(super) progress: Progress,
    pub(super) events: Events,
    recorded: AtomicU64,
    slots: RwLock<Vec<Arc<Slot>>>,
    /// Epochs above the record in which sessions have ended.
    written: Mutex<BTreeSet<Epoch>>,
    /// Counts calls to `advance`, so that the leader sees those that came while it was at work.
    requests: AtomicU64,
    leader: Mutex<Leader>,
    /// The thread that is inside a callback.
    calling: Mutex<Option<ThreadId>>,
    callback: Mutex<Option<PersistentCallback>>,
    notify: Mutex<Option<NotifyCallback>>,
    /// Replication.
    tap: RwLock<Option<TapHandle>>,
    failure: OnceLock<String>,
    started: AtomicBool,
    shut_down: AtomicBool,
}

/// What only the leader touches; no file before the start and after the shutdown.
#[derive(Default)]
struct Leader {
    epoch_file: Option<EpochFile>,
    /// The first and the last stored epoch that wrote anything and is not propagated; the first may be taken too small.
    unpropagated: Option<(Epoch, Epoch)>,
}

impl Coordinator {
    pub(super) fn new(level: NotifyLevel, replicated: bool) -> Coordinator {
        Coordinator {
            switched: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            progress: Progress::new(level, replicated),
            events: Events::default(),
            recorded: AtomicU64::new(0),
            slots: RwLock::default(),
            written: Mutex::default(),
            requests: AtomicU64::new(0),
            leader: Mutex::default(),
            calling: Mutex::default(),
            callback: Mutex::default(),
            notify: Mutex::default(),
            tap: RwLock::default(),
            failure: OnceLock::new(),
            started: AtomicBool::new(false),
            shut_down: AtomicBool::new(false),
        }
    }

    pub(super) fn switched(&self) -> Epoch {
        Epoch(self.switched.load(SeqCst))
    }

    pub(super) fn stored(&self) -> Epoch {
        self.progress.stored()
    }

    pub(super) fn recorded(&self) -> Epoch {
        Epoch(self.recorded.load(SeqCst))
    }

    /// The largest epoch beyond the stored one in which a session is open or has ended.
    pub(super) fn unstored(&self) -> Option<Epoch> {
        // First the open ones: one that ends in between has been entered before.
        let open = self.slots.read().iter().filter_map(|slot| slot.open_epoch()).max();
        let ended = self.written.lock().last().copied();
        open.max(ended).filter(|&epoch| epoch > self.stored())
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
        *self.tap.write() = tap;
    }

    pub(super) fn tap(&self) -> Option<TapHandle> {
        self.tap.read().clone()
    }

    pub(super) fn register(&self, slot: Arc<Slot>) {
        self.slots.write().push(slot);
    }

    /// Begins to count epochs at the recovered one, which the epoch file covers. With `above_recovered` no session begins
    /// in it.
    pub(super) fn start(&self, epoch_file: EpochFile, recovered: Epoch, above_recovered: bool) {
        let mut leader = self.leader.lock();
        self.written.lock().clear();
        self.recorded.store(epoch_file.recorded().0, SeqCst);
        leader.epoch_file = Some(epoch_file);
        self.progress.start(recovered);
        self.switched.fetch_max(recovered.0, SeqCst);
        if above_recovered {
            // A replica that has the recovered epoch would take a session in it for one that it has.
            self.floor.store(recovered.0 + 1, SeqCst);
        }
        self.started.store(true, SeqCst);
    }

    /// Fails when a write or sync has failed before, or after the shutdown.
    pub(super) fn check(&self) -> Result<()> {
        match self.failure.get() {
            Some(failure) => Err(Error::Poisoned(failure.clone())),
            None if self.is_shut_down() => Err(Error::WrongState("the data store was shut down".to_owned())),
            None => Ok(()),
        }
    }

    /// Stops all acknowledgement for good: after a failed write or sync nobody knows what is on disk.
    pub(super) fn poison(&self, error: Error) -> Error {
        let first = self.failure.set(error.to_string()).is_ok();
        if first {
            log::error!("a write or sync failed; nothing is acknowledged from now on: {error}");
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
            let switched = self.switched.load(SeqCst);
            let epoch = switched.max(self.floor.load(Relaxed));
            between();
            slot.0.store(epoch, SeqCst);
            if self.switched.load(SeqCst) == switched {
                return Epoch(epoch);
            }
        }
    }

    /// Closes a session whose bytes are synced. [`Self::advance`] must follow, without any lock held.
    pub(super) fn end(&self, slot: &Slot, epoch: Epoch) {
        // First it counts as written, then it stops holding its epoch back: the leader reads in the opposite order.
        self.written.lock().insert(epoch);
        slot.0.store(NO_SESSION, SeqCst);
    }

    /// Closes a session that was never written.
    pub(super) fn drop_session(&self, slot: &Slot) {
        slot.0.store(NO_SESSION, SeqCst);
    }

    pub(super) fn switch(&self, epoch: Epoch) -> Result<()> {
        self.check()?;
        let before = self.switched.fetch_max(epoch.0, SeqCst);
        if epoch.0 <= before {
            log::warn!("switch to epoch_id_type of {epoch} (<={before}) is curious");
        } else if let Some(tap) = self.tap() {
            tap.0.switched(epoch);
        }
        self.advance()
    }

    /// Completes every epoch that can be completed. When another thread is at it, that one also does it for this call.
    pub(super) fn advance(&self) -> Result<()> {
        // Nothing to do in the midst of an epoch: whoever switches to the next one sees what ended before.
        if self.switched().previous() <= self.stored() && !self.progress.is_pending() {
            return Ok(());
        }
        self.requests.fetch_add(1, SeqCst);
        loop {
            let Some(mut leader) = self.leader.try_lock() else {
                return Ok(());
            };
            let seen = self.requests.load(SeqCst);
            let result = self.complete(&mut leader);
            drop(leader);
            result?;
            if self.requests.load(SeqCst) == seen {
                return Ok(());
            }
        }
    }

    /// The largest epoch that no open session holds back.
    fn ended(&self) -> Epoch {
        let switched = self.switched();
        let slots = self.slots.read();
        let open = slots.iter().filter_map(|slot| slot.open_epoch()).min();
        switched.min(open.unwrap_or(switched)).previous()
    }

    fn complete(&self, leader: &mut Leader) -> Result<()> {
        if self.is_shut_down() || leader.epoch_file.is_none() {
            return Ok(());
        }
        self.check()?;
        self.store(leader)?;
        if let Some(epoch) = self.progress.next_propagated() {
            let had_writes = leader.unpropagated.is_some_and(|(first, _)| first <= epoch);
            let rest = leader.unpropagated.filter(|&(_, last)| last > epoch);
            leader.unpropagated = rest.map(|(first, last)| (first.max(Epoch(epoch.0 + 1)), last));
            self.progress.raise_propagated(epoch);
            self.report(EpochEvent { epoch, state: Durability::Propagated, had_writes });
        }
        self.notify();
        Ok(())
    }

    /// Makes the epochs durable that have ended.
    fn store(&self, leader: &mut Leader) -> Result<()> {
        let Leader { epoch_file: Some(epoch_file), unpropagated } = leader else {
            return Ok(());
        };
        let ended = self.ended();
        if ended <= self.stored() {
            return Ok(());
        }
        // Read after the open sessions: one that ended meanwhile has been entered before it stopped being open.
        let last_write = self.written.lock().range(..=ended).next_back().copied();
        if let Some(last_write) = last_write {
            if let Some(tap) = self.tap() {
                tap.0.recording(last_write);
            }
            self.write_record(epoch_file, last_write)?;
            self.written.lock().retain(|&epoch| epoch > last_write);
            let first = unpropagated.map_or(Epoch(self.stored().0 + 1), |(first, _)| first);
            *unpropagated = Some((first, last_write));
        }
        self.progress.raise_stored(ended);
        if let Some(tap) = self.tap() {
            if let Some(confirmed) = tap.0.stored(ended, last_write) {
                self.progress.confirm(confirmed);
            }
        }
        self.report(EpochEvent { epoch: ended, state: Durability::Stored, had_writes: last_write.is_some() });
        // What is notified when stored does not wait for anything else.
        self.notify();
        Ok(())
    }

    fn write_record(&self, epoch_file: &mut EpochFile, epoch: Epoch) -> Result<()> {
        let result = epoch_file.record(epoch);
        self.note_record(epoch_file, epoch, result)
    }

    fn note_record(&self, epoch_file: &EpochFile, epoch: Epoch, result: Result<()>) -> Result<()> {
        self.events.emit(EventKind::WalStored, epoch, result.is_ok());
        result.map_err(|e| self.poison(e))?;
        self.recorded.store(epoch_file.recorded().0, SeqCst);
        Ok(())
    }

    fn report(&self, event: EpochEvent) {
        let callback = self.callback.lock().clone();
        if let Some(callback) = callback {
            self.call(|| callback(event));
        }
    }

    fn notify(&self) {
        let Some(epoch) = self.progress.next_notified() else {
            return;
        };
        self.progress.raise_notified(epoch);
        let callback = self.notify.lock().clone();
        if let Some(callback) = callback {
            self.call(|| callback(epoch));
        }
    }

    /// Calls a callback; the leader's lock is held, which no session needs.
    fn call(&self, callback: impl FnOnce()) {
        /// Takes the mark away even when the callback panics.
        struct Calling<'a>(&'a Mutex<Option<ThreadId>>);
        impl Drop for Calling<'_> {
            fn drop(&mut self) {
                *self.0.lock() = None;
            }
        }
        if self.is_shut_down() {
            // A callback before this one did that.
            return;
        }
        *self.calling.lock() = Some(std::thread::current().id());
        let _calling = Calling(&self.calling);
        callback();
    }

    /// Whether this thread is inside a callback.
    pub(super) fn is_calling(&self) -> bool {
        *self.calling.lock() == Some(std::thread::current().id())
    }

    pub(super) fn set_callback(&self, callback: Option<PersistentCallback>) {
        self.replace(&self.callback, callback);
    }

    pub(super) fn set_notify_callback(&self, callback: Option<NotifyCallback>) {
        self.replace(&self.notify, callback);
    }

    /// Exchanges a callback while it is not running, unless it does so itself.
    fn replace<T>(&self, place: &Mutex<Option<T>>, callback: Option<T>) {
        let leader = (!self.is_calling()).then(|| self.leader.lock());
        let former = std::mem::replace(&mut *place.lock(), callback);
        drop(leader);
        drop(former);
        // Whoever was turned away while the lock was held here relies on this; a failure is kept for the next call.
        let _ = self.advance();
    }

    pub(super) fn record(&self, epoch: Epoch) -> Result<()> {
        self.check()?;
        let busy = || Err(Error::WrongState("an epoch cannot be recorded from within the callback".to_owned()));
        if self.is_calling() {
            return busy();
        }
        let mut leader = self.leader.lock();
        let ended = self.ended();
        if epoch > ended {
            let message = format!("epoch {epoch} cannot be recorded: only epochs up to {ended} have ended");
            return Err(Error::WrongState(message));
        }
        let Some(epoch_file) = &mut leader.epoch_file else {
            return Err(Error::WrongState("an epoch can be recorded only after ready()".to_owned()));
        };
        // Without a session up to it the record must not say that anything is durable.
        if self.written.lock().range(..=epoch).next().is_some() {
            self.write_record(epoch_file, epoch)?;
        } else {
            let result = epoch_file.record_without_sessions(epoch);
            self.note_record(epoch_file, epoch, result)?;
        }
        drop(leader);
        self.advance()
    }

    /// Puts the records aside under a rotated name and goes on with a new epoch file, which repeats the last record: at
    /// no moment is there a directory without one.
    pub(super) fn rotate_epoch_file(&self, vfs: &Arc<dyn Vfs>, directory: &Path) -> Result<PathBuf> {
        self.check()?;
        if self.is_calling() {
            let message = "the epoch file cannot be rotated from within the callback";
            return Err(Error::WrongState(message.to_owned()));
        }
        let mut leader = self.leader.lock();
        let Some(epoch_file) = &mut leader.epoch_file else {
            return Err(Error::WrongState("the epoch file can be rotated only after ready()".to_owned()));
        };
        let recorded = epoch_file.recorded();
        let rotated = epoch_file::write_rotated(&**vfs, directory, recorded, self.switched());
        let rotated = rotated.map_err(|e| self.poison(e))?;
        epoch_file.renew().map_err(|e| self.poison(e))?;
        Ok(rotated)
    }

    pub(super) fn shut_down(&self) {
        self.shut_down.store(true, SeqCst);
        self.progress.wake();
        if !self.is_calling() {
            self.leader.lock().epoch_file = None;
        }
    }
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (switched, stored, recorded) = (self.switched(), self.stored(), self.recorded());
        let propagated = self.progress.propagated();
        write!(
            f,
            "Coordinator(switched {switched}, stored {stored}, propagated {propagated}, recorded {recorded}, failure {:?})",
            self.failure.get()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::SimFs;

    #[test]
    fn a_session_that_begins_during_a_switch_is_never_in_an_epoch_that_is_stored() {
        let fs = SimFs::new();
        let location = Path::new("/log");
        fs.create_dir(location).unwrap();
        let coordinator = Coordinator::new(NotifyLevel::Stored, false);
        let slot = Arc::new(Slot::new());
        coordinator.register(slot.clone());
        coordinator.start(EpochFile::replace(Arc::new(fs), location, Epoch(0)).unwrap(), Epoch(0), false);
        coordinator.switch(Epoch(1)).unwrap();
        let mut next = 2;
        let epoch = coordinator.begin_with(&slot, || {
            if next < 5 {
                coordinator.switch(Epoch(next)).unwrap();
                next += 1;
            }
        });
        assert!(epoch > coordinator.stored(), "the session is in epoch {epoch}, stored is {}", coordinator.stored());
        assert_eq!(epoch, Epoch(4));
        coordinator.switch(Epoch(9)).unwrap();
        assert_eq!(coordinator.stored(), Epoch(3), "the session holds its epoch back");
    }
}

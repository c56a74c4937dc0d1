// SPDX-License-Identifier: Apache-2.0
//! Which epochs sessions hold back, and in which some have ended. Sessions begin and end without a common lock: each
//! channel has a slot for the epoch of its open session.

use crate::lock_order::{Mutex, Rank, RwLock};
use crate::types::Epoch;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;

/// The epoch of a channel's open session.
#[derive(Debug)]
pub(super) struct Slot(AtomicU64);

const NO_SESSION: u64 = u64::MAX;

impl Slot {
    pub(super) fn new() -> Slot {
        Slot(AtomicU64::new(NO_SESSION))
    }

    pub(super) fn set(&self, epoch: Epoch) {
        self.0.store(epoch.0, SeqCst);
    }

    /// Closes a session that was never written.
    pub(super) fn clear(&self) {
        self.0.store(NO_SESSION, SeqCst);
    }

    fn open_epoch(&self) -> Option<Epoch> {
        match self.0.load(SeqCst) {
            NO_SESSION => None,
            epoch => Some(Epoch(epoch)),
        }
    }
}

#[derive(Debug)]
pub(super) struct OpenSessions {
    slots: RwLock<Vec<Arc<Slot>>>,
    /// Epochs that are not durable yet and in which sessions have ended.
    written: Mutex<BTreeSet<Epoch>>,
    /// One of them, or [`NO_SESSION`]. Of all that end in an epoch only the first takes the lock: whoever commits would
    /// stand in line behind them.
    noted: AtomicU64,
}

impl OpenSessions {
    pub(super) fn new() -> OpenSessions {
        OpenSessions {
            slots: RwLock::new(Rank::Slots, Vec::new()),
            written: Mutex::new(Rank::Written, BTreeSet::new()),
            noted: AtomicU64::new(NO_SESSION),
        }
    }

    pub(super) fn register(&self, slot: Arc<Slot>) {
        self.slots.write().push(slot);
    }

    /// Closes a session that is written.
    pub(super) fn end(&self, slot: &Slot, epoch: Epoch) {
        // First it counts as written, then it stops holding its epoch back: the leader reads in the opposite order.
        // What is noted stays so: no epoch is forgotten that an open session holds back.
        if self.noted.load(SeqCst) != epoch.0 {
            let mut written = self.written.lock();
            written.insert(epoch);
            self.noted.store(epoch.0, SeqCst);
        }
        slot.clear();
    }

    /// The smallest epoch of an open session.
    pub(super) fn first_open(&self) -> Option<Epoch> {
        self.slots.read().iter().filter_map(|slot| slot.open_epoch()).min()
    }

    /// The largest epoch in which a session is open or has ended that is not durable.
    pub(super) fn last(&self) -> Option<Epoch> {
        // First the open ones: one that ends in between has been entered before.
        let open = self.slots.read().iter().filter_map(|slot| slot.open_epoch()).max();
        open.max(self.written.lock().last().copied())
    }

    /// The largest epoch up to `ended` in which a session has ended that is not durable. To be asked after
    /// [`Self::first_open`]: a session that ends in between has been entered before it stopped being open.
    pub(super) fn last_written(&self, ended: Epoch) -> Option<Epoch> {
        self.written.lock().range(..=ended).next_back().copied()
    }

    /// Everything up to `epoch` is durable.
    pub(super) fn forget_written(&self, epoch: Epoch) {
        let mut written = self.written.lock();
        written.retain(|&written| written > epoch);
        if self.noted.load(SeqCst) <= epoch.0 {
            self.noted.store(NO_SESSION, SeqCst);
        }
    }

    /// The start has decided on everything that was written before.
    pub(super) fn forget_all_written(&self) {
        let mut written = self.written.lock();
        written.clear();
        self.noted.store(NO_SESSION, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(sessions: &OpenSessions, epoch: u64) {
        let slot = Slot::new();
        slot.set(Epoch(epoch));
        sessions.end(&slot, Epoch(epoch));
    }

    #[test]
    fn an_epoch_counts_as_written_from_its_first_session_until_it_is_durable_and_again_with_a_later_one() {
        let sessions = OpenSessions::new();
        for epoch in [3, 4, 3, 4, 4] {
            ended(&sessions, epoch);
        }
        assert_eq!(sessions.last_written(Epoch(9)), Some(Epoch(4)));
        sessions.forget_written(Epoch(3));
        assert_eq!((sessions.last_written(Epoch(3)), sessions.last_written(Epoch(4))), (None, Some(Epoch(4))));
        ended(&sessions, 4);
        sessions.forget_written(Epoch(4));
        assert_eq!(sessions.last_written(Epoch(9)), None);
        // Of a session that began before the first switch of epochs the epoch may be durable already.
        ended(&sessions, 4);
        assert_eq!(sessions.last_written(Epoch(9)), Some(Epoch(4)));
        sessions.forget_all_written();
        ended(&sessions, 4);
        assert_eq!(sessions.last_written(Epoch(9)), Some(Epoch(4)));
    }
}

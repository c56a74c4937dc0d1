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
}

impl OpenSessions {
    pub(super) fn new() -> OpenSessions {
        OpenSessions {
            slots: RwLock::new(Rank::Slots, Vec::new()),
            written: Mutex::new(Rank::Written, BTreeSet::new()),
        }
    }

    pub(super) fn register(&self, slot: Arc<Slot>) {
        self.slots.write().push(slot);
    }

    /// Closes a session that is written.
    pub(super) fn end(&self, slot: &Slot, epoch: Epoch) {
        // First it counts as written, then it stops holding its epoch back: the leader reads in the opposite order.
        self.written.lock().insert(epoch);
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
        self.written.lock().retain(|&written| written > epoch);
    }

    /// The start has decided on everything that was written before.
    pub(super) fn forget_all_written(&self) {
        self.written.lock().clear();
    }
}

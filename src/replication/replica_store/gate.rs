// SPDX-License-Identifier: Apache-2.0
//! Keeps sessions of later epochs out of the log for a moment, so that it can be cut between two epochs.

use crate::lock_order::{Condvar, Mutex};
use crate::types::Epoch;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const OPEN: u64 = u64::MAX;

/// Closed by one at a time. Whoever writes a session asks while he holds the writer of its lane: what begins after a
/// look at that writer has seen the limit.
#[derive(Debug)]
pub(super) struct Gate {
    /// Sessions of epochs behind this one are held back.
    limit: AtomicU64,
    /// Whether the limit stays what it is.
    is_final: Mutex<bool>,
    opened: Condvar,
}

/// Opens the gate when it goes.
#[derive(Debug)]
pub(super) struct Closed<'a>(&'a Gate);

impl Default for Gate {
    fn default() -> Gate {
        Gate { limit: AtomicU64::new(OPEN), is_final: Mutex::default(), opened: Condvar::new() }
    }
}

impl Gate {
    pub(super) fn is_closed_for(&self, epoch: Epoch) -> bool {
        epoch.0 > self.limit.load(SeqCst)
    }

    /// Waits until sessions of this epoch may begin. To be called without any lock.
    pub(super) fn wait(&self, epoch: Epoch) {
        let mut is_final = self.is_final.lock();
        while self.is_closed_for(epoch) {
            self.opened.wait(&mut is_final);
        }
    }

    /// Holds sessions of epochs behind `last` back.
    pub(super) fn close_behind(&self, last: Epoch) -> Closed<'_> {
        *self.is_final.lock() = false;
        self.limit.store(last.0, SeqCst);
        Closed(self)
    }

    /// A COMMIT of this epoch has come, which is for several at once: the cut is behind that one, unless it has moved
    /// before.
    pub(super) fn move_behind(&self, committed: Epoch) -> bool {
        let mut is_final = self.is_final.lock();
        let moves = !*is_final;
        if moves {
            *is_final = true;
            self.raise(committed);
        }
        moves
    }

    fn raise(&self, last: Epoch) {
        self.limit.fetch_max(last.0, SeqCst);
        self.opened.notify_all();
    }
}

impl Closed<'_> {
    /// Lets sessions up to this epoch pass as well.
    pub(super) fn raise(&self, last: Epoch) {
        let _is_final = self.0.is_final.lock();
        self.0.raise(last);
    }

    /// Whether all that has passed is of epochs up to `durable`; then nothing else passes.
    pub(super) fn seal(&self, durable: Epoch) -> bool {
        let mut is_final = self.0.is_final.lock();
        let is_reached = self.0.limit.load(SeqCst) <= durable.0;
        *is_final |= is_reached;
        is_reached
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.raise(Epoch(OPEN));
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Lets threads sleep until there is something to look at.

use crate::lock_order::{Condvar, Mutex};
use std::time::Instant;

/// Counts what there is to look at.
#[derive(Debug, Default)]
pub(super) struct Events {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Events {
    /// Lets whoever waits look again.
    pub(super) fn wake(&self) {
        *self.count.lock() += 1;
        self.changed.notify_all();
    }

    /// Waits until [`Self::wake`] is called after `seen` of its calls, or the deadline; returns the number of calls by
    /// now.
    pub(super) fn wait(&self, seen: u64, deadline: Instant) -> u64 {
        let mut count = self.count.lock();
        while *count == seen && !self.changed.wait_until(&mut count, deadline).timed_out() {}
        *count
    }

    /// Waits until `over` says so after a call of [`Self::wake`], or the deadline.
    pub(super) fn wait_until(&self, deadline: Instant, over: impl Fn() -> bool) {
        let mut count = self.count.lock();
        while !over() && !self.changed.wait_until(&mut count, deadline).timed_out() {}
    }
}

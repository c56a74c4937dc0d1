// SPDX-License-Identifier: Apache-2.0
//! What callers ask of epochs: how far one has come, whether it was notified with less safety than configured, and to
//! wait until it is there.
//!
//! The coordinator's leader raises the counters, one thread at a time; everybody may read and wait.

use super::epochs::Epochs;
use crate::lock_order::{Condvar, Mutex, Rank};
use crate::types::{Durability, Epoch};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

/// Beyond this many degraded intervals the two oldest become one.
const DEGRADED_INTERVALS_MAX: usize = 1024;

/// Which state an epoch must have reached before the notify callback is told about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NotifyLevel {
    /// As soon as it is on this machine's disk.
    #[default]
    Stored,
    /// When the replicas have it; while the data store is degraded, as for [`NotifyLevel::Stored`].
    Propagated,
}

/// What has become of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpochDurability {
    /// Everything of it, and of all before it, is on this machine's disk.
    pub stored: bool,
    /// The same is on the replicas' disks; never without replication.
    pub propagated: bool,
    /// It was notified as stored only, because the replicas were given up for a time. They may have it by now.
    pub degraded: bool,
    /// Whether replication is configured.
    pub replicated: bool,
}

/// The epochs of a data store, what they are notified for, and who waits for them.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) epochs: Epochs,
    level: NotifyLevel,
    replicated: bool,
    degraded: AtomicBool,
    /// Intervals of epochs, first and last, that were notified while degraded; ascending.
    degraded_intervals: Mutex<Vec<(Epoch, Epoch)>>,
    waiting: AtomicUsize,
    waiters: Mutex<()>,
    changed: Condvar,
}

impl Progress {
    pub(super) fn new(level: NotifyLevel, replicated: bool) -> Progress {
        Progress {
            epochs: Epochs::default(),
            level,
            replicated,
            degraded: AtomicBool::new(false),
            degraded_intervals: Mutex::default(),
            waiting: AtomicUsize::new(0),
            waiters: Mutex::new(Rank::Waiters, ()),
            changed: Condvar::new(),
        }
    }

    pub(super) fn is_replicated(&self) -> bool {
        self.replicated
    }

    /// Between two runs.
    pub(super) fn reset(&self) {
        self.epochs.reset();
        self.degraded.store(false, SeqCst);
        self.degraded_intervals.lock().clear();
    }

    pub(super) fn start(&self, recovered: Epoch, recorded: Epoch) {
        self.epochs.start(recovered, recorded);
        self.wake();
    }

    pub(super) fn raise_stored(&self, epoch: Epoch) {
        self.epochs.raise_stored(epoch);
        self.wake();
    }

    pub(super) fn raise_propagated(&self, epoch: Epoch) {
        self.epochs.raise_propagated(epoch);
        self.wake();
    }

    pub(super) fn set_degraded(&self, degraded: bool) {
        self.degraded.store(degraded, SeqCst);
    }

    /// The epoch that `notified` can be raised to.
    pub(super) fn next_notified(&self) -> Option<Epoch> {
        let reached = match self.level {
            NotifyLevel::Propagated if !self.degraded.load(SeqCst) => self.epochs.propagated(),
            _ => self.epochs.stored(),
        };
        (reached > self.epochs.notified()).then_some(reached)
    }

    pub(super) fn raise_notified(&self, epoch: Epoch) {
        let first = Epoch(self.epochs.notified().max(self.epochs.propagated()).0 + 1);
        if self.level == NotifyLevel::Propagated && first <= epoch {
            self.note_degraded(first, epoch);
        }
        self.epochs.raise_notified(epoch);
    }

    fn note_degraded(&self, first: Epoch, last: Epoch) {
        let mut intervals = self.degraded_intervals.lock();
        match intervals.last_mut() {
            Some((_, end)) if end.0 + 1 == first.0 => *end = last,
            _ => intervals.push((first, last)),
        }
        if intervals.len() > DEGRADED_INTERVALS_MAX {
            // Better to call an epoch degraded that was not than the other way round.
            intervals[1].0 = intervals[0].0;
            intervals.remove(0);
        }
    }

    /// Takes note of intervals of epochs, first and last, that earlier runs notified while degraded. Before the first
    /// epoch of this run.
    pub(super) fn restore_degraded(&self, earlier: impl IntoIterator<Item = (Epoch, Epoch)>) {
        let mut intervals = self.degraded_intervals.lock();
        intervals.extend(earlier.into_iter().filter(|(first, last)| first <= last));
        intervals.sort_unstable();
        intervals.dedup_by(|(first, last), (_, end)| {
            let joins = first.0 <= end.0.saturating_add(1);
            if joins {
                *end = (*end).max(*last);
            }
            joins
        });
        let surplus = intervals.len().saturating_sub(DEGRADED_INTERVALS_MAX);
        if surplus > 0 {
            intervals[surplus].0 = intervals[0].0;
            intervals.drain(..surplus);
        }
    }

    /// Whether the leader has something to report.
    pub(super) fn is_pending(&self) -> bool {
        self.epochs.next_propagated().is_some() || self.next_notified().is_some()
    }

    pub(super) fn of(&self, epoch: Epoch) -> EpochDurability {
        let intervals = self.degraded_intervals.lock();
        let at = intervals.partition_point(|&(_, last)| last < epoch);
        let degraded = intervals.get(at).is_some_and(|&(first, _)| first <= epoch);
        drop(intervals);
        // Read in this order so that nobody sees an epoch propagated but not stored.
        let propagated = epoch <= self.epochs.propagated();
        EpochDurability { stored: epoch <= self.epochs.stored(), propagated, degraded, replicated: self.replicated }
    }

    pub(super) fn has_reached(&self, epoch: Epoch, state: Durability) -> bool {
        match state {
            Durability::Stored => epoch <= self.epochs.stored(),
            Durability::Propagated => epoch <= self.epochs.propagated(),
        }
    }

    /// Waits until `over` says so or the deadline passes. No deadline means to wait for ever.
    pub(super) fn wait_until(&self, deadline: Option<Instant>, over: impl Fn() -> bool) {
        // Announced before it is checked: whoever changes something afterwards sees the announcement.
        self.waiting.fetch_add(1, SeqCst);
        let mut guard = self.waiters.lock();
        let mut in_time = true;
        while in_time && !over() {
            match deadline {
                Some(deadline) => in_time = !self.changed.wait_until(&mut guard, deadline).timed_out(),
                None => self.changed.wait(&mut guard),
            }
        }
        drop(guard);
        self.waiting.fetch_sub(1, SeqCst);
    }

    /// Lets the waiting threads look again.
    pub(super) fn wake(&self) {
        if self.waiting.load(SeqCst) > 0 {
            // A thread that has looked and not yet gone to sleep holds the lock.
            drop(self.waiters.lock());
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_of_earlier_runs_are_sorted_joined_and_bounded() {
        let progress = Progress::new(NotifyLevel::Propagated, true);
        let epochs = |intervals: &[(u64, u64)]| {
            intervals.iter().map(|&(first, last)| (Epoch(first), Epoch(last))).collect::<Vec<_>>()
        };
        progress.restore_degraded(epochs(&[(20, 30), (5, 9), (10, 12), (25, 40), (60, 50)]));
        assert_eq!(*progress.degraded_intervals.lock(), epochs(&[(5, 12), (20, 40)]));
        for (epoch, degraded) in [(4, false), (5, true), (12, true), (13, false), (40, true), (41, false), (55, false)]
        {
            assert_eq!(progress.of(Epoch(epoch)).degraded, degraded, "epoch {epoch}");
        }
        let many = (0..5000).map(|n| (Epoch(100 + 10 * n), Epoch(101 + 10 * n)));
        progress.restore_degraded(many);
        assert_eq!(progress.degraded_intervals.lock().len(), DEGRADED_INTERVALS_MAX);
        assert!(progress.of(Epoch(100)).degraded && progress.of(Epoch(100 + 49_990)).degraded);
        assert!(!progress.of(Epoch(102 + 49_990)).degraded);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The one structure of numbers.

use super::epoch_clock::EpochClock;
use super::histogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that grows, or one that is set. Any thread; readers may see it late.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// Raises it.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// Replaces it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The numbers of one directory, from the start of the process on.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Sessions that ended, their entries, and their bytes in the log.
    pub sessions: Number,
    pub entries: Number,
    pub session_bytes: Number,
    pub aborted_sessions: Number,
    /// Bytes that were written to any file of the directory.
    pub written_bytes: Number,
    pub write_errors: Number,
    /// Syncs of files and of directories, those that failed as well.
    pub syncs: Histogram,
    pub sync_errors: Number,
    /// From the switch that ends an epoch until it is reported as STORED.
    pub stored: Histogram,
    /// The same until it is reported as PROPAGATED.
    pub propagated: Histogram,
    pub epochs: EpochClock,
    pub compactions: Number,
    pub failed_compactions: Number,
    /// Of compactions that are over.
    pub compaction_ns: Number,
    /// 1 while one is at work.
    pub running_compactions: Number,
    /// BLOBs that were registered, and those that were deleted because nothing refers to them.
    pub blobs: Number,
    pub deleted_blobs: Number,
    /// How long the start took that is over, and the entries that it read; 0 before.
    pub recovery_ns: Number,
    pub recovered_entries: Number,
    /// Until when the TLS certificate of this side counts, in seconds since 1970; 0 without one.
    pub certificate_expires: Number,
    /// 1 after a failure with which nothing is acknowledged any more.
    pub failed: Number,
}

impl Metrics {
    /// A compaction has replaced log files.
    pub fn count_compaction(&self, time: Duration) {
        self.compactions.add(1);
        self.compaction_ns.add(time.as_nanos() as u64);
    }

    /// A start is over that read so many entries.
    pub fn note_recovery(&self, time: Duration, entries: u64) {
        self.recovery_ns.set(time.as_nanos().max(1) as u64);
        self.recovered_entries.set(entries);
    }

    /// A session ended that has so many entries and bytes.
    pub fn count_session(&self, entries: u64, bytes: u64) {
        self.sessions.add(1);
        self.entries.add(entries);
        self.session_bytes.add(bytes);
    }
}

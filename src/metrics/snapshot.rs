// SPDX-License-Identifier: Apache-2.0
//! The numbers at one moment, as they go from the process that counts to the one that shows them.

use super::counters::Metrics;
use super::histogram::Distribution;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// What [`Metrics`] held. A number that the other process does not know is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    pub sessions: u64,
    pub entries: u64,
    pub session_bytes: u64,
    pub aborted_sessions: u64,
    pub written_bytes: u64,
    pub write_errors: u64,
    pub syncs: Distribution,
    pub sync_errors: u64,
    pub stored: Distribution,
    pub propagated: Distribution,
    pub compactions: u64,
    pub failed_compactions: u64,
    pub compaction_ns: u64,
    pub running_compactions: u64,
    pub blobs: u64,
    pub deleted_blobs: u64,
    pub recovery_ns: u64,
    pub recovered_entries: u64,
    /// For how long the TLS certificate of this side counts still.
    pub certificate_seconds: Option<u64>,
    pub failed: bool,
}

impl Metrics {
    fn certificate_seconds(&self) -> Option<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires = Some(self.certificate_expires.get()).filter(|&expires| expires > 0)?;
        Some(expires.saturating_sub(now.as_secs()))
    }

    /// All numbers, each as it is now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            sessions: self.sessions.get(),
            entries: self.entries.get(),
            session_bytes: self.session_bytes.get(),
            aborted_sessions: self.aborted_sessions.get(),
            written_bytes: self.written_bytes.get(),
            write_errors: self.write_errors.get(),
            syncs: self.syncs.distribution(),
            sync_errors: self.sync_errors.get(),
            stored: self.stored.distribution(),
            propagated: self.propagated.distribution(),
            compactions: self.compactions.get(),
            failed_compactions: self.failed_compactions.get(),
            compaction_ns: self.compaction_ns.get(),
            running_compactions: self.running_compactions.get(),
            blobs: self.blobs.get(),
            deleted_blobs: self.deleted_blobs.get(),
            recovery_ns: self.recovery_ns.get(),
            recovered_entries: self.recovered_entries.get(),
            certificate_seconds: self.certificate_seconds(),
            failed: self.failed.get() > 0,
        }
    }
}

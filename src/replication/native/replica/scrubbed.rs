// SPDX-License-Identifier: Apache-2.0
//! What a replica has found in its log files, for its status.

use crate::lock_order::Mutex;
use crate::replication::status::ScrubStatus;
use crate::scrub::Damage;

/// Kept by the thread that reads them.
#[derive(Debug, Default)]
pub(super) struct Scrubbed(Mutex<ScrubStatus>);

impl Scrubbed {
    pub(super) fn told(&self) -> ScrubStatus {
        self.0.lock().clone()
    }

    /// So many bytes were read.
    pub(super) fn read(&self, bytes: u64) {
        self.0.lock().bytes += bytes;
    }

    /// All files were.
    pub(super) fn round(&self) {
        self.0.lock().rounds += 1;
    }

    /// A file is damaged; false when that is known.
    pub(super) fn damaged(&self, damage: &Damage) -> bool {
        let mut told = self.0.lock();
        let is_new = !told.damaged.contains(&damage.name);
        if is_new {
            told.damaged.push(damage.name.clone());
            told.found += 1;
        }
        is_new
    }

    /// A base sync has replaced all files.
    pub(super) fn healed(&self) {
        self.0.lock().damaged.clear();
    }
}

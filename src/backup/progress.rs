// SPDX-License-Identifier: Apache-2.0
//! How far a restore has come, for whoever watches it from another thread.

use crate::lock_order::Mutex;

/// What a restore is at, with the numbers of the C++ interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum Phase {
    /// None was begun, or the backup is being checked and copied; the directory holds its old content.
    #[default]
    Preparing = 0,
    /// The content is being replaced. From here on only the new one counts, even after a crash.
    Running = 1,
    /// The new content is in place.
    Completed = 2,
    /// Replacing the content failed; the next start completes it.
    Failed = -1,
    /// It was given up before anything was changed; the directory holds its old content.
    Canceled = -2,
}

/// What [`Progress::get`] shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub phase: Phase,
    /// Files that were copied, of so many.
    pub files_done: u64,
    pub files_total: u64,
    pub bytes_done: u64,
}

/// The progress of a data store's last restore.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Snapshot>);

impl Progress {
    pub fn get(&self) -> Snapshot {
        *self.0.lock()
    }

    pub(super) fn begin(&self, files_total: u64) {
        *self.0.lock() = Snapshot { files_total, ..Snapshot::default() };
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.0.lock().phase = phase;
    }

    pub(super) fn copied(&self, bytes: u64) {
        let mut progress = self.0.lock();
        progress.files_done += 1;
        progress.bytes_done += bytes;
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What is known of log files that nobody writes to any more, and which of them are damaged: for compactions, which
//! would carry the damage on.

use crate::lock_order::Mutex;
use crate::scrub::{Comparison, Damage, Known, Scrubbed};
use crate::vfs::Vfs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct KnownFiles {
    location: PathBuf,
    /// What files were seen to hold in this life of the store.
    seen: Mutex<Option<Arc<Known>>>,
    scrubbed: Arc<Scrubbed>,
}

impl KnownFiles {
    pub(super) fn new(location: &Path) -> KnownFiles {
        KnownFiles { location: location.to_owned(), seen: Mutex::default(), scrubbed: Arc::default() }
    }

    /// What was found.
    pub(super) fn scrubbed(&self) -> &Arc<Scrubbed> {
        &self.scrubbed
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.scrubbed.is_damaged()
    }

    /// Takes note of what files hold until the shutdown.
    pub(super) fn know(&self, seen: &Arc<Known>) {
        *self.seen.lock() = Some(seen.clone());
    }

    /// Others may write to the files from now on.
    pub(super) fn forget(&self) {
        *self.seen.lock() = None;
        self.scrubbed.healed();
    }

    /// For whoever makes other files of them.
    pub(super) fn comparison<'a>(&self, vfs: &'a dyn Vfs, stopping: &'a AtomicBool) -> Comparison<'a> {
        // Let go of before the disk is asked.
        let seen = self.seen.lock().clone();
        Comparison::new(vfs, &self.location, seen, Some(stopping))
    }

    /// A file is damaged: says so, once.
    pub(super) fn found(&self, damage: &Damage) {
        let (is_new, _) = self.scrubbed.damaged(damage);
        if is_new {
            let (path, wrong) = (self.location.join(&damage.name), &damage.wrong);
            log::error!(
                "{} is damaged: {wrong}; it stays as it is, the log is not compacted meanwhile, and the next start \
                 reads it so: switch over to a replica, or restore a backup (\"tglogutil verify\" on a copy says what \
                 a start would make of it)",
                path.display()
            );
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! When log files get other names: the cut between two epochs, after which no file holds sessions of both sides.

use super::coordinator::Coordinator;
use crate::error::Error;
use crate::lock_order::{Mutex, MutexGuard, Rank};
use crate::types::Epoch;
use crate::wal::file_sync::NameSync;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;

const NO_CUT: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct FileNames {
    /// Sessions beyond this epoch begin in a new file.
    cut: AtomicU64,
    /// Why a channel could not begin a new file.
    failure: Mutex<Option<Error>>,
    /// Held by whoever changes names, but for a session that begins.
    changing: Mutex<()>,
    /// Makes names durable, for all channels.
    sync: Arc<NameSync>,
}

impl FileNames {
    pub(super) fn new(sync: NameSync) -> FileNames {
        let (cut, failure, changing) = (AtomicU64::new(NO_CUT), Mutex::default(), Mutex::new(Rank::FileNames, ()));
        FileNames { cut, failure, changing, sync: sync.into() }
    }

    pub(super) fn sync(&self) -> Arc<NameSync> {
        self.sync.clone()
    }

    /// Excludes everybody else who changes names.
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    /// The cut that a session of this epoch lies behind.
    #[inline]
    pub(super) fn cut_before(&self, epoch: Epoch) -> Option<Epoch> {
        let cut = self.cut.load(SeqCst);
        (epoch.0 > cut).then_some(Epoch(cut))
    }

    /// Cuts behind the current epoch. Every session of a later epoch sees the cut when it begins: it reads the epoch
    /// before the cut, and the cut stands before there is a later epoch.
    pub(super) fn cut_behind_current(&self, coordinator: &Coordinator) -> Epoch {
        *self.failure.lock() = None;
        loop {
            let epoch = coordinator.epochs().switched();
            self.cut.store(epoch.0, SeqCst);
            if coordinator.epochs().switched() == epoch {
                return epoch;
            }
        }
    }

    /// Whether the cut behind this epoch still stands: nobody has ended it meanwhile.
    pub(super) fn is_cut_behind(&self, epoch: Epoch) -> bool {
        self.cut.load(SeqCst) == epoch.0
    }

    /// Ends the cut: sessions go on in the file that they find.
    pub(super) fn end_cut(&self) {
        self.cut.store(NO_CUT, SeqCst);
    }

    /// A channel goes on in its old file, so that the cut is none.
    pub(super) fn note_failure(&self, error: Error) {
        self.failure.lock().get_or_insert(error);
    }

    pub(super) fn take_failure(&self) -> Option<Error> {
        self.failure.lock().take()
    }
}

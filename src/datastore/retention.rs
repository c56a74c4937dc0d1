// SPDX-License-Identifier: Apache-2.0
//! Log that somebody still needs as it is, a replica that lags behind, and the compaction that is owed because of them:
//! it was asked for, and is done when they need that log no more.

use crate::lock_order::Mutex;
use crate::types::Epoch;
use std::fmt;

/// Log that compactions leave as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// Sessions beyond this epoch are needed.
    pub beyond: Epoch,
    /// By whom, for people.
    pub by: String,
    /// Whether they may need less in a moment: whoever compacts then waits a little.
    pub moves: bool,
}

/// Who holds back a compaction that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    pub by: String,
    /// What they have.
    pub has: Epoch,
    /// What they must have before the compaction is done.
    pub needs: Epoch,
}

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HeldBack { by, has, needs } = self;
        write!(f, "held back by {by} at epoch {has}, done when epoch {needs} is there")
    }
}

#[derive(Debug, Default)]
pub(super) struct Retention {
    retained: Mutex<Option<Retained>>,
    /// A compaction that was asked for has not come up to this epoch.
    owed: Mutex<Option<Epoch>>,
}

impl Retention {
    pub(super) fn set(&self, retained: Option<Retained>) {
        *self.retained.lock() = retained;
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.retained.lock().as_ref().map(|retained| retained.beyond)
    }

    /// Whether waiting a little may help a compaction up to this epoch.
    pub(super) fn may_reach(&self, epoch: Epoch) -> bool {
        self.retained.lock().as_ref().is_some_and(|retained| retained.beyond < epoch && retained.moves)
    }

    /// Takes note of how far a compaction that was asked for must come, or that none is owed.
    pub(super) fn owe(&self, epoch: Option<Epoch>) {
        *self.owed.lock() = epoch;
    }

    pub(super) fn owed(&self) -> Option<Epoch> {
        *self.owed.lock()
    }

    /// Who holds back the compaction that is owed.
    pub(super) fn held_back(&self) -> Option<HeldBack> {
        self.holds_back(self.owed()?)
    }

    /// Who holds back a compaction up to this epoch.
    pub(super) fn holds_back(&self, needs: Epoch) -> Option<HeldBack> {
        let retained = self.retained.lock();
        let Retained { beyond, by, .. } = retained.as_ref().filter(|retained| retained.beyond < needs)?;
        Some(HeldBack { by: by.clone(), has: *beyond, needs })
    }
}

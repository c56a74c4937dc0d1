// SPDX-License-Identifier: Apache-2.0
//! What a replica knows of rewinds: whether it was told to, what would go, and where it has to go back to.

use crate::directory::{Cut, Extent, Keep};
use crate::lock_order::{Mutex, MutexGuard};
use crate::replication::replica_store::HeldDirectory;
use crate::types::Epoch;

/// What is known of rewinds.
#[derive(Debug, Default)]
pub(super) struct Rewinds(Mutex<State>);

impl Rewinds {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// The directory has another content, of which nothing was counted.
    pub(super) fn forget_count(&self) {
        self.0.lock().counted = None;
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Set when it was told to.
    pub(super) told: Option<Keep>,
    /// Counted last: primaries come again and again.
    pub(super) counted: Option<Extent>,
    /// Where it has to go back to, while the directory is closed for that.
    pub(super) wanted: Option<Wanted>,
    /// The last one that was carried out.
    pub(super) done: Option<Cut>,
}

#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) held: HeldDirectory,
    pub(super) last: Option<Epoch>,
    pub(super) keep: Keep,
}

// SPDX-License-Identifier: Apache-2.0
//! Events for an audit log (public API §15.5): when the log was recovered, recorded and shipped. Off until somebody
//! listens; then one call for each.

use crate::lock_order::{Rank, RwLock};
use crate::types::Epoch;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A start has recovered the log, or failed to.
    WalStarted,
    /// An epoch record was written, or could not be.
    WalStored,
    /// An epoch was sent to a replica, or could not be.
    WalShipped,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    /// The epoch; for a failed start 0.
    pub epoch: Epoch,
    pub success: bool,
}

/// Called on the thread on which it happened. It must be quick, and must not call back into the data store.
pub type EventCallback = Arc<dyn Fn(Event) + Send + Sync>;

pub(super) struct Events {
    on: AtomicBool,
    callback: RwLock<Option<EventCallback>>,
}

impl Default for Events {
    fn default() -> Events {
        Events { on: AtomicBool::new(false), callback: RwLock::new(Rank::EventCallback, None) }
    }
}

impl Events {
    /// When this returns, no call of the former callback is running or will start.
    pub(super) fn set_callback(&self, callback: Option<EventCallback>) {
        let mut place = self.callback.write();
        self.on.store(callback.is_some(), Ordering::Release);
        let former = std::mem::replace(&mut *place, callback);
        drop(place);
        drop(former);
    }

    #[inline]
    pub(super) fn emit(&self, kind: EventKind, epoch: Epoch, success: bool) {
        if self.on.load(Ordering::Acquire) {
            if let Some(callback) = &*self.callback.read() {
                callback(Event { kind, epoch, success });
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events(on {:?})", self.on)
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The safe snapshot: up to which version the engine has finished all writes, and who is told when it moves.

use crate::lock_order::Mutex;
use crate::types::WriteVersion;
use std::sync::Arc;

/// A bound on versions: all writes below `version` are within it, and those of `version` itself when `inclusive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SafeSnapshot {
    pub version: WriteVersion,
    pub inclusive: bool,
}

/// Told the safe snapshot after it moved. One call at a time; each is above the one before, and some may be left out
/// when it moves while a call runs. No lock is held: it may call back into the data store.
pub type SnapshotCallback = Arc<dyn Fn(SafeSnapshot) + Send + Sync>;

#[derive(Default)]
pub(super) struct SafeSnapshots {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<SafeSnapshot>,
    told: Option<SafeSnapshot>,
    /// A thread is calling the callback and looks again before it leaves.
    busy: bool,
    callback: Option<SnapshotCallback>,
}

impl SafeSnapshots {
    pub(super) fn current(&self) -> Option<SafeSnapshot> {
        self.state.lock().current
    }

    pub(super) fn set_callback(&self, callback: Option<SnapshotCallback>) {
        let former = std::mem::replace(&mut self.state.lock().callback, callback);
        drop(former);
    }

    /// Moves the safe snapshot; one that is not above the present one changes nothing. `first` is told before the
    /// callback, in the same order.
    pub(super) fn switch(&self, to: SafeSnapshot, first: impl Fn(SafeSnapshot)) {
        let mut state = self.state.lock();
        match state.current {
            Some(current) if to < current => {
                drop(state);
                return log::error!(
                    "the new safe snapshot ({}, {}) is below the current safe snapshot ({}, {})",
                    to.version.major,
                    to.version.minor,
                    current.version.major,
                    current.version.minor
                );
            }
            _ => state.current = Some(to),
        }
        if state.busy {
            return;
        }
        while let Some(current) = state.current.filter(|current| state.told != Some(*current)) {
            let callback = state.callback.clone();
            state.told = Some(current);
            state.busy = true;
            drop(state);
            /// Lets others call again even when the callback panics.
            struct Busy<'a>(&'a Mutex<State>);
            impl Drop for Busy<'_> {
                fn drop(&mut self) {
                    self.0.lock().busy = false;
                }
            }
            let busy = Busy(&self.state);
            first(current);
            if let Some(callback) = callback {
                callback(current);
            }
            drop(busy);
            state = self.state.lock();
            if state.busy {
                // Somebody moved it in between and tells it.
                return;
            }
        }
    }
}

impl std::fmt::Debug for SafeSnapshots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SafeSnapshots({:?})", self.current())
    }
}

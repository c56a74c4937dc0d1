// SPDX-License-Identifier: Apache-2.0
//! What has become of an epoch: query, wait, and the callback at the notify level.

use super::datastore::{limestone_datastore, store, Context, LIMESTONE_PROPAGATED, LIMESTONE_STORED};
use super::handle;
use super::status::{guard, Failure, LIMESTONE_ERR_TIMEOUT};
use crate::datastore::{Datastore, NotifyCallback};
use crate::types::{Durability, Epoch};
use std::ffi::c_void;
use std::sync::Arc;
use std::time::Duration;

/// What has become of an epoch.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct limestone_durability {
    /// Everything of it, and of all before it, is on this machine's disk.
    pub stored: bool,
    /// The same is on the replicas' disks; never without replication.
    pub propagated: bool,
    /// It was notified as stored only, because the replicas were given up for a time. They may have it by now.
    pub degraded: bool,
    /// Whether replication is configured.
    pub replicated: bool,
}

/// Told each epoch once, when everything of it and of all before it has reached the notify level: on this machine's
/// disk, or on the replicas' disks when the data store was set up so. Epochs strictly increase and may skip. Same
/// threads and rules as for `limestone_persistent_callback`; one of the two runs at a time.
#[allow(non_camel_case_types)]
pub type limestone_notify_callback = Option<unsafe extern "C" fn(context: *mut c_void, epoch: u64)>;

/// Tells what has become of `epoch`. Never waits. Epochs before the start of this process count as stored, and as
/// propagated when a replica has confirmed them to this process.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; `out` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_durability(
    datastore: *const limestone_datastore,
    epoch: u64,
    out: *mut limestone_durability,
) -> i32 {
    guard(|| unsafe {
        // SAFETY (here and below): the caller's promise above.
        handle::check_out(out)?;
        let found = store(datastore)?.durability(Epoch(epoch));
        *out = limestone_durability {
            stored: found.stored,
            propagated: found.propagated,
            degraded: found.degraded,
            replicated: found.replicated,
        };
        Ok(())
    })
}

/// Waits until everything of `epoch` and of all before it has reached `state` (`LIMESTONE_STORED` or
/// `LIMESTONE_PROPAGATED`), at most `timeout_ms` milliseconds; 2^64 - 1 means without a bound. Any number of threads.
/// `LIMESTONE_ERR_TIMEOUT` when the time is over. A shutdown ends the wait with `LIMESTONE_ERR_WRONG_STATE`, a failed
/// write or sync with `LIMESTONE_ERR_POISONED`. `LIMESTONE_ERR_WRONG_STATE` at once for `LIMESTONE_PROPAGATED` without
/// replication, and within a callback for what is not reached yet.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_wait_durable(
    datastore: *const limestone_datastore,
    epoch: u64,
    state: i32,
    timeout_ms: u64,
) -> i32 {
    guard(|| unsafe {
        let state = match state {
            LIMESTONE_STORED => Durability::Stored,
            LIMESTONE_PROPAGATED => Durability::Propagated,
            _ => return Err(Failure::argument("the state is neither LIMESTONE_STORED nor LIMESTONE_PROPAGATED")),
        };
        let timeout = (timeout_ms != u64::MAX).then(|| Duration::from_millis(timeout_ms));
        if store(datastore)?.wait_durable(Epoch(epoch), state, timeout)? {
            return Ok(());
        }
        let message = format!("epoch {epoch} did not become {state:?} within {timeout_ms} ms");
        Err(Failure { status: LIMESTONE_ERR_TIMEOUT, errno: 0, message })
    })
}

/// The largest epoch that has reached the notify level; after `limestone_datastore_ready`, the recovered one. 0 for an
/// invalid handle.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_notified_epoch(datastore: *const limestone_datastore) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { super::datastore::epoch_of(datastore, Datastore::notified_epoch) }
}

/// The largest epoch that is on the replicas' disks; 0 until a replica has confirmed one to this process, and for an
/// invalid handle.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_propagated_epoch(datastore: *const limestone_datastore) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { super::datastore::epoch_of(datastore, Datastore::propagated_epoch) }
}

/// Sets the callback for epochs at the notify level, in place of an earlier one; null removes it. When this returns, no
/// call of the former one is running or will start, unless it is called from within it.
///
/// # Safety
/// As for `limestone_datastore_set_persistent_callback`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_set_notify_callback(
    datastore: *mut limestone_datastore,
    callback: limestone_notify_callback,
    context: *mut c_void,
) -> i32 {
    guard(|| unsafe {
        let store = store(datastore)?;
        let context = Context(context);
        store.set_notify_callback(callback.map(|callback| -> NotifyCallback {
            Arc::new(move |epoch: Epoch| {
                let context = &context;
                // SAFETY: the owner of the callback promised that it can be called.
                callback(context.0, epoch.0);
            })
        }));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::{NotifyLevel, Settings};
    use crate::engine::Engine;
    use crate::ffi::limestone_datastore_set_persistent_callback;
    use crate::vfs::SimFs;
    use std::sync::Arc;

    type Told = Vec<(u64, i32)>;

    unsafe extern "C" fn note_state(context: *mut c_void, epoch: u64, state: i32) {
        // SAFETY: the test below passes its list.
        unsafe { &mut *context.cast::<Told>() }.push((epoch, state));
    }

    unsafe extern "C" fn note_notice(context: *mut c_void, epoch: u64) {
        // SAFETY: as above.
        unsafe { &mut *context.cast::<Told>() }.push((epoch, 0));
    }

    #[test]
    fn with_replication_both_states_are_reported_and_the_notice_comes_last() {
        let settings = Settings::new("/log").vfs(Arc::new(SimFs::new()));
        let settings = settings.replicated(true).notify_level(NotifyLevel::Propagated);
        let engine = Arc::new(Engine::open(settings, None).unwrap());
        let store = engine.store().clone();
        let handle = handle::create(handle::closable(engine));
        let mut told = Told::new();
        let context = (&raw mut told).cast();
        let mut found = limestone_durability::default();
        // SAFETY: the handle was made above and the list outlives the callbacks.
        unsafe {
            assert_eq!(limestone_datastore_set_persistent_callback(handle, Some(note_state), context), 0);
            assert_eq!(limestone_datastore_set_notify_callback(handle, Some(note_notice), context), 0);
            store.ready().unwrap();
            store.switch_epoch(Epoch(1)).unwrap();
            store.switch_epoch(Epoch(2)).unwrap();
            assert_eq!(limestone_datastore_wait_durable(handle, 1, LIMESTONE_PROPAGATED, 1), LIMESTONE_ERR_TIMEOUT);
            store.confirm_propagated(Epoch(1)).unwrap();
            assert_eq!(limestone_datastore_wait_durable(handle, 1, LIMESTONE_PROPAGATED, 0), 0);
            assert_eq!(limestone_datastore_durability(handle, 1, &mut found), 0);
            assert_eq!(limestone_datastore_propagated_epoch(handle), 1);
        }
        store.set_persistent_callback(None);
        store.set_notify_callback(None);
        assert_eq!(told, [(1, LIMESTONE_STORED), (1, LIMESTONE_PROPAGATED), (1, 0)]);
        let expected = limestone_durability { stored: true, propagated: true, degraded: false, replicated: true };
        assert_eq!(found, expected);
    }
}

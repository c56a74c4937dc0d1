// SPDX-License-Identifier: Apache-2.0
//! The safe snapshot.

use super::datastore::{limestone_datastore, store, Context};
use super::status::guard;
use crate::datastore::{SafeSnapshot, SnapshotCallback};
use crate::types::WriteVersion;
use std::ffi::c_void;
use std::sync::Arc;

/// Told the safe snapshot after it moved: all writes with a version below (`major`, `minor`) are within it, and those
/// of that version when `inclusive`. One call at a time, each above the one before; some are left out when the safe
/// snapshot moves while a call runs. Runs on a thread that is inside `limestone_datastore_switch_safe_snapshot`; may
/// call back into the library; must not throw or jump out.
#[allow(non_camel_case_types)]
pub type limestone_snapshot_callback =
    Option<unsafe extern "C" fn(context: *mut c_void, major: u64, minor: u64, inclusive: bool)>;

/// Moves the safe snapshot and tells the snapshot callback before this returns, or on the thread that is inside the
/// callback. One below the present one changes nothing but an error in the log; the same one once more changes nothing.
/// Nothing of it is stored. Any thread.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_switch_safe_snapshot(
    datastore: *mut limestone_datastore,
    major: u64,
    minor: u64,
    inclusive: bool,
) -> i32 {
    guard(|| unsafe {
        // SAFETY (here and below): the caller's promise above.
        store(datastore)?.switch_safe_snapshot(SafeSnapshot { version: WriteVersion { major, minor }, inclusive });
        Ok(())
    })
}

/// Sets the callback for the safe snapshot, in place of an earlier one, of which a running call may outlast this; null
/// removes it.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; the callback must be callable with `context` until the data
/// store is destroyed.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_set_snapshot_callback(
    datastore: *mut limestone_datastore,
    callback: limestone_snapshot_callback,
    context: *mut c_void,
) -> i32 {
    guard(|| unsafe {
        let store = store(datastore)?;
        let context = Context(context);
        store.set_snapshot_callback(callback.map(|callback| -> SnapshotCallback {
            Arc::new(move |to: SafeSnapshot| {
                let context = &context;
                // SAFETY: the owner of the callback promised that it can be called.
                callback(context.0, to.version.major, to.version.minor, to.inclusive);
            })
        }));
        Ok(())
    })
}

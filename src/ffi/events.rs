// SPDX-License-Identifier: Apache-2.0
//! Events for an audit log (public API §15.5).

use super::datastore::{limestone_datastore, store, Context};
use super::status::guard;
use crate::datastore::{Event, EventCallback, EventKind};
use std::ffi::{c_char, c_void, CString};
use std::sync::Arc;

/// `limestone_datastore_ready` has built the snapshot, or failed to.
pub const LIMESTONE_EVENT_WAL_STARTED: i32 = 1;
/// A durable-epoch record was written, or could not be.
pub const LIMESTONE_EVENT_WAL_STORED: i32 = 2;
/// An epoch was sent to a replica, or could not be.
pub const LIMESTONE_EVENT_WAL_SHIPPED: i32 = 3;

/// The event is a success.
pub const LIMESTONE_EVENT_SUCCESS: i32 = 1;
/// The event is a failure.
pub const LIMESTONE_EVENT_FAILURE: i32 = 2;

/// One event, with the fields of the original's audit log. The texts end with a zero byte and are valid during the
/// call.
#[allow(non_camel_case_types)]
#[derive(Debug)]
#[repr(C)]
pub struct limestone_event {
    /// One of `LIMESTONE_EVENT_WAL_*`.
    pub r#type: i32,
    /// `LIMESTONE_EVENT_SUCCESS` or `LIMESTONE_EVENT_FAILURE`.
    pub result: i32,
    /// Process id when the callback was set.
    pub pid: i64,
    /// From `limestone_settings_set_instance_id`.
    pub instance_id: *const c_char,
    /// From `limestone_settings_set_db_name`.
    pub dbname: *const c_char,
    /// The epoch as decimal digits; for `LIMESTONE_EVENT_WAL_STARTED` the recovered epoch, after a failure 0.
    pub wal_version: *const c_char,
}

/// Told each event. Runs on the thread on which it happened, which may hold up epochs: it must be quick, must not call
/// back into the library, and must not throw or jump out.
#[allow(non_camel_case_types)]
pub type limestone_event_callback = Option<unsafe extern "C" fn(context: *mut c_void, event: *const limestone_event)>;

/// Sets the callback for events, in place of an earlier one; null, as at first, turns events off. To be set before
/// `limestone_datastore_ready` in order to hear of it. When this returns, no call of the former one is running or will
/// start.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; the callback must be callable with `context` until it is
/// removed or the data store is destroyed.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_set_event_callback(
    datastore: *mut limestone_datastore,
    callback: limestone_event_callback,
    context: *mut c_void,
) -> i32 {
    guard(|| unsafe {
        // SAFETY: the caller's promise above.
        let store = store(datastore)?;
        let context = Context(context);
        let (instance_id, dbname) = (text(store.instance_id()), text(store.db_name()));
        let pid = std::process::id();
        store.set_event_callback(callback.map(|callback| -> EventCallback {
            Arc::new(move |event: Event| {
                let context = &context;
                let wal_version = text(&event.epoch.to_string());
                let shown = limestone_event {
                    r#type: match event.kind {
                        EventKind::WalStarted => LIMESTONE_EVENT_WAL_STARTED,
                        EventKind::WalStored => LIMESTONE_EVENT_WAL_STORED,
                        EventKind::WalShipped => LIMESTONE_EVENT_WAL_SHIPPED,
                    },
                    result: if event.success { LIMESTONE_EVENT_SUCCESS } else { LIMESTONE_EVENT_FAILURE },
                    pid: i64::from(pid),
                    instance_id: instance_id.as_ptr(),
                    dbname: dbname.as_ptr(),
                    wal_version: wal_version.as_ptr(),
                };
                // SAFETY: the owner of the callback promised that it can be called.
                callback(context.0, &raw const shown);
            })
        }));
        Ok(())
    })
}

/// The text up to its first zero byte.
fn text(text: &str) -> CString {
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

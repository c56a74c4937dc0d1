// SPDX-License-Identifier: Apache-2.0
//! What a data store tells about itself and its replication, and the replicas that it has.

use super::datastore::{engine, limestone_datastore};
use super::handle;
use super::status::{guard, Failure};
use super::tags::text;
use std::ffi::c_char;

/// Writes how the data store and its replicas stand, the document that `tgreplica status --json` prints, as one line of
/// JSON: role, state, peer, epochs, lag, policy, last error; what is unknown is `null`. `*len` is the size of `buffer`
/// and becomes the length of the document, which is not terminated by a zero. `LIMESTONE_ERR_TOO_LARGE` when it does
/// not fit: then only `*len` is written. Waits for no disk, no replica and no callback, before and after a shutdown as
/// well.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; `len` must be null or point to the size of `buffer`, which
/// may be null when that is 0.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_status(
    datastore: *const limestone_datastore,
    buffer: *mut c_char,
    len: *mut usize,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(len)?;
        let status = engine(datastore)?.status();
        let json = status.to_json();
        let room = std::mem::replace(&mut *len, json.len());
        if json.len() > room {
            return Err(Failure::too_large(format!("the status has {} bytes, the buffer {room}", json.len())));
        }
        if buffer.is_null() {
            return Err(Failure::argument("the buffer is null"));
        }
        // SAFETY: the caller's promise; the document fits.
        std::ptr::copy_nonoverlapping(json.as_ptr(), buffer.cast::<u8>(), json.len());
        Ok(())
    })
}

/// The same as `limestone_datastore_status`, under its former name.
///
/// # Safety
/// As for `limestone_datastore_status`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_replication_status(
    datastore: *const limestone_datastore,
    buffer: *mut c_char,
    len: *mut usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { limestone_datastore_status(datastore, buffer, len) }
}

/// Has one more replica from now until the shutdown: `name=tcp://host:port`, as `TSURUGI_REPLICATION_REPLICAS` has it,
/// or the address alone, which is its name then; UTF-8, `len` bytes. It gets what it lacks and counts to the quorum
/// when it has said what it has; how many must have an epoch stays as it was. Waits for no replica. Any thread, between
/// `limestone_datastore_ready` and the shutdown, with the native protocol. `LIMESTONE_ERR_INVALID_ARGUMENT` when it is
/// not understood or cannot be told from another one, `LIMESTONE_ERR_WRONG_STATE` without replication.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; the text must have the given length.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_add_replica(
    datastore: *mut limestone_datastore,
    replica: *const c_char,
    len: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe { Ok(engine(datastore)?.add_replica(text(replica, len, "the replica")?)?) })
}

/// Has the replica of this name no more, from now until the shutdown: what it has does not count, and no log is kept
/// for it. Waits for no replica. Otherwise as `limestone_datastore_add_replica`; `LIMESTONE_ERR_WRONG_STATE` also when
/// fewer would be left than must have an epoch.
///
/// # Safety
/// As for `limestone_datastore_add_replica`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_remove_replica(
    datastore: *mut limestone_datastore,
    name: *const c_char,
    len: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    guard(|| unsafe { Ok(engine(datastore)?.remove_replica(text(name, len, "the name")?)?) })
}

// SPDX-License-Identifier: Apache-2.0
//! What a data store tells about its replication.

use super::datastore::{engine, limestone_datastore};
use super::handle;
use super::status::{guard, Failure};
use std::ffi::c_char;

/// Writes the status of replication as one JSON document: role, peer, state, epochs, lag in epochs, bytes and
/// milliseconds, policy, since when it is degraded, last error. `*len` is the size of `buffer` and becomes the length
/// of the document, which is not terminated by a zero. `LIMESTONE_ERR_TOO_LARGE` when it does not fit: then only `*len`
/// is written. Never waits for the replica.
///
/// # Safety `datastore` must come from `limestone_datastore_open`; `len` must be null or point to the size of `buffer`,
/// which may be null when that is 0.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_replication_status(
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

// SPDX-License-Identifier: Apache-2.0
//! What concerns BLOBs.

use super::datastore::{limestone_datastore, store};
use super::handle;
use super::status::{guard, Failure};
use crate::blob::{reference_tag, ReferenceKey};
use crate::types::BlobId;
use std::ffi::c_char;
use std::os::unix::ffi::OsStrExt;

/// Bytes of the key for `limestone_reference_tag`.
pub const LIMESTONE_REFERENCE_KEY_BYTES: usize = 16;

/// Stores the tag that shows that a BLOB id was handed out in a transaction: the first eight bytes, as a little-endian
/// number, of the HMAC-SHA-256 with `key` over both numbers in little endian.
///
/// # Safety
/// `key` must have `LIMESTONE_REFERENCE_KEY_BYTES` bytes; `out` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_reference_tag(
    key: *const u8,
    blob_id: u64,
    transaction_id: u64,
    out: *mut u64,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out)?;
        let mut copy = ReferenceKey::default();
        copy.copy_from_slice(handle::bytes(key, LIMESTONE_REFERENCE_KEY_BYTES, "the key")?);
        *out = reference_tag(&copy, BlobId(blob_id), transaction_id);
        Ok(())
    })
}

/// The largest BLOB id that `limestone_datastore_ready` found in durable entries and the catalog; 0 before it, when
/// there is none, and for an invalid handle.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_max_blob_id(datastore: *const limestone_datastore) -> u64 {
    let mut id = 0;
    guard(|| unsafe {
        id = store(datastore)?.max_blob_id().0;
        Ok(())
    });
    id
}

/// The id that the next registered BLOB gets: above every id in durable entries, the catalog and the names of BLOB
/// files. 0 before `limestone_datastore_ready` and for an invalid handle.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_next_blob_id(datastore: *const limestone_datastore) -> u64 {
    let mut id = 0;
    guard(|| unsafe {
        id = store(datastore)?.blobs().next_id().0;
        Ok(())
    });
    id
}

/// Lets no BLOB id below `next` be given out any more. A smaller value than the present one changes nothing.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_raise_next_blob_id(datastore: *mut limestone_datastore, next: u64) -> i32 {
    guard(|| unsafe {
        store(datastore)?.blobs().raise_next_id(BlobId(next));
        Ok(())
    })
}

/// Tells where a BLOB is or would be stored and whether it can be read now: its id was given out and its file exists.
/// Stores the length of the path in `out_len` and the path, without a zero behind it, in `path`; when it is longer than
/// `capacity` bytes, nothing is stored in `path` and `out_len` says how many are needed. The path is relative when that
/// of the data directory is.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; `path` must have room for `capacity` bytes; `out_len` and
/// `out_available` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_blob_file(
    datastore: *const limestone_datastore,
    blob_id: u64,
    path: *mut c_char,
    capacity: usize,
    out_len: *mut usize,
    out_available: *mut bool,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out_len)?;
        handle::check_out(out_available)?;
        if path.is_null() && capacity > 0 {
            return Err(Failure::argument("the room for the path is null but has a capacity"));
        }
        let store = store(datastore)?;
        let (file, available) = store.blobs().file(BlobId(blob_id));
        let file = store.as_given(&file);
        let bytes = file.as_os_str().as_bytes();
        *out_len = bytes.len();
        *out_available = available;
        if bytes.len() <= capacity {
            // SAFETY: the caller's promise about the capacity.
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), path.cast::<u8>(), bytes.len());
        }
        Ok(())
    })
}

/// Marks BLOBs as needed, as an entry that refers to them does: the release of their pool keeps them. Ids that no pool
/// owns are ignored.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; `blob_ids` must have `count` numbers.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_mark_blobs(
    datastore: *mut limestone_datastore,
    blob_ids: *const u64,
    count: usize,
) -> i32 {
    guard(|| unsafe {
        store(datastore)?.blobs().mark_persistent(handle::blob_ids(blob_ids, count)?);
        Ok(())
    })
}

/// Takes marks back: the release of their pool deletes the BLOBs.
///
/// # Safety
/// As for `limestone_datastore_mark_blobs`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_unmark_blobs(
    datastore: *mut limestone_datastore,
    blob_ids: *const u64,
    count: usize,
) -> i32 {
    guard(|| unsafe {
        store(datastore)?.blobs().unmark_persistent(handle::blob_ids(blob_ids, count)?);
        Ok(())
    })
}

/// Waits until the BLOB files that were there at the start and that no entry refers to are deleted.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_wait_for_blob_collection(datastore: *const limestone_datastore) -> i32 {
    guard(|| unsafe {
        store(datastore)?.blobs().wait_for_collection();
        Ok(())
    })
}

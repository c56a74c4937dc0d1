// SPDX-License-Identifier: Apache-2.0
//! What concerns BLOBs.

use super::datastore::limestone_datastore;
use super::handle;
use super::status::guard;
use crate::blob::{reference_tag, ReferenceKey};
use crate::types::BlobId;

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

/// The largest BLOB id that `limestone_datastore_ready` found in durable entries and the catalog; 0 before it, when there
/// is none, and for an invalid handle.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_max_blob_id(datastore: *const limestone_datastore) -> u64 {
    let mut id = 0;
    guard(|| unsafe {
        id = handle::open(datastore)?.max_blob_id().0;
        Ok(())
    });
    id
}

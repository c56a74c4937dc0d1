// SPDX-License-Identifier: Apache-2.0
//! `limestone_channel`.

use super::handle::{self, handle, Stub};
use super::status::{guard, Failure};
use crate::datastore::Channel;
use crate::types::{StorageId, WriteVersion};
use std::sync::Arc;

/// A log channel. Owned by its data store. Calls may come from any thread; one session belongs to one caller at a
/// time; different channels are independent.
#[allow(non_camel_case_types)]
#[derive(Debug)]
pub struct limestone_channel {
    stub: Stub<Arc<Channel>>,
}

handle!(limestone_channel, Channel, Arc<Channel>);

/// The channel of a handle. Only its data store ends it, and the handle outlives that, so there is nothing to lock.
#[inline]
unsafe fn channel<'a>(handle: *const limestone_channel) -> Result<&'a Channel, Failure> {
    // SAFETY: the caller's promise.
    unsafe { handle::stub(handle) }.map(|stub| &*stub.content)
}

fn version(major: u64, minor: u64) -> WriteVersion {
    WriteVersion { major, minor }
}

/// Begins a session in the current epoch and stores that epoch in `out_epoch` unless it is null.
///
/// # Safety
/// `channel` must come from `limestone_datastore_create_channel`; `out_epoch` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_channel_begin_session(channel: *mut limestone_channel, out_epoch: *mut u64) -> i32 {
    guard(|| unsafe {
        let epoch = self::channel(channel)?.begin_session()?;
        if !out_epoch.is_null() {
            *out_epoch = epoch.0;
        }
        Ok(())
    })
}

/// Ends the session: its bytes are on the disk when this returns, and count when their epoch becomes durable. May run
/// the persistent callback.
///
/// # Safety
/// `channel` must come from `limestone_datastore_create_channel`.
#[no_mangle]
pub unsafe extern "C" fn limestone_channel_end_session(channel: *mut limestone_channel) -> i32 {
    guard(|| unsafe { Ok(self::channel(channel)?.end_session()?) })
}

/// Ends the session with nothing written: no start sees it, and its epoch completes as if it had never begun. Other
/// sessions of the channel stay. What was written out of it is cut off and synced when this returns. May run the
/// persistent callback. BLOBs that it refers to stay until the next start. `LIMESTONE_ERR_WRONG_STATE` when no session
/// is open.
///
/// # Safety
/// `channel` must come from `limestone_datastore_create_channel`.
#[no_mangle]
pub unsafe extern "C" fn limestone_channel_abort_session(channel: *mut limestone_channel) -> i32 {
    guard(|| unsafe { Ok(self::channel(channel)?.abort_session()?) })
}

/// Appends an upsert to the open session. Key and value are copied; each may be empty and has at most 2^32 - 1 bytes.
///
/// # Safety
/// `channel` must come from `limestone_datastore_create_channel`; `key` and `value` must have the given lengths.
#[no_mangle]
pub unsafe extern "C" fn limestone_channel_add_entry(
    channel: *mut limestone_channel,
    storage: u64,
    key: *const u8,
    key_len: usize,
    value: *const u8,
    value_len: usize,
    major: u64,
    minor: u64,
) -> i32 {
    guard(|| unsafe {
        let key = handle::bytes(key, key_len, "the key")?;
        let value = handle::bytes(value, value_len, "the value")?;
        Ok(self::channel(channel)?.add_entry(StorageId(storage), key, value, version(major, minor), &[])?)
    })
}

/// Appends an upsert that refers to BLOBs. With no ids it is the same as `limestone_channel_add_entry`.
///
/// # Safety
/// As for `limestone_channel_add_entry`; `blob_ids` must have `blob_count` numbers.
#[no_mangle]
pub unsafe extern "C" fn limestone_channel_add_entry_with_blobs(
    channel: *mut limestone_channel,
    storage: u64,
    key: *const u8,
    key_len: usize,
    value: *const u8,
    value_len: usize,
    major: u64,
    minor: u64,
    blob_ids: *const u64,
    blob_count: usize,
) -> i32 {
    guard(|| unsafe {
        let key = handle::bytes(key, key_len, "the key")?;
        let value = handle::bytes(value, value_len, "the value")?;
        let blobs = handle::blob_ids(blob_ids, blob_count)?;
        Ok(self::channel(channel)?.add_entry(StorageId(storage), key, value, version(major, minor), blobs)?)
    })
}

/// Appends the removal of a key to the open session.
///
/// # Safety
/// `channel` must come from `limestone_datastore_create_channel`; `key` must have the given length.
#[no_mangle]
pub unsafe extern "C" fn limestone_channel_remove_entry(
    channel: *mut limestone_channel,
    storage: u64,
    key: *const u8,
    key_len: usize,
    major: u64,
    minor: u64,
) -> i32 {
    guard(|| unsafe {
        let key = handle::bytes(key, key_len, "the key")?;
        Ok(self::channel(channel)?.remove_entry(StorageId(storage), key, version(major, minor))?)
    })
}

/// Appends the creation of a storage, which recovery does not look at.
///
/// # Safety
/// `channel` must come from `limestone_datastore_create_channel`.
#[no_mangle]
pub unsafe extern "C" fn limestone_channel_add_storage(
    channel: *mut limestone_channel,
    storage: u64,
    major: u64,
    minor: u64,
) -> i32 {
    guard(|| unsafe { Ok(self::channel(channel)?.add_storage(StorageId(storage), version(major, minor))?) })
}

/// Appends the removal of a storage: hides every entry of it with an older version.
///
/// # Safety
/// `channel` must come from `limestone_datastore_create_channel`.
#[no_mangle]
pub unsafe extern "C" fn limestone_channel_remove_storage(
    channel: *mut limestone_channel,
    storage: u64,
    major: u64,
    minor: u64,
) -> i32 {
    guard(|| unsafe { Ok(self::channel(channel)?.remove_storage(StorageId(storage), version(major, minor))?) })
}

/// Appends the truncation of a storage: hides every entry of it with an older version.
///
/// # Safety
/// `channel` must come from `limestone_datastore_create_channel`.
#[no_mangle]
pub unsafe extern "C" fn limestone_channel_truncate_storage(
    channel: *mut limestone_channel,
    storage: u64,
    major: u64,
    minor: u64,
) -> i32 {
    guard(|| unsafe { Ok(self::channel(channel)?.truncate_storage(StorageId(storage), version(major, minor))?) })
}

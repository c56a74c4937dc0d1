// SPDX-License-Identifier: Apache-2.0
//! `limestone_snapshot` and `limestone_cursor`.

use super::datastore::limestone_datastore;
use super::handle::{self, closable, handle, Closable, Stub};
use super::status::guard;
use crate::recovery::{Cursor, Snapshot};
use crate::types::StorageId;

/// What a start recovered; it never changes. Owned by the caller; ended by `limestone_snapshot_destroy`. Any
/// thread. Outlives its data store.
#[allow(non_camel_case_types)]
#[derive(Debug)]
pub struct limestone_snapshot {
    stub: Stub<Closable<Snapshot>>,
}

handle!(limestone_snapshot, Snapshot, Closable<Snapshot>);

/// Walks over the entries of a snapshot. Owned by the caller; ended by `limestone_cursor_destroy`. One thread at a
/// time. Outlives its snapshot and its data store.
#[allow(non_camel_case_types)]
#[derive(Debug)]
pub struct limestone_cursor {
    stub: Stub<Closable<Cursor>>,
}

handle!(limestone_cursor, Cursor, Closable<Cursor>);

/// One entry of a cursor. The pointers are valid until the cursor is destroyed; they are never null, even
/// when a length is 0.
#[allow(non_camel_case_types)]
#[derive(Debug)]
#[repr(C)]
pub struct limestone_entry {
    pub storage: u64,
    pub key: *const u8,
    pub key_len: usize,
    pub value: *const u8,
    pub value_len: usize,
}

/// Gives a new view of what `limestone_datastore_ready` recovered. `LIMESTONE_ERR_WRONG_STATE` before that.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; `out` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_snapshot_open(
    datastore: *const limestone_datastore,
    out: *mut *mut limestone_snapshot,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out)?;
        let snapshot = handle::open(datastore)?.store().snapshot()?;
        *out = handle::create(closable(snapshot));
        Ok(())
    })
}

/// Makes a cursor before the first entry. Entries come in the order of the bytes "storage id as 8 little-endian bytes,
/// then key".
///
/// # Safety
/// `snapshot` must come from `limestone_snapshot_open`; `out` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_snapshot_cursor(
    snapshot: *const limestone_snapshot,
    out: *mut *mut limestone_cursor,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out)?;
        let cursor = handle::open(snapshot)?.cursor();
        *out = handle::create(closable(cursor));
        Ok(())
    })
}

/// Stores exactly `n` cursors in `out`: each entry is given by one of them, in order within it. Once per snapshot
/// handle; `n` must not be 0.
///
/// # Safety
/// `snapshot` must come from `limestone_snapshot_open`; `out` must have room for `n` pointers.
#[no_mangle]
pub unsafe extern "C" fn limestone_snapshot_partitioned_cursors(
    snapshot: *const limestone_snapshot,
    n: usize,
    out: *mut *mut limestone_cursor,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out)?;
        let cursors = handle::open(snapshot)?.partitioned_cursors(n)?;
        for (i, cursor) in cursors.into_iter().enumerate() {
            *out.add(i) = handle::create(closable(cursor));
        }
        Ok(())
    })
}

/// Makes a cursor over the one entry with this key, before it; over none when there is no such entry. Costs a few reads
/// for each doubling of the number of entries.
///
/// # Safety `snapshot` must come from `limestone_snapshot_open`; `key` must have `key_len` bytes; `out` must be null or
/// writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_snapshot_find(
    snapshot: *const limestone_snapshot,
    storage: u64,
    key: *const u8,
    key_len: usize,
    out: *mut *mut limestone_cursor,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out)?;
        let key = handle::bytes(key, key_len, "the key")?;
        let cursor = handle::open(snapshot)?.find(StorageId(storage), key)?;
        *out = handle::create(closable(cursor));
        Ok(())
    })
}

/// Makes a cursor over the entries of `storage` whose key is `key` or greater (`inclusive`), or greater, before the
/// first of them. They come in the order of their keys; the cursor ends with the storage. As cheap as
/// `limestone_snapshot_find`.
///
/// # Safety
/// As for `limestone_snapshot_find`.
#[no_mangle]
pub unsafe extern "C" fn limestone_snapshot_scan(
    snapshot: *const limestone_snapshot,
    storage: u64,
    key: *const u8,
    key_len: usize,
    inclusive: bool,
    out: *mut *mut limestone_cursor,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out)?;
        let key = handle::bytes(key, key_len, "the key")?;
        let cursor = handle::open(snapshot)?.scan(StorageId(storage), key, inclusive)?;
        *out = handle::create(closable(cursor));
        Ok(())
    })
}

/// Ends the snapshot handle and sets `*snapshot` to null; its cursors stay valid. A null `*snapshot` is no error.
///
/// # Safety
/// `snapshot` must be null or point to a handle or null.
#[no_mangle]
pub unsafe extern "C" fn limestone_snapshot_destroy(snapshot: *mut *mut limestone_snapshot) -> i32 {
    guard(|| unsafe { handle::close(snapshot).map(drop) })
}

/// Moves to the next entry and stores it in `out`; at the end, and ever after, `*has_entry` is false.
///
/// # Safety
/// `cursor` must come from this library; `out` and `has_entry` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_cursor_next(
    cursor: *mut limestone_cursor,
    out: *mut limestone_entry,
    has_entry: *mut bool,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out)?;
        handle::check_out(has_entry)?;
        *has_entry = false;
        let mut cursor = handle::open(cursor)?;
        if let Some(row) = cursor.next()? {
            *out = limestone_entry {
                storage: row.storage.0,
                key: row.key.as_ptr(),
                key_len: row.key.len(),
                value: row.value.as_ptr(),
                value_len: row.value.len(),
            };
            *has_entry = true;
        }
        Ok(())
    })
}

/// Ends the cursor and sets `*cursor` to null. A null `*cursor` is no error.
///
/// # Safety
/// `cursor` must be null or point to a handle or null.
#[no_mangle]
pub unsafe extern "C" fn limestone_cursor_destroy(cursor: *mut *mut limestone_cursor) -> i32 {
    guard(|| unsafe { handle::close(cursor).map(drop) })
}

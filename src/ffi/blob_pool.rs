// SPDX-License-Identifier: Apache-2.0
//! `limestone_blob_pool`.

use super::datastore::{limestone_datastore, store};
use super::handle::{self, handle, Closable, Retired, Stub};
use super::status::{guard, Failure};
use crate::blob::BlobPool;
use crate::types::BlobId;
use std::ffi::{c_char, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// The BLOBs of one transaction. Owned by the caller; ended by `limestone_blob_pool_destroy`. Registrations from any
/// thread, any number at once; the release after them. May be released and destroyed after its data store.
#[allow(non_camel_case_types)]
#[derive(Debug)]
pub struct limestone_blob_pool {
    stub: Stub<Closable<Arc<BlobPool>>>,
}

handle!(limestone_blob_pool, BlobPool, Closable<Arc<BlobPool>>);

static RETIRED: Retired = Retired::new();

/// Takes the pool out of its handle, so that registrations do not wait for each other.
unsafe fn pool(handle: *const limestone_blob_pool) -> Result<Arc<BlobPool>, Failure> {
    // SAFETY: the caller's promise.
    unsafe { handle::open(handle) }.map(|pool| pool.clone())
}

/// Makes a pool for the BLOBs of one transaction. Registrations fail before `limestone_datastore_ready`.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; `out` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_blob_pool_acquire(
    datastore: *mut limestone_datastore,
    out: *mut *mut limestone_blob_pool,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out)?;
        let pool = Arc::new(store(datastore)?.blob_pool());
        *out = RETIRED.create(pool);
        Ok(())
    })
}

/// Registers `len` bytes as a new BLOB and stores its id in `out_id`. The content is on the disk when this returns, its
/// name when a session that refers to the BLOB has ended. `LIMESTONE_ERR_IO` when the disk refuses: the data store goes
/// on. `LIMESTONE_ERR_WRONG_STATE` after the release, before `limestone_datastore_ready` and after the shutdown.
///
/// # Safety `pool` must come from `limestone_blob_pool_acquire`; `data` must have `len` bytes; `out_id` must be null or
/// writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_blob_pool_register_data(
    pool: *mut limestone_blob_pool,
    data: *const u8,
    len: usize,
    out_id: *mut u64,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out_id)?;
        let data = handle::bytes(data, len, "the data")?;
        *out_id = self::pool(pool)?.register_data(data)?.0;
        Ok(())
    })
}

/// Registers the content of a file as a new BLOB: moved when `is_temporary`, also to another file system, else copied.
/// `LIMESTONE_ERR_IO` with the error number `ENOENT` when there is no such file; otherwise as
/// `limestone_blob_pool_register_data`. After a failure the file is where it was.
///
/// # Safety
/// `pool` must come from `limestone_blob_pool_acquire`; `path` must have `path_len` bytes; `out_id` must be null or
/// writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_blob_pool_register_file(
    pool: *mut limestone_blob_pool,
    path: *const c_char,
    path_len: usize,
    is_temporary: bool,
    out_id: *mut u64,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out_id)?;
        let path = Path::new(OsStr::from_bytes(handle::bytes(path.cast::<u8>(), path_len, "the path")?));
        *out_id = self::pool(pool)?.register_file(path, is_temporary)?.0;
        Ok(())
    })
}

/// Registers a new BLOB with the content of the BLOB `reference`, without copying it. `LIMESTONE_ERR_NOT_FOUND` when
/// there is no such BLOB; otherwise as `limestone_blob_pool_register_data`.
///
/// # Safety
/// `pool` must come from `limestone_blob_pool_acquire`; `out_id` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_blob_pool_duplicate(
    pool: *mut limestone_blob_pool,
    reference: u64,
    out_id: *mut u64,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out_id)?;
        *out_id = self::pool(pool)?.duplicate(BlobId(reference))?.0;
        Ok(())
    })
}

/// Deletes the BLOBs of the pool that no entry refers to; after the shutdown of the data store that is left to the next
/// start. Nothing can be registered afterwards. Calling it again does nothing.
///
/// # Safety
/// `pool` must come from `limestone_blob_pool_acquire`.
#[no_mangle]
pub unsafe extern "C" fn limestone_blob_pool_release(pool: *mut limestone_blob_pool) -> i32 {
    guard(|| unsafe {
        self::pool(pool)?.release();
        Ok(())
    })
}

/// Ends the pool and sets `*pool` to null. Without a release the BLOBs that no entry refers to stay until the next
/// start. A null `*pool` is no error. Handles of pools, unlike others, are used again long after they were destroyed.
///
/// # Safety
/// `pool` must be null or point to a handle or null.
#[no_mangle]
pub unsafe extern "C" fn limestone_blob_pool_destroy(pool: *mut *mut limestone_blob_pool) -> i32 {
    guard(|| unsafe {
        let handle = if pool.is_null() { std::ptr::null_mut() } else { *pool };
        if handle::close(pool)?.is_some() {
            RETIRED.add(handle);
        }
        Ok(())
    })
}

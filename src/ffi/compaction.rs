// SPDX-License-Identifier: Apache-2.0
//! Online compaction.

use super::datastore::{limestone_datastore, store};
use super::status::guard;
use crate::types::WriteVersion;

/// Merges all log files but those that are being written into the compacted file and lists them in the catalog as
/// detached; they may then be deleted. Sessions go on meanwhile. Waits until everything up to the current epoch is
/// durable, which needs a switch of epochs unless it is already; a shutdown ends the wait. A second call waits for the
/// first. While a backup is open the compaction is postponed, and what a replica lacks after some seconds stays in the
/// log; this returns, and a thread of the data store does it as soon as it can. An error loses nothing, and the data
/// store works on unless writing the log has failed.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_compact(datastore: *mut limestone_datastore) -> i32 {
    guard(|| unsafe { Ok(store(datastore)?.compact().map(drop)?) })
}

/// Declares that nobody reads versions below (`major`, `minor`) any more, but for the newest of a key: an online
/// compaction then deletes BLOBs that only older ones refer to. It does so when `major` lies above the epoch of the
/// compaction before. Cheap; any thread. `LIMESTONE_ERR_INVALID_ARGUMENT` for a version below the current one, which
/// stays.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_switch_available_boundary_version(
    datastore: *mut limestone_datastore,
    major: u64,
    minor: u64,
) -> i32 {
    guard(|| unsafe { Ok(store(datastore)?.switch_available_boundary_version(WriteVersion { major, minor })?) })
}

// SPDX-License-Identifier: Apache-2.0
//! Restoring a backup into a `limestone_datastore` that is not ready yet.

use super::datastore::{limestone_datastore, store};
use super::handle;
use super::status::{guard, Failure};
use crate::backup::FileToRestore;
use std::ffi::{c_char, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// One file to restore. The paths need not be terminated by a zero.
#[allow(non_camel_case_types)]
#[derive(Debug)]
#[repr(C)]
pub struct limestone_file_to_restore {
    /// Absolute, or below the directory of the backup.
    pub source: *const c_char,
    pub source_len: usize,
    /// The name that the file gets in the data directory; ignored for a source that is named like a BLOB.
    pub destination: *const c_char,
    pub destination_len: usize,
}

/// How far a restore has come.
#[allow(non_camel_case_types)]
#[derive(Debug)]
#[repr(C)]
pub struct limestone_restore_progress {
    /// 0: none was begun, or the backup is being checked and copied; 1: the content is being replaced; 2: done; -1:
    /// failed after the old content was given up, the next start completes it; -2: given up, nothing was changed.
    pub phase: i32,
    /// Files that were copied, of so many.
    pub files_done: u64,
    pub files_total: u64,
    pub bytes_done: u64,
}

unsafe fn path(data: *const c_char, len: usize, what: &str) -> Result<PathBuf, Failure> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { handle::bytes(data.cast::<u8>(), len, what) }?;
    if bytes.contains(&0) {
        return Err(Failure::argument(&format!("{what} contains a zero byte")));
    }
    Ok(PathBuf::from(OsStr::from_bytes(bytes)))
}

/// Replaces the content of the data directory by the files that lie directly in the directory `from`, between
/// `limestone_datastore_open` and `limestone_datastore_ready`. All is checked before anything is changed; a crash
/// leaves the old content, or the next start completes the restore. `LIMESTONE_ERR_UNSUPPORTED_VERSION` and
/// `LIMESTONE_ERR_BROKEN_METADATA` mean that `from` holds no usable backup.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; `from` must have `from_len` bytes.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_restore(
    datastore: *mut limestone_datastore,
    from: *const c_char,
    from_len: usize,
    keep_backup: bool,
) -> i32 {
    guard(|| unsafe {
        let from = path(from, from_len, "the directory of the backup")?;
        Ok(store(datastore)?.restore(&from, keep_backup)?)
    })
}

/// As `limestone_datastore_restore`, with an explicit list of files, which stay. `LIMESTONE_ERR_NOT_FOUND` means that a
/// source does not exist or is no regular file.
///
/// # Safety
/// As for `limestone_datastore_restore`; `files` must have `count` elements, each with paths of the lengths it names.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_restore_files(
    datastore: *mut limestone_datastore,
    from: *const c_char,
    from_len: usize,
    files: *const limestone_file_to_restore,
    count: usize,
) -> i32 {
    guard(|| unsafe {
        let from = path(from, from_len, "the directory of the backup")?;
        let given: &[limestone_file_to_restore] = handle::bytes(files, count, "the list of files")?;
        let file = |file: &limestone_file_to_restore| -> Result<FileToRestore, Failure> {
            Ok(FileToRestore {
                source: path(file.source, file.source_len, "the source of a file")?,
                destination: path(file.destination, file.destination_len, "the destination of a file")?,
            })
        };
        let files = given.iter().map(file).collect::<Result<Vec<_>, _>>()?;
        Ok(store(datastore)?.restore_files(&from, &files)?)
    })
}

/// How far the last restore of this data store has come; may be called while it runs.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; `out` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_restore_progress(
    datastore: *const limestone_datastore,
    out: *mut limestone_restore_progress,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out)?;
        let progress = store(datastore)?.restore_progress();
        *out = limestone_restore_progress {
            phase: progress.phase as i32,
            files_done: progress.files_done,
            files_total: progress.files_total,
            bytes_done: progress.bytes_done,
        };
        Ok(())
    })
}

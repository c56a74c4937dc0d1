// SPDX-License-Identifier: Apache-2.0
//! `limestone_backup`.

use super::datastore::{limestone_datastore, store};
use super::handle::{self, closable, handle, Closable, Stub};
use super::status::{guard, Failure};
use crate::datastore::Backup;
use std::ffi::c_char;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// An open backup: while it is open, nothing that it lists is deleted or replaced. Owned by the caller; ended by
/// `limestone_backup_end`, also after its data store. Any thread.
#[allow(non_camel_case_types)]
#[derive(Debug)]
pub struct limestone_backup {
    stub: Stub<Closable<Backup>>,
}

handle!(limestone_backup, Backup, Closable<Backup>);

/// One file of a backup. The paths are not terminated by a zero and valid until the backup is ended.
#[allow(non_camel_case_types)]
#[derive(Debug)]
#[repr(C)]
pub struct limestone_backup_file {
    /// Where the file is: below the data directory as it was set.
    pub source: *const c_char,
    pub source_len: usize,
    /// Its name in the backup, which has no directories.
    pub destination: *const c_char,
    pub destination_len: usize,
    /// Whether it may change while it is copied.
    pub is_mutable: bool,
    /// Whether a restore can do without it.
    pub is_detached: bool,
}

/// Begins a plain backup: every file that is there, live log files included. For a data store that nobody writes to;
/// see `limestone_datastore_begin_detailed_backup` otherwise, which must not be called before this backup has ended.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; `out` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_begin_backup(
    datastore: *mut limestone_datastore,
    out: *mut *mut limestone_backup,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out)?;
        let backup = store(datastore)?.begin_backup()?;
        *out = handle::create(closable(backup));
        Ok(())
    })
}

/// Begins a detailed backup: files that nobody changes any more, beside running writers. Waits until the current epoch
/// is durable, at most `patience_ms`; what has been acknowledged is in the backup in any case.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`; `out` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_begin_detailed_backup(
    datastore: *mut limestone_datastore,
    patience_ms: u64,
    out: *mut *mut limestone_backup,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out)?;
        let backup = store(datastore)?.begin_detailed_backup(Duration::from_millis(patience_ms))?;
        *out = handle::create(closable(backup));
        Ok(())
    })
}

/// The number of files of a backup; 0 for an invalid handle.
///
/// # Safety
/// `backup` must come from one of the functions that begin a backup.
#[no_mangle]
pub unsafe extern "C" fn limestone_backup_file_count(backup: *const limestone_backup) -> usize {
    let mut count = 0;
    guard(|| unsafe {
        count = handle::open(backup)?.files().len();
        Ok(())
    });
    count
}

fn text(path: &Path) -> (*const c_char, usize) {
    let bytes = path.as_os_str().as_bytes();
    (bytes.as_ptr().cast(), bytes.len())
}

/// Describes the file number `index`, counted from 0.
///
/// # Safety
/// `backup` must come from one of the functions that begin a backup; `out` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_backup_get_file(
    backup: *const limestone_backup,
    index: usize,
    out: *mut limestone_backup_file,
) -> i32 {
    guard(|| unsafe {
        handle::check_out(out)?;
        let backup = handle::open(backup)?;
        let files = backup.files();
        let file = files.get(index).ok_or_else(|| {
            Failure::argument(&format!("the backup has {} files, there is no number {index}", files.len()))
        })?;
        let (source, source_len) = text(&file.source);
        let (destination, destination_len) = text(&file.destination);
        let (is_mutable, is_detached) = (file.is_mutable, file.is_detached);
        *out = limestone_backup_file { source, source_len, destination, destination_len, is_mutable, is_detached };
        Ok(())
    })
}

/// The epoch up to which a detailed backup holds everything, and beyond which nothing of it counts. 0 for an invalid
/// handle.
///
/// # Safety
/// `backup` must come from one of the functions that begin a backup.
#[no_mangle]
pub unsafe extern "C" fn limestone_backup_log_finish(backup: *const limestone_backup) -> u64 {
    let mut epoch = 0;
    guard(|| unsafe {
        epoch = handle::open(backup)?.log_finish().0;
        Ok(())
    });
    epoch
}

/// Ends the backup and sets `*backup` to null. A null `*backup` is no error.
///
/// # Safety
/// `backup` must be null or point to a handle or null.
#[no_mangle]
pub unsafe extern "C" fn limestone_backup_end(backup: *mut *mut limestone_backup) -> i32 {
    guard(|| unsafe { handle::close(backup).map(drop) })
}

/// Puts the epoch records aside under a rotated name and begins a new epoch file with the last one.
///
/// # Safety
/// `datastore` must come from `limestone_datastore_open`.
#[no_mangle]
pub unsafe extern "C" fn limestone_datastore_rotate_epoch_file(datastore: *mut limestone_datastore) -> i32 {
    guard(|| unsafe { Ok(store(datastore)?.rotate_epoch_file().map(drop)?) })
}

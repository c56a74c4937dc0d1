// SPDX-License-Identifier: Apache-2.0
//! `limestone_settings`.

use super::handle::{self, closable, handle, Closable, Stub};
use super::status::{guard, Failure};
use crate::error::Error;
use crate::replication::settings::ReplicationSettings;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What is set before a data store is opened.
#[derive(Clone, Debug, Default)]
pub struct SettingsContent {
    pub(super) location: Option<PathBuf>,
    pub(super) recovery_threads: usize,
    pub(super) recovery_memory_bytes: u64,
    pub(super) instance_id: String,
    pub(super) db_name: String,
    pub(super) replication: Option<ReplicationSettings>,
}

/// How to open a data store. Owned by the caller; ended by `limestone_settings_destroy`. One thread at a time.
#[allow(non_camel_case_types)]
#[derive(Debug)]
pub struct limestone_settings {
    stub: Stub<Closable<SettingsContent>>,
}

handle!(limestone_settings, Settings, Closable<SettingsContent>);

/// Makes settings with the defaults.
///
/// # Safety
/// `out` must be null or writable.
#[no_mangle]
pub unsafe extern "C" fn limestone_settings_create(out: *mut *mut limestone_settings) -> i32 {
    guard(|| unsafe {
        // SAFETY (here and below): the caller's promise above.
        handle::check_out(out)?;
        *out = handle::create(closable(SettingsContent::default()));
        Ok(())
    })
}

/// Sets the data directory, `path_len` bytes. Its parent must exist. There is no default.
///
/// # Safety
/// `settings` must come from `limestone_settings_create`; `path` must have `path_len` bytes.
#[no_mangle]
pub unsafe extern "C" fn limestone_settings_set_location(
    settings: *mut limestone_settings,
    path: *const std::ffi::c_char,
    path_len: usize,
) -> i32 {
    guard(|| unsafe {
        let mut settings = handle::open(settings)?;
        let path = handle::bytes(path.cast::<u8>(), path_len, "the path")?;
        if path.is_empty() || path.contains(&0) {
            return Err(Failure::argument("the path of the data directory is empty or contains a zero byte"));
        }
        settings.location = Some(PathBuf::from(OsStr::from_bytes(path)));
        Ok(())
    })
}

/// Sets the number of threads that read the log at a start; 0 or less means the default, 8. No more are used than
/// there are processors.
///
/// # Safety
/// `settings` must come from `limestone_settings_create`.
#[no_mangle]
pub unsafe extern "C" fn limestone_settings_set_recovery_threads(
    settings: *mut limestone_settings,
    threads: i32,
) -> i32 {
    guard(|| unsafe {
        handle::open(settings)?.recovery_threads = usize::try_from(threads).unwrap_or(0);
        Ok(())
    })
}

/// Sets the memory in bytes that the index of a recovery may take; 0 means the default: the environment variable
/// `LIMESTONE_RECOVERY_MEMORY_MIB` (in MiB), else 1 GiB.
///
/// # Safety
/// `settings` must come from `limestone_settings_create`.
#[no_mangle]
pub unsafe extern "C" fn limestone_settings_set_recovery_memory(settings: *mut limestone_settings, bytes: u64) -> i32 {
    guard(|| unsafe {
        handle::open(settings)?.recovery_memory_bytes = bytes;
        Ok(())
    })
}

/// Text that the caller passed; what is not UTF-8 is replaced.
///
/// # Safety
/// `data` points to `len` readable bytes, or `len` is 0.
unsafe fn text(data: *const std::ffi::c_char, len: usize, what: &str) -> Result<String, Failure> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { handle::bytes(data.cast::<u8>(), len, what) }?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Sets the instance id that events carry, `len` bytes. The default is empty.
///
/// # Safety
/// `settings` must come from `limestone_settings_create`; `instance_id` must have `len` bytes.
#[no_mangle]
pub unsafe extern "C" fn limestone_settings_set_instance_id(
    settings: *mut limestone_settings,
    instance_id: *const std::ffi::c_char,
    len: usize,
) -> i32 {
    guard(|| unsafe {
        let mut settings = handle::open(settings)?;
        settings.instance_id = text(instance_id, len, "the instance id")?;
        Ok(())
    })
}

/// Sets the name of the database that events carry, `len` bytes. The default is empty.
///
/// # Safety
/// `settings` must come from `limestone_settings_create`; `db_name` must have `len` bytes.
#[no_mangle]
pub unsafe extern "C" fn limestone_settings_set_db_name(
    settings: *mut limestone_settings,
    db_name: *const std::ffi::c_char,
    len: usize,
) -> i32 {
    guard(|| unsafe {
        let mut settings = handle::open(settings)?;
        settings.db_name = text(db_name, len, "the name of the database")?;
        Ok(())
    })
}

/// Takes the settings of replication from the environment variables `TSURUGI_REPLICATION_*`; without
/// `TSURUGI_REPLICATION_ENDPOINT` there is none. `LIMESTONE_ERR_INVALID_ARGUMENT` names a variable that is not
/// understood. Without this call nothing is replicated, whatever the environment says.
///
/// # Safety
/// `settings` must come from `limestone_settings_create`.
#[no_mangle]
pub unsafe extern "C" fn limestone_settings_set_replication_from_environment(settings: *mut limestone_settings) -> i32 {
    guard(|| unsafe {
        let mut settings = handle::open(settings)?;
        let replication = ReplicationSettings::from_environment().map_err(|e| Error::InvalidArgument(e.to_string()))?;
        settings.replication = replication;
        Ok(())
    })
}

/// Ends the settings and sets `*settings` to null. A null `*settings` is no error.
///
/// # Safety
/// `settings` must be null or point to a handle or null.
#[no_mangle]
pub unsafe extern "C" fn limestone_settings_destroy(settings: *mut *mut limestone_settings) -> i32 {
    guard(|| unsafe { handle::close(settings).map(drop) })
}

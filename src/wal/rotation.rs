// SPDX-License-Identifier: Apache-2.0
//! Names for log files that are put aside: `<name>.<ms>.<k>`, never one that exists (W16) or that was used before. A
//! file that was compacted and deleted may still be listed as detached: another file of its name would not be read.

use crate::error::{Error, Result};
use crate::vfs::{crashsafe, FileKind, Open, Vfs};
use crate::wal::catalog::Catalog;
use crate::wal::names;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The largest time that stands in a name which this process has given or found in a catalog.
static LAST_MS: AtomicU64 = AtomicU64::new(0);

/// Lets no later name be one that the catalog lists, wherever the clock is set to.
pub(crate) fn avoid_detached(catalog: &Catalog) {
    let times = catalog.detached.iter().filter_map(|name| name.split('.').nth(1)?.parse().ok());
    if let Some(last) = times.max() {
        LAST_MS.fetch_max(last, SeqCst);
    }
}

/// The present time in milliseconds, or a little more: every call gives another one.
fn unused_ms() -> u128 {
    let now = u64::try_from(names::unix_ms()).unwrap_or(u64::MAX);
    let next = |last: u64| now.max(last.saturating_add(1));
    let last = LAST_MS.fetch_update(SeqCst, SeqCst, |last| Some(next(last))).unwrap_or_default();
    next(last).into()
}

/// Gives the file a rotated name, durably; returns where it is then.
pub(crate) fn rename_to_rotated(vfs: &dyn Vfs, path: &Path) -> Result<PathBuf> {
    let failed = |e| Error::io("cannot rotate", path, e);
    let directory = crashsafe::parent(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let now = unused_ms();
    for k in 0..=u32::MAX {
        let target = directory.join(names::rotated(&name, now, k));
        if vfs.kind(&target).map_err(failed)?.is_none() {
            return crashsafe::rename(vfs, path, &target).map_err(failed).map(|()| target);
        }
    }
    Err(failed(std::io::ErrorKind::AlreadyExists.into()))
}

/// Rotates a file that no session is writing to, if there is anything in it; returns where it is then.
pub(crate) fn rotate_file(vfs: &dyn Vfs, path: &Path) -> Result<Option<PathBuf>> {
    let failed = |e| Error::io("cannot rotate", path, e);
    if vfs.kind(path).map_err(failed)? != Some(FileKind::File) {
        return Ok(None);
    }
    let len = vfs.open(path, Open::Read).and_then(|file| file.len()).map_err(failed)?;
    match len {
        0 => Ok(None),
        _ => rename_to_rotated(vfs, path).map(Some),
    }
}

/// Rotates every log file under an active name that `wanted` picks and no session is writing to; returns their names
/// before and after.
pub(crate) fn rotate_idle(
    vfs: &dyn Vfs,
    location: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(String, String)>> {
    let mut renamed = Vec::new();
    let listing = vfs.list(location).map_err(|e| Error::io("cannot list", location, e))?;
    for entry in listing.iter().filter(|entry| entry.kind == FileKind::File && entry.len > 0) {
        match entry.name.to_str() {
            Some(name) if names::is_active_log(name) && wanted(name) => {
                let path = location.join(name);
                // A start syncs files under active names only, and a process that was killed may have left this one's
                // end in the cache of the system.
                let sync = || vfs.open(&path, Open::Read)?.sync();
                sync().map_err(|e| Error::io("cannot sync", &path, e))?;
                let target = rename_to_rotated(vfs, &path)?;
                let target = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
                renamed.push((name.to_owned(), target));
            }
            _ => {}
        }
    }
    Ok(renamed)
}

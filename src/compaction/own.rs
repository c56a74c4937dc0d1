// SPDX-License-Identifier: Apache-2.0
//! Log files that a compaction takes out of the log and deletes itself, because nobody asked for it. Their names are
//! written down before the catalog lists them, so that a start after a crash deletes what is left of them, and never
//! files that somebody's own compaction has detached and that he may want to keep.

use crate::error::{Error, Result};
use crate::vfs::{crashsafe, Vfs};
use crate::wal::catalog::Catalog;
use crate::wal::names;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Names of rotated logs are short and few.
const MAX_BYTES: u64 = 16 << 20;

fn path(location: &Path) -> PathBuf {
    location.join(names::CONTROL_DIR).join(names::OWN_DETACHED)
}

/// Writes down, durably, that these files are to be deleted when the catalog lists them as detached.
pub fn intend(vfs: &dyn Vfs, location: &Path, logs: &[String]) -> Result<()> {
    let path = path(location);
    let temporary = path.with_file_name(names::OWN_DETACHED_TEMPORARY);
    let mut lines = logs.join("\n");
    lines.push('\n');
    crashsafe::replace(vfs, &temporary, &path, lines.as_bytes()).map_err(|e| Error::io("cannot write", &path, e))
}

/// Deletes those that were written down and that the catalog, as it is on the disk, lists as detached; returns how
/// many. Nobody may be about to copy the directory. After a failure it can be called again.
pub fn delete(vfs: &dyn Vfs, location: &Path, catalog: &Catalog) -> Result<usize> {
    let path = path(location);
    let lines = match vfs.read(&path, MAX_BYTES) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
        other => other.map_err(|e| Error::io("cannot read", &path, e))?,
    };
    let lines = String::from_utf8_lossy(&lines);
    let written: BTreeSet<&str> = lines.lines().collect();
    let mut deleted = 0;
    for name in catalog.detached.iter().filter(|name| written.contains(name.as_str())) {
        let log = location.join(name);
        match vfs.unlink(&log) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            other => {
                other.map_err(|e| Error::io("cannot delete", &log, e))?;
                deleted += 1;
            }
        }
    }
    vfs.sync_dir(location).map_err(|e| Error::io("cannot sync the directory", location, e))?;
    crashsafe::unlink(vfs, &path).map_err(|e| Error::io("cannot delete", &path, e))?;
    Ok(deleted)
}

/// At a start: [`delete`] for a compaction that was broken off. What cannot be deleted now is so later.
pub(crate) fn delete_left(vfs: &dyn Vfs, location: &Path, catalog: &Catalog) {
    if let Err(e) = delete(vfs, location, catalog) {
        log::error!("log files that are compacted were not deleted: {e}");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Which files a backup consists of (disk format §9).

use crate::blob::paths;
use crate::error::{Error, Result};
use crate::types::{BlobId, Epoch};
use crate::vfs::{FileKind, Vfs};
use crate::wal::{epoch_file, names};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// An epoch file holds at most this many bytes of records when it is rotated; a longer one is not ours.
const EPOCH_FILE_BYTES_MAX: u64 = 64 << 20;

/// One file to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFile {
    /// Where it is: below the location as configured.
    pub source: PathBuf,
    /// Where it belongs inside the backup, which has no directories.
    pub destination: PathBuf,
    /// Whether it may change while it is copied.
    pub is_mutable: bool,
    /// Whether a restore can do without it; never so far.
    pub is_detached: bool,
}

fn file(source: PathBuf) -> BackupFile {
    let destination = PathBuf::from(source.file_name().unwrap_or_default());
    let is_mutable = [names::MANIFEST, names::TAGS, names::HISTORY].iter().any(|name| destination == OsStr::new(name));
    BackupFile { source, destination, is_mutable, is_detached: false }
}

/// The files directly in the directory that `wanted` picks, by name.
fn pick(vfs: &dyn Vfs, location: &Path, wanted: impl Fn(&OsStr) -> Result<bool>) -> Result<Vec<PathBuf>> {
    let mut picked = Vec::new();
    for (name, kind) in vfs.names(location).map_err(|e| Error::io("cannot list", location, e))? {
        if kind == FileKind::File && wanted(&name)? {
            picked.push(location.join(name));
        }
    }
    picked.sort();
    Ok(picked)
}

/// Forms that exist for a moment can vanish before they are copied, and checksums and marks speak of files of this
/// directory.
const NEVER_NEEDED: [&str; 8] = [
    names::EPOCH_TEMPORARY,
    names::CATALOG_TEMPORARY,
    names::TAGS_TEMPORARY,
    names::HISTORY_TEMPORARY,
    names::CHECKSUMS_TEMPORARY,
    names::CHECKSUMS,
    names::MARKS_TEMPORARY,
    names::MARKS,
];

/// The files of a plain backup, by path: all that exists directly in the directory, live log files included, and the
/// BLOBs (§9.1), but for those that `incomplete` says are not whole.
pub fn all_files(vfs: &dyn Vfs, location: &Path, incomplete: impl Fn(BlobId) -> bool) -> Result<Vec<BackupFile>> {
    let mut files = pick(vfs, location, |name| Ok(NEVER_NEEDED.iter().all(|other| name != *other)))?;
    files.extend(blob_files(vfs, location, incomplete)?);
    files.sort();
    Ok(files.into_iter().map(file).collect())
}

/// The files of a detailed backup: by name those that nobody changes any more, then the BLOBs (§9.2). `durable` is the
/// largest epoch that a rotated epoch file of this backup may hold; `incomplete` says which BLOBs are not whole.
pub fn settled_files(
    vfs: &dyn Vfs,
    location: &Path,
    durable: Epoch,
    incomplete: impl Fn(BlobId) -> bool,
) -> Result<Vec<BackupFile>> {
    let compacted = location.join(names::COMPACTED);
    let compacted = vfs.kind(&compacted).map_err(|e| Error::io("cannot look at", &compacted, e))?.is_some();
    let mut files = pick(vfs, location, |name| match name.to_str() {
        Some(names::MANIFEST | names::CATALOG | names::COMPACTED | names::TAGS | names::HISTORY) => Ok(true),
        // Beside the new one it is stale, and the original would take it for a log (W15).
        Some(names::COMPACTED_PREVIOUS) => Ok(!compacted),
        Some(name) if names::is_rotated_epoch(name) => counts_up_to(vfs, &location.join(name), durable),
        Some(name) => Ok(names::is_log(name) && !names::is_active_log(name)),
        None => Ok(false),
    })?;
    files.extend(blob_files(vfs, location, incomplete)?);
    Ok(files.into_iter().map(file).collect())
}

/// Whether a rotated epoch file is whole and holds nothing beyond `durable`.
fn counts_up_to(vfs: &dyn Vfs, path: &Path, durable: Epoch) -> Result<bool> {
    let bytes = vfs.read(path, EPOCH_FILE_BYTES_MAX).map_err(|e| Error::io("cannot read", path, e))?;
    Ok(epoch_file::parse(&bytes, path)
        .is_ok_and(|records| records.torn_at.is_none() && records.max.is_some_and(|max| max <= durable)))
}

/// The BLOB files at their places, whether an entry refers to them or not, but for those that are not whole.
fn blob_files(vfs: &dyn Vfs, location: &Path, incomplete: impl Fn(BlobId) -> bool) -> Result<Vec<PathBuf>> {
    let root = location.join(names::BLOB_DIR);
    let mut ids = Vec::new();
    paths::visit(vfs, &root, |id| ids.push(id)).map_err(|e| Error::io("cannot list the BLOB files in", &root, e))?;
    ids.sort_unstable();
    ids.dedup();
    let mut files = Vec::new();
    for id in ids.into_iter().filter(|id| !incomplete(*id)) {
        let path = paths::file(&root, id);
        // One that lies elsewhere below `blob/` is no BLOB for anybody.
        if vfs.kind(&path).map_err(|e| Error::io("cannot look at", &path, e))? == Some(FileKind::File) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

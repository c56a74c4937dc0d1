// SPDX-License-Identifier: Apache-2.0
//! Replaces the content of a data directory as a whole. The new files are first copied to `restoring/files/` and
//! synced, while the old content is untouched. Then a mark decides; what is left is done by this process or by the next
//! start:
//!
//! | what lies in `restoring/` | a start |
//! |---|---|
//! | no mark | deletes it: the old content counts |
//! | `purging` | deletes the old files, then goes on as below |
//! | `moving` | moves the new files to their places, puts the manifest in force, takes the mark away |
//!
//! From the mark on, the manifest carries version 0, so that a program that knows nothing of this refuses the
//! directory. It is overwritten in place all the time, never replaced by another inode, because the lock is on the
//! inode.

use crate::blob::paths;
use crate::error::{Error, Result};
use crate::types::BlobId;
use crate::vfs::{crashsafe, FileKind, Open, Vfs, VfsFile};
use crate::wal::{manifest, names};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

const FILES: &str = "files";
const PURGING: &str = "purging";
const MOVING: &str = "moving";
/// Bytes that are copied at a time.
const COPY_BYTES: usize = 256 << 10;

/// What stands in the manifest while the content is being replaced. The original and this project refuse version 0.
const HELD: &[u8] =
    b"{\"format_version\":\"1.1\",\"instance_uuid\":\"\",\"interrupted_restore\":\"start the server once \
to complete it, or restore again\",\"persistent_format_version\":0}";

/// New content that is being put together.
#[derive(Debug)]
pub struct Staging<'a> {
    vfs: &'a dyn Vfs,
    location: &'a Path,
}

impl<'a> Staging<'a> {
    /// Begins with nothing; what an earlier one left is deleted. The caller holds the lock of the directory and has
    /// called [`resume`].
    pub fn create(vfs: &'a dyn Vfs, location: &'a Path) -> Result<Staging<'a>> {
        let create = || {
            vfs.remove_dir_all(&location.join(names::RESTORE_DIR))?;
            crashsafe::create_dir(vfs, &location.join(names::RESTORE_DIR))?;
            crashsafe::create_dir(vfs, &location.join(names::RESTORE_DIR).join(FILES))
        };
        create().map_err(|e| Error::io("cannot prepare the directory", &location.join(names::RESTORE_DIR), e))?;
        Ok(Staging { vfs, location })
    }

    /// Where a new file is written that shall have this name: a BLOB's own, any other one directly in the directory.
    pub fn path(&self, name: &OsStr) -> PathBuf {
        self.location.join(names::RESTORE_DIR).join(FILES).join(name)
    }

    /// Copies a file and syncs the copy; returns the number of bytes. A name that was used before gets the new content.
    pub fn copy(&self, source: &Path, name: &OsStr) -> Result<u64> {
        let target = self.path(name);
        copy(self.vfs, source, &target)
    }

    /// Gives up; the old content stays.
    pub fn discard(self) {
        if let Err(e) = discard(self.vfs, self.location) {
            log::warn!("{e}; the next start deletes it");
        }
    }

    /// Makes the new content durable under `restoring/` and decides for it. When this returns an error, it may be
    /// decided all the same: [`is_decided`] tells.
    pub fn decide(&self) -> Result<()> {
        let dir = self.location.join(names::RESTORE_DIR);
        let decide = || {
            self.vfs.sync_dir(&dir.join(FILES))?;
            self.vfs.sync_dir(&dir)?;
            self.vfs.sync_dir(self.location)?;
            self.vfs.open(&dir.join(PURGING), Open::New)?;
            self.vfs.sync_dir(&dir)
        };
        decide().map_err(|e| Error::io("cannot decide for the new content in", &dir, e))
    }
}

/// Copies a file and syncs the copy's content.
pub(crate) fn copy(vfs: &dyn Vfs, source: &Path, target: &Path) -> Result<u64> {
    let from = vfs.open(source, Open::Read).map_err(|e| Error::io("cannot open", source, e))?;
    let to = vfs.open(target, Open::Truncate).map_err(|e| Error::io("cannot create", target, e))?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    loop {
        let got = from.read_at(offset, &mut buffer).map_err(|e| Error::io("cannot read", source, e))?;
        if got > 0 {
            to.write_at(offset, &buffer[..got]).map_err(|e| Error::io("cannot write", target, e))?;
        }
        offset += got as u64;
        if got < buffer.len() {
            to.sync().map_err(|e| Error::io("cannot sync", target, e))?;
            return Ok(offset);
        }
    }
}

fn has(vfs: &dyn Vfs, location: &Path, name: &str) -> Result<bool> {
    let path = location.join(names::RESTORE_DIR).join(name);
    Ok(vfs.kind(&path).map_err(|e| Error::io("cannot look at", &path, e))?.is_some())
}

/// Whether the old content of the directory has been given up for one in `restoring/` that is not in place yet.
pub fn is_decided(vfs: &dyn Vfs, location: &Path) -> Result<bool> {
    Ok(has(vfs, location, PURGING)? || has(vfs, location, MOVING)?)
}

/// Deletes what a replacement left that was not decided.
fn discard(vfs: &dyn Vfs, location: &Path) -> Result<()> {
    let dir = location.join(names::RESTORE_DIR);
    vfs.remove_dir_all(&dir).map_err(|e| Error::io("cannot delete", &dir, e))
}

/// Completes a replacement that was decided, or deletes what is left of one that was not; returns whether one was
/// completed. May be interrupted and called again. `held_manifest` is the manifest that the caller has locked.
pub fn resume(vfs: &dyn Vfs, location: &Path, held_manifest: &dyn VfsFile) -> Result<bool> {
    let dir = location.join(names::RESTORE_DIR);
    if vfs.kind(&dir).map_err(|e| Error::io("cannot look at", &dir, e))?.is_none() {
        return Ok(false);
    }
    if !is_decided(vfs, location)? {
        discard(vfs, location)?;
        return Ok(false);
    }
    let failed =
        |e| Error::io("the content of the directory is being replaced, which is not finished: start again", &dir, e);
    // What is seen here may be in the cache of the system only.
    vfs.sync_dir(&dir).map_err(failed)?;
    if has(vfs, location, PURGING)? {
        purge(vfs, location, held_manifest).map_err(failed)?;
        crashsafe::rename(vfs, &dir.join(PURGING), &dir.join(MOVING)).map_err(failed)?;
    }
    move_in(vfs, location).map_err(failed)?;
    let new = vfs.read(&dir.join(FILES).join(names::MANIFEST), manifest::MAX_BYTES).map_err(failed)?;
    overwrite(held_manifest, &new).map_err(failed)?;
    crashsafe::unlink(vfs, &dir.join(MOVING)).map_err(failed)?;
    if let Err(e) = discard(vfs, location) {
        log::warn!("{e}; the next start deletes it");
    }
    Ok(true)
}

fn overwrite(file: &dyn VfsFile, bytes: &[u8]) -> io::Result<()> {
    file.write_at(0, bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync()
}

/// Deletes all that is not a directory, after the manifest has been made one that nobody opens.
fn purge(vfs: &dyn Vfs, location: &Path, held_manifest: &dyn VfsFile) -> io::Result<()> {
    overwrite(held_manifest, HELD)?;
    for (name, kind) in vfs.names(location)? {
        if kind != FileKind::Directory && name != names::MANIFEST {
            vfs.unlink(&location.join(name))?;
        }
    }
    vfs.sync_dir(location)
}

/// Moves the new files to their places; those that are not in `files/` any more are there already.
fn move_in(vfs: &dyn Vfs, location: &Path) -> io::Result<()> {
    let files = location.join(names::RESTORE_DIR).join(FILES);
    let root = location.join(names::BLOB_DIR);
    let waiting = vfs.names(&files)?;
    make_directories(vfs, location, waiting.iter().filter_map(|(name, _)| paths::id_of(name)))?;
    for (name, _) in waiting {
        let from = files.join(&name);
        match paths::id_of(&name) {
            Some(id) => move_file(vfs, &from, &paths::file(&root, id))?,
            None if name == names::MANIFEST => {}
            None => vfs.rename(&from, &location.join(&name))?,
        }
    }
    // Also of an earlier attempt, whose names may be in the cache only.
    if vfs.kind(&root)? == Some(FileKind::Directory) {
        for (name, kind) in vfs.names(&root)? {
            if kind == FileKind::Directory {
                vfs.sync_dir(&root.join(name))?;
            }
        }
        vfs.sync_dir(&root)?;
    }
    vfs.sync_dir(location)?;
    vfs.sync_dir(&files)
}

/// Makes the directories of BLOBs that are missing. The names of all are durable before anything is moved into them: an
/// earlier attempt may have left them in the cache only.
fn make_directories(vfs: &dyn Vfs, location: &Path, ids: impl Iterator<Item = BlobId>) -> io::Result<()> {
    let root = location.join(names::BLOB_DIR);
    let mut wanted: BTreeSet<PathBuf> = ids.map(|id| paths::directory(&root, id)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    wanted.insert(root.clone());
    for dir in wanted {
        if vfs.kind(&dir)?.is_none() {
            vfs.create_dir(&dir)?;
        }
    }
    vfs.sync_dir(location)?;
    vfs.sync_dir(&root)
}

/// Moves a file; the BLOBs may be on another file system.
fn move_file(vfs: &dyn Vfs, from: &Path, to: &Path) -> io::Result<()> {
    match vfs.rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
            copy(vfs, from, to).map_err(io::Error::other)?;
            vfs.sync_dir(crashsafe::parent(to))?;
            vfs.unlink(from)
        }
        other => other,
    }
}

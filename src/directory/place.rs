// SPDX-License-Identifier: Apache-2.0
//! Where a data directory is. It is opened once; whatever happens to its name or to the working directory of the
//! process later, everything in it is found through that one descriptor.

use crate::error::{Error, Result};
use crate::vfs::{crashsafe, FileKind, FileLock, Lock, LockError, Open, Vfs, VfsFile};
use crate::wal::names;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The disk with the directory `location` opened once, and the absolute path under which it is known there from now on.
///
/// # Errors
/// [`Error::Io`], also when nothing is there.
pub fn open_once(vfs: &Arc<dyn Vfs>, location: &Path) -> Result<(Arc<dyn Vfs>, PathBuf)> {
    let failed = |e| Error::io("cannot open the log directory", location, e);
    let absolute = vfs.absolute(location).map_err(failed)?;
    let anchored = vfs.anchor(&absolute).map_err(failed)?;
    Ok((anchored, absolute))
}

/// The same; the directory is created when nothing is there.
pub fn create_or_open_once(vfs: &Arc<dyn Vfs>, location: &Path) -> Result<(Arc<dyn Vfs>, PathBuf)> {
    create(&**vfs, location)?;
    open_once(vfs, location)
}

/// Creates the last component of the location when nothing is there.
fn create(vfs: &dyn Vfs, location: &Path) -> Result<()> {
    let kind = vfs.kind(location).map_err(|e| Error::io("cannot open the log directory", location, e))?;
    match kind {
        Some(FileKind::Directory) => Ok(()),
        Some(_) => {
            let not_a_directory = std::io::Error::from_raw_os_error(libc::ENOTDIR);
            Err(Error::io("cannot open the log directory", location, not_a_directory))
        }
        None => crashsafe::create_dir(vfs, location).map_err(|e| Error::io("fail to create directory", location, e)),
    }
}

/// Opens and locks the manifest.
pub(super) fn lock_manifest(vfs: &dyn Vfs, location: &Path) -> Result<(Box<dyn VfsFile>, Box<dyn FileLock>)> {
    let path = location.join(names::MANIFEST);
    let failed = |e| Error::io("failed to acquire lock for manifest in directory", location, e);
    let file = vfs.open(&path, Open::Existing).map_err(failed)?;
    match vfs.lock(&path, Lock::Exclusive) {
        Ok(lock) => Ok((file, lock)),
        Err(LockError::Held) => Err(Error::Locked(location.to_owned())),
        Err(LockError::Io(e)) => Err(failed(e)),
    }
}

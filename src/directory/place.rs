// SPDX-License-Identifier: Apache-2.0
//! Where a data directory is. It is opened once; whatever happens to its name or to the working directory of the
//! process later, everything in it is found through that one descriptor.

use crate::error::{Error, Result};
use crate::vfs::{crashsafe, holder, FileKind, FileLock, Lock, LockError, Open, Vfs, VfsFile};
use crate::wal::names;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a tool that reads keeps a directory from being opened.
const READERS_PATIENCE: Duration = Duration::from_secs(5);
const READERS_POLL: Duration = Duration::from_millis(50);

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

/// A lock of this process alone.
pub(super) struct OwnLock {
    pub(super) lock: Box<dyn FileLock>,
    /// Others had it first.
    pub(super) waited: bool,
}

/// Opens and locks the manifest.
pub(super) fn lock_manifest(vfs: &dyn Vfs, location: &Path) -> Result<(Box<dyn VfsFile>, OwnLock)> {
    let path = location.join(names::MANIFEST);
    let file = vfs.open(&path, Open::Existing).map_err(|e| cannot_lock(location, e))?;
    Ok((file, lock_alone(vfs, location, names::MANIFEST)?))
}

/// Locks the file `name` for this process alone. Tools that only read are waited for, [`READERS_PATIENCE`] at most;
/// nobody else is.
pub(super) fn lock_alone(vfs: &dyn Vfs, location: &Path, name: &str) -> Result<OwnLock> {
    let path = location.join(name);
    let mut deadline = None;
    loop {
        match vfs.lock(&path, Lock::Exclusive) {
            Ok(lock) => return Ok(OwnLock { lock, waited: deadline.is_some() }),
            Err(LockError::HeldByReaders) if deadline.is_none_or(|deadline| Instant::now() < deadline) => {
                if deadline.is_none() {
                    deadline = Some(Instant::now() + READERS_PATIENCE);
                    let (location, seconds) = (location.display(), READERS_PATIENCE.as_secs());
                    let reader = holder(&path).unwrap_or_else(|| "another process".to_owned());
                    log::warn!("{location}: {reader} is reading it; waiting up to {seconds} seconds for its end");
                }
                std::thread::sleep(READERS_POLL);
            }
            Err(LockError::Held | LockError::HeldByReaders) => return Err(in_use(location, name)),
            Err(LockError::Io(e)) => return Err(cannot_lock(location, e)),
        }
    }
}

/// Somebody else has the file `name` locked.
pub(super) fn in_use(location: &Path, name: &str) -> Error {
    Error::Locked { directory: location.to_owned(), holder: holder(&location.join(name)) }
}

/// The system refused the lock.
pub(super) fn cannot_lock(location: &Path, e: std::io::Error) -> Error {
    Error::io("failed to acquire lock for manifest in directory", location, e)
}

// SPDX-License-Identifier: Apache-2.0
//! A directory of the machine that was opened once: its descriptor, which directory that is, and whether that directory
//! still stands under its name. Holds some descriptors in reserve for what has to be opened while the process has none
//! left.

use super::descriptor::{above_standard_streams, is_exhausted};
use crate::lock_order::Mutex;
use rustix::fs::{self, AtFlags, Mode, OFlags, CWD};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Enough for the log files of some channels and for a file that is replaced at the same time.
const RESERVED: usize = 8;

/// Device and inode.
type Identity = (u64, u64);

#[derive(Debug)]
pub(super) struct Root {
    descriptor: OwnedFd,
    location: PathBuf,
    identity: Identity,
    /// The file in the directory that is locked.
    locked: Mutex<Option<(PathBuf, Identity)>>,
    reserve: Mutex<Vec<OwnedFd>>,
}

fn identity(dir: BorrowedFd<'_>, path: &Path) -> io::Result<Identity> {
    let found = fs::statat(dir, path, AtFlags::empty())?;
    Ok((found.st_dev, found.st_ino))
}

impl Root {
    pub(super) fn open(location: &Path) -> io::Result<Root> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = above_standard_streams(fs::openat(CWD, location, flags, Mode::empty())?)?;
        let identity = identity(descriptor.as_fd(), Path::new("."))?;
        let root = Root {
            descriptor,
            location: location.to_owned(),
            identity,
            locked: Mutex::default(),
            reserve: Mutex::default(),
        };
        root.refill();
        Ok(root)
    }

    pub(super) fn location(&self) -> &Path {
        &self.location
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Takes note that the file at `path` is locked through `file`.
    pub(super) fn note_lock(&self, path: &Path, file: BorrowedFd<'_>) -> io::Result<()> {
        let found = fs::fstat(file)?;
        *self.locked.lock() = Some((path.to_owned(), (found.st_dev, found.st_ino)));
        Ok(())
    }

    pub(super) fn forget_lock(&self) {
        *self.locked.lock() = None;
    }

    /// Fails when the directory, or the locked file in it, is not what stands under its name any more.
    pub(super) fn confirm(&self) -> io::Result<()> {
        let expect = |path: &Path, expected: Identity| match identity(CWD, path) {
            Ok(found) if found == expected => Ok(()),
            Ok(_) => Err(super::interface::not_the_same(path, "something else stands there")),
            Err(e) => Err(super::interface::not_the_same(path, &e.to_string())),
        };
        expect(&self.location, self.identity)?;
        match &*self.locked.lock() {
            Some((path, identity)) => expect(path, *identity),
            None => Ok(()),
        }
    }

    /// Opens something; when there are no descriptors left, with those in reserve.
    pub(super) fn with_reserve<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        loop {
            match open() {
                Err(e) if is_exhausted(&e) => match self.reserve.lock().pop() {
                    // Somebody else may be faster to take its number.
                    Some(reserved) => drop(reserved),
                    None => return Err(e),
                },
                Ok(opened) => {
                    self.refill();
                    return Ok(opened);
                }
                failed => return failed,
            }
        }
    }

    fn refill(&self) {
        let mut reserve = self.reserve.lock();
        while reserve.len() < RESERVED {
            match rustix::io::fcntl_dupfd_cloexec(&self.descriptor, 3) {
                Ok(reserved) => reserve.push(reserved),
                Err(_) => break,
            }
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The file system of the machine.

use super::descriptor::above_standard_streams;
use super::file_size;
use super::held;
use super::interface::{DirEntry, FileKind, FileLock, Lock, LockError, Mapping, Open, Stamp, Vfs, VfsFile};
use super::root::Root;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, CWD};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

const NEW_FILE: u32 = 0o666;
const NEW_DIRECTORY: u32 = 0o777;

/// The machine's file system; keeps no state.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

/// The machine's file system, with one directory that was opened once.
#[derive(Clone, Debug)]
struct RootedFs(Arc<Root>);

/// Both are one file system; they differ in where a path begins.
trait Rooted: std::fmt::Debug + Send + Sync {
    fn root(&self) -> Option<&Arc<Root>>;

    /// The directory from which `path` is found, and the way from there.
    fn at<'a>(&'a self, path: &'a Path) -> (BorrowedFd<'a>, &'a Path) {
        let below = self.root().and_then(|root| Some((root, path.strip_prefix(root.location()).ok()?)));
        let (directory, way) = match below {
            Some((root, below)) => (root.descriptor(), below),
            None => (CWD, path),
        };
        (directory, if way.as_os_str().is_empty() { Path::new(".") } else { way })
    }

    fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        let (directory, way) = self.at(path);
        let open = || {
            let file = retried(|| fs::openat(directory, way, flags | OFlags::CLOEXEC, Mode::from_raw_mode(NEW_FILE)))?;
            above_standard_streams(File::from(file))
        };
        match self.root() {
            Some(root) => root.with_reserve(open),
            None => open(),
        }
    }
}

impl Rooted for RealFs {
    fn root(&self) -> Option<&Arc<Root>> {
        None
    }
}

impl Rooted for RootedFs {
    fn root(&self) -> Option<&Arc<Root>> {
        Some(&self.0)
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    root: Option<Arc<Root>>,
}

/// The descriptor that holds the lock.
#[derive(Debug)]
struct RealLock {
    file: File,
    /// The process that took it.
    process: u32,
    root: Option<Arc<Root>>,
}

impl FileLock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        if let Some(root) = &self.root {
            root.forget_lock();
        }
        // A process that was forked has the descriptor too, if only until it runs another program: with it the lock
        // would outlive the holder. It gives back nothing itself.
        if self.process == std::process::id() {
            let _ = self.file.unlock();
            held::hide(&self.file);
        }
    }
}

fn retried<T>(call: impl Fn() -> Result<T, Errno>) -> io::Result<T> {
    rustix::io::retry_on_intr(call).map_err(io::Error::from)
}

fn kind_of(found: FileType) -> FileKind {
    match found {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        _ => FileKind::Other,
    }
}

/// Every name in an open directory, with its kind as the directory tells it.
fn read_directory(directory: &File) -> io::Result<Vec<(OsString, FileType)>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

/// Removes what stands under `name`, a directory with all below it.
fn remove_all(parent: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        // Links are removed, not followed. Which error says that it is a directory depends on the file system.
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return Ok(other?),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = above_standard_streams(File::from(fs::openat(parent, name, flags, Mode::empty())?))?;
    for (below, _) in read_directory(&directory)? {
        remove_all(directory.as_fd(), Path::new(&below))?;
    }
    Ok(fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

impl<R: Rooted> Vfs for R {
    fn anchor(&self, dir: &Path) -> io::Result<Arc<dyn Vfs>> {
        match self.root() {
            Some(root) if root.location() == dir => {
                root.confirm()?;
                Ok(Arc::new(RootedFs(root.clone())))
            }
            _ => Ok(Arc::new(RootedFs(Arc::new(Root::open(dir)?)))),
        }
    }

    fn confirm(&self) -> io::Result<()> {
        self.root().map_or(Ok(()), |root| root.confirm())
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        std::path::absolute(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let directory = self.open_at(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for (name, _) in read_directory(&directory)? {
            let (kind, len) = match fs::statat(&directory, &name, AtFlags::empty()) {
                Ok(found) => (kind_of(FileType::from_raw_mode(found.st_mode)), found.st_size as u64),
                // Removed since it was listed, or a link that leads nowhere.
                Err(Errno::NOENT) => (FileKind::Other, 0),
                Err(e) => return Err(e.into()),
            };
            entries.push(DirEntry { name, kind, len });
        }
        Ok(entries)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<(OsString, FileKind)>> {
        let directory = self.open_at(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for (name, told) in read_directory(&directory)? {
            // The directory itself tells the kind of all but symbolic links.
            let kind = match kind_of(told) {
                FileKind::Other => self.kind(&dir.join(&name))?.unwrap_or(FileKind::Other),
                kind => kind,
            };
            names.push((name, kind));
        }
        Ok(names)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<FileKind>> {
        let (directory, way) = self.at(path);
        match fs::statat(directory, way, AtFlags::empty()) {
            Ok(found) => Ok(Some(kind_of(FileType::from_raw_mode(found.st_mode)))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        std::fs::canonicalize(path)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>> {
        let flags = match how {
            Open::Read => OFlags::RDONLY,
            Open::Existing => OFlags::RDWR,
            Open::Create => OFlags::RDWR | OFlags::CREATE,
            Open::Truncate => OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC,
            Open::New => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        // A pipe is opened without waiting for its other end, and then refused; to a file the flag means nothing.
        let file = self.open_at(path, flags | OFlags::NONBLOCK)?;
        match kind_of(FileType::from_raw_mode(fs::fstat(&file)?.st_mode)) {
            FileKind::File => Ok(Box::new(RealFile { file, root: self.root().cloned() })),
            FileKind::Directory => Err(Errno::ISDIR.into()),
            FileKind::Other => Err(io::Error::other("it is no regular file")),
        }
    }

    fn temp_file(&self, dir: &Path) -> io::Result<Box<dyn VfsFile>> {
        let file = match self.open_at(dir, OFlags::RDWR | OFlags::TMPFILE) {
            // A file system without unnamed files: make one and take its name away at once.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {
                let path = dir.join(format!("tmp.{}", uuid::Uuid::new_v4()));
                let file = self.open_at(&path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
                self.unlink(&path)?;
                file
            }
            opened => opened?,
        };
        Ok(Box::new(RealFile { file, root: None }))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let (directory, way) = self.at(dir);
        Ok(fs::mkdirat(directory, way, Mode::from_raw_mode(NEW_DIRECTORY))?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((from_directory, from), (directory, to)) = (self.at(from), self.at(to));
        Ok(fs::renameat(from_directory, from, directory, to)?)
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        let ((from_directory, existing), (directory, new)) = (self.at(existing), self.at(new));
        Ok(fs::linkat(from_directory, existing, directory, new, AtFlags::empty())?)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let (directory, way) = self.at(path);
        Ok(fs::unlinkat(directory, way, AtFlags::empty())?)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let (directory, way) = self.at(dir);
        match remove_all(directory, way) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let is_root = self.root().is_some_and(|root| root.location() == dir);
        match self.root().filter(|_| is_root) {
            Some(root) => retried(|| fs::fsync(root.descriptor()))?,
            None => self.open_at(dir, OFlags::RDONLY | OFlags::DIRECTORY)?.sync_all()?,
        }
        self.confirm()
    }

    fn lock(&self, path: &Path, how: Lock) -> Result<Box<dyn FileLock>, LockError> {
        let read_only = |e: &io::Error| matches!(e.raw_os_error(), Some(libc::EROFS | libc::EACCES | libc::EPERM));
        let file = match self.open_at(path, OFlags::RDWR) {
            // Where nothing can be written, reading is enough for a lock against others who read only.
            Err(e) if how == Lock::Shared && read_only(&e) => self.open_at(path, OFlags::RDONLY),
            opened => opened,
        };
        let file = file.map_err(LockError::Io)?;
        let locked = match how {
            Lock::Exclusive => file.try_lock(),
            Lock::Shared => file.try_lock_shared(),
        };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if how == Lock::Exclusive && file.try_lock_shared().is_ok() => {
                // It was only tried.
                let _ = file.unlock();
                return Err(LockError::HeldByReaders);
            }
            Err(TryLockError::WouldBlock) => return Err(LockError::Held),
            Err(TryLockError::Error(e)) => return Err(LockError::Io(e)),
        }
        if how == Lock::Exclusive {
            held::show(&file);
        }
        if let Some(root) = self.root() {
            root.note_lock(path, file.as_fd()).map_err(LockError::Io)?;
        }
        Ok(Box::new(RealLock { file, process: std::process::id(), root: self.root().cloned() }))
    }
}

impl VfsFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn stamp(&self) -> io::Result<Stamp> {
        let about = self.file.metadata()?;
        let since_1970 = |time: io::Result<SystemTime>| {
            let since = time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            since.map_or(0, |since| since.as_nanos() as u64)
        };
        let (created_ns, modified_ns) = (since_1970(about.created()), since_1970(about.modified()));
        Ok(Stamp { inode: about.ino(), created_ns, modified_ns })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        file_size::check(offset.saturating_add(data.len() as u64))?;
        self.file.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // Making a file shorter is always allowed.
        if let (Err(e), true) = (file_size::check(len), len > self.len()?) {
            return Err(e);
        }
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync: it flushes the size as well, all that reading the file back needs.
        self.file.sync_data()?;
        self.root.as_ref().map_or(Ok(()), |root| root.confirm())
    }

    fn release_cache(&self, offset: u64, len: u64) {
        let (offset, len) = (offset as libc::off_t, len as libc::off_t);
        // SAFETY: the descriptor is open as long as the file is borrowed. That a hint is not taken does no harm.
        unsafe { libc::posix_fadvise(self.file.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) };
    }

    fn map(&self) -> io::Result<Mapping> {
        if self.len()? == 0 {
            return Ok(Mapping::owned(Vec::new()));
        }
        // SAFETY: the directory is locked by this process and nothing here shortens a mapped file; new bytes are
        // only added behind the mapped range.
        let map = unsafe { memmap2::Mmap::map(&self.file)? };
        Ok(Mapping::mapped(map))
    }
}

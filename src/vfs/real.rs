// SPDX-License-Identifier: Apache-2.0
//! The file system of the machine.

use crate::vfs::{DirEntry, FileKind, FileLock, LockError, Mapping, Open, Vfs, VfsFile};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The machine's file system; keeps no state.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

#[derive(Debug)]
struct RealFile(File);

/// The descriptor that holds the lock; the standard library opens it close-on-exec.
#[derive(Debug)]
struct RealLock(#[allow(dead_code)] File);

impl FileLock for RealLock {}

fn kind_of(metadata: &fs::Metadata) -> FileKind {
    if metadata.is_file() {
        FileKind::File
    } else if metadata.is_dir() {
        FileKind::Directory
    } else {
        FileKind::Other
    }
}

impl Vfs for RealFs {
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let (kind, len) = match fs::metadata(entry.path()) {
                Ok(metadata) => (kind_of(&metadata), metadata.len()),
                // Removed since it was listed, or a link that leads nowhere.
                Err(e) if e.kind() == io::ErrorKind::NotFound => (FileKind::Other, 0),
                Err(e) => return Err(e),
            };
            entries.push(DirEntry { name: entry.file_name(), kind, len });
        }
        Ok(entries)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<(OsString, FileKind)>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // The directory itself tells the kind of all but symbolic links.
            let kind = match entry.file_type()? {
                kind if kind.is_file() => FileKind::File,
                kind if kind.is_dir() => FileKind::Directory,
                _ => self.kind(&entry.path())?.unwrap_or(FileKind::Other),
            };
            names.push((entry.file_name(), kind));
        }
        Ok(names)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<FileKind>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(kind_of(&metadata))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(how != Open::Read);
        options.create(matches!(how, Open::Create | Open::Truncate));
        options.truncate(how == Open::Truncate);
        options.create_new(how == Open::New);
        Ok(Box::new(RealFile(options.open(path)?)))
    }

    fn temp_file(&self, dir: &Path) -> io::Result<Box<dyn VfsFile>> {
        let unnamed = OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open(dir);
        match unnamed {
            Ok(file) => Ok(Box::new(RealFile(file))),
            // A file system without unnamed files: make one and take its name away at once.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {
                let path = dir.join(format!("tmp.{}", uuid::Uuid::new_v4()));
                let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
                fs::remove_file(&path)?;
                Ok(Box::new(RealFile(file)))
            }
            Err(e) => Err(e),
        }
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        fs::hard_link(existing, new)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })?.sync_all()
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock(file))),
            Err(TryLockError::WouldBlock) => Err(LockError::Held),
            Err(TryLockError::Error(e)) => Err(LockError::Io(e)),
        }
    }
}

impl VfsFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync: it flushes the size as well, all that reading the file back needs.
        self.0.sync_data()
    }

    fn release_cache(&self, offset: u64, len: u64) {
        let (offset, len) = (offset as libc::off_t, len as libc::off_t);
        // SAFETY: the descriptor is open as long as the file is borrowed. That a hint is not taken does no harm.
        unsafe { libc::posix_fadvise(self.0.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) };
    }

    fn map(&self) -> io::Result<Mapping> {
        if self.len()? == 0 {
            return Ok(Mapping::owned(Vec::new()));
        }
        // SAFETY: the directory is locked by this process and nothing here shortens a mapped file; new bytes are
        // only added behind the mapped range.
        let map = unsafe { memmap2::Mmap::map(&self.0)? };
        Ok(Mapping::mapped(map))
    }
}

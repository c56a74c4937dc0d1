// SPDX-License-Identifier: Apache-2.0
//! A disk on which a directory looks different from what is there, for those who only read: each such view says what is
//! seen, and everything that would change something is refused in one place.

use super::interface::{DirEntry, FileKind, FileLock, Lock, LockError, Mapping, Open, Stamp, Vfs, VfsFile};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is seen. The methods mean what they do in [`Vfs`].
pub trait View: Send + Sync + std::fmt::Debug + Sized + 'static {
    /// Why nothing may be changed.
    const REASON: &'static str;
    /// What is there.
    fn below(&self) -> &Arc<dyn Vfs>;
    /// The same view of another disk.
    fn over(&self, below: Arc<dyn Vfs>) -> Self;
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    fn names(&self, dir: &Path) -> io::Result<Vec<(OsString, FileKind)>> {
        Ok(self.list(dir)?.into_iter().map(|entry| (entry.name, entry.kind)).collect())
    }
    fn kind(&self, path: &Path) -> io::Result<Option<FileKind>>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;
    fn lock(&self, path: &Path, how: Lock) -> Result<Box<dyn FileLock>, LockError>;
}

/// The disk of a view.
#[derive(Clone, Debug)]
pub struct ReadOnly<V>(pub V);

impl<V: View> ReadOnly<V> {
    fn refused<T>(&self) -> io::Result<T> {
        Err(io::Error::new(ErrorKind::ReadOnlyFilesystem, V::REASON))
    }
}

impl<V: View> Vfs for ReadOnly<V> {
    fn anchor(&self, dir: &Path) -> io::Result<Arc<dyn Vfs>> {
        Ok(Arc::new(ReadOnly(self.0.over(self.0.below().anchor(dir)?))))
    }

    fn confirm(&self) -> io::Result<()> {
        self.0.below().confirm()
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.below().absolute(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.list(dir)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<(OsString, FileKind)>> {
        self.0.names(dir)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<FileKind>> {
        self.0.kind(path)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.below().resolve(path)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>> {
        match how {
            Open::Read => self.0.open(path),
            _ => self.refused(),
        }
    }

    fn temp_file(&self, dir: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.0.below().temp_file(dir)
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.refused()
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        self.refused()
    }

    fn hard_link(&self, _existing: &Path, _new: &Path) -> io::Result<()> {
        self.refused()
    }

    fn unlink(&self, _path: &Path) -> io::Result<()> {
        self.refused()
    }

    fn remove_dir_all(&self, _dir: &Path) -> io::Result<()> {
        self.refused()
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.refused()
    }

    fn lock(&self, path: &Path, how: Lock) -> Result<Box<dyn FileLock>, LockError> {
        self.0.lock(path, how)
    }
}

/// What is seen of a file. The methods mean what they do in [`VfsFile`].
pub trait FileView: Send + Sync + std::fmt::Debug {
    /// In bytes.
    fn size(&self) -> u64;
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    fn map(&self) -> io::Result<Mapping>;
}

/// The file of a view.
#[derive(Debug)]
pub struct ReadOnlyFile<F>(pub F);

impl<F: FileView> ReadOnlyFile<F> {
    fn refused(&self) -> io::Result<()> {
        Err(io::Error::new(ErrorKind::ReadOnlyFilesystem, "the file is only read"))
    }
}

impl<F: FileView> VfsFile for ReadOnlyFile<F> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.size())
    }

    fn stamp(&self) -> io::Result<Stamp> {
        // What is seen may stand in several files.
        Err(ErrorKind::Unsupported.into())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = self.0.size().saturating_sub(offset).min(buffer.len() as u64) as usize;
        self.0.read_at(offset, &mut buffer[..wanted])
    }

    fn write_at(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        self.refused()
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        self.refused()
    }

    fn sync(&self) -> io::Result<()> {
        self.refused()
    }

    fn map(&self) -> io::Result<Mapping> {
        self.0.map()
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What a disk has to offer: the traits that all code uses, and the types that they speak of.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    File,
    Directory,
    Other,
}

/// One name of a directory, symbolic links followed.
#[derive(Clone, Debug)]
pub struct DirEntry {
    pub name: OsString,
    pub kind: FileKind,
    pub len: u64,
}

/// Tells a file from others that had its name before it or get it later, also when they are alike in size, and a file
/// that was written to from what it was. Nanoseconds since 1970; 0 where the file system does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Numbers are used again when a file is gone.
    pub inode: u64,
    pub created_ns: u64,
    pub modified_ns: u64,
}

/// How [`Vfs::open`] treats a file that exists or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Read only; it must exist.
    Read,
    /// Read and write; it must exist.
    Existing,
    /// Read and write; created empty when missing. The new name is durable only after [`Vfs::sync_dir`].
    Create,
    /// Read and write; created when missing, emptied when not.
    Truncate,
    /// Read and write; created, an error when the name exists.
    New,
}

/// Why a lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Somebody else holds it, and may write.
    Held,
    /// Others who only read hold it: they let go of it when they have read.
    HeldByReaders,
    Io(io::Error),
}

/// Which other locks a lock allows beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// None: the holder may write.
    Exclusive,
    /// Those of others who read only.
    Shared,
}

/// What is wrong when a name leads elsewhere than it did.
pub(super) fn not_the_same(path: &Path, found: &str) -> io::Error {
    io::Error::other(format!(
        "{} is not what was opened ({found}): it was moved, deleted or replaced, or something is mounted over it",
        path.display()
    ))
}

/// Whether the disk cannot give what it holds: a medium that cannot be read, or content that a file system with
/// checksums of its own refuses. Not what goes by itself, such as a lack of memory or descriptors.
pub fn is_lost_by_disk(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EBADMSG | libc::EUCLEAN))
}

/// A held lock; dropping it gives it back.
pub trait FileLock: Send + Sync + fmt::Debug {}

/// All calls may be made from any thread. Paths are used as they are given.
pub trait Vfs: Send + Sync + fmt::Debug {
    /// The same disk, on which the directory `dir` is opened once: paths that begin with `dir` are found through that
    /// descriptor, wherever the directory is moved and whatever takes its name; all others as before.
    fn anchor(&self, dir: &Path) -> io::Result<Arc<dyn Vfs>>;
    /// Fails when the anchored directory, or the file in it that is locked, is not what stands under its name. Every
    /// sync below the directory asks the same and fails with it, after it has done its work.
    fn confirm(&self) -> io::Result<()>;
    /// The path from the root, whatever the working directory is later.
    fn absolute(&self, path: &Path) -> io::Result<PathBuf>;
    /// Every name in `dir`, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Every name in `dir` with its kind, in no order; cheaper than [`Vfs::list`] where many files are.
    fn names(&self, dir: &Path) -> io::Result<Vec<(OsString, FileKind)>> {
        Ok(self.list(dir)?.into_iter().map(|entry| (entry.name, entry.kind)).collect())
    }
    /// What `path` is, `None` when nothing has that name; symbolic links are followed.
    fn kind(&self, path: &Path) -> io::Result<Option<FileKind>>;
    /// The absolute path of an existing file or directory, symbolic links followed.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;
    /// Opens a regular file; everything else is an error, and nobody is waited for.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>>;
    /// A file without a name in the file system of `dir`: gone when dropped or when the process ends.
    fn temp_file(&self, dir: &Path) -> io::Result<Box<dyn VfsFile>>;
    /// Creates one directory level.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Replaces `to` if it exists; durable only after [`Vfs::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives the file `existing` a second name in the same file system; an existing `new` is an error. Durable only
    /// after [`Vfs::sync_dir`].
    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()>;
    /// Durable only after [`Vfs::sync_dir`].
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all below it; nothing there is no error.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the lock of an existing file without waiting. Per open file, closed on exec. A shared lock needs no
    /// permission to write.
    fn lock(&self, path: &Path, how: Lock) -> Result<Box<dyn FileLock>, LockError>;

    /// The whole file, refused with `InvalidData` when it is larger than `max_bytes`.
    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, Open::Read)?;
        let len = file.len()?;
        if len > max_bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} has {len} bytes, at most {max_bytes} expected", path.display()),
            ));
        }
        let mut bytes = vec![0; len as usize];
        let got = file.read_at(0, &mut bytes)?;
        bytes.truncate(got);
        Ok(bytes)
    }
}

/// An open file. Writes name their offset; two threads may write to different ranges.
#[allow(clippy::len_without_is_empty)]
pub trait VfsFile: Send + Sync + fmt::Debug {
    fn len(&self) -> io::Result<u64>;
    /// Which file it is.
    fn stamp(&self) -> io::Result<Stamp>;
    /// Reads until the buffer is full or the file ends; returns the number of bytes read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Content and size are on the disk when this returns; the name may not be.
    fn sync(&self) -> io::Result<()>;
    /// A hint: the range is synced and will not be read soon, so the system may use its memory for something else.
    fn release_cache(&self, _offset: u64, _len: u64) {}
    /// The file's present content. Must not be shortened while mapped.
    fn map(&self) -> io::Result<Mapping>;
}

/// The bytes of a file as they were when it was mapped. Cheap to clone.
#[derive(Clone)]
pub struct Mapping(MappingInner);

#[derive(Clone)]
enum MappingInner {
    Mapped(Arc<memmap2::Mmap>),
    /// So many bytes of its begin.
    Begin(Arc<memmap2::Mmap>, usize),
    Owned(Arc<Vec<u8>>),
}

impl Mapping {
    pub(crate) fn mapped(map: memmap2::Mmap) -> Mapping {
        Mapping(MappingInner::Mapped(Arc::new(map)))
    }

    /// Bytes in memory that stand for a file.
    pub fn owned(bytes: Vec<u8>) -> Mapping {
        Mapping::shared(Arc::new(bytes))
    }

    /// The same, without a copy.
    pub(crate) fn shared(bytes: Arc<Vec<u8>>) -> Mapping {
        Mapping(MappingInner::Owned(bytes))
    }

    /// The first `len` bytes of it; all when it has fewer.
    pub fn begin(self, len: usize) -> Mapping {
        match self.0 {
            MappingInner::Mapped(map) if len < map.len() => Mapping(MappingInner::Begin(map, len)),
            MappingInner::Begin(map, own) => Mapping(MappingInner::Begin(map, own.min(len))),
            MappingInner::Owned(bytes) if len < bytes.len() => Mapping::owned(bytes[..len].to_vec()),
            whole => Mapping(whole),
        }
    }

    fn map(&self) -> Option<&memmap2::Mmap> {
        match &self.0 {
            MappingInner::Mapped(map) | MappingInner::Begin(map, _) => Some(map),
            MappingInner::Owned(_) => None,
        }
    }

    /// Tells the system that the bytes will be read from front to back, or here and there.
    pub fn advise(&self, sequential: bool) {
        if let Some(map) = self.map() {
            let advice = if sequential { memmap2::Advice::Sequential } else { memmap2::Advice::Normal };
            // Only a hint: the mapping reads the same bytes without it.
            let _ = map.advise(advice);
        }
    }

    /// Gives the memory back that the bytes read so far take in this process; they are read from the file again when
    /// they are asked for.
    pub fn release(&self) {
        if let Some(map) = self.map() {
            // SAFETY: the mapping is of a file and never written through, so that the same bytes come back.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            MappingInner::Mapped(map) => map,
            MappingInner::Begin(map, len) => &map[..*len],
            MappingInner::Owned(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.len())
    }
}

// SPDX-License-Identifier: Apache-2.0
//! A directory of a running process as the files that it holds for a backup show it: of those that are appended to,
//! only the begin that nobody changes any more. It can only be read.

use crate::replication::backup_socket::HeldFile;
use crate::vfs::{DirEntry, FileKind, FileLock, Lock, LockError, Mapping, Open, Vfs, VfsFile};
use crate::vfs::{FileView, ReadOnlyFile, View};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A disk with such a directory. What lies deeper in it is seen as it is.
#[derive(Clone, Debug)]
pub(super) struct HeldView {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    files: Arc<BTreeMap<OsString, Shown>>,
}

#[derive(Clone, Debug)]
struct Shown {
    path: PathBuf,
    bytes: Option<u64>,
}

impl HeldView {
    /// The directory `location`, an absolute path, of `vfs` with these files.
    pub(super) fn new(vfs: Arc<dyn Vfs>, location: &Path, held: &[HeldFile]) -> HeldView {
        let is_top = |path: &Path| path.components().count() == 1;
        let top = held.iter().filter(|file| is_top(&file.source) && is_top(&file.destination));
        let shown = |file: &HeldFile| Shown { path: location.join(&file.source), bytes: file.bytes };
        let files = top.map(|file| (file.destination.clone().into_os_string(), shown(file))).collect();
        HeldView { vfs, location: location.to_owned(), files: Arc::new(files) }
    }

    fn is_top(&self, path: &Path) -> bool {
        path.parent() == Some(&self.location)
    }

    /// The file of this name; `None` when it is not held.
    fn shown(&self, path: &Path) -> Option<&Shown> {
        self.files.get(path.file_name()?)
    }

    /// Whether it is a file directly in the directory that is not held.
    fn is_hidden(&self, path: &Path) -> io::Result<bool> {
        let other = self.is_top(path) && self.shown(path).is_none();
        Ok(other && self.vfs.kind(path)? != Some(FileKind::Directory))
    }
}

impl View for HeldView {
    const REASON: &'static str = "a process serves the directory: it is only read";

    fn below(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    fn over(&self, below: Arc<dyn Vfs>) -> HeldView {
        HeldView { vfs: below, ..self.clone() }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut listed = self.vfs.list(dir)?;
        if dir == self.location {
            listed.retain(|entry| entry.kind == FileKind::Directory);
            for (name, shown) in &*self.files {
                let len = self.open(&self.location.join(name))?.len()?;
                let len = shown.bytes.map_or(len, |bytes| bytes.min(len));
                listed.push(DirEntry { name: name.clone(), kind: FileKind::File, len });
            }
        }
        Ok(listed)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<FileKind>> {
        match self.is_hidden(path)? {
            true => Ok(None),
            false if self.is_top(path) && self.shown(path).is_some() => Ok(Some(FileKind::File)),
            false => self.vfs.kind(path),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        if self.is_hidden(path)? {
            return Err(ErrorKind::NotFound.into());
        }
        match self.shown(path).filter(|_| self.is_top(path)) {
            None => self.vfs.open(path, Open::Read),
            Some(Shown { path, bytes: None }) => self.vfs.open(path, Open::Read),
            Some(Shown { path, bytes: Some(bytes) }) => {
                let file = self.vfs.open(path, Open::Read)?;
                let len = file.len()?;
                match len < *bytes {
                    true => {
                        Err(io::Error::new(ErrorKind::UnexpectedEof, format!("it has {len} bytes, {bytes} are held")))
                    }
                    false => Ok(Box::new(ReadOnlyFile(Begin { file, bytes: *bytes }))),
                }
            }
        }
    }

    /// The process that serves the directory has the lock, and holds the files.
    fn lock(&self, _path: &Path, how: Lock) -> Result<Box<dyn FileLock>, LockError> {
        match how {
            Lock::Shared => Ok(Box::new(HeldByTheProcess)),
            Lock::Exclusive => Err(LockError::Held),
        }
    }
}

#[derive(Debug)]
struct HeldByTheProcess;

impl FileLock for HeldByTheProcess {}

/// The begin of a file.
#[derive(Debug)]
struct Begin {
    file: Box<dyn VfsFile>,
    bytes: u64,
}

impl FileView for Begin {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn map(&self) -> io::Result<Mapping> {
        Ok(self.file.map()?.begin(self.bytes as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{ReadOnly, SimFs};

    #[test]
    fn only_what_is_held_is_seen_and_nothing_can_be_changed() {
        let (fs, location) = (SimFs::new(), Path::new("/log"));
        for (name, content) in [("pwal_0000", "durable, and more"), ("epoch", "7"), ("epoch.1", "5"), ("blob/a", "b")] {
            fs.put(&location.join(name), content.as_bytes()).unwrap();
        }
        let file = |source: &str, destination: &str, bytes| HeldFile {
            source: source.into(),
            destination: destination.into(),
            bytes,
        };
        let held = [file("pwal_0000", "pwal_0000", Some(7)), file("epoch.1", "epoch", None), file("blob/a", "a", None)];
        let view = ReadOnly(HeldView::new(Arc::new(fs.clone()), location, &held));
        let read = |name: &str| view.read(&location.join(name), 100).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!((read("pwal_0000").unwrap(), read("epoch").unwrap()), ("durable".to_owned(), "5".to_owned()));
        assert_eq!(read("epoch.1").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(read("blob/a").unwrap(), "b");
        let mapped = view.open(&location.join("pwal_0000"), Open::Read).unwrap().map().unwrap();
        assert_eq!(&*mapped, b"durable");
        let mut names: Vec<_> = view.list(location).unwrap().into_iter().map(|entry| (entry.name, entry.len)).collect();
        names.retain(|(name, _)| name != "blob");
        names.sort();
        assert_eq!(names, [("epoch".into(), 1), ("pwal_0000".into(), 7)]);
        assert_eq!(view.kind(&location.join("epoch.1")).unwrap(), None);
        assert!(view.open(&location.join("pwal_0000"), Open::Existing).is_err());
        assert!(view.unlink(&location.join("pwal_0000")).is_err());
        // Somebody has made it shorter.
        fs.open(&location.join("pwal_0000"), Open::Existing).unwrap().set_len(3).unwrap();
        assert_eq!(read("pwal_0000").unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! A directory whose commit journal is not settled as it is when it is: for those who change nothing. What the journal
//! has lies over what the files have; segments are not seen, and the manifest says that no journal is in use.

use crate::error::Result;
use crate::types::Epoch;
use crate::vfs::{DirEntry, FileKind, FileLock, Lock, LockError, Mapping, Open, Vfs, VfsFile};
use crate::wal::entry::{marker, tag};
use crate::wal::journal::redo::{SettledFile, Unsettled};
use crate::wal::manifest::Manifest;
use crate::wal::names;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A disk with such a directory; it can only be read.
#[derive(Clone, Debug)]
pub(super) struct SettledView {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    files: Arc<BTreeMap<OsString, Arc<Shown>>>,
}

/// What is seen of a file.
#[derive(Debug)]
enum Shown {
    /// This, whatever is there.
    Instead(Vec<u8>),
    /// What is there, with what the journal has of it.
    Over(SettledFile),
}

impl Shown {
    fn len(&self) -> u64 {
        match self {
            Shown::Instead(bytes) => bytes.len() as u64,
            Shown::Over(file) => file.len,
        }
    }
}

impl SettledView {
    /// The directory `location` of `vfs`, with what was read of its journal.
    pub(super) fn new(
        vfs: Arc<dyn Vfs>,
        location: &Path,
        manifest: &Manifest,
        unsettled: &Unsettled,
    ) -> Result<SettledView> {
        let mut files = BTreeMap::new();
        for (name, file) in unsettled.files()? {
            files.insert(OsString::from(name), Arc::new(Shown::Over(file)));
        }
        let record = |epoch: Epoch| Arc::new(Shown::Instead(marker(tag::DURABLE, epoch).to_vec()));
        files.extend(unsettled.record(&*vfs)?.map(|epoch| (OsString::from(names::EPOCH), record(epoch))));
        let manifest = Arc::new(Shown::Instead(manifest.with_journal(None).encode()));
        files.insert(OsString::from(names::MANIFEST), manifest);
        Ok(SettledView { vfs, location: location.to_owned(), files: Arc::new(files) })
    }

    /// What is seen under this name instead of what is there.
    fn shown(&self, path: &Path) -> Option<&Arc<Shown>> {
        match path.parent() == Some(&self.location) {
            true => self.files.get(path.file_name()?),
            false => None,
        }
    }

    fn is_hidden(&self, path: &Path) -> bool {
        path.parent() == Some(&self.location) && path.file_name().is_some_and(is_segment)
    }
}

fn is_segment(name: &OsStr) -> bool {
    name.to_str().is_some_and(names::is_journal_segment)
}

fn read_only() -> io::Error {
    io::Error::new(ErrorKind::ReadOnlyFilesystem, "the commit journal is not settled: nothing may be changed before")
}

impl Vfs for SettledView {
    fn anchor(&self, dir: &Path) -> io::Result<Arc<dyn Vfs>> {
        Ok(Arc::new(SettledView { vfs: self.vfs.anchor(dir)?, ..self.clone() }))
    }

    fn confirm(&self) -> io::Result<()> {
        self.vfs.confirm()
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        self.vfs.absolute(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut listed = self.vfs.list(dir)?;
        if dir == self.location {
            listed.retain(|entry| !is_segment(&entry.name) && !self.files.contains_key(&entry.name));
            let entry = |(name, shown): (&OsString, &Arc<Shown>)| DirEntry {
                name: name.clone(),
                kind: FileKind::File,
                len: shown.len(),
            };
            listed.extend(self.files.iter().map(entry));
        }
        Ok(listed)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<(OsString, FileKind)>> {
        let mut listed = self.vfs.names(dir)?;
        if dir == self.location {
            listed.retain(|(name, _)| !is_segment(name) && !self.files.contains_key(name));
            listed.extend(self.files.keys().map(|name| (name.clone(), FileKind::File)));
        }
        Ok(listed)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<FileKind>> {
        match self.shown(path) {
            Some(_) => Ok(Some(FileKind::File)),
            None if self.is_hidden(path) => Ok(None),
            None => self.vfs.kind(path),
        }
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.vfs.resolve(path)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>> {
        if how != Open::Read {
            return Err(read_only());
        }
        if self.is_hidden(path) {
            return Err(ErrorKind::NotFound.into());
        }
        let Some(shown) = self.shown(path) else { return self.vfs.open(path, how) };
        let below = match self.vfs.open(path, how) {
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            below => Some(below?),
        };
        Ok(Box::new(ShownFile { shown: shown.clone(), below }))
    }

    fn temp_file(&self, dir: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.vfs.temp_file(dir)
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Err(read_only())
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(read_only())
    }

    fn hard_link(&self, _existing: &Path, _new: &Path) -> io::Result<()> {
        Err(read_only())
    }

    fn unlink(&self, _path: &Path) -> io::Result<()> {
        Err(read_only())
    }

    fn remove_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Err(read_only())
    }

    fn lock(&self, path: &Path, how: Lock) -> std::result::Result<Box<dyn FileLock>, LockError> {
        self.vfs.lock(path, how)
    }
}

/// An open file of which something else is seen than what is there.
#[derive(Debug)]
struct ShownFile {
    shown: Arc<Shown>,
    below: Option<Box<dyn VfsFile>>,
}

/// Copies the part of `bytes`, which stand at `offset`, that lies in `buffer`, which begins at `begin`.
fn overlay(buffer: &mut [u8], begin: u64, offset: u64, bytes: &[u8]) {
    let (from, to) = (begin.max(offset), (begin + buffer.len() as u64).min(offset + bytes.len() as u64));
    if from < to {
        let source = &bytes[(from - offset) as usize..(to - offset) as usize];
        buffer[(from - begin) as usize..(to - begin) as usize].copy_from_slice(source);
    }
}

impl VfsFile for ShownFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.shown.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = self.shown.len().saturating_sub(offset).min(buffer.len() as u64) as usize;
        let buffer = &mut buffer[..wanted];
        match &*self.shown {
            Shown::Instead(bytes) => overlay(buffer, offset, 0, bytes),
            Shown::Over(file) => {
                if let Some(below) = &self.below {
                    below.read_at(offset, buffer)?;
                }
                file.pieces().for_each(|(at, bytes)| overlay(buffer, offset, at, bytes));
            }
        }
        Ok(wanted)
    }

    fn write_at(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Err(read_only())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn sync(&self) -> io::Result<()> {
        Err(read_only())
    }

    /// In memory: only `tglogutil settle` and a start spare that.
    fn map(&self) -> io::Result<Mapping> {
        let mut bytes = vec![0; self.shown.len() as usize];
        self.read_at(0, &mut bytes)?;
        Ok(Mapping::owned(bytes))
    }
}

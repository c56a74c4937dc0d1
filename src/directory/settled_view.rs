// SPDX-License-Identifier: Apache-2.0
//! A directory whose commit journal is not settled as it is when it is: for those who change nothing. What the journal
//! has lies over what the files have; segments are not seen, and the manifest says that no journal is in use.

use crate::error::Result;
use crate::types::Epoch;
use crate::vfs::{DirEntry, FileKind, FileLock, Lock, LockError, Mapping, Open, Vfs, VfsFile};
use crate::vfs::{FileView, ReadOnlyFile, View};
use crate::wal::entry::{marker, tag};
use crate::wal::journal::redo::{SettledFile, Unsettled};
use crate::wal::manifest::Manifest;
use crate::wal::names;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A disk with such a directory, see [`crate::vfs::ReadOnly`].
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

impl View for SettledView {
    const REASON: &'static str = "the commit journal is not settled: nothing may be changed before";

    fn below(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    fn over(&self, below: Arc<dyn Vfs>) -> SettledView {
        SettledView { vfs: below, ..self.clone() }
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

    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        if self.is_hidden(path) {
            return Err(ErrorKind::NotFound.into());
        }
        let Some(shown) = self.shown(path) else { return self.vfs.open(path, Open::Read) };
        let below = match self.vfs.open(path, Open::Read) {
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            below => Some(below?),
        };
        Ok(Box::new(ReadOnlyFile(ShownFile { shown: shown.clone(), below })))
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

impl FileView for ShownFile {
    fn size(&self) -> u64 {
        self.shown.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match &*self.shown {
            Shown::Instead(bytes) => overlay(buffer, offset, 0, bytes),
            Shown::Over(file) => {
                if let Some(below) = &self.below {
                    below.read_at(offset, buffer)?;
                }
                file.pieces().for_each(|(at, bytes)| overlay(buffer, offset, at, bytes));
            }
        }
        Ok(buffer.len())
    }

    /// In memory: only `tglogutil settle` and a start spare that.
    fn map(&self) -> io::Result<Mapping> {
        let mut bytes = vec![0; self.shown.len() as usize];
        self.read_at(0, &mut bytes)?;
        Ok(Mapping::owned(bytes))
    }
}

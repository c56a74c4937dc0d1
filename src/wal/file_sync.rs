// SPDX-License-Identifier: Apache-2.0
//! Syncs in turn. The system tells one of several callers that a sync failed, and forgets what it could not write: the
//! next sync succeeds and has saved nothing. So one thread at a time syncs a file or the names of a directory, whoever
//! comes behind a failure fails too, and no failed sync is tried again by anybody.

use super::epoch_marks::LogMarks;
use super::rotation;
use crate::error::{Error, Result};
use crate::lock_order::{Mutex, Rank};
use crate::vfs::{FileKind, Vfs, VfsFile};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The names in one directory; shared by all who make names there durable. Calls may come from any thread.
#[derive(Debug)]
pub struct NameSync {
    vfs: Arc<dyn Vfs>,
    directory: PathBuf,
    /// Why nobody knows any more which names are durable. Locked by whoever syncs.
    failure: Mutex<Option<String>>,
    marks: LogMarks,
}

impl NameSync {
    pub fn new(vfs: Arc<dyn Vfs>, directory: &Path) -> NameSync {
        let (failure, marks) = (Mutex::new(Rank::NameSync, None), LogMarks::default());
        NameSync { vfs, directory: directory.to_owned(), failure, marks }
    }

    /// Where to begin to read the log files that have these names.
    pub fn marks(&self) -> &LogMarks {
        &self.marks
    }

    /// Makes the names durable that stand in the directory now.
    ///
    /// # Errors
    /// [`Error::Io`] the first time, then [`Error::Poisoned`] for every caller.
    pub fn sync(&self) -> Result<()> {
        let mut failure = self.failure.lock();
        check(failure.as_ref())?;
        self.vfs.sync_dir(&self.directory).map_err(|e| {
            let error = Error::io("cannot sync the directory", &self.directory, e);
            *failure = Some(error.cause());
            error
        })
    }

    /// Gives a log file a rotated name, durably, if there is anything in it. After an error with which the file still
    /// has its old name everything is as before.
    pub(crate) fn rotate(&self, path: &Path) -> Result<()> {
        let mut failure = self.failure.lock();
        check(failure.as_ref())?;
        let rotated = rotation::rotate_file(&*self.vfs, path).inspect_err(|error| {
            if !matches!(self.vfs.kind(path), Ok(Some(FileKind::File))) {
                *failure = Some(error.cause());
            }
        })?;
        rotated.into_iter().for_each(|target| self.marks.renamed(path, &target));
        Ok(())
    }

    /// Whether names could not be made durable.
    pub fn has_failed(&self) -> bool {
        self.failure.lock().is_some()
    }
}

/// A failure after which every call of the same writer is refused; the first one stays.
#[derive(Clone, Debug, Default)]
pub(super) struct Failure(Arc<OnceLock<String>>);

impl Failure {
    pub(super) fn check(&self) -> Result<()> {
        check(self.0.get())
    }

    pub(super) fn note(&self, error: Error) -> Error {
        // Only the first one says what happened.
        let _ = self.0.set(error.cause());
        error
    }
}

fn check(failure: Option<&String>) -> Result<()> {
    match failure {
        Some(failure) => Err(Error::Poisoned(failure.clone())),
        None => Ok(()),
    }
}

/// An open file and how far it is on the disk. Shared by its writer and by whoever syncs meanwhile.
#[derive(Debug)]
pub(super) struct FileSync {
    pub(super) file: Arc<dyn VfsFile>,
    path: PathBuf,
    names: Arc<NameSync>,
    failure: Failure,
    turn: Mutex<Synced>,
}

/// What is on the disk.
#[derive(Debug, Default)]
struct Synced {
    changes: u64,
    named: bool,
}

impl FileSync {
    pub(super) fn new(file: Arc<dyn VfsFile>, path: &Path, names: Arc<NameSync>, failure: Failure) -> FileSync {
        FileSync { file, path: path.to_owned(), names, failure, turn: Mutex::new(Rank::FileSync, Synced::default()) }
    }

    /// The first `changes` changes are on the disk when this returns; the name may not be.
    pub(super) fn content(&self, changes: u64) -> Result<()> {
        self.sync_in_turn(&mut self.turn.lock(), changes, changes)
    }

    /// The first `changes` changes are on the disk when this returns, and so is the name. If that takes a sync, the
    /// first `made` changes are, which were made before this call.
    pub(super) fn content_and_name(&self, changes: u64, made: u64) -> Result<()> {
        let mut synced = self.turn.lock();
        self.sync_in_turn(&mut synced, changes, made)?;
        if !synced.named {
            self.names.sync().map_err(|e| self.failure.note(e))?;
            synced.named = true;
        }
        Ok(())
    }

    fn sync_in_turn(&self, synced: &mut Synced, changes: u64, made: u64) -> Result<()> {
        self.failure.check()?;
        if synced.changes < changes {
            self.file.sync().map_err(|e| self.failure.note(Error::io("cannot sync", &self.path, e)))?;
            synced.changes = made;
        }
        Ok(())
    }
}

/// What was written up to some moment, to be synced by whoever likes, while the writer goes on.
#[derive(Debug)]
pub struct PendingSync {
    pub(super) file: Arc<FileSync>,
    pub(super) changes: u64,
    /// Where the bytes begin and end that no sync has been asked for before.
    pub(super) range: (u64, u64),
}

impl PendingSync {
    /// All of it and the name of the file are on the disk when this returns.
    ///
    /// # Errors
    /// [`Error::Io`] for one caller, [`Error::Poisoned`] for all others; the writer refuses everything from then on.
    pub fn run(&self) -> Result<()> {
        self.file.content_and_name(self.changes, self.changes)
    }

    /// Lets the system use the memory of the newly synced bytes for something else, if there are at least `bytes_min`.
    pub fn release_cache(&self, bytes_min: u64) {
        let (from, to) = self.range;
        if to.saturating_sub(from) >= bytes_min {
            self.file.file.release_cache(from, to - from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Fault, Open, SimFs};

    #[test]
    fn names_that_a_failed_sync_may_have_lost_are_durable_for_nobody() {
        let fs = SimFs::new();
        fs.create_dir(Path::new("/log")).unwrap();
        let names = NameSync::new(Arc::new(fs.clone()), Path::new("/log"));
        fs.open(Path::new("/log/pwal_0000"), Open::New).unwrap();
        fs.fail_at(fs.operations() + 1, Fault::SyncLoses);
        assert!(matches!(names.sync(), Err(Error::Io { .. })));
        let before = fs.operations();
        assert!(matches!(names.sync(), Err(Error::Poisoned(_))));
        assert!(matches!(names.rotate(Path::new("/log/pwal_0000")), Err(Error::Poisoned(_))));
        assert_eq!(fs.operations(), before, "nothing is tried again");
    }

    #[test]
    fn a_failed_sync_of_one_file_is_a_failure_for_whoever_waits_for_the_turn() {
        let fs = SimFs::new();
        fs.create_dir(Path::new("/log")).unwrap();
        let path = Path::new("/log/pwal_0000");
        let names = Arc::new(NameSync::new(Arc::new(fs.clone()), Path::new("/log")));
        let file: Arc<dyn VfsFile> = fs.open(path, Open::New).unwrap().into();
        let sync = Arc::new(FileSync::new(file.clone(), path, names, Failure::default()));
        file.write_at(0, b"one").unwrap();
        let pending = |changes| PendingSync { file: sync.clone(), changes, range: (0, 3) };
        fs.fail_at(fs.operations() + 1, Fault::SyncLoses);
        assert!(matches!(pending(1).run(), Err(Error::Io { .. })));
        assert!(
            matches!(pending(2).run(), Err(Error::Poisoned(_))),
            "a second sync would succeed and has saved nothing"
        );
    }
}

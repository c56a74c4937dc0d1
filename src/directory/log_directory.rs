// SPDX-License-Identifier: Apache-2.0
//! A data directory for a writer of its own, such as a standby: opened, recovered and put right as a start does it, but
//! without channels, epochs and snapshot.

use super::data_directory::{apply, Directory};
use super::manifest_file::ManifestOnDisk;
use super::start::{self, Reading, Record, Started};
use crate::compaction::own;
use crate::error::Result;
use crate::types::{BlobId, Epoch};
use crate::vfs::Vfs;
use crate::wal::catalog::Catalog;
use crate::wal::epoch_file::EpochFile;
use crate::wal::epoch_marks::{EpochMarks, LogMarks};
use crate::wal::history_file::DirectoryHistory;
use crate::wal::marks_file;
use crate::wal::scanner::Edit;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A locked directory in which nothing is left that was never durable.
#[derive(Debug)]
pub struct LogDirectory {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    directory: Directory,
}

/// What [`LogDirectory::open`] found and put right.
#[derive(Debug)]
pub struct Restored {
    /// Written anew. Its record is the durable epoch: what a start took away does not raise it, so that the same epoch
    /// can come again.
    pub epoch_file: EpochFile,
    /// The largest epoch that left a trace.
    pub last_epoch: Epoch,
    /// Entries of durable sessions.
    pub entries: u64,
    /// The largest BLOB id that a durable entry or the catalog knows.
    pub max_blob_id: BlobId,
    /// Where another reader of a log file may begin, by its name.
    pub marks: Vec<(String, EpochMarks)>,
}

impl LogDirectory {
    /// Creates or opens the directory, takes its lock, migrates it, reads all of its log with up to `threads` threads,
    /// and takes away durably what is beyond the durable epoch.
    ///
    /// # Errors
    /// As those of opening and starting a data store; then no log file has been changed.
    pub fn open(vfs: Arc<dyn Vfs>, location: &Path, threads: usize) -> Result<(LogDirectory, Restored)> {
        LogDirectory::start(
            Directory::open(vfs, location)?,
            Reading { threads, snapshot_memory_bytes: None, marks: None },
        )
    }

    /// The same, but that of files that are as they were when a former process closed the directory only what it left
    /// unread is read ([`marks_file`]): damage in them is found by whoever looks for it, as on a replica that has been
    /// open for long.
    pub fn open_known(vfs: Arc<dyn Vfs>, location: &Path, threads: usize) -> Result<(LogDirectory, Restored)> {
        let directory = Directory::open(vfs, location)?;
        // What a cut takes away is above every mark that counts then.
        let marks = marks_file::load(&**directory.vfs(), directory.location());
        LogDirectory::start(directory, Reading { threads, snapshot_memory_bytes: None, marks: Some(&marks) })
    }

    /// Writes down for the next [`Self::open_known`] what `marks` say. Nothing has failed, and nobody appends.
    ///
    /// # Errors
    /// [`Error::Io`](crate::error::Error::Io) when a log file cannot be synced.
    pub(crate) fn write_marks(&self, marks: &LogMarks) -> Result<()> {
        marks_file::save(&*self.vfs, &self.location, marks, marks_file::Which::All)
    }

    /// The same for one that is open, when its epoch record or its history says something else than before. Nothing
    /// has been appended to the log but whole sessions since `marks` were made, which say what need not be read again.
    pub fn open_again(self, marks: &LogMarks, threads: usize) -> Result<(LogDirectory, Restored)> {
        LogDirectory::start(self.directory, Reading { threads, snapshot_memory_bytes: None, marks: Some(marks) })
    }

    fn start(directory: Directory, reading: Reading<'_>) -> Result<(LogDirectory, Restored)> {
        let (vfs, location) = (directory.vfs().clone(), directory.location().to_owned());
        complete_cut(&directory)?;
        let found = start::read(&directory, reading)?;
        let is_empty = found.durable() == Epoch(0) && found.recovered.entries == 0;
        let instance = directory.identity();
        DirectoryHistory::open_replica(directory.place(&instance), found.durable(), is_empty)?;
        let Started { epoch_file, last_epoch, entries, max_blob_id, marks, .. } = found.put_right(Record::Durable)?;
        own::delete_left(&*vfs, &location, &directory.catalog);
        let restored = Restored { epoch_file, last_epoch, entries, max_blob_id, marks };
        Ok((LogDirectory { vfs, location, directory }, restored))
    }

    /// The instance UUID.
    pub fn identity(&self) -> String {
        self.directory.identity()
    }

    /// Gives the directory another instance UUID, durably.
    pub fn set_identity(&mut self, uuid: &str) -> Result<()> {
        self.directory.set_identity(uuid)
    }

    /// The manifest, for somebody who keeps it.
    pub(crate) fn manifest(&self) -> Arc<ManifestOnDisk> {
        self.directory.manifest()
    }

    /// The catalog.
    pub fn catalog(&self) -> &Catalog {
        &self.directory.catalog
    }

    /// The catalog on the disk is this one now.
    pub(crate) fn set_catalog(&mut self, catalog: Catalog) {
        self.directory.catalog = catalog;
    }

    /// Whether every session of it that counts has an end marker.
    pub(crate) fn has_end_markers(&self) -> bool {
        self.directory.has_end_markers()
    }

    /// Makes the changes to one log file and syncs it.
    pub fn apply(&self, path: &Path, edits: &[Edit]) -> Result<()> {
        apply(&*self.vfs, path, edits)
    }

    pub fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    pub fn location(&self) -> &Path {
        &self.location
    }
}

/// Carries out a cut that has begun. The record goes down before the history says that the runs above it are gone: in
/// between these have no epochs.
fn complete_cut(directory: &Directory) -> Result<()> {
    let instance = directory.identity();
    let place = directory.place(&instance);
    let Some(history) = DirectoryHistory::load(place)? else { return Ok(()) };
    let Some(last) = history.cut_above() else { return Ok(()) };
    EpochFile::replace(directory.vfs().clone(), place.location, last)?;
    history.cut(last).save(place.vfs, place.location)?;
    log::info!("{}: what was above epoch {last} is cut off", place.location.display());
    Ok(())
}

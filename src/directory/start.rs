// SPDX-License-Identifier: Apache-2.0
//! The one start of a data directory, for an engine and for a replica: first everything is read, then the directory is
//! made one that can be appended to. Between the two stands a [`Found`]: whatever else has to be known, checked or made
//! durable before anything is changed is done by the caller while it holds one.

use super::data_directory::Directory;
use crate::error::Result;
use crate::recovery::{self, Input, Onlooker, Recovered, Snapshot};
use crate::types::{BlobId, Epoch};
use crate::vfs::Vfs;
use crate::wal::catalog::Catalog;
use crate::wal::epoch_file::EpochFile;
use crate::wal::epoch_marks::{EpochMarks, LogMarks};
use crate::wal::rotation;
use std::path::Path;

/// How a directory is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    /// Threads that read the log.
    pub threads: usize,
    /// Bound for the index, in bytes; `None` when no snapshot is wanted.
    pub snapshot_memory_bytes: Option<u64>,
    /// Where to begin to read files that nobody has changed since these were made; without a snapshot.
    pub marks: Option<&'a LogMarks>,
}

/// Which epoch a start records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// The largest one that left a trace: no epoch is ever used twice.
    Last,
    /// The durable one: what is taken away does not raise it, so that the same epoch can come again.
    Durable,
}

/// What was read of a directory. Nothing in the log has been changed.
#[derive(Debug)]
pub(crate) struct Found<'d> {
    directory: &'d Directory,
    pub recovered: Recovered,
}

/// A directory that can be appended to.
#[derive(Debug)]
pub(crate) struct Started {
    /// Written anew.
    pub epoch_file: EpochFile,
    /// The durable epoch that was found.
    pub durable: Epoch,
    /// The largest epoch that left a trace.
    pub last_epoch: Epoch,
    /// Entries of durable sessions.
    pub entries: u64,
    /// The largest BLOB id that a durable entry or the catalog knows.
    pub max_blob_id: BlobId,
    pub snapshot: Snapshot,
    pub warnings: Vec<String>,
    /// Where another reader of a log file may begin, by its name.
    pub marks: Vec<(String, EpochMarks)>,
}

/// Reads the log of an open directory.
///
/// # Errors
/// [`Error::Corrupted`](crate::error::Error::Corrupted) when acknowledged data is damaged.
pub(crate) fn read<'d>(directory: &'d Directory, reading: Reading<'_>) -> Result<Found<'d>> {
    let (vfs, location) = (&**directory.vfs(), directory.location());
    let recovered = read_log(vfs, location, &directory.catalog, directory.has_end_markers(), reading, None)?;
    Ok(Found { directory, recovered })
}

/// The reading of a start, which changes nothing.
pub(super) fn read_log(
    vfs: &dyn Vfs,
    location: &Path,
    catalog: &Catalog,
    end_markers: bool,
    reading: Reading<'_>,
    onlooker: Option<&dyn Onlooker>,
) -> Result<Recovered> {
    let input = input(vfs, location, catalog, end_markers, reading);
    recovery::read(&input, reading.snapshot_memory_bytes.is_some(), onlooker)
}

/// The durable epoch of a directory whose log cannot be read; `None` when that cannot be known either.
pub(super) fn recorded(vfs: &dyn Vfs, location: &Path, catalog: &Catalog) -> Option<Epoch> {
    let reading = Reading { threads: 1, snapshot_memory_bytes: None, marks: None };
    recovery::durable_epoch(&input(vfs, location, catalog, true, reading)).ok()
}

fn input<'a>(
    vfs: &'a dyn Vfs,
    location: &'a Path,
    catalog: &'a Catalog,
    end_markers: bool,
    reading: Reading<'a>,
) -> Input<'a> {
    Input {
        vfs,
        location,
        catalog,
        end_markers,
        threads: reading.threads,
        memory_bytes: reading.snapshot_memory_bytes.unwrap_or_default(),
        releases: false,
        stopping: None,
        pace: None,
        marks: reading.marks,
    }
}

impl Found<'_> {
    /// The durable epoch.
    pub fn durable(&self) -> Epoch {
        self.recovered.durable.unwrap_or_default()
    }

    /// The largest epoch that left a trace.
    pub fn last_epoch(&self) -> Epoch {
        self.recovered.last_epoch
    }

    /// Makes the directory one that can be appended to. What never counts is taken away durably before the epoch record
    /// covers its epochs (W13), and the rotated epoch files go only when the new record stands.
    ///
    /// # Errors
    /// [`Error::Io`](crate::error::Error::Io); the directory must be opened anew then.
    pub fn put_right(self, record: Record) -> Result<Started> {
        let durable = self.durable();
        let Found { directory, mut recovered } = self;
        for warning in &recovered.warnings {
            log::warn!("{warning}");
        }
        directory.apply(&recovered.edits)?;
        let (vfs, location) = (directory.vfs(), directory.location());
        let epoch = match record {
            Record::Last => recovered.last_epoch,
            Record::Durable => durable,
        };
        // Written anew: what the present file shows may be in the cache of the system only, after a failed sync for
        // good.
        let epoch_file = match recovered.nothing_durable {
            true => EpochFile::replace_nothing_durable(vfs.clone(), location, epoch)?,
            false => EpochFile::replace(vfs.clone(), location, epoch)?,
        };
        directory.tidy_up()?;
        let all = directory.needs_detach();
        if all {
            log::info!("Manifest migration requires WAL rotation.");
        }
        let must_not_grow = |name: &str| all || recovered.open_ended.iter().any(|open| open == name);
        let renamed = rotation::rotate_idle(&**vfs, location, must_not_grow)?;
        if all {
            log::info!("WAL rotation completed.");
        }
        for (name, _) in &mut recovered.marks {
            let other = renamed.iter().find(|(from, _)| from == name);
            other.into_iter().for_each(|(_, to)| name.clone_from(to));
        }
        Ok(Started {
            epoch_file,
            durable,
            last_epoch: recovered.last_epoch,
            entries: recovered.entries,
            max_blob_id: recovered.max_blob_id.max(directory.catalog.max_blob_id),
            snapshot: recovered.snapshot,
            warnings: recovered.warnings,
            marks: recovered.marks,
        })
    }
}

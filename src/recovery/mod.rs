// SPDX-License-Identifier: Apache-2.0
//! From the log files of a directory to a snapshot of what was acknowledged. Owns the parallel scan, the sorted
//! index, the merge rule and the cursors; promises to change nothing on disk ([`Recovered::edits`] says what should
//! be), to use memory within a bound, and to give every key at most once. Knows nothing of channels or of how
//! epochs advance.
//!
//! The log files are mapped, not copied. A scan turns each entry into 24 bytes: sixteen bytes of its key and its
//! position. Those are sorted in pieces, the pieces merged, and the positions of the live entries are what a
//! snapshot keeps.

mod compacted;
mod index;
mod merge;
mod pool;
mod snapshot;

pub use snapshot::{Cursor, Row, Snapshot};

use crate::error::{Damage, Error, Result};
use crate::types::{BlobId, Epoch, StorageId, WriteVersion};
use crate::vfs::{DirEntry, FileKind, Mapping, Open, Vfs};
use crate::wal::catalog::Catalog;
use crate::wal::entry::Entry;
use crate::wal::scanner::{self, Edit, FileScan, Visitor};
use crate::wal::{epoch_file, names};
use index::{Budget, IndexBuilder, Kind, Position};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a recovery works on.
#[derive(Debug)]
pub struct Input<'a> {
    pub vfs: &'a dyn Vfs,
    pub location: &'a Path,
    pub catalog: &'a Catalog,
    /// Whether the format version of the directory writes end markers.
    pub end_markers: bool,
    pub threads: usize,
    /// Bound for the index, in bytes.
    pub memory_bytes: u64,
}

/// What a recovery found.
#[derive(Debug)]
pub struct Recovered {
    pub snapshot: Snapshot,
    /// The durable epoch that the epoch files gave; `None` when they hold no record.
    pub durable: Option<Epoch>,
    /// The epoch file has to be written anew before it is appended to.
    pub rewrite_epoch_file: bool,
    /// The largest epoch that left a trace.
    pub last_epoch: Epoch,
    /// The largest BLOB id in any durable entry.
    pub max_blob_id: BlobId,
    /// Changes to make and to sync before an epoch is recorded; an empty list means that the file needs the sync.
    pub edits: Vec<(PathBuf, Vec<Edit>)>,
    /// Log files under an active name that must not be appended to, because their last session has no end marker.
    pub open_ended: Vec<String>,
    pub warnings: Vec<String>,
    pub entries: u64,
}

/// Reads the directory.
pub fn recover(input: &Input<'_>) -> Result<Recovered> {
    let mut listing = input.vfs.list(input.location).map_err(|e| Error::io("cannot list", input.location, e))?;
    listing.sort_by(|a, b| a.name.cmp(&b.name));
    let mut warnings = Vec::new();
    let epochs = read_epochs(input, &listing, &mut warnings)?;
    let sources = open_logs(input, &listing)?;
    let scans = scan_logs(input, &sources, epochs.durable.unwrap_or_default())?;

    let mut recovered_epoch = epochs.durable.unwrap_or_default();
    let has_content =
        sources.iter().zip(&scans.files).any(|(source, scan)| !source.bytes.is_empty() && !scan.all_zeros);
    let mut edits = Vec::new();
    let mut open_ended = Vec::new();
    for (source, scan) in sources.iter().zip(&scans.files) {
        check_against_epoch_file(input, source, scan, has_content, epochs.durable)?;
        recovered_epoch = recovered_epoch.max(scan.max_epoch);
        let found = scan.warnings.iter().map(|warning| format!("{}: {warning}", source.path.display()));
        warnings.extend(found);
        if scan.invalidated_sessions > 0 {
            log::info!("{}: {} sessions are marked as invalid", source.path.display(), scan.invalidated_sessions);
        }
        // The mark of an invalidated session may be in the cache only, left by a process that was killed.
        if !scan.edits.is_empty() || scan.invalidated_sessions > 0 {
            edits.push((source.path.clone(), scan.edits.clone()));
        }
        if scan.open_end && names::is_active_log(&source.name) {
            open_ended.push(source.name.clone());
        }
    }

    let (max_blob_id, entries) = (scans.max_blob_id, scans.entries);
    let files: Vec<Mapping> = sources.into_iter().map(|source| source.bytes).collect();
    for file in &files {
        file.advise(false);
    }
    let live = merge::merge(scans.index, &scans.clears, &files, input)?;
    Ok(Recovered {
        snapshot: Snapshot::new(files.into(), live),
        durable: epochs.durable,
        rewrite_epoch_file: epochs.rewrite,
        last_epoch: recovered_epoch,
        max_blob_id,
        edits,
        open_ended,
        warnings,
        entries,
    })
}

struct Epochs {
    durable: Option<Epoch>,
    rewrite: bool,
}

/// The durable epoch (§3.4): the largest record of `epoch`, or of all epoch files when it has none.
fn read_epochs(input: &Input<'_>, listing: &[DirEntry], warnings: &mut Vec<String>) -> Result<Epochs> {
    let mut read = |name: &str| -> Result<epoch_file::EpochRecords> {
        let path = input.location.join(name);
        let bytes = map(input.vfs, &path)?;
        let records = epoch_file::parse(&bytes, &path).map_err(|damage| Error::Corrupted(Box::new(damage)))?;
        if let Some(offset) = records.torn_at {
            let lost = bytes.len() - offset;
            warnings.push(format!("{}: a torn record at offset {offset}: {lost} bytes were cut off", path.display()));
        }
        Ok(records)
    };
    let exists = |name: &str| listing.iter().any(|entry| entry.kind == FileKind::File && entry.name == name);
    if exists(names::EPOCH) {
        let main = read(names::EPOCH)?;
        if main.max.is_some() {
            return Ok(Epochs { durable: main.max, rewrite: main.torn_at.is_some() });
        }
    }
    let mut durable = None;
    for entry in listing.iter().filter(|entry| entry.kind == FileKind::File && entry.name != names::EPOCH) {
        match entry.name.to_str() {
            Some(name) if names::is_epoch(name) => durable = durable.max(read(name)?.max),
            _ => {}
        }
    }
    Ok(Epochs { durable, rewrite: true })
}

/// A log file that is read.
struct Source {
    name: String,
    path: PathBuf,
    bytes: Mapping,
    compacted: bool,
}

fn map(vfs: &dyn Vfs, path: &Path) -> Result<Mapping> {
    let map = || vfs.open(path, Open::Read)?.map();
    map().map_err(|e| Error::io("cannot read", path, e))
}

/// The files to read, in the order in which a later one wins among equal versions: the compacted file, whose
/// versions are all (0, 0), then the logs by name (§1.3, §6.5).
fn open_logs(input: &Input<'_>, listing: &[DirEntry]) -> Result<Vec<Source>> {
    let files: Vec<&str> = listing
        .iter()
        .filter(|entry| entry.kind == FileKind::File)
        .filter_map(|entry| entry.name.to_str())
        .filter(|name| names::is_log(name))
        .collect();
    // A crash between two renames leaves only the previous compacted file; beside a new one it is stale (W15).
    let compacted = [names::COMPACTED, names::COMPACTED_PREVIOUS].into_iter().find(|name| files.contains(name));
    let is_input = |name: &str| {
        name != names::COMPACTED && name != names::COMPACTED_PREVIOUS && !input.catalog.detached.contains(name)
    };
    let logs = files.iter().copied().filter(|name| is_input(name)).map(|name| (name, false));
    compacted
        .map(|name| (name, true))
        .into_iter()
        .chain(logs)
        .map(|(name, compacted)| {
            let path = input.location.join(name);
            Ok(Source { name: name.to_owned(), bytes: map(input.vfs, &path)?, path, compacted })
        })
        .collect()
}

/// What the sessions of one file say must fit what the epoch file says. `anything_else` is whether any log file has
/// content other than zeros.
fn check_against_epoch_file(
    input: &Input<'_>,
    source: &Source,
    scan: &FileScan,
    anything_else: bool,
    durable: Option<Epoch>,
) -> Result<()> {
    let refuse = |reason: &str, found: String, expected: &str| {
        Err(Error::Corrupted(Box::new(Damage {
            file: source.path.clone(),
            offset: 0,
            epoch: None,
            reason: reason.to_owned(),
            found,
            expected: expected.to_owned(),
        })))
    };
    if durable.is_none() && scan.has_ended_session {
        return refuse(
            &format!("the epoch file \"{}\" is missing or empty", input.location.join(names::EPOCH).display()),
            format!("ended sessions up to epoch {}", scan.max_epoch),
            "a durable-epoch record, without which every session would be thrown away",
        );
    }
    if scan.all_zeros && !anything_else && durable > Some(Epoch(0)) {
        return refuse(
            "this pwal file is broken: unexpected log_entry type 0",
            format!("{} zero bytes, and no other log file with content", source.bytes.len()),
            &format!("sessions up to the durable epoch {}", durable.unwrap_or_default()),
        );
    }
    Ok(())
}

/// The largest version that cleared each storage.
type Clears = HashMap<StorageId, WriteVersion>;

struct Scans {
    files: Vec<FileScan>,
    index: index::Index,
    clears: Clears,
    max_blob_id: BlobId,
    entries: u64,
}

/// Collects what one thread reads.
struct Collector<'a> {
    index: IndexBuilder<'a>,
    file: usize,
    clears: Clears,
    max_blob_id: BlobId,
    entries: u64,
    error: Option<Error>,
}

impl Visitor for Collector<'_> {
    #[inline]
    fn entry(&mut self, offset: usize, entry: Entry<'_>) {
        let (storage, key, kind) = match entry {
            Entry::Put { storage, key, blobs, .. } => {
                self.max_blob_id = blobs.iter().fold(self.max_blob_id, BlobId::max);
                (storage, key, Kind::Put)
            }
            Entry::Remove { storage, key, .. } => (storage, key, Kind::Remove),
            Entry::ClearStorage { storage, version } => {
                let clear = self.clears.entry(storage).or_default();
                *clear = version.max(*clear);
                return;
            }
            _ => return,
        };
        self.entries += 1;
        match Position::new(self.file, offset, kind) {
            Some(position) => {
                if let Err(e) = self.index.add(storage, key, position) {
                    self.error.get_or_insert(e);
                }
            }
            None => {
                let message =
                    format!("more than {} log files, or one above {} bytes", Position::MAX_FILES, Position::MAX_OFFSET);
                self.error.get_or_insert(Error::UnsupportedVersion(message));
            }
        }
    }
}

/// Scans all files with several threads; the first damage in file order is reported.
fn scan_logs(input: &Input<'_>, sources: &[Source], durable: Epoch) -> Result<Scans> {
    let threads = input.threads.clamp(1, sources.len().max(1));
    let budget = Budget::new(input.memory_bytes, threads, input.vfs, input.location);
    // The largest first, so that no thread is left with a large one at the end.
    let mut order: Vec<usize> = (0..sources.len()).collect();
    order.sort_by_key(|&file| std::cmp::Reverse(sources[file].bytes.len()));
    let work = pool::Queue::new(order);
    let scan_one = |collector: &mut Collector<'_>, file: usize| -> Result<FileScan> {
        let source = &sources[file];
        collector.file = file;
        source.bytes.advise(true);
        let scan = if source.compacted {
            compacted::scan(&source.bytes, &source.path, collector)
        } else {
            scanner::scan(&source.bytes, durable, input.end_markers, &source.path, collector)
        };
        match collector.error.take() {
            Some(error) => Err(error),
            None => scan.map_err(|damage| Error::Corrupted(Box::new(damage))),
        }
    };
    let workers = pool::run(threads, || {
        let index = IndexBuilder::new(&budget);
        let mut collector =
            Collector { index, file: 0, clears: Clears::new(), max_blob_id: BlobId(0), entries: 0, error: None };
        let mut scans = Vec::new();
        while let Some(file) = work.next() {
            scans.push((file, scan_one(&mut collector, file)));
        }
        (collector, scans)
    });

    let mut files: Vec<Option<Result<FileScan>>> = sources.iter().map(|_| None).collect();
    let mut clears = Clears::new();
    let (mut max_blob_id, mut entries) = (BlobId(0), 0);
    let mut builders = Vec::new();
    for (collector, scans) in workers {
        for (file, scan) in scans {
            files[file] = Some(scan);
        }
        for (storage, version) in collector.clears {
            let clear = clears.entry(storage).or_default();
            *clear = version.max(*clear);
        }
        max_blob_id = max_blob_id.max(collector.max_blob_id);
        entries += collector.entries;
        builders.push(collector.index);
    }
    let files = files.into_iter().map(|scan| scan.expect("every file was scanned")).collect::<Result<Vec<_>>>()?;
    let index = index::Index::finish(builders, threads)?;
    Ok(Scans { files, index, clears, max_blob_id, entries })
}

/// Only shared for what a thread must not keep alive alone.
type Files = Arc<[Mapping]>;

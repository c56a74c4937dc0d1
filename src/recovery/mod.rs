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
#[cfg(test)]
pub(crate) mod fixture;
mod index;
mod input;
mod mapped_reads;
mod merge;
mod onlooker;
pub(crate) mod pool;
mod scan;
mod selected;
mod snapshot;

pub use input::{Input, Pace};
pub use mapped_reads::MappedReads;
pub use onlooker::{Follower, Onlooker};
pub use selected::{Beyond, Merged, Selected};
pub use snapshot::{Cursor, Row, Snapshot};

use crate::error::{Damage, Error, Remedy, Result};
use crate::types::{BlobId, Epoch};
use crate::vfs::Mapping;
use crate::wal::epoch_marks::EpochMarks;
use crate::wal::names;
use crate::wal::scanner::{Edit, FileScan};
use input::Source;
use std::path::PathBuf;

/// What a recovery found.
#[derive(Debug)]
pub struct Recovered {
    pub snapshot: Snapshot,
    /// The durable epoch that the epoch files gave; `None` when they hold no record.
    pub durable: Option<Epoch>,
    /// Nothing durable is in the log or ever was.
    pub nothing_durable: bool,
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
    /// Where another reader of a log file may begin, by its name.
    pub marks: Vec<(String, EpochMarks)>,
}

/// Reads the directory.
pub fn recover(input: &Input<'_>) -> Result<Recovered> {
    read(input, true, None)
}

/// Reads the directory while an `onlooker` looks on. Without a snapshot it finds the same, but for an empty one: costs
/// no memory for entries.
pub fn read(input: &Input<'_>, with_snapshot: bool, onlooker: Option<&dyn Onlooker>) -> Result<Recovered> {
    let mut listing = input.vfs.list(input.location).map_err(|e| Error::io("cannot list", input.location, e))?;
    listing.sort_by(|a, b| a.name.cmp(&b.name));
    let mut warnings = Vec::new();
    let records = input.read_epochs(&listing, &mut warnings)?;
    let durable = records.max;
    let sources = input.open_logs(&listing, |_| true)?;
    let scans = scan::scan(input, &sources, durable.unwrap_or_default(), with_snapshot, onlooker)?;

    let has_content = sources
        .iter()
        .zip(&scans.files)
        .any(|(source, scan)| source.compacted || (!source.bytes.is_empty() && !scan.all_zeros));
    let nothing_durable = records.say_nothing_is_durable()
        && !sources.iter().zip(&scans.files).any(|(source, scan)| source.compacted || scan.has_durable_session);
    // Then zeros are what a power cut left of sessions that were never acknowledged.
    let may_be_zeros = has_content || records.say_nothing_is_durable();
    let mut recovered = Recovered {
        snapshot: Snapshot::empty(),
        durable,
        nothing_durable,
        last_epoch: durable.unwrap_or_default(),
        max_blob_id: scans.max_blob_id,
        edits: Vec::new(),
        open_ended: Vec::new(),
        warnings,
        entries: scans.entries,
        marks: Vec::new(),
    };
    for (source, scan) in sources.iter().zip(scans.files) {
        check_against_epoch_file(input, source, &scan, may_be_zeros, durable)?;
        recovered.add(source, scan);
    }
    if with_snapshot {
        let compacted = sources.first().is_some_and(|source| source.compacted);
        let files: Vec<Mapping> = sources.into_iter().map(|source| source.bytes).collect();
        for file in &files {
            file.advise(false);
        }
        let live = merge::merge(scans.index, &scans.clears, &files, compacted, input)?;
        recovered.snapshot = Snapshot::new(files, live);
    }
    Ok(recovered)
}

impl Recovered {
    /// Adds what a log file holds besides its entries.
    fn add(&mut self, source: &Source, scan: FileScan) {
        self.last_epoch = self.last_epoch.max(scan.max_epoch);
        let found = scan.warnings.iter().map(|warning| format!("{}: {warning}", source.path.display()));
        self.warnings.extend(found);
        if scan.invalidated_sessions > 0 {
            log::info!("{}: {} sessions are marked as invalid", source.path.display(), scan.invalidated_sessions);
        }
        // A mark may be in the cache only, left by a process that was killed or whose sync failed: it is made again. So
        // may be the last change of a file that is appended to: it is synced.
        let mut changes: Vec<Edit> = scan.marked_beyond.iter().map(|&offset| Edit::Invalidate { offset }).collect();
        changes.extend(&scan.edits);
        if let Some((offset, epoch)) = scan.to_confirm {
            changes.push(Edit::Confirm { offset, epoch });
        }
        let invalidates = changes.iter().any(|edit| matches!(edit, Edit::Invalidate { .. }));
        let active = names::is_active_log(&source.name);
        if active || !changes.is_empty() {
            self.edits.push((source.path.clone(), changes));
        }
        // Behind the marker of an invalidated session may be bytes that a failed sync lost: nothing is appended there.
        if active && (scan.open_end || invalidates || scan.ends_invalidated) {
            self.open_ended.push(source.name.clone());
        }
        self.marks.push((source.name.clone(), scan.marks));
    }
}

/// The durable epoch that the epoch files give, 0 when they hold no record.
pub fn durable_epoch(input: &Input<'_>) -> Result<Epoch> {
    let listing = input.vfs.list(input.location).map_err(|e| Error::io("cannot list", input.location, e))?;
    Ok(input.read_epochs(&listing, &mut Vec::new())?.max.unwrap_or_default())
}

/// What the sessions of one file say must fit what the epoch file says. `may_be_zeros` is whether any log file has
/// other content than zeros, or nothing was ever durable in the log.
fn check_against_epoch_file(
    input: &Input<'_>,
    source: &Source,
    scan: &FileScan,
    may_be_zeros: bool,
    durable: Option<Epoch>,
) -> Result<()> {
    let refuse = |reason: &str, found: String, expected: &str, remedy: Remedy| {
        Err(Error::Corrupted(Box::new(Damage {
            file: source.path.clone(),
            offset: 0,
            epoch: None,
            reason: reason.to_owned(),
            found,
            expected: expected.to_owned(),
            remedy,
        })))
    };
    if durable.is_none() && scan.has_ended_session {
        return refuse(
            &format!("the epoch file \"{}\" is missing or empty", input.location.join(names::EPOCH).display()),
            format!("ended sessions up to epoch {}", scan.max_epoch),
            "a durable-epoch record, without which every session would be thrown away",
            Remedy::RestoreEpochFile,
        );
    }
    if scan.all_zeros && !may_be_zeros && durable > Some(Epoch(0)) {
        return refuse(
            "this pwal file is broken: unexpected log_entry type 0",
            format!("{} zero bytes, and no other log file with content", source.bytes.len()),
            &format!("sessions up to the durable epoch {}", durable.unwrap_or_default()),
            Remedy::Repair,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::fixture::{put, records, rows, session, Dir};
    use super::*;

    #[test]
    fn ended_sessions_without_any_epoch_record_are_refused_and_not_thrown_away() {
        let dir = Dir::new(1).with(names::EPOCH, b"").with("pwal_0000", &session(3, &[put(b"k", 3, "v")]));
        let Err(Error::Corrupted(damage)) = recover(&dir.input()) else { panic!("it was read") };
        assert_eq!(damage.remedy, Remedy::RestoreEpochFile);
        assert!(damage.found.contains("up to epoch 3"), "{}", damage.found);
        let dir = dir.with(names::EPOCH, &records(&[0]));
        assert!(rows(&recover(&dir.input()).unwrap().snapshot).is_empty(), "a record says that none of it was durable");
    }

    #[test]
    fn zeros_instead_of_the_only_log_are_refused_when_something_was_durable() {
        let zeros = Dir::new(5).with("pwal_0000", &[0; 64]);
        assert!(matches!(recover(&zeros.input()), Err(Error::Corrupted(_))));
        let beside = zeros.with("pwal_0001", &session(5, &[put(b"k", 5, "v")]));
        assert_eq!(rows(&recover(&beside.input()).unwrap().snapshot).len(), 1);
        assert!(recover(&Dir::new(0).with("pwal_0000", &[0; 64]).input()).is_ok(), "nothing was durable");
    }
}

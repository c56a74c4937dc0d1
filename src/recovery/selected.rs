// SPDX-License-Identifier: Apache-2.0
//! Some of the log files of a directory together with its compacted file, as a compaction reads them. They stay mapped,
//! so they are read as they were even when their names are gone.

use super::index::{Budget, Index, IndexBuilder, Kind, Position};
use super::input::{Input, Source};
use super::merge::{keep, merge, Clears, Segment};
use super::snapshot::Snapshot;
use super::{compacted, scan};
use crate::error::{Error, Result};
use crate::types::{BlobId, Epoch, WriteVersion};
use crate::vfs::Mapping;
use crate::wal::entry::Entry;
use crate::wal::scanner::{self, Edit, Visitor};
use crate::wal::sessions;

/// Positions that are held before they go to a file without a name.
const POSITIONS_HELD: usize = 1 << 20;

/// What sessions beyond the durable epoch in the selected files mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// They do not count and never will.
    Dropped,
    /// They may count later: the files must not hold any.
    Refused,
}

/// The selected files, mapped.
pub struct Selected<'a> {
    input: &'a Input<'a>,
    durable: Epoch,
    sources: Vec<Source>,
}

/// What the selected files hold together.
#[derive(Debug)]
pub struct Merged {
    pub snapshot: Snapshot,
    /// The largest BLOB id in any durable entry.
    pub max_blob_id: BlobId,
    /// Entries read, all versions.
    pub entries: u64,
    /// The largest epoch of a durable session in the log files; 0 without any.
    pub last_durable: Epoch,
    pub warnings: Vec<String>,
}

impl<'a> Selected<'a> {
    /// Opens the log files that are `wanted` and not detached, and the compacted file. Files of which the first session
    /// lies beyond `durable` are left out.
    pub fn open(input: &'a Input<'a>, durable: Epoch, wanted: impl Fn(&str) -> bool) -> Result<Selected<'a>> {
        let mut listing = input.vfs.list(input.location).map_err(|e| Error::io("cannot list", input.location, e))?;
        listing.sort_by(|a, b| a.name.cmp(&b.name));
        let mut sources = input.open_logs(&listing, wanted)?;
        let begins_beyond = |source: &Source| {
            let mut begun = sessions::begun(&source.bytes);
            begun.next().is_some_and(|first| !first.invalidated && first.epoch > durable)
        };
        sources.retain(|source| source.compacted || !begins_beyond(source));
        Ok(Selected { input, durable, sources })
    }

    /// Names of the log files.
    pub fn logs(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().filter(|source| !source.compacted).map(|source| source.name.as_str())
    }

    /// The same, and that of the compacted file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| source.name.as_str())
    }

    /// Total size in bytes.
    pub fn bytes(&self) -> u64 {
        self.sources.iter().map(|source| source.bytes.len() as u64).sum()
    }

    /// Leaves out log files with sessions beyond `floor`, and so many others that every session that stays is in an
    /// epoch below all that are left out: otherwise an older version in the log would win over the compacted file.
    pub fn leave_out_beyond(&mut self, floor: Epoch) {
        let ranges: Vec<_> = self.sources.iter().map(|source| epochs(&source.bytes)).collect();
        let mut kept: Vec<bool> = self
            .sources
            .iter()
            .zip(&ranges)
            .map(|(source, range)| source.compacted || range.is_none_or(|(_, last)| last <= floor))
            .collect();
        loop {
            let left_out = kept.iter().zip(&ranges).filter(|(kept, _)| !**kept);
            let Some(bound) = left_out.filter_map(|(_, range)| range.map(|(first, _)| first)).min() else {
                break;
            };
            let mut changed = false;
            for ((source, range), kept) in self.sources.iter().zip(&ranges).zip(&mut kept) {
                let reaches = !source.compacted && range.is_some_and(|(_, last)| last >= bound);
                changed |= *kept && reaches;
                *kept &= !reaches;
            }
            if !changed {
                break;
            }
        }
        let mut kept = kept.into_iter();
        self.sources.retain(|_| kept.next().unwrap_or(true));
    }

    /// Merges the files.
    pub fn merge(&self, beyond: Beyond) -> Result<Merged> {
        let scans = scan::scan(self.input, &self.sources, self.durable, true, None)?;
        let mut warnings = Vec::new();
        for (source, scan) in self.sources.iter().zip(&scans.files) {
            let path = source.path.display();
            warnings.extend(scan.warnings.iter().map(|warning| format!("{path}: {warning}")));
            let later = scan.edits.iter().any(|edit| matches!(edit, Edit::Invalidate { .. }));
            if later && beyond == Beyond::Refused {
                let message = format!("{path} holds sessions up to epoch {} and beyond it", self.durable);
                return Err(Error::WrongState(message));
            }
        }
        let last_durable = scans.files.iter().map(|scan| scan.last_durable).max().unwrap_or_default();
        let compacted = self.sources.first().is_some_and(|source| source.compacted);
        let files = self.files();
        let live = merge(scans.index, &scans.clears, &files, compacted, self.input)?;
        let snapshot = Snapshot::new(files, live);
        Ok(Merged { snapshot, max_blob_id: scans.max_blob_id, entries: scans.entries, last_durable, warnings })
    }

    /// The entries whose BLOBs somebody may still read who reads no version below `boundary` but the newest of a key
    /// (disk format §8.7): all with a version at or above it, and of each key the newest below it. Entries without
    /// BLOBs do not count, so more may be among them than are needed, never less. In no order.
    pub fn readable_blob_entries(&self, boundary: WriteVersion) -> Result<Snapshot> {
        let budget = Budget::new(self.input.memory_bytes, 1, self.input.vfs, self.input.location);
        let mut collector = BlobEntries {
            input: self.input,
            boundary,
            file: 0,
            older: IndexBuilder::new(&budget),
            newer: Vec::new(),
            segments: Vec::new(),
            error: None,
        };
        for (file, source) in self.sources.iter().enumerate() {
            collector.file = file;
            let scanned = if source.compacted {
                compacted::scan(&source.bytes, &source.path, &mut collector)
            } else {
                scanner::scan(&source.bytes, self.durable, self.input.end_markers, &source.path, &mut collector)
            };
            if let Some(error) = collector.error.take() {
                return Err(error);
            }
            scanned.map_err(Error::Corrupted)?;
            self.input.release(&source.bytes);
            self.input.check()?;
        }
        let BlobEntries { older, newer, mut segments, .. } = collector;
        segments.push(Segment::Held(newer));
        let files = self.files();
        let compacted = self.sources.first().is_some_and(|source| source.compacted);
        let index = Index::finish(vec![older], 1)?;
        segments.extend(merge(index, &Clears::new(), &files, compacted, self.input)?);
        segments.retain(|segment| segment.len() > 0);
        Ok(Snapshot::new(files, segments))
    }

    fn files(&self) -> Vec<Mapping> {
        self.sources.iter().map(|source| source.bytes.clone()).collect()
    }
}

/// The smallest and the largest epoch of the sessions of a file; `None` without any.
fn epochs(bytes: &[u8]) -> Option<(Epoch, Epoch)> {
    let epochs = sessions::begun(bytes).filter(|session| !session.invalidated).map(|session| session.epoch);
    epochs.fold(None, |range, epoch| {
        let (first, last) = range.unwrap_or((epoch, epoch));
        Some((first.min(epoch), last.max(epoch)))
    })
}

/// Collects entries with BLOBs.
struct BlobEntries<'a> {
    input: &'a Input<'a>,
    boundary: WriteVersion,
    file: usize,
    older: IndexBuilder<'a>,
    newer: Vec<Position>,
    segments: Vec<Segment>,
    error: Option<Error>,
}

impl BlobEntries<'_> {
    fn add(&mut self, offset: usize, entry: Entry<'_>) -> Result<()> {
        let Entry::Put { storage, key, version, blobs, .. } = entry else { return Ok(()) };
        if blobs.iter().next().is_none() {
            return Ok(());
        }
        // The scan before this one has refused what has no position.
        let Some(position) = Position::new(self.file, offset, Kind::Put) else { return Ok(()) };
        if version < self.boundary {
            return self.older.add(storage, key, position);
        }
        self.newer.push(position);
        if self.newer.len() == POSITIONS_HELD {
            self.input.check()?;
            self.segments.push(keep(std::mem::take(&mut self.newer), 0, self.input)?);
        }
        Ok(())
    }
}

impl Visitor for BlobEntries<'_> {
    fn entry(&mut self, offset: usize, entry: Entry<'_>) {
        if let Err(e) = self.add(offset, entry) {
            self.error.get_or_insert(e);
        }
    }

    fn gave_up(&self) -> bool {
        self.error.is_some() || self.input.check().is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::fixture::{compacted, put, put_with_blobs, rows, session, version, Dir};
    use crate::wal::names;

    const A: &str = "pwal_0000.00000000000001.0";
    const B: &str = "pwal_0001.00000000000001.0";
    const C: &str = "pwal_0002.00000000000001.0";

    fn log(epochs: &[u64]) -> Vec<u8> {
        epochs.iter().flat_map(|&epoch| session(epoch, &[put(b"k", epoch, "v")])).collect()
    }

    #[test]
    fn files_that_begin_beyond_the_durable_epoch_are_left_out_and_others_with_such_sessions_refused() {
        let dir = Dir::new(5).with(A, &log(&[4, 6])).with(B, &log(&[6])).with(C, &log(&[5]));
        let input = dir.input();
        let selected = Selected::open(&input, Epoch(5), |_| true).unwrap();
        assert_eq!(selected.logs().collect::<Vec<_>>(), [A, C]);
        assert!(matches!(selected.merge(Beyond::Refused), Err(Error::WrongState(text)) if text.contains(A)));
        assert_eq!(selected.merge(Beyond::Dropped).unwrap().snapshot.len(), 1);
    }

    #[test]
    fn no_session_that_stays_is_in_an_epoch_of_one_that_is_left_out() {
        // B is needed above 5 and begins at 3, where C ends: so C stays in the log too, and then nothing of A.
        let dir = Dir::new(9).with(A, &log(&[1])).with(B, &log(&[3, 6])).with(C, &log(&[2, 3]));
        let dir = dir.with(names::COMPACTED, &compacted(&[]));
        let input = dir.input();
        let mut selected = Selected::open(&input, Epoch(9), |_| true).unwrap();
        selected.leave_out_beyond(Epoch(5));
        assert_eq!(selected.logs().collect::<Vec<_>>(), [A]);
        assert_eq!(selected.sources.len(), 2, "the compacted file is read in any case");
    }

    #[test]
    fn blobs_of_the_boundary_and_above_and_the_newest_below_it_are_needed() {
        let entry = |key: &[u8], major| put_with_blobs(key, major, &major.to_string(), &[major]);
        let log =
            session(5, &[entry(b"a", 1), entry(b"a", 2), entry(b"a", 3), entry(b"a", 4), put(b"b", 1, "no BLOB")]);
        let dir = Dir::new(5).with(A, &log);
        let input = dir.input();
        let needed = Selected::open(&input, Epoch(5), |_| true).unwrap().readable_blob_entries(version(3)).unwrap();
        let mut values: Vec<String> = rows(&needed).into_iter().map(|(_, value)| value).collect();
        values.sort();
        assert_eq!(values, ["2", "3", "4"]);
    }
}

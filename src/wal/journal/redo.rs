// SPDX-License-Identifier: Apache-2.0
//! What a process that ended without settling its journal left: read, checked, and written to its files once more.
//!
//! Groups were synced one after the other, so a group that is missing with a later one behind it was acknowledged and
//! is damaged: that is refused. One that is not whole at the end was never acknowledged and counts for nothing.

use super::format::{decode_group, group_bytes, Group, JournalId, BLOCK_BYTES};
use crate::error::{Damage, Error, Remedy, Result};
use crate::types::Epoch;
use crate::vfs::{FileKind, Mapping, Open, Vfs};
use crate::wal::epoch_file::{self, EpochFile};
use crate::wal::names;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A longer epoch file is not ours: it is replaced at the hundredth record.
const EPOCH_FILE_BYTES_MAX: u64 = 64 << 20;

/// The groups of a journal that were not settled, checked.
#[derive(Debug)]
pub struct Unsettled {
    location: PathBuf,
    segments: Vec<(PathBuf, Mapping)>,
    /// In their order: segment and offset.
    groups: Vec<(usize, usize)>,
    journal: JournalId,
    epoch: Epoch,
}

/// What a log file is when the journal is settled.
#[derive(Debug, Default)]
pub struct SettledFile {
    /// What goes where, in the order in which it was written.
    pieces: Vec<(u64, Mapping, Range<usize>)>,
    /// Its length.
    pub len: u64,
}

impl SettledFile {
    /// Where bytes of the journal stand in the file; later ones take the place of earlier ones.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces.iter().map(|(offset, segment, range)| (*offset, &segment[range.clone()]))
    }
}

/// The segments of a journal in the directory, in order of their names.
pub fn segments(vfs: &dyn Vfs, location: &Path) -> Result<Vec<PathBuf>> {
    let listed = vfs.names(location).map_err(|e| Error::io("cannot list", location, e))?;
    let ours = listed
        .into_iter()
        .filter(|(name, kind)| *kind == FileKind::File && name.to_str().is_some_and(names::is_journal_segment));
    let mut paths: Vec<PathBuf> = ours.map(|(name, _)| location.join(name)).collect();
    paths.sort();
    Ok(paths)
}

/// Reads the journal. Changes nothing.
///
/// # Errors
/// [`Error::Corrupted`] when a group in the durable range is damaged or no segment is there.
pub fn read(vfs: &dyn Vfs, location: &Path, journal: &JournalId) -> Result<Unsettled> {
    let mut mapped = Vec::new();
    for path in segments(vfs, location)? {
        let bytes = vfs.open(&path, Open::Read).and_then(|file| file.map());
        mapped.push((path.clone(), bytes.map_err(|e| Error::io("cannot read the commit journal", &path, e))?));
    }
    let mut found = BTreeMap::new();
    for (segment, (_, bytes)) in mapped.iter().enumerate() {
        let mut at = 0;
        while at < bytes.len() {
            at += match decode_group(&bytes[at..], journal) {
                Some(group) => {
                    found.insert(group.header.sequence, (segment, at, group.header));
                    group_bytes(group.body.len())
                }
                None => BLOCK_BYTES,
            };
        }
    }
    let first = mapped.first().map_or_else(|| location.join(names::journal_segment(0)), |(path, _)| path.clone());
    if mapped.is_empty() {
        let expected = "the commit journal that the manifest says is in use";
        return Err(damaged(first, 0, "the commit journal is missing", "no segment of it".to_owned(), expected));
    }
    let last = found.last_key_value().map(|(_, (_, _, header))| *header);
    let settled = last.map_or(0, |header| header.settled);
    let mut groups = Vec::new();
    for (expected, (sequence, (segment, at, _))) in (settled + 1..).zip(found.range(settled + 1..)) {
        if *sequence != expected {
            let found = format!("group {sequence} behind it");
            let path = mapped[*segment].0.clone();
            let reason = "the commit journal is damaged";
            return Err(damaged(path, *at, reason, found, &format!("group {expected}, which was durable")));
        }
        groups.push((*segment, *at));
    }
    let epoch = last.map_or(Epoch(0), |header| header.epoch);
    let unsettled = Unsettled { location: location.to_owned(), segments: mapped, groups, journal: *journal, epoch };
    unsettled.check(vfs)?;
    Ok(unsettled)
}

fn damaged(file: PathBuf, offset: usize, reason: &str, found: String, expected: &str) -> Error {
    let (offset, reason, expected) = (offset as u64, reason.to_owned(), expected.to_owned());
    let remedy = Remedy::RestoreFile;
    Error::Corrupted(Box::new(Damage { file, offset, epoch: None, reason, found, expected, remedy }))
}

impl Unsettled {
    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The epoch that is durable with them; 0 when they make none durable.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn group(&self, &(segment, at): &(usize, usize)) -> Result<Group<'_>> {
        let (path, bytes) = &self.segments[segment];
        decode_group(&bytes[at..], &self.journal).ok_or_else(|| {
            damaged(path.clone(), at, "the commit journal changed", "no group".to_owned(), "the group that was read")
        })
    }

    /// Every piece goes on where its file ends, or lies before it.
    fn check(&self, vfs: &dyn Vfs) -> Result<()> {
        let mut lengths: BTreeMap<&str, u64> = BTreeMap::new();
        for place in &self.groups {
            let refuse = |found: String, expected: &str| {
                let (path, reason) = (self.segments[place.0].0.clone(), "the commit journal is damaged");
                damaged(path, place.1, reason, found, expected)
            };
            let group = self.group(place)?;
            let pieces = group.pieces().map_err(|found| refuse(found, "whole pieces"))?;
            for piece in pieces {
                if !names::is_log(piece.file) || piece.file.contains('/') {
                    return Err(refuse(format!("a piece of {:?}", piece.file), "the name of a log file"));
                }
                let len = match lengths.get(piece.file) {
                    Some(len) => *len,
                    None => len_of(vfs, &self.location.join(piece.file))?,
                };
                let (needed, end) = (piece.bytes.map_or(piece.len, |_| 0), piece.offset + piece.len);
                if piece.offset + needed > len {
                    let found = format!("{len} bytes in {}", piece.file);
                    return Err(refuse(found, &format!("at least {}", piece.offset + needed)));
                }
                lengths.insert(piece.file, len.max(end));
            }
        }
        Ok(())
    }

    /// The log files that the journal has something of, by name, as they are when it is settled.
    pub fn files(&self) -> Result<BTreeMap<String, SettledFile>> {
        let mut files: BTreeMap<String, SettledFile> = BTreeMap::new();
        for place in &self.groups {
            let segment = &self.segments[place.0].1;
            // Checked when the journal was read.
            for piece in self.group(place)?.pieces().unwrap_or_default() {
                let file = files.entry(piece.file.to_owned()).or_default();
                if let Some(bytes) = piece.bytes {
                    let from = bytes.as_ptr() as usize - segment.as_ptr() as usize;
                    file.pieces.push((piece.offset, segment.clone(), from..from + bytes.len()));
                }
                file.len = piece.offset + piece.len;
            }
        }
        Ok(files)
    }

    /// Writes all pieces to their files, cuts what stands behind the last of each, and records the epoch; all of it is
    /// durable when this returns, and doing it again changes nothing. Nobody may have written to the files since.
    pub fn settle(&self, vfs: &Arc<dyn Vfs>) -> Result<()> {
        for (name, settled) in self.files()? {
            let path = self.location.join(name);
            let write = || {
                let file = vfs.open(&path, Open::Create)?;
                settled.pieces().try_for_each(|(offset, bytes)| file.write_at(offset, bytes))?;
                if file.len()? > settled.len {
                    file.set_len(settled.len)?;
                }
                file.sync()
            };
            write().map_err(|e| Error::io("cannot settle the commit journal in", &path, e))?;
        }
        vfs.sync_dir(&self.location).map_err(|e| Error::io("cannot sync the directory", &self.location, e))?;
        // Written anew: the last record may be torn.
        match self.record(&**vfs)? {
            Some(epoch) => EpochFile::replace(vfs.clone(), &self.location, epoch).map(drop),
            None => Ok(()),
        }
    }

    /// What the epoch file says when the journal is settled; `None` when it stays as it is.
    pub fn record(&self, vfs: &dyn Vfs) -> Result<Option<Epoch>> {
        if self.epoch == Epoch(0) {
            return Ok(None);
        }
        let path = self.location.join(names::EPOCH);
        let records = match vfs.read(&path, EPOCH_FILE_BYTES_MAX) {
            Ok(bytes) => epoch_file::parse(&bytes, &path).map_err(Error::Corrupted)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Default::default(),
            Err(e) => return Err(Error::io("cannot read", &path, e)),
        };
        Ok(Some(records.max.unwrap_or_default().max(self.epoch)))
    }
}

fn len_of(vfs: &dyn Vfs, path: &Path) -> Result<u64> {
    match vfs.open(path, Open::Read).and_then(|file| file.len()) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        len => len.map_err(|e| Error::io("cannot open", path, e)),
    }
}

/// Deletes every segment, durably. To be called when the manifest says that no journal is in use.
pub fn delete(vfs: &dyn Vfs, location: &Path) -> Result<()> {
    let segments = segments(vfs, location)?;
    for path in &segments {
        vfs.unlink(path).map_err(|e| Error::io("cannot delete", path, e))?;
    }
    match segments.is_empty() {
        true => Ok(()),
        false => vfs.sync_dir(location).map_err(|e| Error::io("cannot sync the directory", location, e)),
    }
}

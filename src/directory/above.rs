// SPDX-License-Identifier: Apache-2.0
//! What the log of a directory holds above an epoch.

use super::catalog_file;
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::{FileKind, Mapping, Open, Vfs};
use crate::wal::catalog::Catalog;
use crate::wal::entry::Entry;
use crate::wal::epoch_marks::{EpochMarks, LogMarks};
use crate::wal::names;
use crate::wal::sessions::{Obstacle, Session, Step};
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// What a directory has above an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// What is not above; `None` when all is.
    pub last: Option<Epoch>,
    pub durable: Epoch,
    pub sessions: u64,
    pub entries: u64,
    /// The log was compacted up to this epoch, which is above `last`: it does not say any more what was there.
    pub compacted: Option<Epoch>,
}

impl Extent {
    /// Counts what the directory has above `last`. Nobody appends to its log meanwhile; `marks` say where to begin.
    ///
    /// # Errors
    /// [`Error::BrokenMetadata`] or [`Error::Io`].
    pub fn survey(
        vfs: &dyn Vfs,
        location: &Path,
        last: Option<Epoch>,
        durable: Epoch,
        marks: &LogMarks,
    ) -> Result<Extent> {
        let catalog = catalog_file::read(vfs, location)?.content;
        let mut extent = Extent { last, durable, sessions: 0, entries: 0, compacted: None };
        let compacted = compacted_by(vfs, location, &catalog, durable)?;
        extent.compacted = compacted.filter(|compacted| last < Some(*compacted));
        for log in logs(vfs, location, &catalog)? {
            for_each_part(&log.bytes, &marks.of(&log.name).now(), last, durable, &mut |part| {
                match part {
                    Part::Entry(_) => extent.entries += 1,
                    Part::Session { .. } => extent.sessions += 1,
                }
                Ok(())
            })?;
        }
        Ok(extent)
    }

    /// Whether nothing that was ever written is above.
    pub fn is_nothing(&self) -> bool {
        !self.is_all() && self.entries == 0
    }

    /// Whether what is above cannot be told from the rest, or there is no rest.
    pub fn is_all(&self) -> bool {
        self.last.is_none() || self.compacted.is_some()
    }

    /// The first epoch above.
    pub fn first(&self) -> Epoch {
        self.last.map_or(Epoch(0), Epoch::next)
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Extent { durable, sessions, entries, .. } = self;
        let first = self.first();
        let epochs = durable.next().0.saturating_sub(first.0);
        write!(f, "{epochs} epochs ({first} to {durable}), {sessions} sessions, {entries} entries")?;
        match self.compacted {
            Some(compacted) => write!(f, "; and all else, because the log is compacted up to epoch {compacted}"),
            None => Ok(()),
        }
    }
}

/// A part of what is above.
pub(super) enum Part<'a> {
    /// Of the session that comes next.
    Entry(Entry<'a>),
    /// A session with its bytes in the log file. One of the original may have no end marker.
    Session { epoch: Epoch, range: Range<usize>, ended: bool },
}

/// A log file that counts.
pub(super) struct Log {
    pub name: String,
    pub bytes: Mapping,
}

/// The epoch that the log was compacted up to: below it, it does not say any more what was there. `durable` is the
/// durable epoch of the directory.
///
/// # Errors
/// [`Error::BrokenMetadata`] or [`Error::Io`].
pub fn compacted_up_to(vfs: &dyn Vfs, location: &Path, durable: Epoch) -> Result<Option<Epoch>> {
    compacted_by(vfs, location, &catalog_file::read(vfs, location)?.content, durable)
}

fn compacted_by(vfs: &dyn Vfs, location: &Path, catalog: &Catalog, durable: Epoch) -> Result<Option<Epoch>> {
    if !has_compacted(vfs, location)? {
        return Ok(None);
    }
    let is_listed = catalog.compacted.iter().any(|(name, _)| name == names::COMPACTED);
    // What a catalog said that was lost is not known.
    Ok(Some(if is_listed { catalog.max_epoch } else { durable }))
}

fn has_compacted(vfs: &dyn Vfs, location: &Path) -> Result<bool> {
    let is_there = |name: &str| {
        let path = location.join(name);
        vfs.kind(&path).map(|kind| kind.is_some()).map_err(|e| Error::io("cannot look at", &path, e))
    };
    Ok(is_there(names::COMPACTED)? || is_there(names::COMPACTED_PREVIOUS)?)
}

/// The log files that count, but for the compacted one, by name.
pub(super) fn logs(vfs: &dyn Vfs, location: &Path, catalog: &Catalog) -> Result<Vec<Log>> {
    let mut found = Vec::new();
    for (name, kind) in vfs.names(location).map_err(|e| Error::io("cannot list", location, e))? {
        let name = name.to_string_lossy().into_owned();
        let counts = names::is_log(&name) && !names::is_compacted(&name) && !catalog.detached.contains(&name);
        if kind == FileKind::File && counts {
            let path = location.join(&name);
            let map = || vfs.open(&path, Open::Read)?.map();
            let bytes = map().map_err(|e| Error::io("cannot read", &path, e))?;
            found.push(Log { name, bytes });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Goes through the sessions of a log file that are above `last` and count. The file is one that a start accepts.
pub(super) fn for_each_part(
    bytes: &[u8],
    marks: &EpochMarks,
    last: Option<Epoch>,
    durable: Epoch,
    visit: &mut dyn FnMut(Part<'_>) -> Result<()>,
) -> Result<()> {
    let is_wanted = |session: &Session| {
        !session.invalidated && session.epoch <= durable && last.is_none_or(|last| session.epoch > last)
    };
    let mut open: Option<Session> = None;
    let mut end = bytes.len();
    let (walk, _) = marks.walk(bytes, last.and_then(|last| marks.behind(bytes, last)));
    for (offset, step) in walk {
        let (next, ended) = match step {
            Ok(Step::Entry(entry)) => {
                if open.is_some() {
                    visit(Part::Entry(entry))?;
                }
                continue;
            }
            Err(Obstacle::Misplaced(_)) => continue,
            Err(Obstacle::Unreadable(_)) => {
                end = offset;
                break;
            }
            Ok(Step::Begin { session, .. }) => (Some((session, offset)), None),
            Ok(Step::Mark { .. }) => (None, None),
            Ok(Step::End { next, .. }) => (None, Some(next)),
        };
        if let Some(session) = open.take() {
            let range = session.offset..ended.unwrap_or(offset);
            visit(Part::Session { epoch: session.epoch, range, ended: ended.is_some() })?;
        }
        open = next.map(|(session, _)| session).filter(is_wanted);
    }
    match open {
        Some(session) => visit(Part::Session { epoch: session.epoch, range: session.offset..end, ended: false }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{StorageId, WriteVersion};
    use crate::wal::entry::{encode_end, encode_put, marker, tag};
    use crate::wal::sessions::Origin;

    fn session(tag: u8, epoch: u64, entries: usize, ended: bool) -> Vec<u8> {
        let mut bytes = marker(tag, Epoch(epoch)).to_vec();
        for _ in 0..entries {
            encode_put(&mut bytes, StorageId(1), b"k", b"v", WriteVersion { major: epoch, minor: 0 }, &[]);
        }
        if ended {
            encode_end(&mut bytes, Epoch(epoch));
        }
        bytes
    }

    #[test]
    fn the_sessions_above_an_epoch_are_found_with_their_bytes_wherever_they_stand() {
        let sessions = [
            session(tag::BEGIN, 7, 1, true),
            Origin::Ours.mark(),
            session(tag::BEGIN, 3, 4, true),
            session(tag::BEGIN, 6, 2, false),
            session(tag::INVALIDATED, 6, 9, true),
            session(tag::BEGIN, 8, 9, true),
            session(tag::BEGIN, 5, 3, false),
        ];
        let bytes = sessions.concat();
        let (mut entries, mut found) = (0, Vec::new());
        for_each_part(&bytes, &EpochMarks::default(), Some(Epoch(4)), Epoch(7), &mut |part| {
            match part {
                Part::Entry(_) => entries += 1,
                Part::Session { epoch, range, ended } => found.push((epoch.0, bytes[range].to_vec(), ended)),
            }
            Ok(())
        })
        .unwrap();
        let expected =
            [(7, sessions[0].clone(), true), (6, sessions[3].clone(), false), (5, sessions[6].clone(), false)];
        assert_eq!((entries, found), (6, expected.to_vec()));
    }
}

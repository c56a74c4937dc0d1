// SPDX-License-Identifier: Apache-2.0
//! Where to begin to read a log file when what is wanted lies above an epoch. Whoever walks over a file leaves marks;
//! the next one begins at the last mark before which nothing is wanted. Sessions stand in the order in which they
//! ended, so what is above an epoch of late is near the end, and a log of any size is searched in no time.
//!
//! Marks live as long as the lock of the directory is held that was there when they were made; for whoever has it next
//! they are written down with what the file was then ([`super::marks_file`]). Each knows the bytes before it: in a file
//! that has other ones there it is none.

use super::entry::MARKER_LEN;
use super::names;
use super::sessions::{Origin, Session, Step, Walk};
use crate::lock_order::{Mutex, MutexGuard, Rank};
use crate::types::Epoch;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Bytes between two marks, at least. Few in a debug build, so that tests meet them.
const STEP_BYTES: usize = if cfg!(debug_assertions) { 256 } else { 1 << 20 };
/// So many bytes before a mark must be the same.
const COMPARED_BYTES: usize = 4 << 10;
/// So many marks are tried before a file is read from its begin.
const TRIED_MARKS_MAX: usize = 64;

/// A place in a log file at which a session begins. All before are whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochMark {
    pub offset: usize,
    /// Who writes from here on.
    pub origin: Origin,
    /// The largest epoch of all sessions before, also of those that do not count.
    pub last: Epoch,
    /// The largest of those that do.
    pub last_valid: Epoch,
    /// The session before, which is valid.
    pub previous: Session,
    pub(super) checksum: u32,
}

/// The marks of one log file, from its begin on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochMarks(Vec<EpochMark>);

impl EpochMarks {
    /// The last mark with nothing above `epoch` before it. Epoch 0 is that of sessions that have none.
    pub fn behind(&self, bytes: &[u8], epoch: Epoch) -> Option<&EpochMark> {
        let below = self.0.partition_point(|mark| mark.last <= epoch);
        self.0[..below].last().filter(|mark| epoch > Epoch(0) && mark.fits(bytes))
    }

    /// A walk from one of the marks on, or over the whole file, and who makes marks on the way.
    pub fn walk<'b>(&self, bytes: &'b [u8], from: Option<&EpochMark>) -> (Walk<'b>, Marker) {
        let Some(mark) = from else { return (Walk::new(bytes), Marker::default()) };
        let known = self.0.iter().take_while(|known| known.offset <= mark.offset);
        let (marks, previous) = (EpochMarks(known.copied().collect()), Some(mark.previous));
        (
            Walk::from(bytes, mark.offset, mark.origin),
            Marker { marks, last: mark.last, last_valid: mark.last_valid, previous, odd: false },
        )
    }

    /// Those of a file without sessions that was read and is whole: a compacted one.
    pub fn of_whole(bytes: &[u8]) -> EpochMarks {
        let previous = Session { offset: 0, epoch: Epoch(0), invalidated: false, origin: Origin::Unknown };
        let (offset, checksum) = (bytes.len(), checksum(bytes, &previous, bytes.len()));
        let (last, last_valid) = (Epoch(0), Epoch(0));
        EpochMarks(vec![EpochMark { offset, origin: Origin::Unknown, last, last_valid, previous, checksum }])
    }

    /// Whether all of a file was read that is whole.
    pub fn covers(&self, bytes: &[u8]) -> bool {
        self.0.last().is_some_and(|mark| mark.offset == bytes.len() && mark.fits(bytes))
    }

    /// The last mark that fits, if it is among the last few, whatever epochs there are.
    fn fitting(&self, bytes: &[u8]) -> Option<&EpochMark> {
        self.0.iter().rev().take(TRIED_MARKS_MAX).find(|mark| mark.fits(bytes))
    }

    /// What is marked of a file when everything behind the last mark was walked over, too, to the last session that
    /// stands whole behind others, unless that is more than `bytes_max`. Takes the bytes that it reads from there.
    pub fn completed(&self, bytes: &[u8], bytes_max: &mut u64) -> EpochMarks {
        let from = self.fitting(bytes);
        let (mut walk, mut marker) = self.walk(bytes, from);
        let rest = (bytes.len() - from.map_or(0, |mark| mark.offset)) as u64;
        if rest > *bytes_max {
            return marker.done();
        }
        *bytes_max -= rest;
        for (_, step) in walk.by_ref() {
            match step {
                Ok(Step::Begin { session, unended }) => marker.begin(bytes, &session, unended.is_some()),
                Ok(Step::Mark { unended }) => marker.another_writer(unended.is_some()),
                Ok(Step::End { session, .. }) => marker.end(session),
                Ok(Step::Entry(_)) => {}
                Err(_) => return marker.done(),
            }
        }
        marker.done_at(bytes, walk.offset(), walk.origin())
    }

    /// The last of them, at most so many.
    pub(super) fn tail(&self, marks_max: usize) -> &[EpochMark] {
        &self.0[self.0.len().saturating_sub(marks_max)..]
    }

    /// Where the last one is.
    pub(super) fn reach(&self) -> usize {
        self.0.last().map_or(0, |mark| mark.offset)
    }
}

impl EpochMark {
    fn fits(&self, bytes: &[u8]) -> bool {
        self.offset <= bytes.len()
            && self.previous.offset <= self.offset
            && self.checksum == checksum(bytes, &self.previous, self.offset)
    }
}

impl FromIterator<EpochMark> for EpochMarks {
    /// In the order of their offsets.
    fn from_iter<I: IntoIterator<Item = EpochMark>>(marks: I) -> EpochMarks {
        EpochMarks(marks.into_iter().collect())
    }
}

/// Makes marks during a walk.
#[derive(Clone, Debug, Default)]
pub struct Marker {
    marks: EpochMarks,
    last: Epoch,
    last_valid: Epoch,
    /// The valid session that ended last, if nothing stands behind it.
    previous: Option<Session>,
    /// A session has no end: what stands behind it is for those only who know of it.
    odd: bool,
}

impl Marker {
    /// A session begins.
    #[inline]
    pub fn begin(&mut self, bytes: &[u8], session: &Session, unended: bool) {
        self.odd |= unended;
        if let Some(previous) = self.previous.take().filter(|_| !self.odd) {
            if session.offset >= self.marks.reach() + STEP_BYTES {
                self.mark(bytes, previous, (session.offset, session.origin));
            }
        }
        self.last = self.last.max(session.epoch);
        if !session.invalidated {
            self.last_valid = self.last_valid.max(session.epoch);
        }
    }

    /// It ends.
    #[inline]
    pub fn end(&mut self, session: Session) {
        self.previous = Some(session).filter(|session| !session.invalidated);
    }

    /// Somebody else writes from here on.
    pub fn another_writer(&mut self, unended: bool) {
        self.odd |= unended;
        self.previous = None;
    }

    fn mark(&mut self, bytes: &[u8], previous: Session, (offset, origin): (usize, Origin)) {
        let (last, last_valid, checksum) = (self.last, self.last_valid, checksum(bytes, &previous, offset));
        self.marks.0.push(EpochMark { offset, origin, last, last_valid, previous, checksum });
    }

    /// What was marked.
    pub fn done(self) -> EpochMarks {
        self.marks
    }

    /// The same, with a mark at `end`, up to where it was walked, if the next session may stand there.
    fn done_at(mut self, bytes: &[u8], end: usize, origin: Origin) -> EpochMarks {
        match self.previous.take() {
            Some(previous) if !self.odd && end > self.marks.reach() => self.mark(bytes, previous, (end, origin)),
            _ => {}
        }
        self.marks
    }
}

/// Of the bytes before `end`, and of the begin marker of the session there: it may be made invalid.
fn checksum(bytes: &[u8], previous: &Session, end: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[previous.offset..(previous.offset + MARKER_LEN).min(end)]);
    hasher.update(&bytes[end.saturating_sub(COMPARED_BYTES)..end]);
    hasher.finalize()
}

/// The marks of a log file, for all who walk over it.
#[derive(Clone, Debug, Default)]
pub struct FileMarks(Arc<Mutex<EpochMarks>>);

impl FileMarks {
    /// What is known now.
    pub fn now(&self) -> EpochMarks {
        self.0.lock().clone()
    }

    /// A walk has come this far.
    pub fn learn(&self, marks: EpochMarks) {
        let mut known = self.0.lock();
        if marks.reach() > known.reach() {
            *known = marks;
        }
    }
}

/// The marks of all log files of a directory, by name. Calls may come from any thread.
#[derive(Debug)]
pub struct LogMarks {
    files: Mutex<BTreeMap<String, FileMarks>>,
    /// Held by whoever writes them down.
    saving: Mutex<()>,
}

impl Default for LogMarks {
    fn default() -> LogMarks {
        LogMarks { files: Mutex::default(), saving: Mutex::new(Rank::Marks, ()) }
    }
}

impl LogMarks {
    /// What was found when the directory was read is all that is known.
    pub fn replace(&self, found: impl IntoIterator<Item = (String, EpochMarks)>) {
        let found = found.into_iter().map(|(name, marks)| (name, FileMarks(Arc::new(marks_of(marks)))));
        *self.files.lock() = found.collect();
    }

    /// Those of a log file.
    pub fn of(&self, name: &str) -> FileMarks {
        self.files.lock().entry(name.to_owned()).or_default().clone()
    }

    /// A log file has another name, and another file may come under the old one.
    pub fn renamed(&self, from: &Path, to: &Path) {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut marks = self.files.lock();
        if let Some(moved) = marks.remove(&name(from)) {
            marks.insert(name(to), moved);
        }
    }

    /// Forgets the files under rotated names that are not there any more: no other will have such a name.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        let stays = |name: &str| names::is_active_log(name) || names::is_compacted(name) || is_there(name);
        self.files.lock().retain(|name, _| stays(name));
    }

    /// A file of this name is another one now, of which this is known.
    pub fn put(&self, name: &str, marks: EpochMarks) {
        let marks = FileMarks(Arc::new(marks_of(marks)));
        self.files.lock().insert(name.to_owned(), marks);
    }

    /// For whoever writes them down: one at a time.
    pub(super) fn begin_saving(&self) -> MutexGuard<'_, ()> {
        self.saving.lock()
    }
}

fn marks_of(marks: EpochMarks) -> Mutex<EpochMarks> {
    let mutex = Mutex::default();
    *mutex.lock() = marks;
    mutex
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{StorageId, WriteVersion};
    use crate::wal::entry::{encode_end, encode_put, marker, tag};
    use crate::wal::scanner::{self, FileScan, Visitor};
    use proptest::prelude::*;

    /// The epochs of the sessions that count and have an end, with where they stand, and what is marked on the way.
    fn walk(marks: &EpochMarks, bytes: &[u8], above: Epoch) -> (Vec<(Epoch, usize)>, EpochMarks) {
        let (walk, mut marker) = marks.walk(bytes, marks.behind(bytes, above));
        let mut found = Vec::new();
        for (_, step) in walk {
            match step {
                Ok(Step::Begin { session, unended }) => marker.begin(bytes, &session, unended.is_some()),
                Ok(Step::Mark { unended }) => marker.another_writer(unended.is_some()),
                Ok(Step::End { session, .. }) => {
                    marker.end(session);
                    if session.epoch > above && !session.invalidated {
                        found.push((session.epoch, session.offset));
                    }
                }
                _ => {}
            }
        }
        (found, marker.done())
    }

    struct Nobody;

    impl Visitor for Nobody {
        fn entry(&mut self, _: usize, _: crate::wal::entry::Entry<'_>) {}
    }

    fn scan(bytes: &[u8], durable: Epoch, name: &str, marks: &EpochMarks) -> FileScan {
        let scan = scanner::scan_again(bytes, durable, true, Path::new(name), marks, &mut Nobody).unwrap();
        // Those that are not seen again are not counted again.
        FileScan { invalidated_sessions: 0, marks: EpochMarks::default(), ..scan }
    }

    #[derive(Clone, Debug)]
    enum Piece {
        Session { epoch: u64, bytes: usize, valid: bool },
        Mark,
    }

    fn pieces() -> impl Strategy<Value = Vec<Piece>> {
        let session = (1..40u64, 1..400usize, prop::bool::weighted(0.9));
        let session = session.prop_map(|(epoch, bytes, valid)| Piece::Session { epoch, bytes, valid });
        prop::collection::vec(prop_oneof![12 => session, 1 => Just(Piece::Mark)], 1..60)
    }

    fn file(pieces: &[Piece]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in pieces {
            match *piece {
                Piece::Session { epoch, bytes: len, valid } => {
                    bytes.extend(marker(if valid { tag::BEGIN } else { tag::INVALIDATED }, Epoch(epoch)));
                    let version = WriteVersion { major: epoch, minor: 0 };
                    encode_put(&mut bytes, StorageId(1), b"key", &vec![7; len], version, &[]);
                    encode_end(&mut bytes, Epoch(epoch));
                }
                Piece::Mark => bytes.extend(Origin::Ours.mark()),
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn whoever_begins_at_a_mark_finds_what_a_whole_walk_finds(pieces in pieces()) {
            let bytes = file(&pieces);
            let (_, marks) = walk(&EpochMarks::default(), &bytes, Epoch(0));
            for above in 0..40 {
                let whole = walk(&EpochMarks::default(), &bytes, Epoch(above));
                let from_mark = walk(&marks, &bytes, Epoch(above));
                prop_assert_eq!(&from_mark, &whole, "above {}", above);
                for name in ["pwal_0000", "pwal_0000.1.0"] {
                    let again = scan(&bytes, Epoch(above), name, &marks);
                    prop_assert_eq!(again, scan(&bytes, Epoch(above), name, &EpochMarks::default()), "above {}", above);
                }
            }
        }
    }

    fn rising(sessions: u64) -> Vec<u8> {
        let session = |epoch| Piece::Session { epoch, bytes: 300, valid: true };
        file(&(1..=sessions).map(session).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_above_an_epoch_of_late_is_found_near_the_end() {
        let bytes = rising(100);
        let (_, marks) = walk(&EpochMarks::default(), &bytes, Epoch(0));
        let mark = marks.behind(&bytes, Epoch(90)).unwrap();
        assert!(mark.offset > bytes.len() * 8 / 10 && mark.last <= Epoch(90), "{mark:?} of {}", bytes.len());
        assert_eq!(marks.behind(&bytes, Epoch(0)), None, "sessions of epoch 0 are before every epoch");
    }

    #[test]
    fn a_mark_is_none_in_a_file_that_has_other_bytes_before_it() {
        let bytes = rising(100);
        let (_, marks) = walk(&EpochMarks::default(), &bytes, Epoch(0));
        let mark = *marks.behind(&bytes, Epoch(90)).unwrap();
        let mut changed = bytes.clone();
        changed[mark.offset - COMPARED_BYTES] ^= 1;
        assert_eq!(marks.behind(&changed, Epoch(90)), None);
        assert_eq!(marks.behind(&bytes[..mark.offset - 1], Epoch(90)), None, "it ends before");
    }

    #[test]
    fn a_mark_is_none_when_the_session_before_it_does_not_count_any_more() {
        let session = |epoch, bytes| Piece::Session { epoch, bytes, valid: true };
        let mut bytes = file(&[session(1, 2 * COMPARED_BYTES), session(2, 10)]);
        let (_, marks) = walk(&EpochMarks::default(), &bytes, Epoch(0));
        assert!(marks.behind(&bytes, Epoch(1)).is_some());
        bytes[0] = tag::INVALIDATED;
        assert_eq!(marks.behind(&bytes, Epoch(1)), None, "it would be confirmed as one that counts");
    }

    #[test]
    fn behind_a_session_without_an_end_nothing_is_marked() {
        let mut bytes = rising(10);
        bytes.extend(marker(tag::BEGIN, Epoch(11)));
        let reach = bytes.len();
        bytes.extend(rising(20));
        let (_, marks) = walk(&EpochMarks::default(), &bytes, Epoch(0));
        assert!(marks.behind(&bytes, Epoch(40)).is_some_and(|mark| mark.offset <= reach));
    }

    #[test]
    fn marks_go_with_the_file_when_it_gets_another_name() {
        let bytes = rising(20);
        let (_, found) = walk(&EpochMarks::default(), &bytes, Epoch(0));
        let marks = LogMarks::default();
        marks.replace([("pwal_0000".to_owned(), found.clone())]);
        let of_a_walk = marks.of("pwal_0000");
        marks.renamed(Path::new("/log/pwal_0000"), Path::new("/log/pwal_0000.1.0"));
        assert_eq!(marks.of("pwal_0000").now(), EpochMarks::default());
        assert_eq!(marks.of("pwal_0000.1.0").now(), found);
        let more = walk(&EpochMarks::default(), &rising(30), Epoch(0)).1;
        of_a_walk.learn(more.clone());
        of_a_walk.learn(found);
        assert_eq!(marks.of("pwal_0000.1.0").now(), more, "the one that reaches further");
        marks.retain(|_| false);
        assert_eq!(marks.of("pwal_0000.1.0").now(), EpochMarks::default());
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Reads one log file as a start does (disk format §5): hands out the entries of durable sessions, says which bytes
//! to take away so that the rest never counts, and refuses damage in what was acknowledged. Pure: bytes in, verdict
//! out; nothing is changed here, so a refused start leaves the directory as it was.
//!
//! What was never acknowledged is disposable: everything behind the last ended session whose epoch is durable. What
//! was acknowledged must read whole. `docs/recovery.md` has a row for each case.

use super::entry::{tag, Entry, Unreadable, END_LEN, END_PLAIN, MARKER_LEN};
use super::epoch_marks::{EpochMark, EpochMarks, Marker};
use super::names;
use super::read_ahead::ReadAhead;
use super::sessions::{Obstacle, Origin, Session, Step, Walk};
use crate::error::{Damage, Remedy};
use crate::types::Epoch;
use std::path::Path;

/// Sectors reach the disk whole, in any order.
pub(super) const SECTOR: usize = 512;
/// A marker further than this beyond the durable epoch is garbage: at one epoch in three milliseconds that is a
/// century.
const PLAUSIBLE_EPOCHS: u64 = 1 << 40;
/// What looks like an end marker with a larger epoch is none, where nothing else says how large epochs are.
pub(crate) const EPOCH_PLAUSIBLE_MAX: Epoch = Epoch(PLAUSIBLE_EPOCHS);

/// Whether a marker may carry this epoch where `durable` is the durable one. Anything larger would make every later
/// epoch of the engine one that is over already.
pub(crate) fn is_plausible(epoch: Epoch, durable: Epoch) -> bool {
    epoch.0 <= durable.0.saturating_add(PLAUSIBLE_EPOCHS)
}

/// Gets every entry of the durable sessions in file order, with its offset.
pub trait Visitor {
    fn entry(&mut self, offset: usize, entry: Entry<'_>);

    /// Gets what a compacted file holds besides, which counts for nothing.
    fn passed_over(&mut self, _offset: usize, _entry: Entry<'_>) {}

    /// Whether the rest of the file is of no interest, because the whole work is given up.
    fn gave_up(&self) -> bool {
        false
    }
}

/// A change that a start makes before the file is appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Overwrite the tag of the begin marker here: the session never counts (tag 0x06).
    Invalidate { offset: usize },
    /// End the file here.
    Cut { offset: usize },
    /// Make an invalidated session of epoch 0 without content of everything from here on, so that nothing of it is ever
    /// read as something else. The file keeps its length.
    Void { offset: usize },
    /// Write the begin marker here once more as it is: the cache of the system may be all that says that this session,
    /// which counts, is a valid one.
    Confirm { offset: usize, epoch: Epoch },
}

/// What a log file holds besides the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileScan {
    /// The largest epoch of any session, durable or not.
    pub max_epoch: Epoch,
    /// The largest epoch of those that are durable, whole or in part.
    pub last_durable: Epoch,
    pub edits: Vec<Edit>,
    /// What an operator should know, without the file's name.
    pub warnings: Vec<String>,
    /// A session of epoch 1 or above that was ended stands here, so an epoch record must exist somewhere.
    pub has_ended_session: bool,
    /// The file is not empty and holds nothing but zeros.
    pub all_zeros: bool,
    /// The last session that stays in the file has no end marker.
    pub open_end: bool,
    /// The last session that stays in the file is an invalidated one.
    pub ends_invalidated: bool,
    /// A session that counts stands here, whole or in part.
    pub has_durable_session: bool,
    /// The last session, when it counts and a process whose sync failed may have left its begin marker in the cache
    /// only.
    pub to_confirm: Option<(usize, Epoch)>,
    pub invalidated_sessions: u64,
    /// Where sessions beyond the durable epoch stand that an earlier start has invalidated.
    pub marked_beyond: Vec<usize>,
    /// Where another reader may begin.
    pub marks: EpochMarks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Its epoch is covered by the epoch file.
    Durable,
    /// Its epoch is not covered.
    Beyond,
    /// An earlier start or repair marked it.
    Invalidated,
}

/// Scans a whole file. `durable` is the durable epoch of the directory, `end_markers` whether the format version
/// of the directory writes them; `path` is for messages, and its name says whether the file is appended to.
pub fn scan(
    bytes: &[u8],
    durable: Epoch,
    end_markers: bool,
    path: &Path,
    visitor: &mut impl Visitor,
) -> Result<FileScan, Box<Damage>> {
    scan_again(bytes, durable, end_markers, path, &EpochMarks::default(), visitor)
}

/// The same for a file that was scanned before and of which nothing was changed since before those of its `marks` that
/// fit: what is durable there is not read again, and not handed out.
pub fn scan_again(
    bytes: &[u8],
    durable: Epoch,
    end_markers: bool,
    path: &Path,
    marks: &EpochMarks,
    visitor: &mut impl Visitor,
) -> Result<FileScan, Box<Damage>> {
    let mut scanner = Scanner::new(bytes, durable, path, marks);
    let mut counts = false;
    let mut ahead = ReadAhead::default();
    while let Some((offset, step)) = scanner.walk.next() {
        match step {
            Ok(Step::Entry(entry)) if counts => visitor.entry(offset, entry),
            Ok(Step::Entry(_)) => {}
            Ok(Step::Begin { session, unended }) => {
                scanner.marker.begin(bytes, &session, unended.is_some());
                scanner.leave_unended(unended, true)?;
                scanner.begin(session);
                counts = scanner.kind(session) == Kind::Durable;
            }
            Ok(Step::End { session, .. }) => scanner.end(session),
            Ok(Step::Mark { unended }) => {
                // Nothing is ever appended behind a session without an end.
                if let Some(session) = unended.filter(|&session| scanner.kind(session) == Kind::Durable) {
                    return Err(scanner.without_end(session));
                }
                scanner.marker.another_writer(unended.is_some());
                scanner.leave_unended(unended, true)?;
                scanner.behind_mark = true;
            }
            Err(Obstacle::Misplaced(tag)) => {
                scanner.session = scanner.walk.session();
                return Err(scanner.misplaced(offset, tag));
            }
            Err(Obstacle::Unreadable(unreadable)) => {
                scanner.session = scanner.walk.session();
                scanner.unreadable(offset, unreadable)?;
                return scanner.finish(end_markers);
            }
        }
        if visitor.gave_up() {
            break;
        }
        ahead.touch(bytes, scanner.walk.offset());
    }
    scanner.session = scanner.walk.session();
    scanner.finish(end_markers)
}

/// Looks for the end marker of a session with an epoch up to `limit` behind unreadable bytes at `offset`: one that is
/// followed by a begin marker or the end of the file. `own` is the epoch of the unreadable session itself.
pub(crate) fn ended_session_behind(bytes: &[u8], offset: usize, limit: Epoch, own: Option<Epoch>) -> Option<Epoch> {
    bytes[offset..].windows(END_LEN).enumerate().find_map(|(at, window)| {
        if window[0] != tag::END || window[END_LEN - 1] != END_PLAIN {
            return None;
        }
        let epoch = Epoch(u64::from_le_bytes(window[1..MARKER_LEN].try_into().expect("eight bytes")));
        let next = bytes.get(offset + at + END_LEN);
        let ended = Epoch(0) < epoch
            && epoch <= limit
            && Some(epoch) != own
            && matches!(next, None | Some(&tag::BEGIN | &tag::INVALIDATED));
        ended.then_some(epoch)
    })
}

struct Scanner<'a> {
    walk: Walk<'a>,
    marker: Marker,
    bytes: &'a [u8],
    durable: Epoch,
    path: &'a Path,
    rotated: bool,
    /// The session that the file ends in, or the readable part of it.
    session: Option<Session>,
    /// Epoch of the last durable session that was ended in this file.
    last_ended: Option<Epoch>,
    ends: u64,
    /// No session was ended behind the last mark.
    behind_mark: bool,
    /// The first durable session that has no end marker.
    unended: Option<Session>,
    out: FileScan,
}

impl<'a> Scanner<'a> {
    fn new(bytes: &'a [u8], durable: Epoch, path: &'a Path, marks: &EpochMarks) -> Scanner<'a> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let known = marks.behind(bytes, durable);
        let (walk, marker) = marks.walk(bytes, known);
        let mut scanner = Scanner {
            walk,
            marker,
            bytes,
            durable,
            path,
            rotated: !names::is_active_log(&name),
            session: None,
            last_ended: None,
            ends: 0,
            behind_mark: false,
            unended: None,
            out: FileScan::default(),
        };
        known.into_iter().for_each(|mark| scanner.resume(mark));
        scanner
    }
}

impl Scanner<'_> {
    fn kind(&self, session: Session) -> Kind {
        match session.invalidated {
            true => Kind::Invalidated,
            false if session.epoch <= self.durable => Kind::Durable,
            false => Kind::Beyond,
        }
    }

    /// Goes on behind sessions all of which are durable.
    fn resume(&mut self, mark: &EpochMark) {
        self.begin(mark.previous);
        self.end(mark.previous);
        (self.out.max_epoch, self.out.last_durable) = (mark.last, mark.last_valid);
    }

    fn begin(&mut self, Session { offset, epoch, invalidated, .. }: Session) {
        self.out.to_confirm = None;
        self.out.ends_invalidated = invalidated;
        self.out.invalidated_sessions += u64::from(invalidated);
        match (epoch > self.durable, invalidated) {
            (true, true) => self.out.marked_beyond.push(offset),
            (true, false) => self.out.edits.push(Edit::Invalidate { offset }),
            (false, true) => {}
            (false, false) => self.out.last_durable = self.out.last_durable.max(epoch),
        }
        if is_plausible(epoch, self.durable) {
            self.out.max_epoch = self.out.max_epoch.max(epoch);
        } else {
            let what = if invalidated { "invalidated session" } else { "session" };
            self.out.warnings.push(format!(
                "the {what} at offset {offset} has the impossible epoch {epoch}: it does not count, and the epoch is \
                 ignored"
            ));
        }
    }

    fn end(&mut self, session: Session) {
        self.marker.end(session);
        let kind = self.kind(session);
        self.ends += 1;
        self.behind_mark = false;
        if kind == Kind::Durable {
            self.last_ended = Some(session.epoch);
            self.out.has_durable_session = true;
            // Such a session belongs to the epoch that the process found recorded, or to 0 before its start. A file
            // may have been put aside by a process that did not get to its start.
            if !self.rotated || session.epoch == self.durable || session.epoch == Epoch(0) {
                self.out.to_confirm = Some((session.offset, session.epoch));
            }
        }
        self.out.has_ended_session |= kind != Kind::Invalidated && session.epoch > Epoch(0);
    }

    /// A session ends without an end marker, because the file ends or something else begins.
    fn leave_unended(&mut self, session: Option<Session>, another_begins: bool) -> Result<(), Box<Damage>> {
        let Some(session) = session else {
            return Ok(());
        };
        let kind = self.kind(session);
        if kind == Kind::Durable {
            if session.origin == Origin::Ours {
                return Err(self.without_end(session));
            }
            self.unended.get_or_insert(session);
            self.out.has_durable_session = true;
            self.out.open_end = !another_begins;
        }
        self.out.has_ended_session |= another_begins && kind != Kind::Invalidated && session.epoch > Epoch(0);
        Ok(())
    }

    /// Something that is no whole entry stands at `offset`: decide whether it was ever acknowledged.
    fn unreadable(&mut self, offset: usize, unreadable: Unreadable) -> Result<(), Box<Damage>> {
        let rest = &self.bytes[offset..];
        let zeros = rest.iter().all(|&b| b == 0);
        let torn_marker = matches!(unreadable, Unreadable::Short(tag::BEGIN | tag::INVALIDATED));
        if self.durable == Epoch(0) {
            // Where the epoch file is lost, damage must not hide that sessions were ended: all of them would be cut
            // off.
            let own = self.session.filter(|session| session.invalidated).map(|session| session.epoch);
            self.out.has_ended_session |= ended_session_behind(self.bytes, offset, EPOCH_PLAUSIBLE_MAX, own).is_some();
        }
        match self.session.map(|session| (self.kind(session), session)) {
            // The begin marker of the next session was cut off: that session was never ended.
            _ if torn_marker => {
                self.cut(offset, "a torn begin marker");
            }
            None if zeros => {
                self.out.all_zeros = offset == 0;
                self.cut(offset, "zeros to the end of the file");
            }
            // The first sectors of a session are missing, later ones are there.
            None if rest[0] == 0 && !self.has_durable_session_behind(offset, None) => {
                self.cut(offset, "zeros in place of a begin marker");
            }
            None => return Err(self.damage(offset, unreadable)),
            Some((Kind::Durable, session)) => self.unreadable_in_durable(offset, unreadable, session, zeros)?,
            Some((kind, Session { epoch, offset: begin, origin, .. })) => {
                let own = (kind == Kind::Invalidated).then_some(epoch);
                let incomplete = format!("an incomplete session of epoch {epoch} that was never durable");
                match (self.has_durable_session_behind(offset, own), self.rotated) {
                    (false, _) => {
                        self.session = None;
                        self.cut(begin, &incomplete);
                    }
                    // An operator may have had the original repair the file, which then reads it up to here. Nothing
                    // is appended to it, so the bytes can stay. A mark of ours that is damaged looks like that, too.
                    (true, true) if origin == Origin::Unknown && !Origin::may_be_mark(&self.bytes[begin..]) => {
                        self.out.warnings.push(format!(
                        "{incomplete} at offset {begin}: the file is not read behind it, although ended sessions follow"
                    ))
                    }
                    (true, _) => return Err(self.damage(offset, unreadable)),
                }
            }
        }
        Ok(())
    }

    /// The same inside a session that the epoch record covers; `zeros` when nothing else follows.
    fn unreadable_in_durable(
        &mut self,
        offset: usize,
        unreadable: Unreadable,
        session: Session,
        zeros: bool,
    ) -> Result<(), Box<Damage>> {
        let Session { epoch, offset: begin, .. } = session;
        let half_written = offset == begin + MARKER_LEN && self.marker_is_half_written(begin);
        if half_written && !self.has_durable_session_behind(offset, None) {
            self.session = None;
            self.cut(begin, "a half written begin marker");
        } else if self.was_never_covered(session) && (zeros || matches!(unreadable, Unreadable::Short(_))) {
            // A session without a whole entry goes with its marker.
            let empty = offset == begin + MARKER_LEN;
            self.cut(
                if empty { begin } else { offset },
                &format!("a torn entry in a session of epoch {epoch} that the original did not protect"),
            );
            // That says all there is to say; the session has no end marker, so nothing may be appended.
            self.session = None;
            self.out.open_end = !empty;
            self.out.has_durable_session |= !empty;
        } else {
            return Err(self.damage(offset, unreadable));
        }
        Ok(())
    }

    fn cut(&mut self, offset: usize, what: &str) {
        self.out
            .warnings
            .push(format!("{what} at offset {offset}: {} bytes are cut off by a start", self.bytes.len() - offset));
        self.out.ends_invalidated = false;
        self.out.edits.retain(|edit| !matches!(edit, Edit::Invalidate { offset: at } if *at >= offset));
        self.out.edits.push(Edit::Cut { offset });
    }

    /// The original does not hold an epoch back for the second session of a channel in it, and never covers epoch 0:
    /// such a session may be torn although the epoch file covers its epoch. None of ours ever is.
    fn was_never_covered(&self, Session { epoch, origin, .. }: Session) -> bool {
        origin == Origin::Unknown && (epoch == Epoch(0) || self.last_ended == Some(epoch))
    }

    /// Whether a sector boundary runs through the marker and the sector behind it was lost: then the upper bytes of
    /// its epoch are zeros that nobody wrote.
    fn marker_is_half_written(&self, begin: usize) -> bool {
        let boundary = (begin / SECTOR + 1) * SECTOR;
        let sector_end = (boundary + SECTOR).min(self.bytes.len());
        boundary < begin + MARKER_LEN && self.bytes[boundary..sector_end].iter().all(|&b| b == 0)
    }

    fn has_durable_session_behind(&self, offset: usize, own: Option<Epoch>) -> bool {
        ended_session_behind(self.bytes, offset, self.durable, own).is_some()
    }

    fn misplaced(&self, offset: usize, tag: u8) -> Box<Damage> {
        let expected = match self.session {
            None => "a begin marker (tag 0x02 or 0x06) or the end of the file",
            Some(_) => "an entry, an end marker or a begin marker",
        };
        self.damage_with(offset, format!("unexpected log_entry type {tag}"), format!("tag {tag:#04x}"), expected)
    }

    fn damage(&self, offset: usize, unreadable: Unreadable) -> Box<Damage> {
        let left = self.bytes.len() - offset;
        match (self.session, unreadable) {
            (None, Unreadable::Short(tag) | Unreadable::Unknown(tag)) => self.misplaced(offset, tag),
            (Some(_), Unreadable::Short(tag)) => self.damage_with(
                offset,
                "unexpected EOF".to_owned(),
                format!("an entry with tag {tag:#04x} that is cut off after {left} bytes"),
                "a whole entry",
            ),
            (Some(_), Unreadable::Unknown(tag)) => self.damage_with(
                offset,
                format!("unknown log_entry type {tag}"),
                format!("tag {tag:#04x}"),
                "an entry, an end marker or a begin marker",
            ),
        }
    }

    fn without_end(&self, session: Session) -> Box<Damage> {
        Box::new(Damage {
            epoch: Some(session.epoch),
            ..*self.damage_with(
                session.offset,
                "a session has no end marker".to_owned(),
                "entries without an end marker behind them".to_owned(),
                "an end marker, which every session has that this project writes",
            )
        })
    }

    fn damage_with(&self, offset: usize, reason: String, found: String, expected: &str) -> Box<Damage> {
        Box::new(Damage {
            file: self.path.to_owned(),
            offset: offset as u64,
            epoch: self.session.map(|session| session.epoch),
            reason: format!("this pwal file is broken: {reason}"),
            found,
            expected: expected.to_owned(),
            remedy: Remedy::Repair,
        })
    }

    fn finish(mut self, end_markers: bool) -> Result<FileScan, Box<Damage>> {
        let last = self.session;
        self.leave_unended(last, false)?;
        // A mark is synced with the session behind it: alone it may be in the cache only.
        self.out.ends_invalidated |= self.behind_mark;
        // A directory or a file from before end markers lacks them everywhere.
        if let (Some(session), true) = (self.unended, end_markers && self.ends > 0) {
            self.out.warnings.push(format!(
                "the durable session of epoch {} at offset {} has no end marker; it was read up to its last whole \
                 entry",
                session.epoch, session.offset
            ));
        }
        // Where nothing says whether the last session was ended, it counts as one that was.
        self.out.has_ended_session |=
            !end_markers && last.is_some_and(|last| !last.invalidated && last.epoch > Epoch(0));
        self.out.marks = self.marker.done();
        Ok(self.out)
    }
}

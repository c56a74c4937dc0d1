// SPDX-License-Identifier: Apache-2.0
//! Reads one log file as a start does (disk format §5): hands out the entries of durable sessions, says which bytes
//! to take away so that the rest never counts, and refuses damage in what was acknowledged. Pure: bytes in, verdict
//! out; nothing is changed here, so a refused start leaves the directory as it was.
//!
//! What was never acknowledged is disposable: everything behind the last ended session whose epoch is durable. What
//! was acknowledged must read whole. `docs/recovery.md` has a row for each case.

use super::entry::{decode, tag, Entry, Unreadable, END_LEN, END_PLAIN, MARKER_LEN};
use super::names;
use crate::error::{Damage, Remedy};
use crate::types::Epoch;
use std::path::Path;

/// Sectors reach the disk whole, in any order.
pub(super) const SECTOR: usize = 512;
/// An invalidated marker further than this beyond the durable epoch is garbage that a repair turned into a marker.
const PLAUSIBLE_EPOCHS: u64 = 1 << 40;
/// What looks like an end marker with a larger epoch is none, where nothing else says how large epochs are.
pub(crate) const EPOCH_PLAUSIBLE_MAX: Epoch = Epoch(PLAUSIBLE_EPOCHS);

/// Gets every entry of the durable sessions in file order, with its offset.
pub trait Visitor {
    fn entry(&mut self, offset: usize, entry: Entry<'_>);

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
    /// The last session, when it counts and a process whose sync failed may have left its begin marker in the cache only.
    pub to_confirm: Option<(usize, Epoch)>,
    pub invalidated_sessions: u64,
    /// Where sessions beyond the durable epoch stand that an earlier start has invalidated.
    pub marked_beyond: Vec<usize>,
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

/// The session that the scan is inside.
#[derive(Clone, Copy, Debug)]
struct Session {
    offset: usize,
    epoch: Epoch,
    kind: Kind,
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
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut scanner = Scanner {
        bytes,
        durable,
        path,
        rotated: !names::is_active_log(&name),
        session: None,
        last_ended: None,
        ends: 0,
        unended: None,
        out: FileScan::default(),
    };
    let mut offset = 0;
    loop {
        match decode(bytes, offset) {
            None => break,
            Some(Ok((entry, next))) => {
                scanner.entry(offset, entry, visitor)?;
                offset = next;
                if visitor.gave_up() {
                    break;
                }
            }
            Some(Err(unreadable)) => {
                scanner.unreadable(offset, unreadable)?;
                break;
            }
        }
    }
    Ok(scanner.finish(end_markers))
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
    bytes: &'a [u8],
    durable: Epoch,
    path: &'a Path,
    rotated: bool,
    session: Option<Session>,
    /// Epoch of the last durable session that was ended in this file.
    last_ended: Option<Epoch>,
    ends: u64,
    /// The first durable session that has no end marker.
    unended: Option<Session>,
    out: FileScan,
}

impl Scanner<'_> {
    fn entry(&mut self, offset: usize, entry: Entry<'_>, visitor: &mut impl Visitor) -> Result<(), Box<Damage>> {
        match entry {
            Entry::Begin(epoch) => {
                self.leave_unended(true);
                self.out.ends_invalidated = false;
                self.out.to_confirm = None;
                let kind = if epoch <= self.durable { Kind::Durable } else { Kind::Beyond };
                if kind == Kind::Beyond {
                    self.out.edits.push(Edit::Invalidate { offset });
                }
                self.out.max_epoch = self.out.max_epoch.max(epoch);
                self.session = Some(Session { offset, epoch, kind });
            }
            Entry::Invalidated(epoch) => {
                self.leave_unended(true);
                self.out.ends_invalidated = true;
                self.out.to_confirm = None;
                self.out.invalidated_sessions += 1;
                if epoch > self.durable {
                    self.out.marked_beyond.push(offset);
                }
                if epoch.0 <= self.durable.0.saturating_add(PLAUSIBLE_EPOCHS) {
                    self.out.max_epoch = self.out.max_epoch.max(epoch);
                } else {
                    self.out.warnings.push(format!(
                        "the invalidated session at offset {offset} has the impossible epoch {epoch}, which is ignored"
                    ));
                }
                self.session = Some(Session { offset, epoch, kind: Kind::Invalidated });
            }
            Entry::End(_) => {
                let Some(session) = self.session.take() else {
                    return Err(self.misplaced(offset, tag::END));
                };
                self.ends += 1;
                if session.kind == Kind::Durable {
                    self.last_ended = Some(session.epoch);
                    self.out.has_durable_session = true;
                    // Such a session belongs to the epoch that the process found recorded, or to 0 before its start. A file
                    // may have been put aside by a process that did not get to its start.
                    if !self.rotated || session.epoch == self.durable || session.epoch == Epoch(0) {
                        self.out.to_confirm = Some((session.offset, session.epoch));
                    }
                }
                self.out.has_ended_session |= session.kind != Kind::Invalidated && session.epoch > Epoch(0);
            }
            Entry::Durable(_) => return Err(self.misplaced(offset, tag::DURABLE)),
            _ => match self.session {
                Some(Session { kind: Kind::Durable, .. }) => visitor.entry(offset, entry),
                Some(_) => {}
                None => return Err(self.misplaced(offset, self.bytes[offset])),
            },
        }
        Ok(())
    }

    /// The session before `offset` ends here without an end marker, because the file ends or another one begins.
    fn leave_unended(&mut self, another_begins: bool) {
        if let Some(session) = self.session.take() {
            if session.kind == Kind::Durable {
                self.unended.get_or_insert(session);
                self.out.has_durable_session = true;
                self.out.open_end = !another_begins;
            }
            self.out.has_ended_session |=
                another_begins && session.kind != Kind::Invalidated && session.epoch > Epoch(0);
        }
    }

    /// Something that is no whole entry stands at `offset`: decide whether it was ever acknowledged.
    fn unreadable(&mut self, offset: usize, unreadable: Unreadable) -> Result<(), Box<Damage>> {
        let rest = &self.bytes[offset..];
        let zeros = rest.iter().all(|&b| b == 0);
        let torn_marker = matches!(unreadable, Unreadable::Short(tag::BEGIN | tag::INVALIDATED));
        if self.durable == Epoch(0) {
            // Where the epoch file is lost, damage must not hide that sessions were ended: all of them would be cut off.
            let own = self.session.filter(|session| session.kind == Kind::Invalidated).map(|session| session.epoch);
            self.out.has_ended_session |= ended_session_behind(self.bytes, offset, EPOCH_PLAUSIBLE_MAX, own).is_some();
        }
        match self.session {
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
            Some(Session { kind: Kind::Durable, epoch, offset: begin }) => {
                let half_written = offset == begin + MARKER_LEN && self.marker_is_half_written(begin);
                if half_written && !self.has_durable_session_behind(offset, None) {
                    self.session = None;
                    self.cut(begin, "a half written begin marker");
                } else if self.was_never_covered(epoch) && (zeros || matches!(unreadable, Unreadable::Short(_))) {
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
            }
            Some(Session { kind, epoch, offset: begin }) => {
                let own = (kind == Kind::Invalidated).then_some(epoch);
                let incomplete = format!("an incomplete session of epoch {epoch} that was never durable");
                match (self.has_durable_session_behind(offset, own), self.rotated) {
                    (false, _) => {
                        self.session = None;
                        self.cut(begin, &incomplete);
                    }
                    // An operator may have had the original repair the file, which then reads it up to here. Nothing
                    // is appended to it, so the bytes can stay.
                    (true, true) => self.out.warnings.push(format!(
                        "{incomplete} at offset {begin}: the file is not read behind it, although ended sessions follow"
                    )),
                    (true, false) => return Err(self.damage(offset, unreadable)),
                }
            }
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
    /// such a session may be torn although the epoch file covers its epoch.
    fn was_never_covered(&self, epoch: Epoch) -> bool {
        epoch == Epoch(0) || self.last_ended == Some(epoch)
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

    fn finish(mut self, end_markers: bool) -> FileScan {
        let last = self.session;
        self.leave_unended(false);
        // A directory or a file from before end markers lacks them everywhere.
        if let (Some(session), true) = (self.unended, end_markers && self.ends > 0) {
            self.out.warnings.push(format!(
                "the durable session of epoch {} at offset {} has no end marker; it was read up to its last whole entry",
                session.epoch, session.offset
            ));
        }
        // Where nothing says whether the last session was ended, it counts as one that was.
        self.out.has_ended_session |=
            !end_markers && last.is_some_and(|last| last.kind != Kind::Invalidated && last.epoch > Epoch(0));
        self.out
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Walks one log file to its end, past damage where that is possible, and says what stands in it. The rules are those
//! of the original's tools (disk format §5.2), softened where a start of this project opens what the original refuses
//! and hardened where the original would take durable sessions away.

use crate::error::{Damage, Remedy};
use crate::types::Epoch;
use crate::wal::entry::{decode, tag, Entry, Unreadable};
use crate::wal::names;
use crate::wal::read_ahead::ReadAhead;
use crate::wal::scanner::{self, ended_session_behind, Edit, Visitor};
use crate::wal::sessions::{self, Obstacle, Origin, Session, Step};
use std::path::Path;

/// The end of a file that was never acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Unreadable bytes in a session beyond the limit, or in one that was invalidated already.
    Session { begin: usize, marked: bool },
    /// A begin marker that the file ends in.
    TornBegin { offset: usize },
    /// What follows an end marker and never was a session.
    Garbage { offset: usize, zeros: bool },
    /// The end of a durable session that the original did not protect: entries before it count.
    Unprotected { offset: usize },
}

/// A place that a repair must not take away by itself.
#[derive(Debug)]
pub struct Broken {
    pub damage: Damage,
    /// Where the session begins that holds the place.
    pub begin: Option<usize>,
}

/// What a log file holds.
#[derive(Debug, Default)]
pub struct Examined {
    pub max_epoch: Epoch,
    /// Durable sessions, and how many of them have an end marker.
    pub sessions: u64,
    pub ended: u64,
    pub first_epoch: Option<Epoch>,
    pub last_epoch: Option<Epoch>,
    /// Data entries of durable sessions, all kinds.
    pub entries: u64,
    /// Begin markers of well-formed sessions beyond the limit.
    pub beyond: Vec<usize>,
    /// The largest epoch of a session that was ended and not invalidated.
    pub max_ended: Epoch,
    pub invalidated: u64,
    pub tail: Option<Tail>,
    pub broken: Vec<Broken>,
    /// Where disposable damage has durable sessions behind it: a start refuses the file under an active name, and under
    /// a rotated name it does not read them. The begin of the session, and the unreadable place.
    pub hides_durable: Option<(usize, usize)>,
    pub warnings: Vec<String>,
}

/// Ignores the entries: only the verdict of the scanner counts.
pub(super) struct Nobody;

impl Visitor for Nobody {
    fn entry(&mut self, _: usize, _: Entry<'_>) {}
}

/// A file to examine.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub bytes: &'a [u8],
    pub path: &'a Path,
    /// Sessions up to this epoch are durable.
    pub limit: Epoch,
    pub end_markers: bool,
    /// Who wrote the first bytes, where they are not the beginning of a file.
    pub origin: Origin,
}

/// Walks the file; `each` gets every data entry of the durable sessions with its offset and the session's epoch.
pub fn examine(subject: Subject<'_>, mut each: impl FnMut(usize, Epoch, Entry<'_>)) -> Examined {
    let mut sessions = sessions::Walk::from(subject.bytes, 0, subject.origin);
    let mut walk = Walk { subject, session: None, out: Examined::default() };
    let mut ahead = ReadAhead::default();
    while let Some((offset, step)) = sessions.next() {
        match step {
            Ok(Step::Entry(entry)) => {
                if let Some(session) = walk.session.filter(|session| walk.is_durable(session)) {
                    walk.out.entries += 1;
                    each(offset, session.epoch, entry);
                }
            }
            Ok(Step::Begin { session, unended }) => walk.begin(session, unended),
            Ok(Step::End { session, .. }) => walk.end(session),
            // Nothing is ever appended behind a session without an end.
            Ok(Step::Mark { unended }) => {
                walk.without_end(unended.map(|session| Session { origin: Origin::Ours, ..session }));
            }
            Err(Obstacle::Misplaced(tag)) => {
                walk.misplaced(offset, tag);
                if tag == tag::END {
                    break;
                }
            }
            Err(Obstacle::Unreadable(unreadable)) => {
                walk.unreadable(offset, unreadable);
                return walk.finish();
            }
        }
        walk.session = sessions.session();
        ahead.touch(subject.bytes, sessions.offset());
    }
    walk.session.into_iter().for_each(|session| walk.check_end(session));
    walk.finish()
}

impl Subject<'_> {
    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether channels append to it.
    pub fn is_active(&self) -> bool {
        names::is_active_log(&self.name())
    }
}

struct Walk<'a> {
    subject: Subject<'a>,
    session: Option<Session>,
    out: Examined,
}

impl Walk<'_> {
    fn is_durable(&self, session: &Session) -> bool {
        !session.invalidated && session.epoch <= self.subject.limit
    }

    fn begin(&mut self, session: Session, unended: Option<Session>) {
        self.without_end(unended);
        let Session { epoch, offset, .. } = session;
        if scanner::is_plausible(epoch, self.subject.limit) {
            self.out.max_epoch = self.out.max_epoch.max(epoch);
        }
        if session.invalidated {
            self.out.invalidated += 1;
        } else if self.is_durable(&session) {
            self.out.sessions += 1;
            self.out.first_epoch = Some(self.out.first_epoch.map_or(epoch, |first| first.min(epoch)));
            self.out.last_epoch = self.out.last_epoch.max(Some(epoch));
        } else {
            self.out.beyond.push(offset);
        }
    }

    fn end(&mut self, session: Session) {
        self.out.ended += u64::from(self.is_durable(&session));
        self.was_ended(session);
    }

    /// Another session or a mark stands where an end marker should.
    fn without_end(&mut self, session: Option<Session>) {
        if let Some(session) = session {
            self.was_ended(session);
            self.check_end(session);
        }
    }

    /// The original leaves sessions without an end marker, and none of ours is.
    fn check_end(&mut self, session: Session) {
        if session.origin == Origin::Ours && self.is_durable(&session) {
            self.session = Some(session);
            let found = "entries without an end marker behind them".to_owned();
            self.broken(session.offset, "a session has no end marker".to_owned(), found, "an end marker");
        }
    }

    fn was_ended(&mut self, session: Session) {
        if !session.invalidated {
            self.out.max_ended = self.out.max_ended.max(session.epoch);
        }
    }

    fn unreadable(&mut self, offset: usize, unreadable: Unreadable) {
        let Subject { bytes, limit, .. } = self.subject;
        let zeros = bytes[offset..].iter().all(|&b| b == 0);
        match (unreadable, self.session) {
            // Harmless: there is nothing behind it.
            (Unreadable::Short(tag::INVALIDATED), session) => {
                session.into_iter().for_each(|session| self.check_end(session));
                self.session = None;
            }
            // The session before it counts as ended only where nothing says so of any; see `finish`.
            (Unreadable::Short(tag::BEGIN), session) => {
                session.into_iter().for_each(|session| self.check_end(session));
                self.out.tail = Some(Tail::TornBegin { offset });
            }
            (Unreadable::Short(tag), None) => self.misplaced(offset, tag),
            (Unreadable::Unknown(tag), None) => {
                if !zeros && ended_session_behind(bytes, offset, limit, None).is_some() {
                    self.misplaced(offset, tag);
                } else {
                    self.out.tail = Some(Tail::Garbage { offset, zeros });
                }
            }
            (_, Some(session)) if self.is_durable(&session) => self.unreadable_in_durable(offset, unreadable),
            (_, Some(Session { offset: begin, epoch, invalidated: marked, origin })) => {
                if ended_session_behind(bytes, offset, limit, marked.then_some(epoch)).is_some() {
                    self.out.hides_durable = Some((begin, offset));
                    // As a start: what the original has repaired is not read behind such a place, if it is no damaged
                    // mark.
                    let ours = origin == Origin::Ours || Origin::may_be_mark(&bytes[begin..]);
                    if self.subject.is_active() || ours {
                        self.unreadable_entry(offset, unreadable);
                    } else {
                        self.out.warnings.push(format!(
                            "not read behind offset {offset}, in a session of epoch {epoch} that was never durable, \
                             although ended sessions follow"
                        ));
                    }
                } else {
                    self.out.tail = Some(Tail::Session { begin, marked });
                }
            }
        }
    }

    /// A start knows damage in a durable session that was never acknowledged: it cuts there, and so may a repair.
    fn unreadable_in_durable(&mut self, offset: usize, unreadable: Unreadable) {
        let Subject { bytes, path, limit, end_markers, .. } = self.subject;
        let verdict = match names::is_compacted(&self.subject.name()) {
            true => None,
            false => scanner::scan(bytes, limit, end_markers, path, &mut Nobody).ok(),
        };
        match verdict.and_then(|scan| scan.edits.last().copied()) {
            Some(Edit::Cut { offset }) => {
                self.session = None;
                self.out.tail = Some(Tail::Unprotected { offset });
            }
            _ => self.unreadable_entry(offset, unreadable),
        }
    }

    fn misplaced(&mut self, offset: usize, tag: u8) {
        let found = format!("tag {tag:#04x}");
        self.broken(offset, format!("unexpected log_entry type {tag}"), found, "a begin marker or the end of the file");
    }

    fn unreadable_entry(&mut self, offset: usize, unreadable: Unreadable) {
        let (reason, found) = match unreadable {
            Unreadable::Short(tag) => {
                ("unexpected EOF".to_owned(), format!("an entry with tag {tag:#04x} that is cut off"))
            }
            Unreadable::Unknown(tag) => (format!("unknown log_entry type {tag}"), format!("tag {tag:#04x}")),
        };
        self.broken(offset, reason, found, "a whole entry, an end marker or a begin marker");
    }

    fn broken(&mut self, offset: usize, reason: String, found: String, expected: &str) {
        let compacted = names::is_compacted(&self.subject.name());
        self.out.broken.push(Broken {
            damage: Damage {
                file: self.subject.path.to_owned(),
                offset: offset as u64,
                epoch: self.session.map(|session| session.epoch),
                reason: format!("this pwal file is broken: {reason}"),
                found,
                expected: expected.to_owned(),
                remedy: if compacted { Remedy::RestoreFile } else { Remedy::Repair },
            },
            begin: self.session.map(|session| session.offset),
        });
    }

    fn finish(mut self) -> Examined {
        if let Some(session) = self.session {
            // Where nothing says whether the last session was ended, it counts as one that was.
            if !self.subject.end_markers {
                self.was_ended(session);
            }
        }
        self.out
    }
}

impl Examined {
    /// Whether a repair has something to do that loses nothing.
    pub fn needs_repair(&self, active: bool) -> bool {
        let tail = match self.tail {
            Some(Tail::Session { marked: true, .. }) => active,
            Some(_) => true,
            None => false,
        };
        tail || !self.beyond.is_empty()
    }

    /// The changes of a repair; with `cut`, tails of sessions are cut off and not only marked.
    pub fn edits(&self, cut: bool) -> Vec<Edit> {
        let mut edits: Vec<Edit> = self.beyond.iter().map(|&offset| Edit::Invalidate { offset }).collect();
        let cut_at = match self.tail {
            Some(Tail::Session { begin, .. }) if cut => Some(begin),
            Some(Tail::TornBegin { offset }) if cut => Some(offset),
            Some(Tail::TornBegin { offset }) => {
                edits.push(Edit::Invalidate { offset });
                None
            }
            Some(Tail::Garbage { offset, .. }) if cut => Some(offset),
            Some(Tail::Garbage { offset, .. }) => {
                edits.push(Edit::Void { offset });
                None
            }
            Some(Tail::Unprotected { offset }) if cut => Some(offset),
            // A start reads what stands before it.
            Some(Tail::Unprotected { .. } | Tail::Session { .. }) | None => None,
        };
        if let Some(offset) = cut_at {
            edits.retain(|edit| !matches!(edit, Edit::Invalidate { offset: at } if *at >= offset));
            edits.push(Edit::Cut { offset });
        }
        edits
    }

    /// Whether a whole session with an end marker of its own epoch begins at offset 0 of these bytes.
    pub fn begins_whole(bytes: &[u8], limit: Epoch) -> bool {
        let mut walk = sessions::Walk::new(bytes);
        let is_first = matches!(walk.next(), Some((_, Ok(Step::Begin { session, .. }))) if session.epoch <= limit);
        is_first
            && walk.find_map(|(offset, step)| match step {
                Ok(Step::Entry(_)) => None,
                Ok(Step::End { session, .. }) => Some(ends_own(bytes, offset, session.epoch)),
                _ => Some(false),
            }) == Some(true)
    }
}

/// Whether the end marker at `offset` carries this epoch.
fn ends_own(bytes: &[u8], offset: usize, epoch: Epoch) -> bool {
    matches!(decode(bytes, offset), Some(Ok((Entry::End(end), _))) if end == epoch)
}

// SPDX-License-Identifier: Apache-2.0
//! The one walk over the sessions of a log file: which entries belong to which session, how it ends, and who wrote it.
//! It judges nothing: what an unended session, a misplaced entry or unreadable bytes mean is for whoever walks. And the
//! same check for a session that arrives in pieces.
//!
//! **Who wrote a session.** The original leaves torn sessions in epochs that it has recorded, this project never does.
//! So that damage in a session of ours is never taken for such a weakness, the writer puts a mark before the first
//! session that it appends behind others: an invalidated session of epoch 0 with one entry of a certain storage, which
//! the original skips. What stands behind a mark is ours, up to a mark of the other kind, which nothing writes today.
//! What the original appends behind our sessions therefore counts as ours: damage is refused that could have been taken
//! for a weakness, never the other way round.

use super::entry::{self, decode, tag, Entry, Pieces, Seen, Unreadable, END_PLAIN};
use crate::types::{Epoch, StorageId, WriteVersion};

/// Bytes of a mark.
pub const MARK_LEN: usize = entry::MARKER_LEN + 25 + entry::END_LEN;
/// The storage in the entry of a mark: reads "SESSIONS" in a dump.
const MARK_STORAGE: StorageId = StorageId(u64::from_le_bytes(*b"SESSIONS"));
const MARK_VERSION: u64 = 1;
/// With so many of its bytes behind the marker something is a damaged mark; zeros agree in 22 of the 35.
const MARK_BYTES_AGREE_MIN: usize = 26;

/// Who wrote what follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The original, or a version of this project that left no marks.
    #[default]
    Unknown,
    /// This project: every session that the epoch record covers was whole and synced before.
    Ours,
}

impl Origin {
    /// The bytes that say so in a log file.
    pub fn mark(self) -> Vec<u8> {
        let mut bytes = entry::marker(tag::INVALIDATED, Epoch(0)).to_vec();
        let version = WriteVersion { major: MARK_VERSION, minor: u64::from(self == Origin::Ours) };
        entry::encode_storage(&mut bytes, tag::ADD_STORAGE, MARK_STORAGE, version);
        entry::encode_end(&mut bytes, Epoch(0));
        debug_assert_eq!(bytes.len(), MARK_LEN);
        bytes
    }

    /// Whether these bytes may have begun with a mark before they were damaged.
    pub fn may_be_mark(bytes: &[u8]) -> bool {
        let mark = Origin::Ours.mark();
        let agree = bytes.iter().zip(&mark).skip(entry::MARKER_LEN).filter(|(found, mark)| found == mark).count();
        bytes.starts_with(&mark[..entry::MARKER_LEN]) && agree >= MARK_BYTES_AGREE_MIN
    }

    /// What the mark that begins these bytes says; `None` when there is none.
    fn of_mark(bytes: &[u8]) -> Option<Origin> {
        let mark = bytes.get(..MARK_LEN)?;
        [Origin::Unknown, Origin::Ours].into_iter().find(|origin| origin.mark() == mark)
    }
}

/// A session that a walk has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Where its begin marker stands.
    pub offset: usize,
    pub epoch: Epoch,
    /// It never counts.
    pub invalidated: bool,
    pub origin: Origin,
}

/// What a walk comes to. An `unended` session is one that has no end marker because something else begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    Begin {
        session: Session,
        unended: Option<Session>,
    },
    /// An entry of the session that is open.
    Entry(Entry<'a>),
    /// The session is whole; `next` is the offset behind it.
    End {
        session: Session,
        next: usize,
    },
    /// What stands behind was written by somebody else than what stands before.
    Mark {
        unended: Option<Session>,
    },
}

/// What stands where no step can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A readable entry with this tag, outside a session or of a kind that no log file holds. The walk can go on behind
    /// it.
    Misplaced(u8),
    /// The walk ends here.
    Unreadable(Unreadable),
}

/// Goes through the bytes of a log file, session by session; gives each step with its offset.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    bytes: &'a [u8],
    offset: usize,
    place: Place,
}

impl<'a> Walk<'a> {
    /// From the beginning of a file.
    pub fn new(bytes: &'a [u8]) -> Walk<'a> {
        Walk::from(bytes, 0, Origin::Unknown)
    }

    /// From `offset`, where a session begins or a mark stands; `origin` is what the last mark before says.
    pub fn from(bytes: &'a [u8], offset: usize, origin: Origin) -> Walk<'a> {
        Walk { bytes, offset, place: Place { session: None, origin } }
    }

    /// The session that the walk is inside.
    #[inline]
    pub fn session(&self) -> Option<Session> {
        self.place.session
    }

    /// Who writes from here on.
    pub fn origin(&self) -> Origin {
        self.place.origin
    }

    /// Where the next step is looked for.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl Walk<'_> {
    /// Goes behind the mark that begins here, if one does.
    fn pass_mark(&mut self) -> bool {
        let origin = Origin::of_mark(&self.bytes[self.offset..]);
        self.place.origin = origin.unwrap_or(self.place.origin);
        self.offset += if origin.is_some() { MARK_LEN } else { 0 };
        origin.is_some()
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = (usize, Result<Step<'a>, Obstacle>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let step = match decode(self.bytes, offset)? {
            Ok((Entry::Invalidated(Epoch(0)), _)) if self.pass_mark() => {
                Ok(Step::Mark { unended: self.place.session.take() })
            }
            Ok((entry, next)) => {
                self.offset = next;
                self.place.take(offset, entry, next).map_err(|_| Obstacle::Misplaced(self.bytes[offset]))
            }
            Err(unreadable) => {
                self.offset = self.bytes.len();
                Err(Obstacle::Unreadable(unreadable))
            }
        };
        Some((offset, step))
    }
}

/// Where in the order of begin marker, entries and end marker a reader is.
#[derive(Clone, Debug, Default)]
pub struct Place {
    session: Option<Session>,
    origin: Origin,
}

/// A readable entry that cannot stand here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misplaced;

impl Place {
    /// Goes on with the entry at `offset`; `next` is the offset behind it.
    #[inline]
    pub fn take<'a>(&mut self, offset: usize, entry: Entry<'a>, next: usize) -> Result<Step<'a>, Misplaced> {
        let (epoch, invalidated) = match entry {
            Entry::Begin(epoch) => (epoch, false),
            Entry::Invalidated(epoch) => (epoch, true),
            Entry::End(_) => {
                return self.session.take().map(|session| Step::End { session, next }).ok_or(Misplaced);
            }
            Entry::Durable(_) => return Err(Misplaced),
            _ => return if self.session.is_some() { Ok(Step::Entry(entry)) } else { Err(Misplaced) },
        };
        let session = Session { offset, epoch, invalidated, origin: self.origin };
        Ok(Step::Begin { session, unended: self.session.replace(session) })
    }
}

/// The sessions that begin in these bytes, whole or not. Ends at anything that is none.
pub fn begun(bytes: &[u8]) -> impl Iterator<Item = Session> + '_ {
    let steps = Walk::new(bytes).map_while(|(_, step)| step.ok());
    steps.filter_map(|step| match step {
        Step::Begin { session, .. } => Some(session),
        _ => None,
    })
}

/// The whole sessions in these bytes that count, each with the offset behind it. Ends at anything that is none.
pub fn whole(bytes: &[u8]) -> impl Iterator<Item = (Session, usize)> + '_ {
    let steps = Walk::new(bytes).map_while(|(_, step)| step.ok());
    steps.filter_map(|step| match step {
        Step::End { session, next } if !session.invalidated => Some((session, next)),
        _ => None,
    })
}

/// Follows the bytes of one session as they arrive in pieces: only what a start can read is appended. Memory is
/// constant.
#[derive(Debug)]
pub struct SessionCheck {
    epoch: Epoch,
    pieces: Pieces,
    stage: Stage,
}

/// What is read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begin,
    Inside,
    Ended,
}

impl SessionCheck {
    /// At the beginning of a session that must carry `epoch`.
    pub fn new(epoch: Epoch) -> SessionCheck {
        SessionCheck { epoch, pieces: Pieces::default(), stage: Stage::Begin }
    }

    /// Whether the end marker was the last thing.
    pub fn is_whole(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Takes the next bytes; the error says what was expected and found.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            if self.stage == Stage::Ended {
                return Err("bytes behind the end marker of the session".to_owned());
            }
            let fed = self.pieces.feed(&mut bytes);
            let Some(seen) = fed.map_err(|tag| format!("expected an entry or a marker, found tag {tag:#04x}"))? else {
                break;
            };
            self.stage = match (self.stage, seen) {
                (Stage::Begin, Seen::Begin(epoch)) if epoch == self.epoch => Stage::Inside,
                (Stage::Begin, other) => {
                    return Err(format!("expected a begin marker of epoch {}, found {other:?}", self.epoch));
                }
                (Stage::Inside, Seen::Data) => Stage::Inside,
                (Stage::Inside, Seen::End(epoch, END_PLAIN)) if epoch == self.epoch => Stage::Ended,
                (_, other) => {
                    return Err(format!("expected an entry or an end marker of epoch {}, found {other:?}", self.epoch));
                }
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::BlobId;
    use crate::wal::entry::{encode_end, encode_put, encode_remove, encode_storage, marker};

    const VERSION: WriteVersion = WriteVersion { major: 1, minor: 2 };

    fn session() -> Vec<u8> {
        let mut bytes = marker(tag::BEGIN, Epoch(7)).to_vec();
        encode_put(&mut bytes, StorageId(1), b"key", &[3; 100], VERSION, &[]);
        encode_put(&mut bytes, StorageId(1), b"", b"", VERSION, &[BlobId(3), BlobId(4)]);
        encode_remove(&mut bytes, StorageId(1), b"key", VERSION);
        for tag in [tag::CLEAR_STORAGE, tag::ADD_STORAGE, tag::REMOVE_STORAGE] {
            encode_storage(&mut bytes, tag, StorageId(1), VERSION);
        }
        encode_end(&mut bytes, Epoch(7));
        bytes
    }

    fn feed(bytes: &[u8], piece: usize) -> Result<bool, String> {
        let mut check = SessionCheck::new(Epoch(7));
        bytes.chunks(piece).try_for_each(|piece| check.feed(piece))?;
        Ok(check.is_whole())
    }

    #[test]
    fn a_session_is_followed_through_pieces_of_any_size_and_whole_only_at_its_end() {
        let bytes = session();
        for piece in [1, 2, 3, 7, 64, bytes.len()] {
            assert_eq!(feed(&bytes, piece), Ok(true), "pieces of {piece}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(feed(&bytes[..cut], 5), Ok(false), "cut at {cut}");
        }
    }

    #[test]
    fn what_a_start_could_not_read_is_refused() {
        let bytes = session();
        assert!(feed(&[&bytes[..], &[0]].concat(), 4).is_err(), "a byte behind the end");
        assert!(feed(&bytes[9..], 4).is_err(), "no begin marker");
        assert!(feed(&[&marker(tag::BEGIN, Epoch(6))[..], &bytes[9..]].concat(), 4).is_err(), "another epoch");
        assert!(feed(&[&bytes[..9], &bytes[..]].concat(), 4).is_err(), "a begin marker inside");
        assert!(feed(&[&bytes[..9], &marker(tag::DURABLE, Epoch(7))].concat(), 4).is_err(), "an epoch record inside");
        for behind in [tag::BEGIN, tag::PUT] {
            assert!(feed(&[&bytes[..], &[behind]].concat(), 4).is_err(), "the beginning of something behind the end");
        }
        let mut ended = bytes.clone();
        *ended.last_mut().unwrap() = 9;
        assert!(feed(&ended, 4).is_err(), "an unknown checksum type");
    }

    fn steps(bytes: &[u8]) -> Vec<String> {
        let name = |step| match step {
            Ok(Step::Begin { session, unended }) => {
                format!("begin {} {:?} {}", session.epoch, session.origin, unended.is_some())
            }
            Ok(Step::Entry(_)) => "entry".to_owned(),
            Ok(Step::End { next, .. }) => format!("end {next}"),
            Ok(Step::Mark { unended }) => format!("mark {}", unended.is_some()),
            Err(obstacle) => format!("{obstacle:?}"),
        };
        Walk::new(bytes).map(|(offset, step)| format!("{offset} {}", name(step))).collect()
    }

    #[test]
    fn a_walk_tells_who_wrote_a_session_and_which_have_no_end() {
        let mut unended = marker(tag::BEGIN, Epoch(3)).to_vec();
        encode_storage(&mut unended, tag::ADD_STORAGE, StorageId(1), VERSION);
        let mut ended = marker(tag::BEGIN, Epoch(4)).to_vec();
        encode_end(&mut ended, Epoch(4));
        let bytes =
            [&unended[..], &Origin::Ours.mark(), &ended, &unended, &ended, &Origin::Unknown.mark(), &ended].concat();
        let expected = [
            "0 begin 3 Unknown false",
            "9 entry",
            "34 mark true",
            "78 begin 4 Ours false",
            "87 end 97",
            "97 begin 3 Ours false",
            "106 entry",
            "131 begin 4 Ours true",
            "140 end 150",
            "150 mark false",
            "194 begin 4 Unknown false",
            "203 end 213",
        ];
        assert_eq!(steps(&bytes), expected);
        assert_eq!(whole(&bytes).map(|(_, next)| next).collect::<Vec<_>>(), [97, 150, 213]);
    }

    #[test]
    fn a_mark_that_is_not_whole_is_none() {
        let mark = Origin::Ours.mark();
        for cut in [10, MARK_LEN - 1] {
            assert!(steps(&mark[..cut])[0].contains("begin 0 Unknown"), "{cut}");
        }
        let mut changed = mark.clone();
        changed[12] ^= 1;
        assert_eq!(steps(&changed), ["0 begin 0 Unknown false", "9 entry", "34 end 44"]);
    }

    #[test]
    fn a_walk_goes_on_behind_what_is_misplaced_and_ends_at_what_is_unreadable() {
        let bytes = [&marker(tag::DURABLE, Epoch(1))[..], &marker(tag::BEGIN, Epoch(2)), &[0x0b, 1]].concat();
        assert_eq!(steps(&bytes), ["0 Misplaced(4)", "9 begin 2 Unknown false", "18 Unreadable(Unknown(11))"]);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Takes damaged sessions out of a log file and keeps all others: what an operator asks for who gives them up.

use super::examine::{examine, Examined, Nobody, Subject};
use crate::types::Epoch;
use crate::wal::entry::tag;
use crate::wal::scanner::{self, ended_session_behind, FileScan, EPOCH_PLAUSIBLE_MAX};
use crate::wal::sessions::{Session, Step, Walk};
use std::ops::Range;

/// Bytes that are taken out.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost {
    pub range: Range<usize>,
    /// Of the session that is lost, when the place is inside one.
    pub epoch: Option<Epoch>,
    /// No session of an earlier epoch is lost here: epochs do not fall within a file.
    pub not_before: Epoch,
}

/// The content without what is damaged.
pub fn salvage(subject: Subject<'_>) -> (Vec<u8>, Vec<Lost>) {
    let bytes = subject.bytes;
    let (mut kept, mut lost) = (Vec::new(), Vec::new());
    let (mut start, mut origin, mut last_kept) = (0, subject.origin, Epoch(0));
    // Every round leaves at least a byte behind.
    while start < bytes.len() {
        let rest = &bytes[start..];
        let examined = examine(Subject { bytes: rest, origin, ..subject }, |_, _, _| ());
        let (begin, at, epoch) = match (examined.broken.first(), examined.hides_durable) {
            (Some(broken), _) => {
                let at = broken.damage.offset as usize;
                (broken.begin.unwrap_or(at), at, broken.damage.epoch)
            }
            (None, Some((begin, at))) => (begin, at, None),
            (None, None) => {
                kept.extend_from_slice(rest);
                break;
            }
        };
        kept.extend_from_slice(&rest[..begin]);
        // Who wrote what follows: marks between here and there may be lost.
        let mut walk = Walk::from(&rest[..begin], 0, origin);
        for (_, step) in walk.by_ref() {
            if let Ok(Step::Begin { session: Session { epoch, invalidated: false, .. }, .. }) = step {
                last_kept = if epoch <= subject.limit { last_kept.max(epoch) } else { last_kept };
            }
        }
        origin = walk.origin();
        let next = next_session(rest, at + 1, subject.limit).unwrap_or(rest.len());
        // The epoch that the damaged session shows may be a part of the damage.
        let not_before = epoch.map_or(last_kept, |epoch| epoch.min(last_kept));
        lost.push(Lost { range: start + begin..start + next, epoch, not_before });
        start += next;
    }
    (kept, lost)
}

/// The largest epoch of a session that was ended, also behind damage and whatever the durable epoch is.
pub fn max_ended_anywhere(subject: Subject<'_>) -> Epoch {
    let all = Subject { limit: Epoch(u64::MAX), ..subject };
    let (kept, _) = salvage(all);
    let max_ended = examine(Subject { bytes: &kept, ..all }, |_, _, _| ()).max_ended;
    let Subject { bytes, end_markers, path, .. } = subject;
    // A start also counts the end of a session whose beginning is damaged.
    let counts = |scan: FileScan| scan.has_ended_session;
    match scanner::scan(bytes, Epoch(0), end_markers, path, &mut Nobody).is_ok_and(counts) {
        true => max_ended.max(ended_session_behind(bytes, 0, EPOCH_PLAUSIBLE_MAX, None).unwrap_or_default()),
        false => max_ended,
    }
}

/// Where the next whole durable session begins: with an end marker of its own epoch, so that bytes which only look like
/// a begin marker do not count.
fn next_session(bytes: &[u8], from: usize, limit: Epoch) -> Option<usize> {
    (from..bytes.len())
        .find(|&at| matches!(bytes[at], tag::BEGIN | tag::INVALIDATED) && Examined::begins_whole(&bytes[at..], limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{StorageId, WriteVersion};
    use crate::wal::entry::{encode_end, encode_put, marker};
    use crate::wal::sessions::Origin;
    use std::path::Path;

    fn session(epoch: u64) -> Vec<u8> {
        let mut out = marker(tag::BEGIN, Epoch(epoch)).to_vec();
        encode_put(&mut out, StorageId(1), b"k", b"v", WriteVersion { major: epoch, minor: 0 }, &[]);
        encode_end(&mut out, Epoch(epoch));
        out
    }

    #[test]
    fn only_the_damaged_sessions_are_lost() {
        let mut bad = session(2);
        bad[9] = 0x0b;
        let bytes = [session(1), bad, session(3)].concat();
        let subject = Subject {
            bytes: &bytes,
            path: Path::new("pwal_0000"),
            limit: Epoch(3),
            end_markers: true,
            origin: Origin::Unknown,
        };
        let (kept, lost) = salvage(subject);
        assert_eq!(kept, [session(1), session(3)].concat());
        let len = session(1).len();
        assert_eq!(lost, [Lost { range: len..2 * len, epoch: Some(Epoch(2)), not_before: Epoch(1) }]);
    }

    #[test]
    fn ended_sessions_are_found_behind_damage() {
        let mut bad = session(1);
        bad[9] = 0x0b;
        let bytes = [bad, session(3), marker(tag::BEGIN, Epoch(9)).to_vec()].concat();
        let subject = Subject {
            bytes: &bytes,
            path: Path::new("pwal_0000"),
            limit: Epoch(0),
            end_markers: true,
            origin: Origin::Unknown,
        };
        assert_eq!(max_ended_anywhere(subject), Epoch(3));
    }
}

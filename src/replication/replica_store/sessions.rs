// SPDX-License-Identifier: Apache-2.0
//! Remembers which sessions of a lane's file are beyond the durable epoch, in bounded memory, so that they can be taken
//! away without reading the log. With more than fit, the file is read again from where they begin.

use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::VfsFile;
use crate::wal::sessions::{Origin, Step, Walk};
use std::collections::VecDeque;
use std::path::Path;

/// Sessions that are remembered: 1 MiB. A primary commits long before there are as many.
const SESSIONS_MAX: usize = 1 << 16;

/// The sessions at the end of a file, from the first that is beyond the durable epoch on.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// Where each begins, ascending; the first is beyond the durable epoch.
    known: VecDeque<(u64, Epoch)>,
    overflow: Option<Overflow>,
}

/// Sessions from `from` on are not remembered one by one; none has an epoch above `epoch_max`.
#[derive(Clone, Copy, Debug)]
struct Overflow {
    from: u64,
    epoch_max: Epoch,
}

/// What to change so that only durable sessions are left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Begin markers of sessions with durable ones behind them.
    pub marks: Vec<u64>,
    /// Where the sessions begin that have none behind them.
    pub cut_at: Option<u64>,
}

pub(super) enum Beyond {
    Known(Changes),
    /// Too many to remember: [`rescan`] finds them.
    RescanFrom(u64),
}

impl Sessions {
    /// A session of `epoch` begins at `start`, behind all others.
    pub(super) fn begin(&mut self, start: u64, epoch: Epoch, durable: Epoch) {
        if let Some(overflow) = &mut self.overflow {
            overflow.epoch_max = overflow.epoch_max.max(epoch);
            return;
        }
        if self.known.is_empty() && epoch <= durable {
            return;
        }
        if self.known.len() == SESSIONS_MAX {
            let epoch_max = self.known.iter().map(|(_, epoch)| *epoch).fold(epoch, Epoch::max);
            self.overflow = self.known.front().map(|(from, _)| Overflow { from: *from, epoch_max });
            self.known = VecDeque::new();
            return;
        }
        self.known.push_back((start, epoch));
    }

    /// The largest epoch beyond the durable one.
    pub(super) fn highest(&self) -> Option<Epoch> {
        let known = self.known.iter().map(|(_, epoch)| *epoch).max();
        known.max(self.overflow.map(|overflow| overflow.epoch_max))
    }

    /// Whether a session beyond the durable epoch is not beyond `epoch`; also when that is not remembered.
    pub(super) fn any_up_to(&self, epoch: Epoch) -> bool {
        self.overflow.is_some() || self.known.iter().any(|(_, known)| *known <= epoch)
    }

    /// Where the first begins that is beyond the durable epoch.
    pub(super) fn first(&self) -> Option<u64> {
        let known = self.known.front().map(|(start, _)| *start);
        known.into_iter().chain(self.overflow.map(|overflow| overflow.from)).min()
    }

    /// `durable` is the durable epoch now.
    pub(super) fn recorded(&mut self, durable: Epoch) {
        if self.overflow.is_some_and(|overflow| overflow.epoch_max <= durable) {
            self.overflow = None;
        }
        while self.known.front().is_some_and(|(_, epoch)| *epoch <= durable) {
            self.known.pop_front();
        }
    }

    /// The file ends at `end` now.
    pub(super) fn forget_from(&mut self, end: u64) {
        while self.known.back().is_some_and(|(start, _)| *start >= end) {
            self.known.pop_back();
        }
        if self.overflow.is_some_and(|overflow| overflow.from >= end) {
            self.overflow = None;
        }
    }

    /// What is beyond `durable`.
    pub(super) fn beyond(&self, durable: Epoch) -> Beyond {
        if let Some(overflow) = self.overflow {
            return Beyond::RescanFrom(overflow.from);
        }
        let mut changes = Changes::default();
        let mut tail = self.known.iter().rev().peekable();
        while let Some((start, _)) = tail.next_if(|(_, epoch)| *epoch > durable) {
            changes.cut_at = Some(*start);
        }
        changes.marks = tail.filter(|(_, epoch)| *epoch > durable).map(|(start, _)| *start).collect();
        Beyond::Known(changes)
    }
}

/// Reads whole sessions in the range of a file, and says what to change. Sessions that follow each other are cut off
/// when nothing durable is behind them, the others are marked.
pub(super) fn rescan(file: &dyn VfsFile, from: u64, to: u64, durable: Epoch, path: &Path) -> Result<Changes> {
    let bytes = file.map().map_err(|e| Error::io("cannot read", path, e))?;
    let mut changes = Changes::default();
    // Sessions beyond the durable epoch since the last durable one.
    let mut tail: Vec<u64> = Vec::new();
    let bytes = &bytes[..(to as usize).min(bytes.len())];
    for (offset, step) in Walk::from(bytes, from as usize, Origin::Ours) {
        match step {
            Ok(Step::Begin { session, .. }) if session.invalidated => {}
            Ok(Step::Begin { session, .. }) if session.epoch > durable => tail.push(offset as u64),
            Ok(Step::Begin { .. }) => changes.marks.append(&mut tail),
            Ok(_) => {}
            Err(obstacle) => {
                let found = std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{obstacle:?} at {offset}"));
                return Err(Error::io("cannot read back what was written to", path, found));
            }
        }
    }
    changes.cut_at = tail.first().copied();
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Open, SimFs, Vfs};
    use crate::wal::entry::{encode_end, marker, tag};

    fn known(sessions: &Sessions, durable: u64) -> Changes {
        match sessions.beyond(Epoch(durable)) {
            Beyond::Known(changes) => changes,
            Beyond::RescanFrom(offset) => panic!("forgotten from {offset} on"),
        }
    }

    #[test]
    fn a_tail_beyond_the_durable_epoch_is_cut_and_what_stands_before_a_durable_session_is_marked() {
        let mut sessions = Sessions::default();
        for (at, epoch) in [(0, 3), (10, 6), (20, 5), (30, 7), (40, 6)] {
            sessions.begin(at, Epoch(epoch), Epoch(3));
        }
        assert_eq!(sessions.first(), Some(10));
        assert_eq!(known(&sessions, 3), Changes { marks: vec![], cut_at: Some(10) });
        sessions.recorded(Epoch(5));
        assert_eq!(known(&sessions, 5), Changes { marks: vec![10], cut_at: Some(30) });
        sessions.recorded(Epoch(6));
        assert_eq!(known(&sessions, 6), Changes { marks: vec![30], cut_at: None });
        sessions.recorded(Epoch(7));
        assert!(sessions.known.is_empty() && sessions.first().is_none());
    }

    #[test]
    fn more_sessions_than_are_remembered_are_found_by_reading() {
        let fs = SimFs::new();
        let (path, mut bytes, mut sessions) = (Path::new("/pwal_0000"), Vec::new(), Sessions::default());
        let mut starts = Vec::new();
        for number in 0..SESSIONS_MAX as u64 + 10 {
            let epoch = Epoch(10 + number % 2);
            sessions.begin(bytes.len() as u64, epoch, Epoch(9));
            starts.push(bytes.len() as u64);
            bytes.extend_from_slice(&marker(tag::BEGIN, epoch));
            encode_end(&mut bytes, epoch);
        }
        assert!(sessions.known.is_empty(), "memory is given back");
        assert_eq!(sessions.first(), Some(0));
        fs.put(path, &bytes).unwrap();
        let file = fs.open(path, Open::Existing).unwrap();
        sessions.recorded(Epoch(10));
        let Beyond::RescanFrom(from) = sessions.beyond(Epoch(10)) else { panic!("remembered") };
        let changes = rescan(&*file, from, bytes.len() as u64, Epoch(10), path).unwrap();
        assert_eq!(changes.cut_at, starts.last().copied());
        assert_eq!(changes.marks.len(), SESSIONS_MAX / 2 + 4);
        sessions.recorded(Epoch(11));
        assert_eq!(known(&sessions, 11), Changes::default());
    }
}

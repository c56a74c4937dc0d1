// SPDX-License-Identifier: Apache-2.0
//! What has come on a lane and is not written yet, because the log is being cut before it. What comes behind it, such
//! as sessions of earlier epochs on other channels and their COMMIT, is not held up by that.

use crate::types::Epoch;
use std::collections::VecDeque;

/// A session, or what has come of it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) epoch: Epoch,
    pub(super) bytes: Vec<u8>,
    pub(super) ended: bool,
}

/// Sessions in the order in which they came; only the last of all may go on.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    sessions: VecDeque<Held>,
    bytes: usize,
}

impl HeldBack {
    /// A lane on which more comes waits.
    const BYTES_MAX: usize = 4 << 20;

    /// The smallest epoch of all; `None` when there is nothing.
    pub(super) fn lowest(&self) -> Option<Epoch> {
        self.sessions.iter().map(|held| held.epoch).min()
    }

    /// The epoch of the session that goes on.
    pub(super) fn unfinished(&self) -> Option<Epoch> {
        self.sessions.back().filter(|held| !held.ended).map(|held| held.epoch)
    }

    /// Takes a piece, the first of a session or of the one that goes on; false when there is too much.
    pub(super) fn push(&mut self, epoch: Epoch, (first, last): (bool, bool), bytes: &[u8]) -> bool {
        if self.bytes + bytes.len() > Self::BYTES_MAX {
            return false;
        }
        self.bytes += bytes.len();
        if first {
            self.sessions.push_back(Held { epoch, bytes: Vec::new(), ended: false });
        }
        if let Some(held) = self.sessions.back_mut() {
            held.bytes.extend_from_slice(bytes);
            held.ended = last;
        }
        true
    }

    /// The next session that may begin.
    pub(super) fn next(&mut self, may_begin: impl Fn(Epoch) -> bool) -> Option<Held> {
        let at = self.sessions.iter().position(|held| may_begin(held.epoch))?;
        let held = self.sessions.remove(at)?;
        self.bytes -= held.bytes.len();
        Some(held)
    }

    pub(super) fn clear(&mut self) {
        *self = HeldBack::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_come_out_by_their_epochs_whole_or_as_far_as_they_have_come() {
        let mut held = HeldBack::default();
        assert!(held.push(Epoch(7), (true, false), b"a") && held.push(Epoch(7), (false, true), b"b"));
        assert!(held.push(Epoch(6), (true, false), b"c"));
        assert_eq!((held.lowest(), held.unfinished()), (Some(Epoch(6)), Some(Epoch(6))));
        let mut next =
            |last| held.next(|epoch| epoch <= Epoch(last)).map(|held| (held.epoch.0, held.bytes, held.ended));
        assert_eq!(next(5), None);
        assert_eq!(next(6), Some((6, b"c".to_vec(), false)));
        assert_eq!(next(6), None);
        assert_eq!(next(7), Some((7, b"ab".to_vec(), true)));
        assert_eq!((held.lowest(), held.unfinished(), held.bytes), (None, None, 0));
        assert!(!held.push(Epoch(8), (true, true), &vec![0; HeldBack::BYTES_MAX + 1]), "there is a bound");
    }
}

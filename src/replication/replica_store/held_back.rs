// SPDX-License-Identifier: Apache-2.0
//! What has come on a lane and is not written yet, because the log is being cut before it. What comes behind it, such
//! as the COMMIT of the epoch before, is not held up by that.

use crate::types::Epoch;
use std::collections::VecDeque;

/// A piece of a session, as it came.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) epoch: Epoch,
    pub(super) first: bool,
    pub(super) last: bool,
    pub(super) bytes: Vec<u8>,
}

/// Pieces in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    pieces: VecDeque<Piece>,
    bytes: usize,
}

impl HeldBack {
    /// A lane on which more comes waits.
    pub(super) const BYTES_MAX: usize = 4 << 20;

    /// The smallest epoch of all; `None` when there is nothing.
    pub(super) fn lowest(&self) -> Option<Epoch> {
        self.pieces.iter().map(|piece| piece.epoch).min()
    }

    /// The epoch that the first waits for.
    pub(super) fn first(&self) -> Option<Epoch> {
        self.pieces.front().map(|piece| piece.epoch)
    }

    /// Takes it, or gives it back when there is too much.
    pub(super) fn push(&mut self, piece: Piece) -> Result<(), Piece> {
        if self.bytes + piece.bytes.len() > Self::BYTES_MAX {
            return Err(piece);
        }
        self.bytes += piece.bytes.len();
        self.pieces.push_back(piece);
        Ok(())
    }

    /// The next piece, if it belongs to a session that may be written or has begun.
    pub(super) fn next(&mut self, may_begin: impl FnOnce(Epoch) -> bool) -> Option<Piece> {
        let is_next = self.pieces.front().is_some_and(|piece| !piece.first || may_begin(piece.epoch));
        let piece = if is_next { self.pieces.pop_front() } else { None }?;
        self.bytes -= piece.bytes.len();
        Some(piece)
    }

    pub(super) fn clear(&mut self) {
        *self = HeldBack::default();
    }
}

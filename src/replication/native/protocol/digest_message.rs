// SPDX-License-Identifier: Apache-2.0
//! What is said about the digest of a primary's content, on the control connection: the replica asks, takes the answer
//! piece by piece as it comes to it, and may end it at any time. One question of a session is open at a time; what
//! belongs to an earlier one says nothing.

use super::frame::{cut, FrameKind, DIGEST_PIECE_BYTES_MAX};
use crate::replication::digests::DigestWanted;
use crate::types::Epoch;

/// One of these messages. `number` is that of the question; they are counted from 1 in each session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DigestMessage {
    /// The replica asks; an earlier question is over with it.
    Want {
        number: u64,
        wanted: DigestWanted,
    },
    /// The replica has taken everything below `offset`, and wants the piece from there on.
    Next {
        number: u64,
        offset: u64,
    },
    /// The replica wants nothing of it any more.
    End {
        number: u64,
    },
    /// The primary is at it; that `read` grows says that it gets on.
    Work {
        number: u64,
        read: u64,
    },
    Piece {
        number: u64,
        piece: DigestPiece,
    },
    /// There is no answer.
    Failed {
        number: u64,
        text: String,
    },
}

/// A piece of the document; only the last one may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestPiece {
    pub offset: u64,
    pub last: bool,
    pub bytes: Vec<u8>,
}

/// What is wrong with a payload.
#[derive(Debug)]
pub(super) struct Unlike {
    pub found: String,
    pub expected: &'static str,
}

impl DigestMessage {
    pub(super) fn kind(&self) -> FrameKind {
        match self {
            DigestMessage::Want { .. } => FrameKind::DigestWant,
            DigestMessage::Next { .. } => FrameKind::DigestNext,
            DigestMessage::End { .. } => FrameKind::DigestEnd,
            DigestMessage::Work { .. } => FrameKind::DigestWork,
            DigestMessage::Piece { .. } => FrameKind::DigestPiece,
            DigestMessage::Failed { .. } => FrameKind::DigestFailed,
        }
    }

    /// That of the frame.
    pub(super) fn epoch(&self) -> Epoch {
        match self {
            DigestMessage::Want { wanted, .. } => wanted.epoch,
            _ => Epoch(0),
        }
    }

    /// Appends it; a longer text is cut.
    pub(super) fn payload(&self, out: &mut Vec<u8>) {
        match self {
            DigestMessage::Want { number, .. }
            | DigestMessage::Next { number, .. }
            | DigestMessage::End { number }
            | DigestMessage::Work { number, .. }
            | DigestMessage::Piece { number, .. }
            | DigestMessage::Failed { number, .. } => out.extend_from_slice(&number.to_le_bytes()),
        }
        match self {
            DigestMessage::Want { wanted, .. } => {
                out.push(wanted.with_blobs.into());
                out.extend_from_slice(&wanted.bytes_per_second.unwrap_or(0).to_le_bytes());
            }
            DigestMessage::Next { offset: value, .. } | DigestMessage::Work { read: value, .. } => {
                out.extend_from_slice(&value.to_le_bytes());
            }
            DigestMessage::End { .. } => {}
            DigestMessage::Piece { piece, .. } => {
                debug_assert!(piece.bytes.len() <= DIGEST_PIECE_BYTES_MAX);
                out.push(piece.last.into());
                out.extend_from_slice(&piece.offset.to_le_bytes());
                out.extend_from_slice(&piece.bytes);
            }
            DigestMessage::Failed { text, .. } => out.extend_from_slice(cut(text).as_bytes()),
        }
    }

    /// The message in a frame of one of these types, the length of which has been checked.
    pub(super) fn decode(kind: FrameKind, epoch: Epoch, payload: &[u8]) -> Result<DigestMessage, Unlike> {
        let mut rest = payload;
        let number = u64_of(&mut rest)?;
        let message = match kind {
            FrameKind::DigestWant => {
                let (with_blobs, bytes) = (flag_of(&mut rest)?, u64_of(&mut rest)?);
                let bytes_per_second = (bytes > 0).then_some(bytes);
                DigestMessage::Want { number, wanted: DigestWanted { epoch, with_blobs, bytes_per_second } }
            }
            FrameKind::DigestNext => DigestMessage::Next { number, offset: u64_of(&mut rest)? },
            FrameKind::DigestEnd => DigestMessage::End { number },
            FrameKind::DigestWork => DigestMessage::Work { number, read: u64_of(&mut rest)? },
            FrameKind::DigestPiece => {
                let (last, offset, bytes) = (flag_of(&mut rest)?, u64_of(&mut rest)?, std::mem::take(&mut rest));
                if bytes.is_empty() && !last {
                    return Err(unlike("an empty piece that is not the last one", "bytes"));
                }
                DigestMessage::Piece { number, piece: DigestPiece { offset, last, bytes: bytes.to_vec() } }
            }
            FrameKind::DigestFailed => {
                let text =
                    std::str::from_utf8(std::mem::take(&mut rest)).map_err(|_| unlike("other bytes", "UTF-8"))?;
                DigestMessage::Failed { number, text: text.to_owned() }
            }
            other => return Err(unlike(&format!("a {} frame", other.name()), "one about digests")),
        };
        match rest.is_empty() {
            true => Ok(message),
            false => Err(unlike(&format!("{} more bytes", rest.len()), "the end of the payload")),
        }
    }
}

fn unlike(found: &str, expected: &'static str) -> Unlike {
    Unlike { found: found.to_owned(), expected }
}

fn u64_of(rest: &mut &[u8]) -> Result<u64, Unlike> {
    let (number, behind) = rest.split_first_chunk().ok_or_else(|| unlike("fewer bytes", "a longer field"))?;
    *rest = behind;
    Ok(u64::from_le_bytes(*number))
}

fn flag_of(rest: &mut &[u8]) -> Result<bool, Unlike> {
    match rest.split_first() {
        Some((flag @ (0 | 1), behind)) => {
            *rest = behind;
            Ok(*flag == 1)
        }
        Some((flag, _)) => Err(unlike(&format!("flag {flag}"), "0 or 1")),
        None => Err(unlike("fewer bytes", "a longer field")),
    }
}

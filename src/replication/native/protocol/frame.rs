// SPDX-License-Identifier: Apache-2.0
//! Frames: how messages lie on a connection. A length is checked against the bound of its type before anything of that
//! size is allocated, and a checksum covers every frame.
//!
//! Integers are little endian: u32 payload length, u8 type, u64 epoch, u32 channel, payload, u32 CRC-32 of all before.
//! Where frames are sealed ([`super::seal`]) the MAC follows.

use super::seal::{Seal, MAC_LEN};
use crate::wal::history::RUNS_MAX;
use std::io::{self, IoSlice, Read, Write};

/// The first bytes of every native connection, sent by the primary. No message of the upstream protocol begins so.
pub const MAGIC: [u8; 8] = *b"\x89TSGRP\r\n";
/// Bytes in front of the payload.
pub const HEADER_LEN: usize = 17;
/// Bytes behind the payload: the checksum.
pub const TRAILER_LEN: usize = 4;
/// The largest piece of a session, a BLOB or a file in one frame.
pub const PIECE_BYTES_MAX: usize = 256 * 1024;
/// The largest piece of a digest in one frame: it shares the control connection with heartbeats.
pub const DIGEST_PIECE_BYTES_MAX: usize = 64 * 1024;
/// A bound for every payload of the protocol; each type has a tighter one of its own.
pub const PAYLOAD_BYTES_MAX: u32 = PIECE_BYTES_MAX as u32 + 64;

macro_rules! frame_kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $min:expr, $max:expr;)*) => {
        /// The type byte of a frame.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum FrameKind { $($(#[$doc])* $name = $code,)* }

        impl FrameKind {
            /// Every type.
            pub const ALL: &'static [FrameKind] = &[$(FrameKind::$name,)*];

            /// The type with this byte.
            pub fn from_code(code: u8) -> Option<FrameKind> {
                match code { $($code => Some(FrameKind::$name),)* _ => None }
            }

            /// The smallest and the largest payload in bytes.
            pub fn payload_bounds(self) -> (u32, u32) {
                match self { $(FrameKind::$name => ($min, $max),)* }
            }

            /// The name as it stands in `docs/protocol.md`.
            pub fn name(self) -> &'static str {
                match self { $(FrameKind::$name => stringify!($name),)* }
            }
        }
    };
}

/// The longest text of an error message in bytes.
pub const TEXT_BYTES_MAX: u32 = 512;
/// The most runs of a history that a handshake carries.
pub const HISTORY_LEN_MAX: u32 = RUNS_MAX as u32;
/// The longest history: a flag, the number of runs, and each with its id, term and first epoch.
const HISTORY_BYTES_MAX: u32 = 1 + 2 + HISTORY_LEN_MAX * (16 + 8 + 8);
/// The longest identity of a data directory (a UUID has 36 characters) and the longest name of a file.
pub const NAME_BYTES_MAX: u32 = 255;

frame_kinds! {
    /// First of every connection: versions, kind of connection, session, nonce.
    Hello = 0x01, 57, 57;
    /// The replica's nonce and proof.
    Challenge = 0x02, 66, 66;
    /// The primary's proof; on the control connection also who it is.
    Identity = 0x03, 33, 33 + 1 + NAME_BYTES_MAX + 8 + HISTORY_BYTES_MAX + 8 + 8 + 4 + 4 + 8;
    /// The connection is accepted; on the control connection also who the replica is.
    Answer = 0x04, 1, 1 + 1 + NAME_BYTES_MAX + 8 + HISTORY_BYTES_MAX + 8 + 1 + 4 + 8;
    /// The connection is not accepted.
    Refused = 0x05, 2, 2 + TEXT_BYTES_MAX;
    /// A log channel begins on this lane.
    Channel = 0x10, 0, 0;
    /// A log channel ends.
    ChannelEnd = 0x11, 0, 0;
    /// A piece of a session's bytes.
    Log = 0x12, 1, 1 + PIECE_BYTES_MAX as u32;
    /// Everything up to an epoch is durable on the primary and has been sent on this lane.
    Commit = 0x13, 8, 8;
    /// A Commit will follow soon for what has come on this lane.
    Sync = 0x14, 0, 0;
    /// The primary is alive; its epochs.
    Heartbeat = 0x20, 16, 16;
    /// The replica is alive; its durable epoch, and how much it has received and synced.
    Alive = 0x21, 16, 16;
    /// Everything up to an epoch is durable on the replica.
    Durable = 0x22, 0, 0;
    /// Versions below this one are not needed any more.
    Boundary = 0x23, 16, 16;
    /// A snapshot up to this version can be read.
    SafeSnapshot = 0x24, 16, 16;
    /// What made the sender end the connection.
    Error = 0x25, 2, 2 + TEXT_BYTES_MAX;
    /// The sender ends the session in good order.
    Bye = 0x26, 0, 0;
    /// What the primary has told its engine.
    Reported = 0x27, 0, 0;
    /// A piece of a BLOB.
    Blob = 0x30, 37, 37 + PIECE_BYTES_MAX as u32;
    /// A file of a base sync.
    Offer = 0x40, 12 + 2, 12 + 1 + NAME_BYTES_MAX;
    /// From where on the replica wants the offered file.
    Want = 0x41, 8, 8;
    /// A piece of the offered file.
    Data = 0x42, 8, 8 + PIECE_BYTES_MAX as u32;
    /// The offered file is complete.
    FileEnd = 0x43, 0, 0;
    /// All files have been offered.
    Done = 0x44, 8, 8;
    /// The replica has swapped the files in.
    Staged = 0x45, 0, 0;
    /// The replica wants the digest of the primary's content at an epoch.
    DigestWant = 0x50, 17, 17;
    /// From where on the replica wants more of it.
    DigestNext = 0x51, 16, 16;
    /// The replica does not want it any more.
    DigestEnd = 0x52, 8, 8;
    /// The primary works on it.
    DigestWork = 0x53, 16, 16;
    /// A piece of it.
    DigestPiece = 0x54, 17, 17 + DIGEST_PIECE_BYTES_MAX as u32;
    /// Why there is none.
    DigestFailed = 0x55, 8, 8 + TEXT_BYTES_MAX;
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection ended inside a frame.
    #[error("the connection ended inside a frame: {found} bytes of it came, {expected} were expected")]
    Cut { found: usize, expected: usize },
    /// No type has this byte.
    #[error("unknown frame type {0:#04x}")]
    UnknownKind(u8),
    /// The payload length does not fit the type.
    #[error("a {} frame with a payload of {found} bytes, expected {min} to {max}", kind.name())]
    Length { kind: FrameKind, found: u32, min: u32, max: u32 },
    /// The checksum does not fit the bytes.
    #[error("a {} frame with checksum {found:#010x}, expected {expected:#010x}", kind.name())]
    Checksum { kind: FrameKind, found: u32, expected: u32 },
    /// The MAC does not fit the bytes and their place on the connection.
    #[error(
        "a {} frame, number {number} of this direction, with a wrong MAC: it, or one before it, was changed, left out, \
         repeated or moved on the way",
        kind.name()
    )]
    Mac { kind: FrameKind, number: u64 },
    /// The system refused to read. After a time-out the same reader can go on.
    #[error("the connection cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// One frame, its checksum verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: FrameKind,
    pub epoch: u64,
    pub channel: u32,
    pub payload: Vec<u8>,
}

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: FrameKind,
    epoch: u64,
    channel: u32,
    len: usize,
}

impl Header {
    fn parse(bytes: &[u8; HEADER_LEN], max: u32) -> Result<Header, FrameError> {
        let (len, rest) = bytes.split_first_chunk().expect("a header is longer than a length");
        let found = u32::from_le_bytes(*len);
        let kind = FrameKind::from_code(rest[0]).ok_or(FrameError::UnknownKind(rest[0]))?;
        let (min, kind_max) = kind.payload_bounds();
        let max = max.min(kind_max);
        if !(min..=max).contains(&found) {
            return Err(FrameError::Length { kind, found, min, max });
        }
        let epoch = u64::from_le_bytes(rest[1..9].try_into().expect("eight bytes"));
        let channel = u32::from_le_bytes(rest[9..13].try_into().expect("four bytes"));
        Ok(Header { kind, epoch, channel, len: found as usize })
    }
}

fn header(kind: FrameKind, epoch: u64, channel: u32, len: usize) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
    bytes[4] = kind as u8;
    bytes[5..13].copy_from_slice(&epoch.to_le_bytes());
    bytes[13..].copy_from_slice(&channel.to_le_bytes());
    bytes
}

/// As much of the text as may be sent.
pub(super) fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX as usize);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Appends a frame. The payload must be within the bounds of its type.
pub fn write_frame(out: &mut Vec<u8>, kind: FrameKind, epoch: u64, channel: u32, payload: &[u8]) {
    let (min, max) = kind.payload_bounds();
    debug_assert!((min as usize..=max as usize).contains(&payload.len()), "{} of {}", kind.name(), payload.len());
    let begin = out.len();
    out.reserve(HEADER_LEN + payload.len() + TRAILER_LEN);
    out.extend_from_slice(&header(kind, epoch, channel, payload.len()));
    out.extend_from_slice(payload);
    let checksum = crc32fast::hash(&out[begin..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// What stands around a piece of a session on the wire, so that the piece itself is sent from where it lies: write
/// `head`, then the piece, then `tail`.
#[derive(Clone, Copy, Debug)]
pub struct LogFrame {
    pub head: [u8; HEADER_LEN + 1],
    pub tail: [u8; TRAILER_LEN],
}

/// The bit of a Log frame's flags that says: the session begins with this piece.
pub const FLAG_FIRST: u8 = 1;
/// The bit of a Log frame's flags that says: the session ends with this piece.
pub const FLAG_LAST: u8 = 2;

impl LogFrame {
    /// The frame around `piece`, which has at most [`PIECE_BYTES_MAX`] bytes.
    pub fn around(epoch: u64, channel: u32, first: bool, last: bool, piece: &[u8]) -> LogFrame {
        debug_assert!(piece.len() <= PIECE_BYTES_MAX);
        let mut head = [0; HEADER_LEN + 1];
        head[..HEADER_LEN].copy_from_slice(&header(FrameKind::Log, epoch, channel, piece.len() + 1));
        head[HEADER_LEN] = if first { FLAG_FIRST } else { 0 } | if last { FLAG_LAST } else { 0 };
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&head);
        checksum.update(piece);
        LogFrame { head, tail: checksum.finalize().to_le_bytes() }
    }

    /// Writes the frame with `piece` in one system call if the connection takes it all.
    pub fn write(&self, out: &mut impl Write, piece: &[u8]) -> io::Result<()> {
        let mut parts = [IoSlice::new(&self.head), IoSlice::new(piece), IoSlice::new(&self.tail)];
        let mut parts = &mut parts[..];
        while !parts.is_empty() {
            match out.write_vectored(parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut parts, written),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Reads one frame whose payload has at most `max` bytes; `None` when the connection ended before it. For a connection
/// that may time out inside a frame and go on, use [`FrameReader`].
pub fn read_frame(r: &mut impl Read, max: u32) -> Result<Option<Frame>, FrameError> {
    FrameReader::new(r).next(max)
}

/// Reads frames and keeps what has come of one over time-outs. Wrap the connection in a [`io::BufReader`]: small frames
/// then share system calls, large pieces pass it by.
#[derive(Debug)]
pub struct FrameReader<R> {
    reader: R,
    head: [u8; HEADER_LEN],
    header: Option<Header>,
    /// Payload, checksum and MAC; as long as they will be.
    body: Vec<u8>,
    /// Bytes that have come of the header, or of the body when the header is there.
    filled: usize,
    seal: Option<Seal>,
}

impl<R: Read> FrameReader<R> {
    /// Reads frames from `reader`.
    pub fn new(reader: R) -> FrameReader<R> {
        FrameReader { reader, head: [0; HEADER_LEN], header: None, body: Vec::new(), filled: 0, seal: None }
    }

    /// From the next frame on each has to have its MAC. To be called between two frames.
    pub fn set_seal(&mut self, seal: Option<Seal>) {
        debug_assert!(!self.is_inside_frame());
        self.seal = seal;
    }

    /// What is read from.
    pub fn get_ref(&self) -> &R {
        &self.reader
    }

    /// What is read from; bytes taken from it are missing in the next frame.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.reader
    }

    /// Whether a part of the next frame has come.
    pub fn is_inside_frame(&self) -> bool {
        self.header.is_some() || self.filled > 0
    }

    /// The next frame, its payload at most `max` bytes; `None` when the connection ended at the border of a frame.
    /// After an [`FrameError::Io`] that is a time-out it may be called again with the same `max`; after any other
    /// error the connection is of no use any more.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self, max: u32) -> Result<Option<Frame>, FrameError> {
        let header = match self.header {
            Some(header) => header,
            None => {
                if !fill(&mut self.reader, &mut self.head, &mut self.filled)? {
                    return match self.filled {
                        0 => Ok(None),
                        found => Err(FrameError::Cut { found, expected: HEADER_LEN }),
                    };
                }
                let header = Header::parse(&self.head, max)?;
                self.body = vec![0; header.len + TRAILER_LEN + self.seal.as_ref().map_or(0, |_| MAC_LEN)];
                self.filled = 0;
                self.header = Some(header);
                header
            }
        };
        if !fill(&mut self.reader, &mut self.body, &mut self.filled)? {
            let expected = HEADER_LEN + self.body.len();
            return Err(FrameError::Cut { found: HEADER_LEN + self.filled, expected });
        }
        self.header = None;
        self.filled = 0;
        let body = std::mem::take(&mut self.body);
        self.checked(header, body).map(Some)
    }

    /// The frame of which all has come, when it is what was sent.
    fn checked(&mut self, header: Header, mut body: Vec<u8>) -> Result<Frame, FrameError> {
        if let Some(seal) = &mut self.seal {
            let (number, frame_len) = (seal.number(), body.len() - MAC_LEN);
            let (frame, mac) = body.split_at(frame_len);
            if !seal.is_mac(&[&self.head, frame], mac.try_into().expect("what is left of it")) {
                return Err(FrameError::Mac { kind: header.kind, number });
            }
            body.truncate(frame_len);
        }
        let found = u32::from_le_bytes(*body.last_chunk().expect("a body ends with a checksum"));
        body.truncate(header.len);
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&self.head);
        checksum.update(&body);
        let expected = checksum.finalize();
        if found != expected {
            return Err(FrameError::Checksum { kind: header.kind, found, expected });
        }
        Ok(Frame { kind: header.kind, epoch: header.epoch, channel: header.channel, payload: body })
    }
}

/// Reads until `bytes` is full; false when the connection ended before.
fn fill(reader: &mut impl Read, bytes: &mut [u8], filled: &mut usize) -> Result<bool, FrameError> {
    while *filled < bytes.len() {
        match reader.read(&mut bytes[*filled..]) {
            Ok(0) => return Ok(false),
            Ok(count) => *filled += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(true)
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;

// SPDX-License-Identifier: Apache-2.0
//! Sends whole sessions down a lane, one after the other. Bytes go from the log file into one buffer, with the frames
//! around them, and from there to the connection: one system call for many small sessions.

use super::connection::Sender;
use super::end::End;
use super::queue::Queue;
use crate::datastore::EndedSession;
use crate::replication::native::protocol::frame::{LogFrame, HEADER_LEN, PIECE_BYTES_MAX, TRAILER_LEN};
use crate::replication::native::protocol::message::Message;
use crate::replication::native::protocol::seal::MAC_LEN;
use crate::types::Epoch;
use std::collections::{BTreeSet, VecDeque};

/// Sent at a time when there is so much.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes in front of a piece.
const HEAD_LEN: usize = HEADER_LEN + 1;

/// What a lane sends.
#[derive(Debug)]
pub(super) enum Item {
    Session(EndedSession),
    Commit { epoch: Epoch, blob_seq: u64 },
    Sync,
}

/// The sending end of a lane.
pub(super) struct Lane {
    sender: Sender,
    buffer: Box<[u8]>,
    filled: usize,
    /// Channels that the replica was told of on this lane.
    channels: BTreeSet<u32>,
    channels_max: u32,
}

impl Lane {
    pub(super) fn new(sender: Sender, channels_max: u32) -> Lane {
        let buffer = vec![0; BATCH_BYTES + HEAD_LEN + PIECE_BYTES_MAX + TRAILER_LEN + MAC_LEN].into();
        Lane { sender, buffer, filled: 0, channels: BTreeSet::new(), channels_max }
    }

    /// Sends what comes until the queue is closed. `announce` is called before each commit goes out.
    pub(super) fn run(mut self, queue: &Queue<Item>, announce: impl Fn() -> Result<(), End>) -> Result<(), End> {
        let mut items = VecDeque::new();
        while queue.take(&mut items) {
            for item in items.drain(..) {
                match item {
                    Item::Session(session) => {
                        self.announce(session.channel)?;
                        self.append(&session)?;
                    }
                    Item::Commit { epoch, blob_seq } => {
                        announce()?;
                        self.message(&Message::Commit { epoch, blob_seq });
                    }
                    Item::Sync => self.message(&Message::Sync),
                }
                if self.filled >= BATCH_BYTES {
                    self.flush()?;
                }
            }
            self.flush()?;
        }
        Ok(())
    }

    fn announce(&mut self, channel: u32) -> Result<(), End> {
        if self.channels.insert(channel) {
            if channel >= self.channels_max {
                let max = self.channels_max;
                return Err(End::Local(format!("channel {channel} exists, but the replica takes {max} channels only")));
            }
            self.message(&Message::Channel { channel });
        }
        Ok(())
    }

    /// Small messages; there is always room for one.
    fn message(&mut self, message: &Message) {
        let mut bytes = Vec::with_capacity(64);
        self.sender.append(message, &mut bytes);
        self.buffer[self.filled..self.filled + bytes.len()].copy_from_slice(&bytes);
        self.filled += bytes.len();
    }

    fn append(&mut self, session: &EndedSession) -> Result<(), End> {
        let mut offset = 0;
        while offset < session.len {
            if self.filled >= BATCH_BYTES {
                self.flush()?;
            }
            let len = (session.len - offset).min(PIECE_BYTES_MAX as u64) as usize;
            let (head, rest) = self.buffer[self.filled..].split_at_mut(HEAD_LEN);
            let (piece, rest) = rest.split_at_mut(len);
            let got = session.file.read_at(session.start + offset, piece);
            match got {
                Ok(got) if got == len => {}
                Ok(got) => return Err(End::Local(format!("a log file ended: {got} of {len} bytes of a session"))),
                Err(e) => return Err(End::Local(format!("a log file cannot be read: {e}"))),
            }
            let (first, last) = (offset == 0, offset + len as u64 == session.len);
            let frame = LogFrame::around(session.epoch.0, session.channel, first, last, piece);
            head.copy_from_slice(&frame.head);
            rest[..TRAILER_LEN].copy_from_slice(&frame.tail);
            let end = self.filled + HEAD_LEN + len + TRAILER_LEN;
            let (before, behind) = self.buffer.split_at_mut(end);
            self.filled = end + self.sender.complete(&before[self.filled..], behind);
            offset += len as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), End> {
        if self.filled > 0 {
            self.sender.write(&self.buffer[..self.filled])?;
            self.filled = 0;
        }
        Ok(())
    }
}

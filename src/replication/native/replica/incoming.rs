// SPDX-License-Identifier: Apache-2.0
//! The receiving end of a connection: messages with a bound on every wait.

use super::end::End;
use super::outgoing::Outgoing;
use crate::replication::native::protocol::frame::{FrameError, FrameReader, MAGIC, PAYLOAD_BYTES_MAX};
use crate::replication::native::protocol::message::{Code, Message, Reason};
use crate::replication::native::protocol::seal::Seal;
use crate::replication::net::connection::ReadHalf;
use crate::replication::net::deadline::{is_timeout, Deadline};
use std::io::{self, BufReader, Read};
use std::sync::atomic::AtomicU64;
use std::sync::Arc;
use std::time::Duration;

const BUFFER_BYTES: usize = 256 << 10;

/// Frames of a connection as messages.
#[derive(Debug)]
pub(super) struct Incoming {
    frames: FrameReader<BufReader<ReadHalf>>,
    /// The largest payload that is taken now.
    bytes_max: u32,
    out: Outgoing,
}

impl Incoming {
    /// Takes the first bytes of a connection. The deadline of the half is that of everything until
    /// [`Self::set_timeout`] is called.
    pub(super) fn begin(half: ReadHalf, out: Outgoing) -> io::Result<(Incoming, [u8; MAGIC.len()])> {
        let mut input = BufReader::with_capacity(BUFFER_BYTES, half);
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        Ok((Incoming { frames: FrameReader::new(input), bytes_max: PAYLOAD_BYTES_MAX, out }, magic))
    }

    /// From now on no larger payload is taken.
    pub(super) fn set_bytes_max(&mut self, bytes: u32) {
        self.bytes_max = bytes;
    }

    /// The next message, or that nothing came in time. A message that does not go on in time is an error, after which
    /// this may be called again.
    pub(super) fn next(&mut self) -> Result<Next, End> {
        match self.frames.next(self.bytes_max) {
            Ok(Some(frame)) => Message::decode(frame)
                .map(Next::Message)
                .map_err(|e| End::Told(Reason::new(Code::PROTOCOL, e.to_string()))),
            Ok(None) => Ok(Next::Closed),
            Err(FrameError::Io(e)) if is_timeout(&e) => match self.frames.is_inside_frame() {
                true => Err(End::Lost("a message does not go on".to_owned())),
                false => Ok(Next::Idle),
            },
            Err(FrameError::Io(e)) => Err(End::Lost(e.to_string())),
            Err(e @ FrameError::Cut { .. }) => Err(End::Lost(e.to_string())),
            Err(e) => Err(End::Told(Reason::new(Code::PROTOCOL, e.to_string()))),
        }
    }

    /// The next message, whenever it comes; `None` when the connection has ended before one.
    pub(super) fn message(&mut self) -> Result<Option<Message>, End> {
        loop {
            match self.next()? {
                Next::Message(message) => return Ok(Some(message)),
                Next::Idle => {}
                Next::Closed => return Ok(None),
            }
        }
    }

    /// From now on each read may take this long.
    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.frames.get_mut().get_mut().set_deadline(Deadline::Each(timeout));
    }

    /// From now on `count` grows with every byte that comes, also inside a message.
    pub(super) fn count(&mut self, count: Arc<AtomicU64>) {
        self.frames.get_mut().get_mut().count(count);
    }

    /// Whether a part of the next message has come.
    pub(super) fn is_inside_message(&self) -> bool {
        self.frames.is_inside_frame()
    }

    /// From the next message on each has to be sealed.
    pub(super) fn set_seal(&mut self, seal: Option<Seal>) {
        self.frames.set_seal(seal);
    }

    /// The other direction.
    pub(super) fn out(&self) -> &Outgoing {
        &self.out
    }

    /// Bytes that have come and were not taken.
    pub(super) fn waiting_bytes(&self) -> usize {
        let input = self.frames.get_ref();
        input.buffer().len() + input.get_ref().waiting_bytes()
    }
}

/// What came next.
pub(super) enum Next {
    Message(Message),
    /// Nothing for the time of the timeout.
    Idle,
    Closed,
}

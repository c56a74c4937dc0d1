// SPDX-License-Identifier: Apache-2.0
//! The receiving end of a connection: messages with a bound on every wait.

use super::end::End;
use crate::replication::native::protocol::frame::{FrameError, FrameReader, MAGIC, PAYLOAD_BYTES_MAX};
use crate::replication::native::protocol::message::{Code, Message, Reason};
use crate::replication::net::transport;
use std::io::{self, BufReader, Read};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BUFFER_BYTES: usize = 256 << 10;

/// A socket whose reads end at a deadline as long as there is one.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    deadline: Option<Instant>,
    /// Counts what comes.
    count: Option<Arc<AtomicU64>>,
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
        }
        let read = self.stream.read(buffer)?;
        if let Some(count) = &self.count {
            count.fetch_add(read as u64, SeqCst);
        }
        Ok(read)
    }
}

/// Frames of a connection as messages.
#[derive(Debug)]
pub(super) struct Incoming {
    frames: FrameReader<BufReader<Socket>>,
}

impl Incoming {
    /// Takes the first bytes of a connection. Everything has to come by `deadline` until [`Self::set_timeout`] is
    /// called.
    pub(super) fn begin(stream: TcpStream, deadline: Instant) -> io::Result<(Incoming, [u8; MAGIC.len()])> {
        let mut input =
            BufReader::with_capacity(BUFFER_BYTES, Socket { stream, deadline: Some(deadline), count: None });
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        Ok((Incoming { frames: FrameReader::new(input) }, magic))
    }

    /// The next message, or that nothing came in time. A message that does not go on in time is an error, after which
    /// this may be called again.
    pub(super) fn next(&mut self) -> Result<Next, End> {
        match self.frames.next(PAYLOAD_BYTES_MAX) {
            Ok(Some(frame)) => Message::decode(frame)
                .map(Next::Message)
                .map_err(|e| End::Told(Reason::new(Code::PROTOCOL, e.to_string()))),
            Ok(None) => Ok(Next::Closed),
            Err(FrameError::Io(e)) if transport::is_timeout(&e) => match self.frames.is_inside_frame() {
                true => Err(End::Lost("a message does not go on".to_owned())),
                false => Ok(Next::Idle),
            },
            Err(FrameError::Io(e)) => Err(End::Lost(e.to_string())),
            Err(e @ FrameError::Cut { .. }) => Err(End::Lost(e.to_string())),
            Err(e) => Err(End::Told(Reason::new(Code::PROTOCOL, e.to_string()))),
        }
    }

    /// From now on each read may take this long.
    pub(super) fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        let socket = self.frames.get_mut().get_mut();
        socket.deadline = None;
        socket.stream.set_read_timeout(Some(timeout))
    }

    /// From now on `count` grows with every byte that comes, also inside a message.
    pub(super) fn count(&mut self, count: Arc<AtomicU64>) {
        self.frames.get_mut().get_mut().count = Some(count);
    }

    /// Whether a part of the next message has come.
    pub(super) fn is_inside_message(&self) -> bool {
        self.frames.is_inside_frame()
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.frames.get_ref().get_ref().stream
    }

    /// Bytes that have come and were not taken.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.frames.get_ref().buffer().len() + transport::waiting_bytes(self.stream())
    }
}

/// What came next.
pub(super) enum Next {
    Message(Message),
    /// Nothing for the time of the timeout.
    Idle,
    Closed,
}

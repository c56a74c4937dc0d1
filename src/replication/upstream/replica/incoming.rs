// SPDX-License-Identifier: Apache-2.0
//! The socket of one connection with its deadlines: a peer may be silent between two messages as long as it likes, but
//! neither before the first one is complete nor inside one.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const BUFFER_BYTES: usize = 64 << 10;
/// What is still taken from a peer whose connection is being closed, so that it can read the last reply.
const LINGER_BYTES_MAX: usize = 1 << 20;
const LINGER: Duration = Duration::from_millis(500);

/// A source of bytes that fails when the peer stalls.
#[derive(Debug)]
pub(super) struct Source<'a> {
    input: BufReader<Limited<'a>>,
}

#[derive(Debug)]
struct Limited<'a> {
    stream: &'a TcpStream,
    /// Set until the first message is complete.
    deadline: Option<Instant>,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(ErrorKind::TimedOut, "the first message did not come in time"));
            }
            self.stream.set_read_timeout(Some(left))?;
        }
        (&mut &*self.stream).read(buffer)
    }
}

impl<'a> Source<'a> {
    /// The first message must have come after `timeout`.
    pub(super) fn new(stream: &'a TcpStream, timeout: Duration) -> Source<'a> {
        let limited = Limited { stream, deadline: Some(Instant::now() + timeout) };
        Source { input: BufReader::with_capacity(BUFFER_BYTES, limited) }
    }

    /// The first message is there; from now on a stall inside a message ends the connection.
    pub(super) fn established(&mut self, timeout: Duration) -> io::Result<()> {
        let limited = self.input.get_mut();
        limited.deadline = None;
        limited.stream.set_read_timeout(Some(timeout))
    }

    /// Waits for the beginning of a message; `false` when the peer has ended the connection.
    pub(super) fn wait(&mut self) -> io::Result<bool> {
        loop {
            let first = self.input.get_ref().deadline.is_some();
            match self.input.fill_buf() {
                Ok(bytes) => return Ok(!bytes.is_empty()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if !first && matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

/// Ends a connection so that the last reply arrives: closing with bytes unread would take it back.
pub(super) fn close(stream: &TcpStream) {
    let deadline = Instant::now() + LINGER;
    let mut left = LINGER_BYTES_MAX;
    let mut piece = [0; 4096];
    // Whatever fails here, the connection is over.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.set_read_timeout(Some(LINGER));
    while left > 0 && Instant::now() < deadline {
        match (&mut &*stream).read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(read) => left = left.saturating_sub(read),
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

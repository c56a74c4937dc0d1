// SPDX-License-Identifier: Apache-2.0
//! The receiving end of one connection with its deadlines: a peer may be silent between two messages as long as it
//! likes, but neither before the first one is complete nor inside one.

use crate::replication::net::connection::ReadHalf;
use crate::replication::net::deadline::{is_timeout, Deadline};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::time::Duration;

const BUFFER_BYTES: usize = 64 << 10;

/// A source of bytes that fails when the peer stalls.
#[derive(Debug)]
pub(super) struct Incoming {
    input: BufReader<ReadHalf>,
    established: bool,
}

impl Incoming {
    /// The first message must come within the deadline that `read` has.
    pub(super) fn new(read: ReadHalf) -> Incoming {
        Incoming { input: BufReader::with_capacity(BUFFER_BYTES, read), established: false }
    }

    /// The first message is there; from now on a stall inside a message ends the connection.
    pub(super) fn established(&mut self, timeout: Duration) {
        self.established = true;
        self.input.get_mut().set_deadline(Deadline::Each(timeout));
    }

    /// Gives back the half for the end of the connection.
    pub(super) fn into_inner(self) -> ReadHalf {
        self.input.into_inner()
    }

    /// Waits for the beginning of a message; `false` when the peer has ended the connection.
    pub(super) fn wait(&mut self) -> io::Result<bool> {
        loop {
            match self.input.fill_buf() {
                Ok(bytes) => return Ok(!bytes.is_empty()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if self.established && is_timeout(&e) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

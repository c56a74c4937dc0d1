// SPDX-License-Identifier: Apache-2.0
//! The sending half of a connection: messages become frames, and frames get their MAC where they are sealed.

use super::protocol::message::Message;
use super::protocol::seal::{Seal, MAC_LEN};
use crate::replication::net::connection::WriteHalf;
use crate::replication::net::deadline::Deadline;
use std::io::{self, Write};

/// Sends frames in order; each call has the deadline of the half.
#[derive(Debug)]
pub(super) struct Sender {
    write: WriteHalf,
    seal: Option<Seal>,
    buffer: Vec<u8>,
}

impl Sender {
    pub(super) fn new(write: WriteHalf) -> Sender {
        Sender { write, seal: None, buffer: Vec::new() }
    }

    /// Holds for all calls from now on.
    pub(super) fn set_deadline(&mut self, deadline: Deadline) {
        self.write.set_deadline(deadline);
    }

    /// From the next frame on each gets a MAC.
    pub(super) fn set_seal(&mut self, seal: Option<Seal>) {
        self.seal = seal;
    }

    pub(super) fn send(&mut self, message: &Message) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.append(message, &mut buffer);
        let sent = self.write(&buffer);
        self.buffer = buffer;
        sent
    }

    /// Appends what is to be written for the next message.
    pub(super) fn append(&mut self, message: &Message, out: &mut Vec<u8>) {
        let begin = out.len();
        message.encode(out);
        if let Some(seal) = &mut self.seal {
            let mac = seal.mac(&[&out[begin..]]);
            out.extend_from_slice(&mac);
        }
    }

    /// Completes a frame that lies in front of `behind`, and says how many bytes of that belong to it now.
    pub(super) fn complete(&mut self, frame: &[u8], behind: &mut [u8]) -> usize {
        let Some(seal) = &mut self.seal else { return 0 };
        behind[..MAC_LEN].copy_from_slice(&seal.mac(&[frame]));
        MAC_LEN
    }

    /// Writes what is complete.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(bytes)
    }

    /// Says that nothing more comes.
    pub(super) fn end(&mut self) {
        self.write.end();
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Simulated connections: bytes leave, travel for as long as the simulation likes, and arrive in order or not at all.

use limestone_core::replication::native::protocol::frame::{FrameError, FrameReader, MAGIC, PAYLOAD_BYTES_MAX};
use limestone_core::replication::native::protocol::message::Message;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::rc::Rc;

/// Bytes on the way beyond which a sender has to wait.
const WINDOW_BYTES: usize = 4096;

/// One direction of a connection.
#[derive(Default)]
pub struct Pipe {
    travelling: VecDeque<u8>,
    arrived: VecDeque<u8>,
    /// Nothing more will be sent.
    closed: bool,
    /// Nobody reads any more: what is sent gets lost.
    deaf: bool,
}

pub type SharedPipe = Rc<RefCell<Pipe>>;

impl Pipe {
    pub fn is_busy(&self) -> bool {
        !self.travelling.is_empty()
    }

    pub fn travelling(&self) -> usize {
        self.travelling.len()
    }

    pub fn deliver(&mut self, bytes: usize) {
        let bytes = bytes.min(self.travelling.len());
        self.arrived.extend(self.travelling.drain(..bytes));
    }

    /// Loses all but the first `keep` bytes that are on the way, and all to come.
    pub fn cut(&mut self, keep: usize) {
        self.travelling.truncate(keep);
        self.closed = true;
        self.deaf = true;
    }
}

struct PipeReader(SharedPipe);

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        if pipe.arrived.is_empty() {
            return match pipe.closed && pipe.travelling.is_empty() {
                true => Ok(0),
                false => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        pipe.arrived.read(buffer)
    }
}

/// What a side reads next.
pub enum Arrival {
    Message(Message),
    /// Not yet.
    Nothing,
    /// The connection is over, at the border of a frame or inside one.
    Over,
}

/// One side of a connection. Dropping it closes the connection, as the end of a process does.
pub struct End {
    reader: FrameReader<PipeReader>,
    input: SharedPipe,
    output: SharedPipe,
    magic_missing: usize,
}

/// A new connection: the primary's and the replica's end.
pub fn connect() -> (End, End) {
    let (a, b) = (SharedPipe::default(), SharedPipe::default());
    let end = |input: &SharedPipe, output: &SharedPipe, magic_missing| End {
        reader: FrameReader::new(PipeReader(input.clone())),
        input: input.clone(),
        output: output.clone(),
        magic_missing,
    };
    let primary = end(&a, &b, 0);
    primary.send_bytes(&MAGIC);
    (primary, end(&b, &a, MAGIC.len()))
}

impl End {
    pub fn pipes(&self) -> [SharedPipe; 2] {
        [self.input.clone(), self.output.clone()]
    }

    pub fn send_bytes(&self, bytes: &[u8]) {
        let mut pipe = self.output.borrow_mut();
        if !pipe.deaf {
            pipe.travelling.extend(bytes);
        }
    }

    pub fn send(&self, message: &Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.send_bytes(&bytes);
    }

    /// Whether the other side has to read before more is sent.
    pub fn is_full(&self) -> bool {
        self.output.borrow().travelling.len() >= WINDOW_BYTES
    }

    /// The next message. What no honest peer sends is an error.
    pub fn read(&mut self) -> Result<Arrival, String> {
        while self.magic_missing > 0 {
            let mut byte = [0];
            match self.reader.get_mut().read(&mut byte) {
                Ok(0) => return Ok(Arrival::Over),
                Ok(_) if byte[0] == MAGIC[MAGIC.len() - self.magic_missing] => self.magic_missing -= 1,
                Ok(_) => return Err("the magic arrived changed".to_owned()),
                Err(_) => return Ok(Arrival::Nothing),
            }
        }
        match self.reader.next(PAYLOAD_BYTES_MAX) {
            Ok(Some(frame)) => Message::decode(frame).map(Arrival::Message).map_err(|e| e.to_string()),
            Ok(None) | Err(FrameError::Cut { .. }) => Ok(Arrival::Over),
            Err(FrameError::Io(_)) => Ok(Arrival::Nothing),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Goes away without a word, as a machine that loses its power: the other side has to notice by itself.
    pub fn vanish(self) {
        self.input.borrow_mut().deaf = true;
        let output = self.output.clone();
        // What was cut before stays so.
        let closed = output.borrow().closed;
        drop(self);
        output.borrow_mut().closed = closed;
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.input.borrow_mut().deaf = true;
        self.output.borrow_mut().closed = true;
    }
}

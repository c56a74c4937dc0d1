// SPDX-License-Identifier: Apache-2.0
//! One connection to the replica: the handshake that opens it, and messages in and out. Every wait is bounded.

use super::end::End;
use crate::replication::native::protocol::frame::{FrameReader, MAGIC, PAYLOAD_BYTES_MAX};
use crate::replication::native::protocol::handshake::{PrimaryHandshake, PrimaryStep};
use crate::replication::native::protocol::message::{
    Code, ConnectionKind, Message, Nonce, PrimaryIdentity, Reason, ReplicaIdentity, SessionId,
};
use crate::replication::net::transport;
use crate::replication::secret::{self, Secret};
use socket2::SockRef;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Bytes that the system takes beyond those that are under way.
const UNSENT_BYTES_MAX: u32 = 128 << 10;
/// Bytes that are read at a time; what comes from a replica is small.
const READ_BYTES: usize = 4096;

/// Reads what the replica sends.
pub(super) struct Receiver {
    frames: FrameReader<BufReader<TcpStream>>,
    timeout: Duration,
}

impl Receiver {
    /// The next message.
    pub(super) fn next(&mut self) -> Result<Message, End> {
        match self.frames.next(PAYLOAD_BYTES_MAX) {
            Ok(Some(frame)) => Message::decode(frame).map_err(|e| End::Protocol(e.to_string())),
            Ok(None) => Err(End::Lost("the replica closed it".to_owned())),
            Err(e) => Err(End::of_frame(e, self.timeout)),
        }
    }
}

/// Writes to the replica.
#[derive(Debug)]
pub(super) struct Sender {
    stream: TcpStream,
    timeout: Duration,
    buffer: Vec<u8>,
}

impl Sender {
    /// For so long a call may wait without anything being taken.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn send(&mut self, message: &Message) -> Result<(), End> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        message.encode(&mut buffer);
        let sent = self.write(&buffer);
        self.buffer = buffer;
        sent
    }

    /// Writes frames that are encoded.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.stream.write_all(bytes).map_err(|e| End::of_io(&e, self.timeout))
    }
}

/// What every connection of a session begins with.
pub(super) struct Opening<'a> {
    pub secret: &'a Secret,
    pub session_id: SessionId,
    pub timeout: Duration,
}

impl Opening<'_> {
    /// Goes through the handshake on a new connection. `primary` is sent on the control connection, where the replica
    /// then tells who it is.
    pub(super) fn open(
        &self,
        stream: TcpStream,
        kind: ConnectionKind,
        primary: Option<&PrimaryIdentity>,
    ) -> Result<(Sender, Receiver, Option<ReplicaIdentity>), End> {
        let broken = |e: std::io::Error| End::of_io(&e, self.timeout);
        transport::set_timeouts(&stream, Some(self.timeout)).map_err(broken)?;
        // What waits to be sent waits in the queues, not in the system: there nobody knows how much it is.
        SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX).map_err(broken)?;
        let reader = stream.try_clone().map_err(broken)?;
        let frames = FrameReader::new(BufReader::with_capacity(READ_BYTES, reader));
        let mut receiver = Receiver { frames, timeout: self.timeout };
        let mut sender = Sender { stream, timeout: self.timeout, buffer: Vec::new() };

        let nonce: Nonce = secret::random().map_err(|e| End::Local(e.to_string()))?;
        let (mut handshake, hello) =
            PrimaryHandshake::start(kind, self.session_id, nonce, self.secret.clone(), primary.cloned());
        let mut first = MAGIC.to_vec();
        hello.encode(&mut first);
        sender.write(&first)?;
        loop {
            match handshake.on_message(receiver.next()?) {
                Ok(PrimaryStep::Send(message)) => sender.send(&message)?,
                Ok(PrimaryStep::Accepted(replica)) => return Ok((sender, receiver, replica)),
                Ok(PrimaryStep::Refused(reason)) => return Err(End::Refused(reason)),
                Err(reason) => {
                    // It is told why; that this side does not go on is what counts.
                    let _ = sender.send(&Message::Error(reason.clone()));
                    return Err(End::Rejected(reason));
                }
            }
        }
    }
}

/// What to make of a message that is not the one that has to come.
pub(super) fn unexpected(found: Message, expected: &str) -> End {
    match found {
        Message::Refused(reason) => End::Refused(reason),
        Message::Error(reason) => End::Ended(reason),
        Message::Bye => End::Ended(Reason::new(Code::SHUTDOWN, "it ends")),
        other => End::Protocol(format!("{expected} was expected, {} came", other.kind().name())),
    }
}

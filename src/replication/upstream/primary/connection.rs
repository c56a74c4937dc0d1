// SPDX-License-Identifier: Apache-2.0
//! The connections to the replica, one exchange at a time; every wait has a deadline.

use super::encode::EncodeError;
use crate::replication::net::connection::{Closer, Connection, ReadHalf, WriteHalf};
use crate::replication::net::deadline::{is_timeout, Deadline};
use crate::replication::net::dial;
use crate::replication::upstream::protocol::codec::{code, Message};
use crate::replication::upstream::protocol::reader::{Budget, Incoming, Reader, WireError};
use crate::types::Epoch;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// Why the replica counts as lost.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Wire(#[from] WireError),
    /// It closed the connection; a replica of the original hardly ever says why.
    #[error("the replica closed the connection in place of an answer to {0}")]
    Closed(&'static str),
    #[error("the replica refused {request} with error {code}: {text}")]
    Refused { request: &'static str, code: u16, text: String },
    #[error("the replica answered {request} with {found}")]
    Unexpected { request: &'static str, found: &'static str },
    /// This side cannot send what it should.
    #[error("{0}")]
    Source(String),
}

impl LinkError {
    /// Whether a replica process that once had a control connection is still the same one. One of the original never
    /// gives it free and has to be restarted.
    pub(super) fn is_control_taken(&self) -> bool {
        matches!(self, LinkError::Refused { code: code::CONTROL_TAKEN, .. })
    }
}

impl From<EncodeError> for LinkError {
    fn from(e: EncodeError) -> LinkError {
        match e {
            EncodeError::Send(e) => LinkError::Io(e),
            EncodeError::Source(what) => LinkError::Source(what),
        }
    }
}

/// A connection that carries one request after the other.
#[derive(Debug)]
pub(super) struct Exchange {
    read: ReadHalf,
    write: WriteHalf,
    peer: SocketAddr,
    timeout: Duration,
}

impl Exchange {
    /// The opening has one deadline for all of it.
    fn new(connection: Connection, timeout: Duration) -> Exchange {
        let peer = connection.peer();
        let (read, write) = connection.split(Deadline::after(timeout));
        Exchange { read, write, peer, timeout }
    }

    fn opened(mut self) -> Exchange {
        self.write.set_deadline(Deadline::Each(self.timeout));
        self
    }

    /// Opens the connection of a log channel to the replica that has the control connection.
    pub(super) fn log(replica: SocketAddr, channel: u64, timeout: Duration) -> Result<Exchange, LinkError> {
        let mut exchange = Exchange::new(dial::connect(replica, timeout)?, timeout);
        exchange.send(&Message::log_channel_create(channel))?;
        exchange.expect_ack("LOG_CHANNEL_CREATE")?;
        Ok(exchange.opened())
    }

    /// Opens the control connection.
    pub(super) fn control(connection: Connection, timeout: Duration) -> Result<Exchange, LinkError> {
        let mut exchange = Exchange::new(connection, timeout);
        exchange.send(&Message::session_begin())?;
        match exchange.receive("SESSION_BEGIN")? {
            // What the replica calls a secret is not one.
            Message::SessionBeginAck { .. } => Ok(exchange.opened()),
            other => Err(unexpected("SESSION_BEGIN", other)),
        }
    }

    /// The other end.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Sends GROUP_COMMIT and waits for the acknowledgement.
    pub(super) fn group_commit(&mut self, epoch: Epoch) -> Result<(), LinkError> {
        self.send(&Message::GroupCommit { epoch })?;
        self.expect_ack("GROUP_COMMIT")
    }

    /// What ends the connection from another thread.
    pub(super) fn closer(&self) -> Closer {
        self.write.closer()
    }

    /// Where the messages of a session are written.
    pub(super) fn out(&mut self) -> &mut WriteHalf {
        &mut self.write
    }

    fn send(&mut self, message: &Message) -> Result<(), LinkError> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        Ok(self.write.write_all(&bytes)?)
    }

    /// Waits for the acknowledgement of what was sent last.
    pub(super) fn expect_ack(&mut self, request: &'static str) -> Result<(), LinkError> {
        match self.receive(request)? {
            Message::Ack => Ok(()),
            other => Err(unexpected(request, other)),
        }
    }

    fn receive(&mut self, request: &'static str) -> Result<Message, LinkError> {
        match Reader::new(Answer::to(self), Budget::default()).next_message()? {
            None => Err(LinkError::Closed(request)),
            Some(Incoming::Message(message)) => Ok(message),
            Some(Incoming::Log(_)) => Err(LinkError::Unexpected { request, found: "LOG_ENTRY" }),
        }
    }
}

/// Reads an answer. The peer cannot give it before it has what was written: it has the time-out from then on, and as
/// long as more and more of that is taken.
struct Answer<'a> {
    exchange: &'a mut Exchange,
    unsent_bytes: usize,
}

impl Answer<'_> {
    fn to(exchange: &mut Exchange) -> Answer<'_> {
        exchange.read.set_deadline(Deadline::after(exchange.timeout));
        let unsent_bytes = exchange.write.unsent_bytes();
        Answer { exchange, unsent_bytes }
    }
}

impl Read for Answer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Exchange { read, write, timeout, .. } = &mut *self.exchange;
            match read.read(buffer) {
                Err(e) if is_timeout(&e) => {
                    let before = std::mem::replace(&mut self.unsent_bytes, write.unsent_bytes());
                    if self.unsent_bytes >= before {
                        return Err(e);
                    }
                    read.set_deadline(Deadline::after(*timeout));
                }
                read => return read,
            }
        }
    }
}

fn unexpected(request: &'static str, message: Message) -> LinkError {
    match message {
        Message::Error { code, message } => {
            let text = String::from_utf8_lossy(&message).escape_debug().to_string();
            LinkError::Refused { request, code, text }
        }
        other => LinkError::Unexpected { request, found: other.name() },
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The connections to the replica, one exchange at a time; every wait has a deadline.

use super::encode::EncodeError;
use crate::replication::net::transport;
use crate::replication::settings::Endpoint;
use crate::replication::upstream::protocol::codec::{code, Message};
use crate::replication::upstream::protocol::reader::{Budget, Incoming, Reader, WireError};
use crate::types::Epoch;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

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

/// Where the replica is and how long it may take.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) timeout: Duration,
}

/// A connection that carries one request after the other.
#[derive(Debug)]
pub(super) struct Exchange {
    stream: TcpStream,
    timeout: Duration,
}

/// Reads until a deadline.
struct Until<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        }
        self.stream.set_read_timeout(Some(left))?;
        (&mut &*self.stream).read(buffer).map_err(|e| match transport::is_timeout(&e) {
            true => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
            false => e,
        })
    }
}

impl Exchange {
    fn connect(target: &Target) -> Result<Exchange, LinkError> {
        let stream = transport::connect(&target.endpoints, target.timeout)?;
        stream.set_write_timeout(Some(target.timeout))?;
        Ok(Exchange { stream, timeout: target.timeout })
    }

    /// Opens the connection of a log channel.
    pub(super) fn log(target: &Target, channel: u64) -> Result<Exchange, LinkError> {
        let mut exchange = Exchange::connect(target)?;
        exchange.send(&Message::log_channel_create(channel))?;
        exchange.expect_ack("LOG_CHANNEL_CREATE")?;
        Ok(exchange)
    }

    /// Opens the control connection.
    pub(super) fn control(target: &Target) -> Result<Exchange, LinkError> {
        let mut exchange = Exchange::connect(target)?;
        exchange.send(&Message::session_begin())?;
        match exchange.receive("SESSION_BEGIN")? {
            // What the replica calls a secret is not one.
            Message::SessionBeginAck { .. } => Ok(exchange),
            other => Err(unexpected("SESSION_BEGIN", other)),
        }
    }

    /// Sends GROUP_COMMIT and waits for the acknowledgement.
    pub(super) fn group_commit(&mut self, epoch: Epoch) -> Result<(), LinkError> {
        self.send(&Message::GroupCommit { epoch })?;
        self.expect_ack("GROUP_COMMIT")
    }

    /// A second handle, to close the connection from another thread.
    pub(super) fn handle(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Where the messages of a session are written.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn send(&mut self, message: &Message) -> Result<(), LinkError> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        Ok(self.stream.write_all(&bytes)?)
    }

    /// Waits for the acknowledgement of what was sent last.
    pub(super) fn expect_ack(&mut self, request: &'static str) -> Result<(), LinkError> {
        match self.receive(request)? {
            Message::Ack => Ok(()),
            other => Err(unexpected(request, other)),
        }
    }

    fn receive(&mut self, request: &'static str) -> Result<Message, LinkError> {
        let until = Until { stream: &self.stream, deadline: Instant::now() + self.timeout };
        match Reader::new(until, Budget::default()).next_message()? {
            None => Err(LinkError::Closed(request)),
            Some(Incoming::Message(message)) => Ok(message),
            Some(Incoming::Log(_)) => Err(LinkError::Unexpected { request, found: "LOG_ENTRY" }),
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

// SPDX-License-Identifier: Apache-2.0
//! One connection to the replica: the handshake that opens it, and messages in and out. Every wait is bounded.

use super::end::End;
use crate::replication::native::protocol::frame::{FrameReader, MAGIC, PAYLOAD_BYTES_MAX};
use crate::replication::native::protocol::handshake::{PrimaryHandshake, PrimaryStep};
use crate::replication::native::protocol::message::{Code, Message, Reason, ReplicaIdentity};
use crate::replication::native::protocol::seal::Seals;
use crate::replication::native::sender;
use crate::replication::net::connection::{Connection, ReadHalf};
use crate::replication::net::deadline::Deadline;
use std::io::BufReader;
use std::time::Duration;

/// Bytes that the system takes beyond those that are under way.
const UNSENT_BYTES_MAX: u32 = 128 << 10;
/// Bytes that are read at a time; what comes from a replica is small.
const READ_BYTES: usize = 4096;

/// Reads what the replica sends.
pub(super) struct Receiver {
    frames: FrameReader<BufReader<ReadHalf>>,
    /// The largest payload that is taken now.
    bytes_max: u32,
    /// The time that the deadline gives.
    patience: Duration,
}

impl Receiver {
    /// The next message.
    pub(super) fn next(&mut self) -> Result<Message, End> {
        match self.frames.next(self.bytes_max) {
            Ok(Some(frame)) => Message::decode(frame).map_err(|e| End::Protocol(e.to_string())),
            Ok(None) => Err(End::Lost("the replica closed it".to_owned())),
            Err(e) => Err(End::of_frame(e, self.patience)),
        }
    }

    /// The next message, all of which has to come within this time.
    pub(super) fn next_within(&mut self, patience: Duration) -> Result<Message, End> {
        self.set_patience(patience, Deadline::after(patience));
        self.next()
    }

    fn set_patience(&mut self, patience: Duration, deadline: Deadline) {
        self.patience = patience;
        self.frames.get_mut().get_mut().set_deadline(deadline);
    }
}

/// Writes to the replica.
#[derive(Debug)]
pub(super) struct Sender {
    inner: sender::Sender,
    timeout: Duration,
    /// Whether the replica knows what a [`Message::Reported`] is.
    takes_reports: bool,
    /// Whether the replica may ask for digests.
    takes_digests: bool,
}

impl Sender {
    /// For so long a call may wait without anything being taken.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether a [`Message::Reported`] may be sent.
    pub(super) fn takes_reports(&self) -> bool {
        self.takes_reports
    }

    /// Whether the replica may ask for digests.
    pub(super) fn takes_digests(&self) -> bool {
        self.takes_digests
    }

    /// From now on what is written may wait so many time-outs: a replica takes nothing on a connection while its disk
    /// is slow, and tells on the control connection what it does.
    pub(super) fn wait_longer(&mut self, times: u32) {
        self.timeout *= times;
        self.inner.set_deadline(Deadline::Each(self.timeout));
    }

    pub(super) fn send(&mut self, message: &Message) -> Result<(), End> {
        self.inner.send(message).map_err(|e| End::of_io(&e, self.timeout))
    }

    /// As [`sender::Sender::append`].
    pub(super) fn append(&mut self, message: &Message, out: &mut Vec<u8>) {
        self.inner.append(message, out);
    }

    /// As [`sender::Sender::complete`].
    pub(super) fn complete(&mut self, frame: &[u8], behind: &mut [u8]) -> usize {
        self.inner.complete(frame, behind)
    }

    /// Writes frames that are complete.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.inner.write(bytes).map_err(|e| End::of_io(&e, self.timeout))
    }
}

/// Goes through the handshake on a new connection, within the time-out however its bytes drip in; `hello` begins it. On
/// the control connection the replica then tells who it is.
pub(super) fn open(
    connection: Connection,
    timeout: Duration,
    (mut handshake, hello): (PrimaryHandshake, Message),
) -> Result<(Sender, Receiver, Option<ReplicaIdentity>), End> {
    connection.limit_unsent(UNSENT_BYTES_MAX).map_err(|e| End::of_io(&e, timeout))?;
    let peer = connection.peer();
    let (read, mut write) = connection.split(Deadline::after(timeout));
    write.set_deadline(Deadline::Each(timeout));
    let frames = FrameReader::new(BufReader::with_capacity(READ_BYTES, read));
    let mut receiver = Receiver { frames, bytes_max: 0, patience: timeout };
    let mut sender = Sender { inner: sender::Sender::new(write), timeout, takes_reports: false, takes_digests: false };

    let mut first = MAGIC.to_vec();
    hello.encode(&mut first);
    sender.write(&first)?;
    loop {
        receiver.bytes_max = handshake.bytes_max();
        match handshake.on_message(receiver.next()?) {
            Ok(PrimaryStep::Send(message)) => {
                sender.send(&message)?;
                if let Some(Seals { of_primary, of_replica }) = handshake.seals() {
                    sender.inner.set_seal(Some(of_primary));
                    receiver.frames.set_seal(Some(of_replica));
                }
            }
            Ok(PrimaryStep::Accepted(replica)) => {
                if handshake.is_exposed() && replica.is_some() {
                    log::warn!("replication: {peer} speaks version 2: what it is sent can be changed on the way");
                }
                sender.takes_reports = handshake.is_told_of_reports();
                sender.takes_digests = handshake.takes_digests();
                receiver.bytes_max = PAYLOAD_BYTES_MAX;
                receiver.set_patience(timeout, Deadline::Each(timeout));
                return Ok((sender, receiver, replica));
            }
            Ok(PrimaryStep::Refused(reason)) => return Err(End::Refused(reason)),
            Err(reason) => {
                // It is told why; that this side does not go on is what counts.
                let _ = sender.send(&Message::Error(reason.clone()));
                return Err(End::Rejected(reason));
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

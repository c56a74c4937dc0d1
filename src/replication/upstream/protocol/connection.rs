// SPDX-License-Identifier: Apache-2.0
//! What each message of one connection means. Free of I/O: messages in, one action out.

use crate::replication::upstream::protocol::codec::{code, connection, flag, Message, CHANNEL_IDS, VERSION};
use crate::replication::upstream::protocol::reader::LogHead;
use crate::types::Epoch;

/// The text that the original sends in its place of a secret; nobody looks at it.
const SECRET: &[u8] = b"server_.get_session_secret()";

/// What is to be done about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing; no reply.
    Ignore,
    Reply(Message),
    /// Reply, then close.
    Refuse(Message, String),
    /// Close without a reply; the text says why.
    Close(String),
    /// Take the control connection, then call [`Connection::control_claimed`].
    ClaimControl,
    /// Take the log channel, then call [`Connection::channel_claimed`].
    ClaimChannel(u64),
    /// Make everything up to the epoch durable and record it, then acknowledge.
    Commit(Epoch),
    /// Read the entries into the open session, or one of this epoch, then call [`Connection::on_flags`].
    Collect(Epoch),
    /// End the session, make it durable, then acknowledge.
    EndSession,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has come.
    New,
    Control,
    /// A log channel, whether inside a session.
    Log {
        channel: u64,
        in_session: bool,
    },
}

/// One connection of a primary.
#[derive(Debug)]
pub struct Connection {
    state: State,
}

impl Default for Connection {
    fn default() -> Connection {
        Connection { state: State::New }
    }
}

impl Connection {
    /// Whether the message that says what the connection is for has been accepted.
    pub fn is_established(&self) -> bool {
        self.state != State::New
    }

    /// A message other than LOG_ENTRY.
    pub fn on_message(&self, message: Message) -> Action {
        match (self.state, message) {
            (State::New, message) => first(message),
            // The original ignores it, too.
            (State::Control | State::Log { .. }, Message::SessionBegin { .. }) => Action::Ignore,
            (State::Control, Message::GroupCommit { epoch }) => Action::Commit(epoch),
            (State::Control, Message::RdmaInit { .. }) => {
                Action::Reply(error(code::RDMA_FAILED, "Failed to initialize RDMA receiver"))
            }
            (State::Log { .. }, Message::RdmaInit { .. }) => {
                Action::Reply(error(code::RDMA_ON_LOG, "Invalid handler resources for RDMA_INIT"))
            }
            (_, message) => Action::Close(format!("found {} on {}", message.name(), self.name())),
        }
    }

    /// The beginning of a LOG_ENTRY message.
    pub fn on_log_head(&self, head: LogHead) -> Action {
        match self.state {
            // Nothing of it is read: whoever sends it has not said who it is.
            State::New => unexpected("LOG_ENTRY"),
            State::Control => Action::Close("found LOG_ENTRY on the control connection".to_owned()),
            State::Log { .. } => Action::Collect(head.epoch),
        }
    }

    /// The end of a LOG_ENTRY message, whose entries have been read.
    pub fn on_flags(&mut self, head: LogHead, flags: u8) -> Action {
        let State::Log { channel, in_session } = self.state else {
            return unexpected("LOG_ENTRY");
        };
        let begins = flags & flag::BEGIN != 0;
        match (in_session, begins) {
            (true, true) => {
                Action::Close(format!("channel {channel}: a session of epoch {} begins inside another one", head.epoch))
            }
            (false, false) => Action::Close(format!(
                "channel {channel}: {} entries with flags {flags:#04x} came outside a session",
                head.entries
            )),
            _ => {
                let ends = flags & (flag::END | flag::FLUSH) != 0;
                self.state = State::Log { channel, in_session: !ends };
                if ends {
                    Action::EndSession
                } else {
                    Action::Ignore
                }
            }
        }
    }

    /// The control connection was free, or not.
    pub fn control_claimed(&mut self, claimed: Result<(), String>) -> Action {
        match claimed {
            Ok(()) => {
                self.state = State::Control;
                Action::Reply(Message::SessionBeginAck { secret: SECRET.to_vec() })
            }
            Err(reason) => Action::Refuse(error(code::CONTROL_TAKEN, "Control channel already created"), reason),
        }
    }

    /// The log channel was free, or not.
    pub fn channel_claimed(&mut self, channel: u64, claimed: Result<(), String>) -> Action {
        match claimed {
            Ok(()) => {
                self.state = State::Log { channel, in_session: false };
                Action::Reply(Message::Ack)
            }
            Err(reason) => Action::Close(reason),
        }
    }

    /// What a log line calls the connection.
    pub fn name(&self) -> String {
        match self.state {
            State::New => "a new connection".to_owned(),
            State::Control => "the control connection".to_owned(),
            State::Log { channel, .. } => format!("log channel {channel}"),
        }
    }
}

fn first(message: Message) -> Action {
    match message {
        // The kind of connection in it is not looked at, as in the original.
        Message::SessionBegin { version: VERSION, .. } => Action::ClaimControl,
        Message::SessionBegin { version, .. } => {
            let text = format!("Unsupported protocol version: {version}, expected: {VERSION}");
            Action::Refuse(error(code::UNSUPPORTED_VERSION, &text), text)
        }
        Message::LogChannelCreate { connection: found, .. } if found != connection::LOG => {
            Action::Close(format!("found connection type {found} in LOG_CHANNEL_CREATE, expected {}", connection::LOG))
        }
        Message::LogChannelCreate { channel, .. } if channel >= CHANNEL_IDS => {
            Action::Close(format!("found channel id {channel}, expected one below {CHANNEL_IDS}"))
        }
        Message::LogChannelCreate { channel, .. } => Action::ClaimChannel(channel),
        other => unexpected(other.name()),
    }
}

fn unexpected(name: &str) -> Action {
    let reason = format!("found {name} as the first message, expected SESSION_BEGIN or LOG_CHANNEL_CREATE");
    Action::Refuse(error(code::UNEXPECTED_MESSAGE, "Unexpected message type"), reason)
}

fn error(code: u16, text: &str) -> Message {
    Message::Error { code, message: text.as_bytes().to_vec() }
}

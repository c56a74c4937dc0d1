// SPDX-License-Identifier: Apache-2.0
//! The thread of one connection. It is served strictly in order, and its reply is sent before its next message is read.

use super::incoming::Incoming;
use super::node::Node;
use super::registry::{Holding, Refusal, Wanted};
use super::session::{Blobs, Collect, Session, SinkError};
use crate::error::{catch_panic, Error};
use crate::replication::net::connection::{self, WriteHalf};
use crate::replication::net::deadline::Deadline;
use crate::replication::net::listener::Guest;
use crate::replication::replica_store::LaneLog;
use crate::replication::secret::{self, Secret};
use crate::replication::upstream::protocol::codec::Message;
use crate::replication::upstream::protocol::connection::{Action, Connection};
use crate::replication::upstream::protocol::reader::{Incoming as Received, Reader, WireError};
use crate::types::{self, Epoch};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A restarted primary waits at most this long until the end of its former connections was seen.
const TAKEOVER_WAIT_MAX: Duration = Duration::from_secs(2);

/// Why a connection was closed.
#[derive(Debug, thiserror::Error)]
enum Closed {
    /// The peer did something that it must not.
    #[error("{0}")]
    Misuse(String),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("nothing is acknowledged any more: {0}")]
    Store(#[from] Error),
}

impl From<io::Error> for Closed {
    fn from(e: io::Error) -> Closed {
        Closed::Wire(e.into())
    }
}

impl From<SinkError> for Closed {
    fn from(e: SinkError) -> Closed {
        match e {
            SinkError::Wire(e) => Closed::Wire(e),
            SinkError::Store(e) => Closed::Store(e),
        }
    }
}

/// Serves a connection until it ends.
pub(super) fn serve(node: &Node, connection: connection::Connection, guest: &Guest) {
    if !secret::is_peer_allowed(guest.peer().ip(), &Secret::default(), node.options.allow_remote) {
        return guest.turned_away(
            "the upstream protocol cannot tell who it is, so only peers on this machine are served; \
             TSURUGI_REPLICATION_ALLOW_NO_SECRET=1 allows others",
        );
    }
    let (read, mut out) = connection.split(Deadline::after(node.options.timeout));
    let mut reader = Reader::new(Incoming::new(read), node.options.budget.clone());
    let mut served = Served {
        node,
        guest,
        out: &mut out,
        connection: Connection::default(),
        holding: None,
        lane: None,
        blobs: Blobs::new(&node.store),
        session: None,
    };
    let closed = catch_panic("the thread of a connection", || served.run(&mut reader)).unwrap_or_else(|panic| {
        if served.holding.is_some() {
            node.store.fail(&panic);
        }
        Err(Closed::Store(panic))
    });
    let (name, peer) = (served.connection.name(), guest.peer());
    let lost = match &served.session {
        Some(session) => format!("; its open session of epoch {} never counts", session.epoch()),
        None => String::new(),
    };
    match closed {
        Err(Closed::Store(e)) if node.store.failure().is_some() => node.fault.note(&e),
        Err(Closed::Store(e)) => log::error!("replication: {name} from {peer} is closed: {e}{lost}"),
        // One that came and went without a word, or was sent away for others.
        Ok(()) if !served.connection.is_established() => {}
        Err(_) if node.is_stopping() => log::info!("replication: {name} from {peer} ends{lost}"),
        Err(reason) if !served.connection.is_established() => guest.turned_away(reason),
        Ok(()) => log::info!("replication: {name} from {peer} was ended by the primary{lost}"),
        Err(reason) => log::warn!("replication: {name} from {peer} is closed: {reason}{lost}"),
    }
    // What it held is given back before the peer is told, so that it may come again at once.
    drop(served);
    connection::close_in_order(reader.into_input().into_inner(), &mut out);
}

/// One connection while it is served.
struct Served<'a> {
    node: &'a Node,
    guest: &'a Guest,
    out: &'a mut WriteHalf,
    connection: Connection,
    holding: Option<Holding>,
    lane: Option<Arc<LaneLog>>,
    blobs: Blobs,
    session: Option<Session>,
}

impl Served<'_> {
    fn run(&mut self, incoming: &mut Reader<Incoming>) -> Result<(), Closed> {
        while incoming.input().wait()? {
            let action = match incoming.next_message()? {
                None => return Ok(()),
                Some(Received::Message(message)) => self.connection.on_message(message),
                Some(Received::Log(head)) => match self.connection.on_log_head(head) {
                    Action::Collect(epoch) => {
                        self.check_epoch("LOG_ENTRY", epoch)?;
                        let session = self.session.get_or_insert_with(|| Session::new(epoch));
                        let store = &self.node.store;
                        let flags = incoming.entries(head, &mut Collect { session, blobs: &mut self.blobs, store })?;
                        self.connection.on_flags(head, flags)
                    }
                    other => other,
                },
            };
            self.carry_out(action)?;
            if self.connection.is_established() {
                let timeout = self.node.options.timeout;
                incoming.input().established(timeout);
                self.out.set_deadline(Deadline::Each(timeout));
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, action: Action) -> Result<(), Closed> {
        let node = self.node;
        match action {
            Action::Ignore | Action::Collect(_) => Ok(()),
            Action::Reply(message) => self.reply(&message),
            Action::Refuse(message, reason) => {
                self.reply(&message)?;
                Err(Closed::Misuse(reason))
            }
            Action::Close(reason) => Err(Closed::Misuse(reason)),
            Action::ClaimControl => {
                let claimed = self.claim(Wanted::Control)?;
                let action = self.connection.control_claimed(claimed);
                self.carry_out(action)
            }
            Action::ClaimChannel(channel) => {
                let claimed = self.claim(Wanted::Channel(channel))?;
                let action = self.connection.channel_claimed(channel, claimed);
                self.carry_out(action)
            }
            Action::Commit(epoch) => {
                let durable = node.store.durable();
                if epoch < durable {
                    let reason = format!("found GROUP_COMMIT of epoch {epoch}, but epoch {durable} is durable");
                    return Err(Closed::Misuse(reason));
                }
                self.check_epoch("GROUP_COMMIT", epoch)?;
                if let Some(holding) = &self.holding {
                    holding.proved();
                }
                self.commit(epoch)?;
                self.reply(&Message::Ack)
            }
            Action::EndSession => {
                self.end_session()?;
                self.reply(&Message::Ack)
            }
        }
    }

    fn check_epoch(&self, message: &str, epoch: Epoch) -> Result<(), Closed> {
        let durable = self.node.store.durable();
        match types::may_come_to(durable.0, epoch.0) {
            true => Ok(()),
            false => Err(Closed::Misuse(format!(
                "found {message} of epoch {epoch}, which cannot be: epoch {durable} is durable"
            ))),
        }
    }

    fn claim(&mut self, wanted: Wanted) -> Result<Result<(), String>, Closed> {
        let node = self.node;
        if let Err(reason) = self.guest.admit() {
            return Ok(Err(reason));
        }
        let deadline = Instant::now() + node.options.timeout.min(TAKEOVER_WAIT_MAX);
        let discard = || node.store.discard_beyond_durable();
        match node.registry.claim(wanted, (self.guest.peer().ip(), &self.out.closer()), deadline, discard) {
            Ok(holding) => {
                if let Wanted::Channel(id) = wanted {
                    self.lane = Some(node.store.lane(holding.lane));
                    log::info!(
                        "replication: log channel {id} from {} goes to file {}",
                        self.guest.peer(),
                        holding.lane
                    );
                } else {
                    log::info!("replication: the primary at {} has connected", self.guest.peer());
                }
                self.holding = Some(holding);
                Ok(Ok(()))
            }
            Err(Refusal::Held(reason)) => Ok(Err(reason)),
            Err(Refusal::Store(e)) => Err(Closed::Store(e)),
        }
    }

    /// Never waits for the end of a session: the original sends it only after this was acknowledged. A session of such
    /// an epoch that ends later counts when it is whole.
    fn commit(&self, epoch: Epoch) -> Result<(), Closed> {
        let _recording = self.node.recording.write();
        self.node.store.sync()?;
        Ok(self.node.store.record(epoch)?)
    }

    fn end_session(&mut self) -> Result<(), Closed> {
        let (Some(session), Some(lane)) = (self.session.take(), &self.lane) else {
            return Err(Closed::Misuse("a session ends that never began".to_owned()));
        };
        self.blobs.sync_names()?;
        if self.node.store.has_compacted(session.epoch()) {
            // A primary that does not know what is here sends it again.
            return Ok(());
        }
        {
            let _recording = self.node.recording.read();
            session.append_to(lane, self.node.store.location())?;
        }
        Ok(lane.sync()?)
    }

    fn reply(&mut self, message: &Message) -> Result<(), Closed> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        Ok(self.out.write_all(&bytes)?)
    }
}

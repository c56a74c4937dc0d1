// SPDX-License-Identifier: Apache-2.0
//! One connection from the first byte on: who is it, does it know the secret, what is it for. Then it is served by
//! [`super::control`] or [`super::data`] until it ends.

use super::end::End;
use super::incoming::{Incoming, Next};
use super::node::Node;
use super::outgoing::Outgoing;
use super::session::Session;
use super::{control, data};
use crate::error::catch_panic;
use crate::replication::native::protocol::frame::{MAGIC, PAYLOAD_BYTES_MAX};
use crate::replication::native::protocol::handshake::{decide, Identified, ReplicaHandshake, ReplicaStep};
use crate::replication::native::protocol::message::{Code, ConnectionKind, Message, Outcome, PrimaryIdentity, Reason};
use crate::replication::native::protocol::message::{ReplicaIdentity, CHANNELS_MAX};
use crate::replication::native::protocol::replica_session::ReplicaSession;
use crate::replication::net::connection::Connection;
use crate::replication::net::deadline::Deadline;
use crate::replication::net::listener::Guest;
use crate::replication::secret;
use crate::replication::status::LinkState;
use crate::types::Epoch;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// Serves a connection until it ends.
pub(super) fn serve(node: &Arc<Node>, connection: Connection, guest: &Guest) {
    match open(node, connection) {
        Ok(Some((incoming, identified))) => {
            if let Err(reason) = guest.admit() {
                return guest.turned_away(refuse(incoming.out(), Reason::new(Code::BUSY, reason)));
            }
            let served = catch_panic("the thread of a connection", || match &identified.primary {
                Some(primary) => accept_primary(node, incoming, guest, &identified, primary.clone()),
                None => join_session(node, incoming, guest, &identified),
            });
            if let Err(panic) = served {
                node.panicked(&panic);
            }
        }
        Ok(None) => {}
        Err(_) if guest.is_sent_away() => guest.turned_away("it said nothing until others came"),
        Err(reason) => guest.turned_away(reason),
    }
}

fn refuse(out: &Outgoing, reason: Reason) -> String {
    // Who has gone already is not told.
    let _ = out.send(&Message::Refused(reason.clone()));
    out.end();
    reason.to_string()
}

/// The connection as the settings want it, with the first bytes of this protocol read. `None` when the peer came
/// and went without a word.
fn accept(node: &Node, connection: Connection) -> Result<Option<Incoming>, String> {
    let (peer, timeout) = (connection.peer(), node.options.timeout);
    let deadline = Deadline::after(timeout);
    let nothing = |e: io::Error| format!("nothing that belongs to this protocol came: {e}");
    let Some(first) = connection.first_byte(deadline).map_err(nothing)? else { return Ok(None) };
    let (connection, is_missing_tls) = match &node.options.tls {
        Some(certificates) if first != MAGIC[0] => {
            (certificates.accept(connection, deadline).map_err(|e| e.to_string())?, false)
        }
        tls => (connection, tls.is_some()),
    };
    let (half, mut out) = connection.split(deadline);
    out.set_deadline(Deadline::Each(timeout));
    let (incoming, magic) = match Incoming::begin(half, Outgoing::new(out)) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other.map_err(nothing)?,
    };
    if magic != MAGIC {
        let what = match first {
            TLS_HANDSHAKE if node.options.tls.is_none() => "it speaks TLS; is TSURUGI_REPLICATION_TLS_CERT",
            _ => "it does not speak the native protocol; is TSURUGI_REPLICATION_PROTOCOL",
        };
        return Err(format!("{what} set on both sides alike?"));
    }
    if is_missing_tls {
        let text = "this replica is spoken to over TLS only: set TSURUGI_REPLICATION_TLS_CERT on both sides";
        return Err(refuse(incoming.out(), Reason::new(Code::NO_TLS, text)));
    }
    if node.options.tls.is_none() && !secret::is_peer_allowed(peer.ip(), &node.secret(), node.options.allow_no_secret) {
        let text =
            "without a secret only peers on the replica's own machine are accepted: set a secret file on both sides";
        return Err(refuse(incoming.out(), Reason::new(Code::NO_SECRET, text)));
    }
    Ok(Some(incoming))
}

/// The handshake up to the point where the peer has proved who it is. `None` when it came and went without a word.
fn open(node: &Node, connection: Connection) -> Result<Option<(Incoming, Identified)>, String> {
    let (peer, text) = (connection.peer(), |e: io::Error| e.to_string());
    let Some(mut incoming) = accept(node, connection)? else { return Ok(None) };
    let nonce = secret::random().map_err(text)?;
    let mut handshake = ReplicaHandshake::new(nonce, node.terms());
    loop {
        incoming.set_bytes_max(handshake.bytes_max());
        let message = match incoming.next() {
            Ok(Next::Message(message)) => message,
            Ok(Next::Closed) => return Err("it was closed in the handshake".to_owned()),
            Ok(Next::Idle) => {
                return Err(refuse(incoming.out(), Reason::new(Code::TIMEOUT, "the handshake takes too long")))
            }
            Err(End::Told(reason)) => return Err(refuse(incoming.out(), reason)),
            Err(End::Lost(reason)) => return Err(reason),
            Err(End::Bye) => return Ok(None),
        };
        match handshake.on_message(message) {
            Ok(ReplicaStep::Send(message)) => {
                incoming.out().send(&message).map_err(text)?;
                incoming.out().set_seal(handshake.seals().map(|seals| seals.of_replica));
            }
            Ok(ReplicaStep::Identified(identified)) => {
                incoming.set_bytes_max(PAYLOAD_BYTES_MAX);
                incoming.set_seal(handshake.seals().map(|seals| seals.of_primary));
                if handshake.is_exposed() && identified.kind == ConnectionKind::Control {
                    log::warn!("replication: {peer} speaks version 2: what it sends can be changed on the way");
                }
                return Ok(Some((incoming, identified)));
            }
            Err(reason) => return Err(refuse(incoming.out(), reason)),
        }
    }
}

/// A lane, BLOB or base connection of the session that is open.
fn join_session(node: &Arc<Node>, mut incoming: Incoming, guest: &Guest, identified: &Identified) {
    let turned_away = |reason: String| guest.turned_away(format!("{}: {reason}", identified.kind));
    let Some(session) = node.session() else {
        let reason = Reason::new(Code::UNKNOWN_SESSION, "no session is open here");
        return turned_away(refuse(incoming.out(), reason));
    };
    let attached = session.machine.lock().attach(identified.session_id, identified.kind);
    let order = match attached {
        Ok(order) => order,
        Err(reason) => return turned_away(refuse(incoming.out(), reason)),
    };
    let _joined = match session.join(&mut incoming) {
        Some(joined) => joined,
        None => return turned_away("the session has ended".to_owned()),
    };
    incoming.set_timeout(node.options.timeout);
    let result =
        incoming.out().send(&Message::Answer { replica: None }).map_err(|e| End::Lost(e.to_string())).and_then(|()| {
            match (identified.kind, order) {
                (ConnectionKind::Lane(lane), Some(order)) => data::lane(node, &session, &mut incoming, lane, order),
                (ConnectionKind::Blob, _) => data::blobs(node, &session, &mut incoming),
                (ConnectionKind::Base, _) => data::base(node, &session, &mut incoming),
                (kind, _) => Err(End::Told(Reason::new(Code::PROTOCOL, format!("a second {kind} connection")))),
            }
        });
    match result {
        Ok(()) => session.lost(format!("the {} connection was closed", identified.kind)),
        Err(End::Lost(reason)) => session.lost(reason),
        Err(end) => session.end(end),
    }
}

/// A primary wants to begin a session; this thread then serves its control connection.
fn accept_primary(
    node: &Arc<Node>,
    mut incoming: Incoming,
    guest: &Guest,
    identified: &Identified,
    primary: PrimaryIdentity,
) {
    let peer = guest.peer();
    match begin_session(node, incoming.out(), peer, identified, primary) {
        Ok(session) => {
            incoming.set_timeout(control::interval(node));
            let end = match record(node, &session) {
                Ok(()) => control::run(node, &session, &mut incoming),
                Err(e) => End::Lost(e.to_string()),
            };
            finish(node, &session, end);
        }
        Err(reason) => {
            let needs_person = !matches!(reason.code, Code::BUSY | Code::SHUTDOWN);
            let told = refuse(incoming.out(), reason);
            if node.failure().is_some() {
                // The log says why.
                return;
            }
            node.rewind();
            guest.turned_away(format!("the primary is refused: {told}"));
            // One that comes while another is served is no trouble of this side.
            if needs_person && node.session().is_none() {
                node.board.disconnected(LinkState::Refused, &format!("{peer}: {told}"), true);
            }
        }
    }
}

/// Lets a thread record epochs until the session ends.
fn record(node: &Arc<Node>, session: &Arc<Session>) -> io::Result<()> {
    session.recorder.begin();
    let body = {
        let (node, session) = (node.clone(), session.clone());
        move || {
            session.recorder.run(|epoch| {
                let recorded = catch_panic("the thread that records epochs", || record_one(&node, &session, epoch));
                recorded.inspect_err(|panic| node.panicked(panic)).unwrap_or(false)
            });
        }
    };
    let spawned = std::thread::Builder::new().name("replica-record".to_owned()).spawn(body);
    spawned.map(|_| ()).inspect_err(|_| session.recorder.give_up())
}

/// Records and confirms an epoch; false when the disk failed. A primary that is gone already is no reason to leave
/// anything out.
fn record_one(node: &Node, session: &Session, epoch: Epoch) -> bool {
    if let Err(e) = session.store.record(epoch) {
        session.end(End::Told(node.failed(&e)));
        return false;
    }
    node.board.durable(epoch);
    // Before it is confirmed: a replica that makes an epoch PROPAGATED has to count, also when the primary is gone in
    // the next moment.
    if let Err(e) = node.note_told(session) {
        session.end(End::Told(node.failed(&e)));
        return false;
    }
    if let Err(end) = session.recorded(epoch, node.now()) {
        session.end(end);
    }
    true
}

fn begin_session(
    node: &Arc<Node>,
    out: &Outgoing,
    peer: SocketAddr,
    identified: &Identified,
    primary: PrimaryIdentity,
) -> Result<Arc<Session>, Reason> {
    node.check_term(&primary)?;
    node.await_store();
    let _accepting = node.accepting.lock();
    if node.is_stopping() {
        return Err(Reason::new(Code::SHUTDOWN, "the replica is being stopped"));
    }
    node.check_term(&primary)?;
    if let Some(session) = node.session() {
        // A primary that comes back while its former link is still half open: silence tells.
        if session.silent_ms(node.now()) < node.timeout_ms() / 2 {
            return Err(Reason::new(Code::BUSY, "another primary is connected"));
        }
        session.end(End::Told(Reason::new(Code::REPLACED, format!("a primary at {peer} takes its place"))));
        session.wait();
        node.set_session(None);
    }
    let store = node.store()?;
    store.discard_beyond_durable().map_err(|e| node.failed(&e))?;
    let standing = node.standing(&store);
    let outcome = decide(&primary, &standing).map_err(|e| node.answer_to_diverged(&store, &primary, &standing, e))?;
    node.adopt(&store, &standing, &primary, outcome).map_err(|e| node.failed(&e))?;
    let now = node.now();
    let begun = (outcome, standing.durable);
    let session = ReplicaSession::new(identified.session_id, &primary, begun, node.timeout_ms(), now)
        .in_version(identified.version);
    let answer = ReplicaIdentity {
        uuid: if standing.empty { String::new() } else { standing.uuid },
        term: standing.term,
        history: standing.history,
        durable: standing.durable,
        outcome,
        max_channels: CHANNELS_MAX,
        directory: node.directory,
    };
    let lost = |e: io::Error| Reason::new(Code::PROTOCOL, format!("the connection cannot be used: {e}"));
    let stored = primary.stored;
    let session = Arc::new(Session::new(session, store, primary, out.clone(), now));
    // Lanes may come as soon as the answer is out.
    node.set_session(Some(session.clone()));
    let state = match outcome {
        Outcome::Stream => LinkState::Streaming,
        Outcome::CatchUp => LinkState::CatchUp,
        Outcome::BaseSync => LinkState::BaseSync,
    };
    node.board.connected(peer.to_string(), state, answer.durable, stored);
    if let Err(e) = session.send(&Message::Answer { replica: Some(answer) }) {
        finish(node, &session, End::Lost(e.to_string()));
        return Err(lost(e));
    }
    Ok(session)
}

/// Ends a session: its threads first, then what it left beyond the durable epoch.
fn finish(node: &Arc<Node>, session: &Arc<Session>, end: End) {
    session.end(end);
    session.wait();
    let end = session.ended().unwrap_or(End::Bye);
    let durable = session.store.durable();
    if node.is_stopping() {
        // Beyond the durable epoch as well: everything that came is on the disk when the program ends.
        if let Err(e) = session.store.sync() {
            node.failed(&e);
        }
    }
    node.save_versions(&session.store);
    node.release(session, || {
        if let Some(failure) = node.failure() {
            return node.board.failed(&failure);
        }
        let (reason, is_error) = match &end {
            End::Bye => ("the primary has ended the session".to_owned(), false),
            End::Told(reason) if reason.code == Code::SHUTDOWN => (reason.to_string(), false),
            End::Told(reason) => (format!("the session was ended: {reason}"), true),
            End::Lost(reason) => (format!("the link is lost: {reason}"), true),
        };
        let text = format!("{reason}; durable epoch {durable}");
        node.board.disconnected(LinkState::Connecting, &text, is_error);
    });
    node.session_ended(&end);
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;

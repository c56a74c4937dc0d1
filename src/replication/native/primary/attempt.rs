// SPDX-License-Identifier: Apache-2.0
//! An attempt to have a session: from connecting, over what the replica answers, to the end of the session.

use super::connection::{Receiver, Sender};
use super::end::End;
use super::session::Session;
use super::{base_sync, catch_up, digests};
use crate::replication::native::protocol::message::{
    ConnectionKind, Outcome, PrimaryIdentity, ReplicaIdentity, CHANNELS_MAX,
};
use crate::replication::net::connection::Connection;
use crate::replication::secret;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// Runs the session and returns why it ended. All its threads have ended then.
pub(super) fn run(session: &Arc<Session>) -> End {
    let (core, mut threads) = (&session.core, Vec::new());
    let opened = find(session);
    let (begun, is_open) = (Instant::now(), opened.is_ok());
    match opened.and_then(|opened| send(session, opened, &mut threads)) {
        Ok(()) => session.wait_for_end(),
        Err(end) => session.finish(end),
    }
    let end = session.finished(threads);
    if is_open && !session.has_progressed() && begun.elapsed() < core.settings.timeout && !end.is_part_of_the_plan() {
        // It takes the control connection and is of no use: it must not hide the next address.
        core.dialer.lock().advance();
    }
    end
}

/// The control connection to the replica, and what it said of itself.
struct Opened {
    peer: SocketAddr,
    sender: Sender,
    receiver: Receiver,
    replica: ReplicaIdentity,
    /// What it was told of this side.
    identity: PrimaryIdentity,
}

/// Tries the addresses of the replica in turn: only one that goes through the whole handshake is the replica.
fn find(session: &Session) -> Result<Opened, End> {
    let core = &session.core;
    core.read_certificates_again();
    let found = core.dialer.lock().open(core.settings.timeout, |endpoint, connected| {
        session.check()?;
        session.set_host(&endpoint.host);
        let connection = connected.map_err(|e| End::Unreachable(e.to_string()))?;
        match open_control(session, connection) {
            // It holds whatever stands behind the other addresses.
            Err(end) if end.is_fenced() => Ok(Err(end)),
            opened => opened.map(Ok),
        }
    });
    session.check()?;
    found.map_err(worst)?
}

fn open_control(session: &Session, connection: Connection) -> Result<Opened, End> {
    let (peer, settings) = (connection.peer(), &session.core.settings);
    if settings.tls.is_none() && !secret::is_peer_allowed(peer.ip(), &settings.secret, settings.allow_no_secret) {
        return Err(End::Local(format!(
            "{peer} is not on this machine and no secret is set: set TSURUGI_REPLICATION_SECRET_FILE on both sides, \
             or TSURUGI_REPLICATION_ALLOW_NO_SECRET=1"
        )));
    }
    let identity = session.identity();
    let (sender, receiver, replica) = session.open(connection, ConnectionKind::Control, Some(&identity))?;
    let replica = replica.ok_or_else(|| End::Protocol("the Answer on the control connection is empty".to_owned()))?;
    Ok(Opened { peer, sender, receiver, replica, identity })
}

/// Of what all addresses answered, what needs a person most; every address is told of when none was reached.
fn worst(mut ends: Vec<End>) -> End {
    let unreachable = |end: &End| matches!(end, End::Unreachable(_));
    if ends.iter().all(unreachable) {
        let texts = ends.into_iter().map(|end| match end {
            End::Unreachable(text) => text,
            other => other.to_string(),
        });
        return End::Unreachable(texts.collect::<Vec<_>>().join("; "));
    }
    let place = ends.iter().position(End::is_refusal).or(ends.iter().position(|end| !unreachable(end)));
    ends.swap_remove(place.unwrap_or_default())
}

fn send(session: &Arc<Session>, opened: Opened, threads: &mut Vec<JoinHandle<()>>) -> Result<(), End> {
    let Opened { peer, sender, receiver, replica, identity } = opened;
    session.core.connected(peer);
    let is_base_sync = replica.outcome == Outcome::BaseSync;
    let lanes = if is_base_sync { 0 } else { session.core.settings.lanes };
    let feed = session.begin(sender, (&identity, &replica), lanes)?;
    // From here on both sides hear of each other, whatever else takes long.
    session.spawn(threads, "control", {
        let feed = feed.clone();
        move |session| {
            // Nobody says more than this one hears.
            let hear = |asks| digests::hear(session, asks);
            session.receive(receiver, &feed, hear).inspect_err(|end| session.finish(end.clone()))
        }
    })?;
    if is_base_sync {
        return base_sync::run(session, &feed, peer);
    }
    session.join_lanes(peer, replica.max_channels.min(CHANNELS_MAX), threads)?;
    catch_up::run(session, &feed, replica.durable)
}

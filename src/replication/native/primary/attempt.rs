// SPDX-License-Identifier: Apache-2.0
//! An attempt to have a session: from connecting, over what the replica answers, to the end of the session.

use super::end::End;
use super::session::Session;
use super::{base_sync, catch_up};
use crate::replication::native::protocol::message::{ConnectionKind, Outcome, CHANNELS_MAX};
use crate::replication::net::transport;
use crate::replication::secret;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Runs the session and returns why it ended. All its threads have ended then.
pub(super) fn run(session: &Arc<Session>) -> End {
    let mut threads = Vec::new();
    match connect_and_send(session, &mut threads) {
        Ok(()) => session.wait_for_end(),
        Err(end) => session.finish(end),
    }
    session.finished(threads)
}

fn connect_and_send(session: &Arc<Session>, threads: &mut Vec<JoinHandle<()>>) -> Result<(), End> {
    let settings = &session.core.settings;
    let stream =
        transport::connect(&settings.endpoints, settings.timeout).map_err(|e| End::Unreachable(e.to_string()))?;
    let peer = stream.peer_addr().map_err(|e| End::Lost(e.to_string()))?;
    if !secret::is_peer_allowed(peer.ip(), &settings.secret, settings.allow_no_secret) {
        return Err(End::Local(format!(
            "{peer} is not on this machine and no secret is set: set TSURUGI_REPLICATION_SECRET_FILE on both sides, \
             or TSURUGI_REPLICATION_ALLOW_NO_SECRET=1"
        )));
    }
    let identity = session.identity();
    let (sender, receiver, replica) = session.open(stream, ConnectionKind::Control, Some(&identity))?;
    let replica = replica.ok_or_else(|| End::Protocol("the Answer on the control connection is empty".to_owned()))?;
    session.core.connected(peer);
    let is_base_sync = replica.outcome == Outcome::BaseSync;
    let lanes = if is_base_sync { 0 } else { settings.lanes };
    let feed = session.begin(sender, (identity.stored, &replica), lanes)?;
    // From here on both sides hear of each other, whatever else takes long.
    session.spawn(threads, "control", {
        let feed = feed.clone();
        move |session| {
            // Nobody says more than this one hears.
            session.receive(receiver, &feed).inspect_err(|end| session.finish(end.clone()))
        }
    })?;
    if is_base_sync {
        return base_sync::run(session, &feed, peer);
    }
    session.join_lanes(peer, replica.max_channels.min(CHANNELS_MAX), threads)?;
    catch_up::run(session, &feed, replica.durable)
}

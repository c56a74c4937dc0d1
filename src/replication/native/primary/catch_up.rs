// SPDX-License-Identifier: Apache-2.0
//! Catch-up: what the replica lacks is sent from the log on disk, in small steps that it confirms, so that a link of
//! any speed brings it nearer; then everything goes over as it ends.

use super::end::End;
use super::feed::Feed;
use super::session::Session;
use crate::datastore::{Datastore, EndedSession, Subscription};
use crate::replication::backlog::{Backlog, BacklogError, NotShippable};
use crate::replication::status::LinkState;
use crate::types::{Epoch, WriteVersion};
use std::sync::Arc;
use std::time::Instant;

/// Sessions that wait in a lane.
const QUEUED_MAX: usize = 1 << 10;
/// The replica is asked to confirm after so many bytes: what it has confirmed a lost link does not take away. It
/// answers several such questions at once when it is busy, so many of them cost a fast link next to nothing.
const COMMIT_BYTES: u64 = 64 << 10;
/// Sessions above the stored epoch that a subscription may find.
const HELD_MAX: usize = 1 << 16;

/// Sends what the replica lacks from the log, then lets everything through as it comes.
pub(super) fn run(session: &Session, feed: &Arc<Feed>, durable: Epoch) -> Result<(), End> {
    let mut above = durable;
    let mut told = false;
    let (begun, mut bytes) = (Instant::now(), 0);
    loop {
        let (core, pass) = (&session.core, feed.begin_pass());
        let subscription = core.group.taps.subscribe(&core.store, &core.group.quorum, (core.slot, pass));
        let subscription = subscription.map_err(|e| End::Local(e.to_string()))?;
        if !std::mem::replace(&mut told, true) {
            // Later switches reach the tap.
            tell_versions(&session.core.store, feed);
        }
        let stored_before = subscription.stored_before;
        let (held, sent) = send_log(session, feed, subscription, above)?;
        bytes += sent;
        if held.len() <= HELD_MAX && feed.go_live(held) {
            session.core.streaming(durable, bytes, begun.elapsed());
            return Ok(());
        }
        // Everything up to the stored epoch has been sent, and nothing else; the next pass begins above it.
        above = above.max(stored_before);
    }
}

/// Lets the replica know the versions that were switched to before the session.
fn tell_versions(store: &Datastore, feed: &Feed) {
    let boundary = store.available_boundary_version();
    if boundary > WriteVersion::default() {
        feed.boundary(boundary);
    }
    if let Some(snapshot) = store.safe_snapshot() {
        feed.safe_snapshot(snapshot.version);
    }
}

/// Sends the stored sessions of the log above an epoch; returns the others and the bytes that were sent.
fn send_log(
    session: &Session,
    feed: &Feed,
    subscription: Subscription,
    above: Epoch,
) -> Result<(Vec<EndedSession>, u64), End> {
    let stored_before = subscription.stored_before;
    let backlog = Backlog::new(subscription, above).map_err(|e| not_shippable(e, above))?;
    let (mut held, mut total, mut pending, mut last) = (Vec::new(), 0, 0, None);
    // BLOBs that are gone belong to entries that later ones have replaced: only with those the replica is right.
    let mut hold_commits = false;
    let mut from = above;
    loop {
        let mut window = backlog.window(from).map_err(|e| not_shippable(e, from))?;
        if window.bytes > 0 {
            session.core.set_state(LinkState::CatchUp);
        }
        while let Some(next) = backlog.next(&mut window) {
            if next.epoch > stored_before {
                held.push(next);
                if held.len() > HELD_MAX {
                    break;
                }
                continue;
            }
            if let Some(last) = last.filter(|&last| last < next.epoch && pending >= COMMIT_BYTES && !hold_commits) {
                feed.delivered(last);
                pending = 0;
            }
            while !feed.wait_for_room(QUEUED_MAX, session.core.settings.timeout) {
                session.check()?;
            }
            session.check()?;
            // A BLOB may be large.
            let weight = if next.blobs.is_empty() { next.len } else { COMMIT_BYTES };
            (total, pending, last) = (total + next.len, pending + weight, Some(next.epoch));
            hold_commits |= feed.send_old(next, session.core.store.blobs());
        }
        match window.rest_above {
            Some(rest) if held.len() <= HELD_MAX => from = rest,
            _ => break,
        }
    }
    if last.is_some() {
        feed.delivered(stored_before);
    }
    Ok((held, total))
}

fn not_shippable(error: BacklogError, above: Epoch) -> End {
    match error {
        BacklogError::NotShippable(reason) => {
            let oldest = match reason {
                NotShippable::Compacted { compacted, .. } => compacted,
                NotShippable::Unended { epoch, .. } => epoch,
                NotShippable::BeforeFirstEpoch { .. } => Epoch(1),
            };
            End::NotShippable { oldest: Epoch(oldest.max(above).0 + 1), reason: reason.to_string() }
        }
        other => End::Local(other.to_string()),
    }
}

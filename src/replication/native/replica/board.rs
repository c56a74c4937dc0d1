// SPDX-License-Identifier: Apache-2.0
//! What a replica knows of its link, for the status document and the log: one log line for each change of state.

use crate::lock_order::{Mutex, Rank};
use crate::replication::status::{Known, LinkState, Side};
use crate::types::Epoch;
use std::time::{Duration, Instant};

/// Kept up to date by the threads of the connections.
#[derive(Debug)]
pub(super) struct Board(Mutex<Facts>);

#[derive(Debug)]
struct Facts {
    state: LinkState,
    since: Instant,
    peer: Option<String>,
    last_error: Option<String>,
    /// Log bytes of this session: received, received before the last COMMIT, and durable.
    received: u64,
    committed: u64,
    durable: u64,
    /// Since when there has been something that is not durable.
    behind_since: Option<Instant>,
    /// When anything came from a primary that was accepted.
    heard: Option<Instant>,
    told: Option<Told>,
    /// For how long something may be behind.
    stall_ms: u64,
}

/// What the primary said last about itself.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: Instant,
    switched: Epoch,
    stored: Epoch,
    /// The last of the stored epochs that wrote anything.
    written: Option<Epoch>,
}

impl Told {
    fn lacks_nothing(&self, durable: Epoch) -> bool {
        durable >= self.written.unwrap_or(self.stored)
    }
}

fn ms(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

impl Board {
    /// `stall_ms`: for how long something may be behind before the link counts as stalled.
    pub(super) fn new(stall_ms: u64) -> Board {
        Board(Mutex::new(
            Rank::Leaf,
            Facts {
                state: LinkState::Connecting,
                since: Instant::now(),
                peer: None,
                last_error: None,
                received: 0,
                committed: 0,
                durable: 0,
                behind_since: None,
                heard: None,
                told: None,
                stall_ms,
            },
        ))
    }

    /// A primary was accepted.
    pub(super) fn connected(&self, peer: String, state: LinkState, durable: Epoch, stored: Epoch) {
        let now = Instant::now();
        let mut facts = self.0.lock();
        facts.peer = Some(peer);
        facts.heard = Some(now);
        facts.told = Some(Told { at: now, switched: stored, stored, written: None });
        (facts.received, facts.committed, facts.durable, facts.behind_since) = (0, 0, 0, None);
        facts.enter(state, &format!("durable epoch {durable}, the primary has {stored}"));
        facts.look(durable);
    }

    /// The session is over, or a peer was turned away.
    pub(super) fn disconnected(&self, state: LinkState, reason: &str, is_error: bool) {
        let mut facts = self.0.lock();
        facts.over();
        if is_error {
            facts.last_error = Some(reason.to_owned());
        }
        facts.enter(state, reason);
    }

    /// The session is over because of a failure of which the log has its line: the program ends.
    pub(super) fn failed(&self, reason: &str) {
        let mut facts = self.0.lock();
        facts.over();
        facts.last_error = Some(reason.to_owned());
        (facts.state, facts.since) = (LinkState::Connecting, Instant::now());
    }

    /// Bytes of the log came.
    pub(super) fn received(&self, bytes: u64) {
        let mut facts = self.0.lock();
        facts.received += bytes;
        facts.heard = Some(Instant::now());
        facts.behind_since.get_or_insert_with(Instant::now);
    }

    /// Something came that is not for this page.
    pub(super) fn heard(&self) {
        self.0.lock().heard = Some(Instant::now());
    }

    pub(super) fn committed(&self) {
        let mut facts = self.0.lock();
        facts.committed = facts.received;
    }

    /// Everything that was received before the last COMMIT is durable, up to this epoch.
    pub(super) fn durable(&self, epoch: Epoch) {
        let mut facts = self.0.lock();
        facts.durable = facts.committed;
        facts.behind_since = (facts.received > facts.durable).then(Instant::now);
        facts.look(epoch);
    }

    /// The primary's epochs.
    pub(super) fn epochs(&self, switched: Epoch, stored: Epoch, written: Option<Epoch>, durable: Epoch) {
        let mut facts = self.0.lock();
        facts.told = Some(Told { at: Instant::now(), switched, stored, written });
        facts.look(durable);
    }

    /// Looks whether time has made a difference.
    pub(super) fn tick(&self, durable: Epoch) {
        self.0.lock().look(durable);
    }

    /// What is known, for the document.
    pub(super) fn view(&self, durable: Epoch) -> Known {
        let facts = self.0.lock();
        // What was told holds while the primary is there; afterwards it may have stored more.
        let lag_heard = facts.told.filter(|_| facts.peer.is_some()).map(|told| told.at);
        let behind_bytes = facts.received.saturating_sub(facts.durable);
        let lacks_nothing = facts.told.is_some_and(|told| told.lacks_nothing(durable));
        // In a catch-up or a base sync nobody has said how much is still to come.
        let lag_bytes = match facts.state {
            LinkState::Streaming | LinkState::Stalled if behind_bytes > 0 || lacks_nothing => Some(behind_bytes),
            _ => None,
        };
        let knows_it_is_behind = behind_bytes > 0 || facts.told.is_some_and(|told| told.written.is_some());
        let lag_for = match facts.behind_since.filter(|_| lag_heard.is_some()) {
            Some(since) => knows_it_is_behind.then(|| since.elapsed()),
            None => (lacks_nothing && lag_heard.is_some()).then_some(Duration::ZERO),
        };
        let state = match facts.state {
            // It was told of something stored of which nothing has come yet.
            LinkState::Streaming if facts.told.is_some() && !lacks_nothing && behind_bytes == 0 => LinkState::CatchUp,
            state => state,
        };
        Known {
            role: Some(Side::Replica),
            protocol: Some("native"),
            state,
            state_for: Some(facts.since.elapsed()),
            peer: facts.peer.clone(),
            heard: facts.heard,
            switched: facts.told.map(|told| told.switched),
            stored: facts.told.map(|told| told.stored),
            propagated: Some(durable),
            written: facts.told.and_then(|told| told.written),
            lag_heard,
            lag_bytes,
            lag_for,
            last_error: facts.last_error.clone(),
            ..Known::default()
        }
    }
}

impl Facts {
    /// Nobody is connected.
    fn over(&mut self) {
        self.peer = None;
        (self.received, self.committed, self.durable, self.behind_since) = (0, 0, 0, None);
    }

    /// Whether the state is still right.
    fn look(&mut self, durable: Epoch) {
        let Some(told) = self.told else { return };
        if told.lacks_nothing(durable) {
            // What has come since is not waited for yet.
            self.behind_since = self.behind_since.filter(|_| self.received > self.durable);
        } else if !matches!(self.state, LinkState::BaseSync) {
            self.behind_since.get_or_insert_with(Instant::now);
        }
        let behind = self.behind_since.map_or(0, ms);
        match self.state {
            LinkState::CatchUp if told.lacks_nothing(durable) => {
                self.enter(LinkState::Streaming, &format!("caught up at epoch {durable}"));
            }
            LinkState::Streaming if behind > self.stall_ms => {
                self.enter(LinkState::Stalled, &format!("epoch {durable} has not moved for {behind} ms"));
            }
            LinkState::Stalled if behind <= self.stall_ms => {
                self.enter(LinkState::Streaming, &format!("epoch {durable} moves again"));
            }
            _ => {}
        }
        if self.state == LinkState::Streaming {
            self.last_error = None;
        }
    }

    fn enter(&mut self, state: LinkState, why: &str) {
        let peer = self.peer.as_ref().map_or(String::new(), |peer| format!(" with {peer}"));
        if state != self.state {
            let after = ms(self.since);
            log::info!("replication: {state}{peer} after {after} ms of {}: {why}", self.state);
            (self.state, self.since) = (state, Instant::now());
        } else {
            log::info!("replication: still {state}{peer}: {why}");
        }
    }
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;

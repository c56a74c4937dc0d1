// SPDX-License-Identifier: Apache-2.0
//! What a replica knows of its link, for the status document and the log: one log line for each change of state.

use crate::replication::status::{Lag, LinkState};
use crate::types::Epoch;
use parking_lot::Mutex;
use std::time::Instant;

/// Kept up to date by the threads of the connections.
#[derive(Debug)]
pub(super) struct Board(Mutex<Known>);

#[derive(Debug)]
struct Known {
    state: LinkState,
    since: Instant,
    peer: Option<String>,
    last_error: Option<String>,
    /// Log bytes of this session: received, received before the last COMMIT, and durable.
    received: u64,
    committed: u64,
    durable: u64,
    /// Since when there have been bytes that are not durable.
    behind_since: Option<Instant>,
    switched: Epoch,
    stored: Epoch,
}

/// A copy for the document.
#[derive(Debug)]
pub(super) struct View {
    pub state: LinkState,
    pub state_ms: u64,
    pub peer: Option<String>,
    pub last_error: Option<String>,
    pub switched: Epoch,
    pub stored: Epoch,
    pub lag: Lag,
}

fn ms(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

impl Board {
    pub(super) fn new() -> Board {
        Board(Mutex::new(Known {
            state: LinkState::Connecting,
            since: Instant::now(),
            peer: None,
            last_error: None,
            received: 0,
            committed: 0,
            durable: 0,
            behind_since: None,
            switched: Epoch(0),
            stored: Epoch(0),
        }))
    }

    /// A primary was accepted.
    pub(super) fn connected(&self, peer: String, state: LinkState, durable: Epoch, stored: Epoch) {
        let mut known = self.0.lock();
        known.peer = Some(peer);
        known.stored = stored;
        (known.received, known.committed, known.durable, known.behind_since) = (0, 0, 0, None);
        enter(&mut known, state, &format!("durable epoch {durable}, the primary has {stored}"));
    }

    /// The session is over, or a peer was turned away.
    pub(super) fn disconnected(&self, state: LinkState, reason: &str, is_error: bool) {
        let mut known = self.0.lock();
        known.peer = None;
        (known.received, known.committed, known.durable, known.behind_since) = (0, 0, 0, None);
        if is_error {
            known.last_error = Some(reason.to_owned());
        }
        enter(&mut known, state, reason);
    }

    /// A connection that had no part in the session was turned away.
    pub(super) fn noted(&self, reason: &str) {
        self.0.lock().last_error = Some(reason.to_owned());
    }

    pub(super) fn received(&self, bytes: u64) {
        let mut known = self.0.lock();
        known.received += bytes;
        known.behind_since.get_or_insert_with(Instant::now);
    }

    pub(super) fn committed(&self) {
        let mut known = self.0.lock();
        known.committed = known.received;
    }

    /// Everything that was received before the last COMMIT is durable.
    pub(super) fn durable(&self) {
        let mut known = self.0.lock();
        known.durable = known.committed;
        known.behind_since = (known.received > known.durable).then(Instant::now);
    }

    /// The primary's epochs. `stall_ms`: for how long what was received may wait for its COMMIT.
    pub(super) fn epochs(&self, switched: Epoch, stored: Epoch, durable: Epoch, stall_ms: u64) {
        let mut known = self.0.lock();
        (known.switched, known.stored) = (switched, stored);
        let behind = known.behind_since.map_or(0, ms);
        match known.state {
            LinkState::CatchUp if durable >= stored || known.behind_since.is_none() => {
                enter(&mut known, LinkState::Streaming, &format!("caught up at epoch {durable}"));
            }
            LinkState::Streaming if behind > stall_ms => {
                enter(&mut known, LinkState::Stalled, &format!("epoch {durable} has not moved for {behind} ms"));
            }
            LinkState::Stalled if behind <= stall_ms => {
                enter(&mut known, LinkState::Streaming, &format!("epoch {durable} moves again"));
            }
            _ => {}
        }
    }

    pub(super) fn view(&self, durable: Epoch) -> View {
        let known = self.0.lock();
        let bytes = known.received.saturating_sub(known.durable);
        // Epochs without writes are not sent, so they are no lag.
        let epochs = if bytes > 0 { known.stored.0.saturating_sub(durable.0) } else { 0 };
        View {
            state: known.state,
            state_ms: ms(known.since),
            peer: known.peer.clone(),
            last_error: known.last_error.clone(),
            switched: known.switched,
            stored: known.stored,
            lag: Lag { epochs, bytes, ms: known.behind_since.map_or(0, ms) },
        }
    }
}

fn enter(known: &mut Known, state: LinkState, why: &str) {
    let peer = known.peer.as_ref().map_or(String::new(), |peer| format!(" with {peer}"));
    let after = ms(known.since);
    if state != known.state {
        log::info!("replication: {state}{peer} after {after} ms of {}: {why}", known.state);
        (known.state, known.since) = (state, Instant::now());
    } else {
        log::info!("replication: still {state}{peer}: {why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_what_was_received_and_is_not_durable() {
        let board = Board::new();
        board.connected("p".to_owned(), LinkState::CatchUp, Epoch(3), Epoch(9));
        board.epochs(Epoch(10), Epoch(9), Epoch(3), 1000);
        assert_eq!(board.view(Epoch(3)).state, LinkState::Streaming, "nothing was missing but epochs without writes");
        assert_eq!(board.view(Epoch(3)).lag, Lag::default());
        board.received(100);
        board.committed();
        board.received(50);
        assert_eq!((board.view(Epoch(3)).lag.epochs, board.view(Epoch(3)).lag.bytes), (6, 150));
        board.durable();
        assert_eq!(board.view(Epoch(8)).lag.bytes, 50);
        board.disconnected(LinkState::Connecting, "lost", true);
        let view = board.view(Epoch(8));
        assert_eq!((view.lag, view.peer, view.last_error.as_deref()), (Lag::default(), None, Some("lost")));
    }

    #[test]
    fn a_link_whose_epoch_does_not_move_is_stalled_until_it_does() {
        let board = Board::new();
        board.connected("p".to_owned(), LinkState::Streaming, Epoch(3), Epoch(3));
        board.received(1);
        std::thread::sleep(std::time::Duration::from_millis(5));
        board.epochs(Epoch(5), Epoch(4), Epoch(3), 1);
        assert_eq!(board.view(Epoch(3)).state, LinkState::Stalled);
        board.committed();
        board.durable();
        board.epochs(Epoch(5), Epoch(4), Epoch(4), 1);
        assert_eq!(board.view(Epoch(4)).state, LinkState::Streaming);
    }
}

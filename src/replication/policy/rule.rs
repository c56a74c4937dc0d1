// SPDX-License-Identifier: Apache-2.0
//! Whether the engine is told of epochs that the replicas do not have: never a silent downgrade. Pure: epochs and times
//! in, changes of state out.

use crate::replication::native::protocol::Millis;
use crate::types::Epoch;

/// What a notification waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For the replica, however long.
    Strict,
    /// For the replica; after so many milliseconds without progress for the own disk only, until it has caught up.
    Degrade { after: Millis },
    /// For the own disk only.
    Async,
}

/// An interval in which epochs were notified that the replica did not have begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Epochs from `propagated` + 1 on are notified when they are stored.
    Degraded { waited: Millis, stored: Epoch, propagated: Epoch },
    /// Notifications wait for the replica again; what was notified above `propagated` is on its way there.
    Restored { lasted: Millis, propagated: Epoch },
}

#[derive(Clone, Copy, Debug)]
struct Degraded {
    since: Millis,
    /// The stored epoch when the replica was live again: with it the replica has caught up.
    target: Option<Epoch>,
}

/// Decides when epochs are notified that the replicas do not have.
#[derive(Debug)]
pub struct Policy {
    mode: Mode,
    stored: Epoch,
    propagated: Epoch,
    /// Since when a stored epoch waits and nothing was propagated.
    waiting_since: Option<Millis>,
    degraded: Option<Degraded>,
}

impl Policy {
    /// A policy at the start; nothing is degraded.
    pub fn new(mode: Mode) -> Policy {
        Policy { mode, stored: Epoch(0), propagated: Epoch(0), waiting_since: None, degraded: None }
    }

    /// Takes the present epochs, and whether the replica gets every session as it ends. Call it when any of these
    /// changes and at [`Self::deadline`].
    pub fn update(&mut self, stored: Epoch, propagated: Epoch, live: bool, now: Millis) -> Option<Change> {
        let moved = propagated > self.propagated;
        self.stored = self.stored.max(stored);
        self.propagated = self.propagated.max(propagated);
        if self.propagated >= self.stored {
            self.waiting_since = None;
        } else if moved || self.waiting_since.is_none() {
            self.waiting_since = Some(now);
        }
        self.change(live, now)
    }

    fn change(&mut self, live: bool, now: Millis) -> Option<Change> {
        let Mode::Degrade { after } = self.mode else { return None };
        let (stored, propagated) = (self.stored, self.propagated);
        match &mut self.degraded {
            None => {
                let waited = now.saturating_sub(self.waiting_since?);
                if waited < after {
                    return None;
                }
                self.degraded = Some(Degraded { since: now, target: live.then_some(stored) });
                Some(Change::Degraded { waited, stored, propagated })
            }
            Some(degraded) => {
                degraded.target = if live { degraded.target.or(Some(stored)) } else { None };
                let (since, target) = (degraded.since, degraded.target?);
                if propagated < target {
                    return None;
                }
                self.degraded = None;
                Some(Change::Restored { lasted: now.saturating_sub(since), propagated })
            }
        }
    }

    /// When [`Self::update`] has to be called although nothing happens.
    pub fn deadline(&self) -> Option<Millis> {
        match self.mode {
            Mode::Degrade { after } if self.degraded.is_none() => self.waiting_since.map(|since| since + after),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;

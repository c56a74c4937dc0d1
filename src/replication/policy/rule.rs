// SPDX-License-Identifier: Apache-2.0
//! What the engine is told while the replica is not there: never a silent downgrade. Pure: epochs and times in, the
//! epoch that may be notified and changes of state out.

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
    /// Notifications wait for the replica again. Epochs up to `notified` were told, those above `propagated` are on
    /// their way to the replica.
    Restored { lasted: Millis, notified: Epoch, propagated: Epoch },
}

#[derive(Clone, Copy, Debug)]
struct Degraded {
    since: Millis,
    /// The stored epoch when the replica was live again: with it the replica has caught up.
    target: Option<Epoch>,
}

/// Decides what may be notified.
#[derive(Debug)]
pub struct Policy {
    mode: Mode,
    stored: Epoch,
    propagated: Epoch,
    notified: Epoch,
    /// Since when a stored epoch waits and nothing was propagated.
    waiting_since: Option<Millis>,
    degraded: Option<Degraded>,
}

impl Policy {
    /// A policy at the start; nothing is degraded.
    pub fn new(mode: Mode) -> Policy {
        let none = Epoch(0);
        Policy { mode, stored: none, propagated: none, notified: none, waiting_since: None, degraded: None }
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
        let change = self.change(live, now);
        self.notified = self.notified.max(match (self.mode, self.degraded) {
            (Mode::Async, _) | (_, Some(_)) => self.stored,
            _ => self.propagated.min(self.stored),
        });
        change
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
                Some(Change::Restored { lasted: now.saturating_sub(since), notified: self.notified, propagated })
            }
        }
    }

    /// The epoch up to which the engine may be told; it never goes back.
    pub fn notified(&self) -> Epoch {
        self.notified
    }

    /// Whether epochs are notified that the replica does not have, although it should.
    pub fn is_degraded(&self) -> bool {
        self.degraded.is_some()
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

// SPDX-License-Identifier: Apache-2.0
//! Carries out the policy: when the notify level falls and rises again, the data store, the log and a file are told.

use crate::datastore::Datastore;
use crate::replication::native::protocol::Millis;
use crate::replication::policy::degraded_intervals::Degradation;
use crate::replication::policy::rule::Policy;
use crate::replication::settings::Mode;
use std::time::{Duration, Instant};

/// The policy of a data store with its clock.
#[derive(Debug)]
pub(crate) struct PolicyKeeper {
    policy: Policy,
    mode: Mode,
    begun: Instant,
    degradation: Degradation,
    /// Since when something stored has not been propagated.
    behind_since: Option<Instant>,
}

impl PolicyKeeper {
    pub(crate) fn new(mode: Mode) -> PolicyKeeper {
        let policy = Policy::new(mode.policy());
        PolicyKeeper { policy, mode, begun: Instant::now(), degradation: Degradation::default(), behind_since: None }
    }

    fn now(&self) -> Millis {
        self.begun.elapsed().as_millis() as Millis
    }

    /// When [`Self::update`] is due although nothing happens.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let Mode::Degrade(after) = self.mode else { return None };
        let due = self.policy.deadline().map(|at| Duration::from_millis(at.saturating_sub(self.now())));
        // How long something has been waiting is known as exactly as it is looked at.
        Some(due.unwrap_or(after / 4).min(after / 4).max(Duration::from_millis(1)))
    }

    /// Milliseconds since 1970 at which the notify level fell.
    pub(crate) fn degraded_since(&self) -> Option<u64> {
        self.degradation.since_unix_ms()
    }

    /// How long something stored has not been propagated.
    pub(crate) fn behind(&self) -> Duration {
        self.behind_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Looks at the epochs. `problem` is what the replica suffers from. Returns what the data store has to be told:
    /// whether it is degraded from now on. That may run callbacks, so nothing may be locked then.
    pub(crate) fn update(&mut self, store: &Datastore, streaming: bool, problem: Option<&str>) -> Option<bool> {
        // In this order: propagated is never larger.
        let propagated = store.propagated_epoch();
        let stored = store.last_epoch();
        match propagated >= stored {
            true => self.behind_since = None,
            false => _ = self.behind_since.get_or_insert_with(Instant::now),
        }
        let now = self.now();
        let change = self.policy.update(stored, propagated, streaming, now)?;
        Some(self.degradation.apply(store, change, problem))
    }

    /// Ends an interval that goes on, because replication ends.
    pub(crate) fn finish(&mut self, store: &Datastore) {
        self.degradation.finish(store);
    }
}

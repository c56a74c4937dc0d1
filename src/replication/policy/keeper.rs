// SPDX-License-Identifier: Apache-2.0
//! Carries out the policy, the same for both protocols: when the notify level falls and rises again, the data store,
//! the log and a file are told, and then whoever asks.

use crate::datastore::Datastore;
use crate::lock_order::{Mutex, Rank};
use crate::replication::native::protocol::Millis;
use crate::replication::policy::degraded_intervals::Degradation;
use crate::replication::policy::rule::{Change, Policy};
use crate::replication::settings::Mode;
use std::time::{Duration, Instant};

/// The policy of a data store with its clock. One thread looks at the epochs; everybody may ask.
#[derive(Debug)]
pub struct PolicyKeeper {
    mode: Mode,
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    policy: Policy,
    degradation: Degradation,
    /// What whoever asks is told: nothing that the data store does not know yet.
    degraded_since: Option<u64>,
    /// Since when something stored has not been propagated.
    behind_since: Option<Instant>,
}

impl PolicyKeeper {
    pub fn new(mode: Mode) -> PolicyKeeper {
        let state = State {
            policy: Policy::new(mode.policy()),
            degradation: Degradation::default(),
            degraded_since: None,
            behind_since: None,
        };
        PolicyKeeper { mode, begun: Instant::now(), state: Mutex::new(Rank::Policy, state) }
    }

    fn now(&self) -> Millis {
        self.begun.elapsed().as_millis() as Millis
    }

    /// When [`Self::look`] is due although nothing happens.
    pub fn wait(&self) -> Option<Duration> {
        let Mode::Degrade(after) = self.mode else { return None };
        let due = self.state.lock().policy.deadline().map(|at| Duration::from_millis(at.saturating_sub(self.now())));
        // How long something has been waiting is known as exactly as it is looked at.
        Some(due.unwrap_or(after / 4).min(after / 4).max(Duration::from_millis(1)))
    }

    /// Milliseconds since 1970 at which the notify level fell.
    pub fn degraded_since(&self) -> Option<u64> {
        self.state.lock().degraded_since
    }

    /// How long something stored has not been propagated.
    pub fn behind(&self) -> Duration {
        self.state.lock().behind_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Looks at the epochs and does what they ask for. `streaming`: the replicas that count get every session as it
    /// ends. `problem` is what they suffer from. May run callbacks, so nothing may be locked.
    pub fn look(&self, store: &Datastore, streaming: bool, problem: Option<&str>) {
        let mut state = self.state.lock();
        // In this order: propagated is never larger.
        let propagated = store.propagated_epoch();
        let stored = store.last_epoch();
        match propagated >= stored {
            true => state.behind_since = None,
            false => _ = state.behind_since.get_or_insert_with(Instant::now),
        }
        let Some(change) = state.policy.update(stored, propagated, streaming, self.now()) else { return };
        if let Change::Degraded { waited, propagated, .. } = change {
            state.degradation.begin(store, (waited, propagated), problem);
        }
        drop(state);
        // After a shutdown or a failure nothing is notified any more.
        let _ = store.set_degraded(matches!(change, Change::Degraded { .. }));
        let mut state = self.state.lock();
        if let Change::Restored { lasted, propagated } = change {
            // What was notified up to this moment belongs to the interval.
            state.degradation.end(store, (lasted, propagated));
        }
        state.degraded_since = state.degradation.since_unix_ms();
    }

    /// Ends an interval that goes on, because replication ends.
    pub fn finish(&self, store: &Datastore) {
        let mut state = self.state.lock();
        state.degradation.finish(store);
        state.degraded_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::{NotifyLevel, Settings};
    use crate::replication::policy::degraded_intervals;
    use crate::types::Epoch;
    use crate::vfs::SimFs;
    use std::path::Path;
    use std::sync::Arc;

    #[test]
    fn who_asks_hears_of_it_after_the_data_store_and_the_file_has_all_that_was_notified_meanwhile() {
        let fs = SimFs::new();
        let settings = Settings::new("/log").vfs(Arc::new(fs.clone())).replicated(true);
        let store = Datastore::open(settings.notify_level(NotifyLevel::Propagated)).unwrap();
        store.ready().unwrap();
        let keeper = Arc::new(PolicyKeeper::new(Mode::Degrade(Duration::ZERO)));
        let heard = Arc::new(parking_lot::Mutex::new(Vec::new()));
        store.set_notify_callback(Some(Arc::new({
            let (keeper, heard) = (keeper.clone(), heard.clone());
            move |epoch: Epoch| heard.lock().push((epoch, keeper.degraded_since().is_some()))
        })));
        store.switch_epoch(Epoch(2)).unwrap();
        keeper.look(&store, false, Some("it is away"));
        assert!(keeper.degraded_since().is_some());
        store.switch_epoch(Epoch(3)).unwrap();
        store.confirm_propagated(Epoch(2)).unwrap();
        keeper.look(&store, true, None);
        assert!(keeper.degraded_since().is_none());
        assert_eq!(*heard.lock(), [(Epoch(1), false), (Epoch(2), true)]);
        let intervals = degraded_intervals::load(&fs, Path::new("/log")).unwrap();
        assert!(matches!(&intervals[..], [one] if one.last_epoch == Some(2) && one.reason == "it is away"));
    }
}

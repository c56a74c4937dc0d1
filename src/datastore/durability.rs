// SPDX-License-Identifier: Apache-2.0
//! Asking and waiting for the durability of an epoch, and what replication tells the data store.

use super::progress::EpochDurability;
use super::store::Datastore;
use crate::error::{Error, Result};
use crate::types::{Durability, Epoch};
use std::time::{Duration, Instant};

impl Datastore {
    /// What has become of an epoch. Never waits.
    pub fn durability(&self, epoch: Epoch) -> EpochDurability {
        self.coordinator.progress.of(epoch)
    }

    /// Waits until `epoch` and all before it have reached `state`; false when `timeout` passes before, and none means
    /// to wait without a bound. A failure or a shutdown ends the wait, also one that a start follows.
    ///
    /// # Errors
    /// [`Error::Poisoned`]; [`Error::WrongState`] after a shutdown, for [`Durability::Propagated`] without replication,
    /// and inside a callback for what is not reached yet, because the callback would wait for itself.
    pub fn wait_durable(&self, epoch: Epoch, state: Durability, timeout: Option<Duration>) -> Result<bool> {
        self.wait_in(self.coordinator.run(), epoch, state, timeout)
    }

    /// As [`Self::wait_durable`], for an epoch of this run.
    fn wait_in(&self, run: u64, epoch: Epoch, state: Durability, timeout: Option<Duration>) -> Result<bool> {
        let coordinator = &self.coordinator;
        let reached = || coordinator.progress.has_reached(epoch, state) && coordinator.run() == run;
        if reached() {
            return Ok(true);
        }
        if state == Durability::Propagated && !self.settings.replicated {
            let message = "no replication is configured: epochs are stored and never propagated";
            return Err(Error::WrongState(message.to_owned()));
        }
        if coordinator.callbacks.is_calling() {
            return Err(Error::WrongState("a callback cannot wait for an epoch that it holds up".to_owned()));
        }
        // A time beyond what the clock can tell is no bound.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        coordinator.progress.wait_until(deadline, || reached() || coordinator.check_in(run).is_err());
        if reached() {
            return Ok(true);
        }
        coordinator.check_in(run).map(|()| false)
    }

    /// The largest epoch that is propagated; 0 until a replica has confirmed one to this process.
    pub fn propagated_epoch(&self) -> Epoch {
        self.coordinator.epochs().propagated()
    }

    /// The largest epoch that has reached the notify level; after [`Self::ready`], the recovered one.
    pub fn notified_epoch(&self) -> Epoch {
        self.coordinator.epochs().notified()
    }

    /// Whoever the callers of this data store rely on has failed: nothing is acknowledged any more, for good.
    pub fn fail(&self, error: Error) {
        self.coordinator.poison(error);
    }

    /// Takes note that the configured number of replicas has everything up to `epoch` on disk. It counts for what is
    /// stored here, and for the rest as soon as that is stored; the caller checks that it sent what is confirmed.
    /// Raises the propagated epoch, wakes who waits for it, and calls the callbacks, on this thread or on the one that
    /// is busy with them.
    ///
    /// # Errors
    /// [`Error::Poisoned`]; [`Error::WrongState`] after a shutdown or without [`super::Settings::replicated`].
    pub fn confirm_propagated(&self, epoch: Epoch) -> Result<()> {
        self.coordinator.check()?;
        if !self.settings.replicated {
            return Err(Error::WrongState("an epoch was confirmed although no replication is configured".to_owned()));
        }
        self.coordinator.epochs().confirm(epoch);
        self.coordinator.advance()
    }

    /// Lets [`Self::durability`] say of these intervals, first and last epoch, that an earlier run notified them while
    /// degraded. To be called before the first epoch of this run.
    pub fn restore_degraded(&self, intervals: impl IntoIterator<Item = (Epoch, Epoch)>) {
        self.coordinator.progress.restore_degraded(intervals);
    }

    /// Gives the replicas up for a time, or waits for them again. While degraded, epochs are notified as soon as they
    /// are stored, and [`Self::durability`] keeps saying so of those that were not propagated at that moment.
    pub fn set_degraded(&self, degraded: bool) -> Result<()> {
        self.coordinator.progress.set_degraded(degraded);
        self.coordinator.advance()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::Settings;
    use crate::vfs::SimFs;
    use std::sync::Arc;

    #[test]
    fn a_wait_for_an_epoch_ends_with_its_run_and_does_not_take_the_next_one_for_it() {
        let store = Datastore::open(Settings::new("/log").vfs(Arc::new(SimFs::new()))).unwrap();
        store.ready().unwrap();
        let run = store.coordinator.run();
        store.shutdown();
        store.ready().unwrap();
        store.switch_epoch(Epoch(5)).unwrap();
        assert!(store.wait_durable(Epoch(4), Durability::Stored, None).unwrap());
        for epoch in [4, 9] {
            let ended = store.wait_in(run, Epoch(epoch), Durability::Stored, None);
            assert!(matches!(&ended, Err(Error::WrongState(text)) if text.contains("shut down")), "{ended:?}");
        }
    }
}

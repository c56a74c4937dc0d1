// SPDX-License-Identifier: Apache-2.0
//! Starts and shutdowns of one data store take turns: none begins in the midst of another, and each finds what the one
//! before has left.

use super::store::{Datastore, State};
use crate::error::{Error, Result};
use parking_lot::{Condvar, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Start,
    Shutdown,
}

#[derive(Debug, Default)]
pub(super) struct Turns {
    at_work: Mutex<Option<Work>>,
    changed: Condvar,
}

/// The right to start or to shut down; dropping it gives it back. Whoever has it calls no callback of the data store.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.at_work.lock() = None;
        self.0.changed.notify_all();
    }
}

impl Turns {
    /// Waits for whoever is at work, unless `leaves_to` is.
    fn take(&self, work: Work, leaves_to: Option<Work>) -> Option<Turn<'_>> {
        let mut at_work = self.at_work.lock();
        while at_work.is_some() {
            if *at_work == leaves_to {
                return None;
            }
            self.changed.wait(&mut at_work);
        }
        *at_work = Some(work);
        Some(Turn(self))
    }
}

impl Datastore {
    /// The turn to start. After a shutdown that was called within a callback it waits for the end of that callback,
    /// which still belongs to the former run.
    ///
    /// # Errors
    /// [`Error::WrongState`] within a callback.
    pub(crate) fn turn_to_start(&self) -> Result<Turn<'_>> {
        let callbacks = &self.coordinator.callbacks;
        loop {
            let turn = match callbacks.is_calling() {
                true => None,
                false => self.turns.take(Work::Start, None),
            };
            let Some(turn) = turn else {
                return Err(Error::WrongState("a start is not possible within a callback".to_owned()));
            };
            if self.lifecycle.lock().state != State::Shutdown || !callbacks.is_running() {
                return Ok(turn);
            }
            drop(turn);
            callbacks.wait();
        }
    }

    /// The turn to shut down; `None` when that was done, or when it is being done by somebody who waits for the
    /// callback that this is called from.
    pub(crate) fn turn_to_shut_down(&self) -> Option<Turn<'_>> {
        let callbacks = &self.coordinator.callbacks;
        let leaves_to = callbacks.is_calling().then_some(Work::Shutdown);
        let turn = self.turns.take(Work::Shutdown, leaves_to)?;
        if self.lifecycle.lock().state != State::Shutdown {
            return Some(turn);
        }
        drop(turn);
        // The one within which it was done may still run.
        callbacks.wait();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::Settings;
    use crate::vfs::SimFs;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_shutdown_waits_for_the_start_that_is_at_work() {
        let store = Datastore::open(Settings::new("/log").vfs(Arc::new(SimFs::new()))).unwrap();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let turn = store.turn_to_start().unwrap();
            let shutting_down = scope.spawn(|| {
                store.shutdown();
                ended.store(true, SeqCst);
            });
            let started = store.ready_in(&turn, |_| {
                std::thread::sleep(Duration::from_millis(30));
                assert!(!store.coordinator.is_shut_down() && !ended.load(SeqCst));
                Ok(())
            });
            started.unwrap();
            store.switch_epoch(crate::types::Epoch(2)).unwrap();
            drop(turn);
            shutting_down.join().unwrap();
        });
        assert_eq!(store.lifecycle.lock().state, State::Shutdown);
    }

    #[test]
    fn a_rotation_that_a_shutdown_overtakes_fails() {
        let store = Datastore::open(Settings::new("/log").vfs(Arc::new(SimFs::new()))).unwrap();
        let channel = store.create_channel().unwrap();
        store.ready().unwrap();
        // As far as a shutdown comes while somebody else holds the life cycle.
        store.coordinator.shut_down();
        channel.close();
        assert!(matches!(store.rotate(), Err(Error::WrongState(_))), "the file of the channel has its name still");
    }
}

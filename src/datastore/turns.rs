// SPDX-License-Identifier: Apache-2.0
//! Starts and shutdowns of one data store take turns: none begins in the midst of another, and each finds what the one
//! before has left.
use crate::lock_order::{Condvar, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
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
    pub(super) fn take(&self, work: Work, leaves_to: Option<Work>) -> Option<Turn<'_>> {
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

// SPDX-License-Identifier: Apache-2.0
//! Keeps backups and those who delete or replace files apart.

use crate::lock_order::{Condvar, Mutex, Rank};
use std::sync::Arc;

/// The backups of one data store that are open, and whether somebody is replacing files. All calls may be made from any
/// thread.
#[derive(Debug)]
pub struct InProgress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    backups: usize,
    changing: bool,
}

/// An open backup; dropping it ends the backup.
#[derive(Debug)]
pub struct Ticket(Arc<InProgress>);

/// The right to delete and replace files of the directory; dropping it gives it back.
#[derive(Debug)]
pub struct Change<'a>(&'a InProgress);

impl Default for InProgress {
    fn default() -> InProgress {
        InProgress { state: Mutex::new(Rank::Backups, State::default()), changed: Condvar::new() }
    }
}

impl InProgress {
    /// Begins a backup. Waits while files are being replaced, which is a matter of moments.
    pub fn begin(self: &Arc<Self>) -> Ticket {
        let mut state = self.state.lock();
        while state.changing {
            self.changed.wait(&mut state);
        }
        state.backups += 1;
        log::info!("Beginning backup; active backup count: {}", state.backups);
        Ticket(self.clone())
    }

    /// The number of open backups.
    pub fn count(&self) -> usize {
        self.state.lock().backups
    }

    /// Takes the right to delete and replace files that a backup may list: no backup begins while it is held. `None`
    /// while a backup is open, or somebody else holds it.
    pub fn try_change(&self) -> Option<Change<'_>> {
        let mut state = self.state.lock();
        if state.backups > 0 || state.changing {
            return None;
        }
        state.changing = true;
        Some(Change(self))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.backups -= 1;
        log::info!("Ending backup; active backup count: {}", state.backups);
        self.0.changed.notify_all();
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.state.lock().changing = false;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn files_are_replaced_only_while_no_backup_is_open_and_none_begins_meanwhile() {
        let gate = Arc::new(InProgress::default());
        let (first, second) = (gate.begin(), gate.begin());
        assert_eq!(gate.count(), 2);
        assert!(gate.try_change().is_none());
        drop(first);
        assert!(gate.try_change().is_none());
        drop(second);
        let change = gate.try_change().expect("no backup is open");
        assert!(gate.try_change().is_none(), "one at a time");
        std::thread::scope(|scope| {
            let begun = scope.spawn(|| drop(gate.begin()));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!begun.is_finished(), "the backup waits");
            drop(change);
        });
        assert_eq!(gate.count(), 0);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The copy of a manifest must not speak of a journal, which is not copied: while a backup is open none is in use. That
//! holds for the run in which it began and for those that begin before it ends.

use super::journaling::Journaling;
use crate::error::Result;
use crate::lock_order::{Mutex, Rank};
use crate::wal::journal::Pause;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Pauses(Arc<Mutex<Paused>>);

#[derive(Debug, Default)]
struct Paused {
    backups: usize,
    /// Of the journal of the present run.
    pause: Option<Pause>,
}

/// While it lives no journal is in use.
#[derive(Debug)]
pub(super) struct WithoutJournal(Arc<Mutex<Paused>>);

impl Default for Pauses {
    fn default() -> Pauses {
        Pauses(Arc::new(Mutex::new(Rank::Pauses, Paused::default())))
    }
}

impl Pauses {
    /// Everything in the journal is settled when this returns.
    pub(super) fn begin(&self, journaling: Option<Arc<Journaling>>) -> Result<WithoutJournal> {
        let mut paused = self.0.lock();
        if let (None, Some(journaling)) = (&paused.pause, journaling) {
            paused.pause = Some(journaling.journal.pause()?);
        }
        paused.backups += 1;
        Ok(WithoutJournal(self.0.clone()))
    }

    /// To be called for the journal of a new run, before anything goes through it.
    pub(super) fn follow(&self, journaling: &Journaling) -> Result<()> {
        let mut paused = self.0.lock();
        paused.pause = match paused.backups {
            0 => None,
            _ => Some(journaling.journal.pause()?),
        };
        Ok(())
    }
}

impl Drop for WithoutJournal {
    fn drop(&mut self) {
        let mut paused = self.0.lock();
        paused.backups -= 1;
        if paused.backups == 0 {
            paused.pause = None;
        }
    }
}

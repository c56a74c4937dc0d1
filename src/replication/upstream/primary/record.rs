// SPDX-License-Identifier: Apache-2.0
//! What is kept on the disk of what the replica has: what it has confirmed, seldom, because a run that finds less than
//! the truth only sends more; and, while much waits for it, up to which epoch it was asked to have more, so that a run
//! that follows a kill need not send all of it before anything counts again.

use super::core::{Phase, Shared, State};
use crate::error::Result;
use crate::types::Epoch;
use crate::wal::confirmed::{self, Noted};
use std::time::{Duration, Instant};

/// How often what the replica has confirmed is put on the disk.
const INTERVAL: Duration = Duration::from_millis(500);

impl Shared {
    /// Changes what the file says.
    pub(super) fn note(&self, change: impl FnOnce(Noted) -> Noted) -> Result<()> {
        let mut kept = self.kept.lock();
        let now = change(kept.noted);
        // After a failure nobody knows what stands there.
        if now == kept.noted && !kept.failed {
            return Ok(());
        }
        let saved = confirmed::save(&*self.vfs, &self.location, now);
        match &saved {
            Ok(()) => kept.noted = now,
            Err(e) if !kept.failed => {
                log::warn!("replication: what the replica has confirmed cannot be kept, more is sent again later: {e}");
            }
            Err(_) => {}
        }
        kept.failed = saved.is_err();
        saved
    }

    /// To be called before a group commit of `epoch` is sent. While much waits behind it, none above `far` is sent
    /// before this is called again.
    pub(super) fn note_before_commit(&self, epoch: Epoch, far: Option<Epoch>) -> Result<()> {
        self.note(|noted| match noted.asked {
            Some(asked) if epoch <= asked => noted,
            _ => Noted { asked: far, ..noted },
        })
    }

    /// To be called while nothing is sent: notes all that is known.
    pub(super) fn note_all(&self) {
        let (confirmed, asked) = {
            let state = self.state.lock();
            (state.confirmed(), state.asked)
        };
        let all = |noted: Noted| Noted { confirmed: confirmed.max(noted.confirmed), asked: Some(asked), ..noted };
        // What is wrong has been logged, and a later run does without.
        let _ = self.note(all);
    }
}

impl State {
    /// What the replica has confirmed, to be noted.
    pub(super) fn confirmed(&self) -> Epoch {
        // A group commit that is sent early may be ahead of this side's disk. So are epochs without writes: after a
        // restart they come again, with other sessions.
        self.queue.complete().min(self.recorded)
    }
}

/// When what has been confirmed is noted.
pub(super) struct Record<'a> {
    shared: &'a Shared,
    saved: Epoch,
    at: Instant,
}

impl Record<'_> {
    pub(super) fn new(shared: &Shared) -> Record<'_> {
        Record { shared, saved: Epoch(0), at: Instant::now() }
    }

    /// In what time to call [`Self::note`], if at all.
    pub(super) fn due(&self, state: &State) -> Option<Duration> {
        let more = state.ready && state.phase != Phase::GivenUp && state.confirmed() > self.saved;
        more.then(|| INTERVAL.saturating_sub(self.at.elapsed()))
    }

    /// Notes what the replica has confirmed.
    pub(super) fn note(&mut self, confirmed: Epoch) {
        self.at = Instant::now();
        if self.shared.note(|noted| Noted { confirmed, ..noted }).is_ok() {
            self.saved = confirmed;
        }
    }
}

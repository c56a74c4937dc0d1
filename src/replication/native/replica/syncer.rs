// SPDX-License-Identifier: Apache-2.0
//! Syncs what comes on a lane while more of it comes. One sync serves everything that asked for it since the last one
//! began, so a replica that is behind syncs as often as its disk can. What has come and is not synced is bounded.

use super::end::End;
use crate::lock_order::{Condvar, Mutex};
use crate::types::Epoch;

/// So much is synced although nobody asks, so that little is left when the primary does.
const EAGER_BYTES: u64 = 8 << 20;
/// With so much more the lane takes nothing until a sync has ended: a COMMIT must not wait for a sync of all that
/// memory can hold.
const BEHIND_BYTES_MAX: u64 = 32 << 20;

/// What is asked of the thread that syncs a lane.
#[derive(Debug, Default)]
pub(super) struct Syncer {
    asked: Mutex<Asked>,
    /// Something was asked for.
    wake: Condvar,
    /// A sync has ended.
    synced: Condvar,
}

#[derive(Debug, Default)]
struct Asked {
    sync: bool,
    /// The last COMMIT, and the last BLOB that it needs.
    commit: Option<(Epoch, u64)>,
    /// Came since the last sync began.
    bytes: u64,
    closed: bool,
}

impl Syncer {
    /// Takes note of bytes that were appended; waits when there are too many.
    pub(super) fn appended(&self, bytes: u64) {
        let mut asked = self.asked.lock();
        asked.bytes += bytes;
        if asked.bytes >= EAGER_BYTES && !asked.sync {
            asked.sync = true;
            self.wake.notify_one();
        }
        while asked.bytes >= BEHIND_BYTES_MAX && !asked.closed {
            self.synced.wait(&mut asked);
        }
    }

    /// Asks for a sync of what was appended.
    pub(super) fn sync(&self) {
        self.asked.lock().sync = true;
        self.wake.notify_one();
    }

    /// Everything up to `epoch` was appended and is to be confirmed, together with the BLOBs up to number `blob_seq`.
    pub(super) fn commit(&self, epoch: Epoch, blob_seq: u64) {
        self.asked.lock().commit = Some((epoch, blob_seq));
        self.wake.notify_one();
    }

    /// Lets nobody wait any more.
    pub(super) fn close(&self) {
        self.asked.lock().closed = true;
        self.wake.notify_one();
        self.synced.notify_one();
    }

    /// Closes it when the result goes, also by a panic.
    pub(super) fn closes(&self) -> Closes<'_> {
        Closes(self)
    }

    /// Does what is asked for until it is closed, also what was asked for before. `sync` syncs what was appended, or
    /// only what an epoch needs, and is told how many bytes came since the last time; `committed` is told COMMITs whose
    /// sessions are synced. However this ends, nobody waits for it any more.
    pub(super) fn run(
        &self,
        mut sync: impl FnMut(Option<Epoch>, u64) -> Result<(), End>,
        mut committed: impl FnMut(Epoch, u64) -> Result<(), End>,
    ) -> Result<(), End> {
        let _closes = self.closes();
        while let Some(Work { all, commit, bytes }) = self.next() {
            let upto = commit.map(|(epoch, _)| epoch).filter(|_| !all);
            sync(upto, bytes)?;
            self.synced.notify_one();
            if let Some((epoch, blob_seq)) = commit {
                committed(epoch, blob_seq)?;
            }
        }
        Ok(())
    }

    /// Waits for something to do; `None` when nothing comes any more.
    fn next(&self) -> Option<Work> {
        let mut asked = self.asked.lock();
        while !asked.sync && asked.commit.is_none() {
            if asked.closed {
                return None;
            }
            self.wake.wait(&mut asked);
        }
        let (all, commit) = (std::mem::take(&mut asked.sync), asked.commit.take());
        Some(Work { all, commit, bytes: std::mem::take(&mut asked.bytes) })
    }
}

/// What [`Syncer::run`] does next.
struct Work {
    /// Everything is to be synced, also what no COMMIT asks for.
    all: bool,
    commit: Option<(Epoch, u64)>,
    bytes: u64,
}

/// Closes the syncer when it goes.
pub(super) struct Closes<'a>(&'a Syncer);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_for_a_sync_is_let_go_when_the_thread_that_syncs_panics() {
        let syncer = Syncer::default();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| syncer.run(|_, _| panic!("on purpose"), |_, _| Ok(())));
            syncer.appended(BEHIND_BYTES_MAX);
            assert!(thread.join().is_err());
        });
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Syncs what comes on a lane while more of it comes. One sync serves everything that asked for it since the last one
//! began, so a replica that is behind syncs as often as its disk can. What has come and is not synced is bounded.

use super::end::End;
use super::node::Node;
use super::session::Session;
use crate::replication::replica_store::LaneLog;
use crate::types::Epoch;
use parking_lot::{Condvar, Mutex};

/// So much is synced although nobody asks, so that little is left when the primary does.
const EAGER_BYTES: u64 = 8 << 20;
/// With so much more the lane takes nothing until a sync has ended: a COMMIT must not wait for a sync of all that memory
/// can hold.
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

    /// Does what is asked for until it is closed, also what was asked for before.
    pub(super) fn run(&self, node: &Node, session: &Session, lane: u32, log: &LaneLog) -> Result<(), End> {
        loop {
            let (sync, commit) = {
                let mut asked = self.asked.lock();
                while !asked.sync && asked.commit.is_none() && !asked.closed {
                    self.wake.wait(&mut asked);
                }
                if !asked.sync && asked.commit.is_none() {
                    return Ok(());
                }
                asked.bytes = 0;
                (std::mem::take(&mut asked.sync), asked.commit.take())
            };
            let synced = match commit {
                Some((epoch, _)) if !sync => log.sync_up_to(epoch),
                _ => log.sync(),
            };
            synced.map_err(|e| End::Told(node.failed(&e)))?;
            self.synced.notify_one();
            if let Some((epoch, blob_seq)) = commit {
                session.lane_synced(lane, epoch, blob_seq)?;
            }
        }
    }
}

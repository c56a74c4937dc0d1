// SPDX-License-Identifier: Apache-2.0
//! What the sessions with all replicas have in common: the data store, whom it tells, how many replicas must have an
//! epoch, and whether replication goes on.

use super::events::Events;
use super::taps::Taps;
use crate::datastore::Datastore;
use crate::replication::quorum::{Quorum, Seat};
use crate::replication::settings::ReplicationSettings;
use crate::types::Epoch;
use crate::wal::history_file::DirectoryHistory;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;

pub(super) struct Group {
    pub(super) store: Arc<Datastore>,
    pub(super) settings: ReplicationSettings,
    pub(super) state: DirectoryHistory,
    pub(super) quorum: Arc<Quorum>,
    pub(super) taps: Taps,
    /// What the thread that watches over all has to look at.
    pub(super) events: Events,
    stopping: AtomicBool,
    /// A replica has seen a later term.
    fenced: AtomicBool,
    /// Somebody waits for what the replicas confirm.
    awaited: AtomicBool,
}

impl Group {
    pub(super) fn new(store: Arc<Datastore>, settings: ReplicationSettings, state: DirectoryHistory) -> Group {
        let quorum = Arc::new(Quorum::new(settings.quorum, settings.replicas.len()));
        Group {
            store,
            settings,
            state,
            quorum,
            taps: Taps::default(),
            events: Events::default(),
            stopping: AtomicBool::new(false),
            fenced: AtomicBool::new(false),
            awaited: AtomicBool::new(false),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Nothing begins any more.
    pub(super) fn stop(&self) {
        self.stopping.store(true, SeqCst);
        self.events.wake();
    }

    pub(super) fn is_fenced(&self) -> bool {
        self.fenced.load(SeqCst)
    }

    /// One replica has seen a later term: this primary has been replaced, whatever the others say.
    pub(super) fn fence(&self, reason: &str) {
        self.store.fence(reason);
        self.fenced.store(true, SeqCst);
        self.events.wake();
    }

    /// A replica has confirmed more.
    pub(super) fn confirm(&self, seat: Seat, epoch: Epoch) {
        let reached = self.quorum.confirm(seat, epoch);
        if reached > self.store.propagated_epoch() {
            // After a shutdown or a failure nothing is acknowledged any more.
            let _ = self.store.confirm_propagated(reached);
        }
        if self.awaited.load(SeqCst) {
            self.events.wake();
        }
    }

    /// Whether somebody waits for what the replicas confirm.
    pub(super) fn set_awaited(&self, awaited: bool) {
        self.awaited.store(awaited, SeqCst);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! One tap of the data store for the sessions with all replicas: each gets everything, and none waits for another.

use super::feed::Pass;
use crate::datastore::{Datastore, EndedSession, Subscription, Tap};
use crate::error::Result;
use crate::lock_order::{Mutex, Rank};
use crate::replication::quorum::Quorum;
use crate::types::{Epoch, WriteVersion};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who is told, by the place of the replica in the settings.
pub(super) struct Taps(Mutex<BTreeMap<usize, Arc<Pass>>>);

impl Default for Taps {
    fn default() -> Taps {
        Taps(Mutex::new(Rank::Subscribers, BTreeMap::new()))
    }
}

impl Taps {
    /// Lets the pass of a session be told from now on, in place of an earlier one, and gives the log that was written
    /// before. To the others nothing is told twice or left out.
    pub(super) fn subscribe(
        &self,
        store: &Datastore,
        quorum: &Arc<Quorum>,
        (slot, pass): (usize, Pass),
    ) -> Result<Subscription> {
        let mut passes = self.0.lock();
        passes.insert(slot, Arc::new(pass));
        store.subscribe(Arc::new(Fan { passes: passes.values().cloned().collect(), quorum: quorum.clone() }))
    }

    /// The session has ended; its feed takes nothing any more.
    pub(super) fn remove(&self, store: &Datastore, slot: usize) {
        let mut passes = self.0.lock();
        if passes.remove(&slot).is_some() && passes.is_empty() {
            store.unsubscribe();
        }
    }
}

/// Tells all.
struct Fan {
    passes: Vec<Arc<Pass>>,
    quorum: Arc<Quorum>,
}

impl Tap for Fan {
    fn session_ended(&self, session: EndedSession) {
        self.passes.iter().for_each(|pass| pass.session_ended(session.clone()));
    }

    fn switched(&self, epoch: Epoch) {
        self.passes.iter().for_each(|pass| pass.feed().switched(epoch));
    }

    fn stored(&self, stored: Epoch, last_written: Option<Epoch>) -> Option<Epoch> {
        for pass in &self.passes {
            if let Some(propagated) = pass.feed().stored(stored, last_written) {
                self.quorum.confirm(pass.feed().seat(), propagated);
            }
        }
        Some(self.quorum.reached()).filter(|reached| *reached > Epoch(0))
    }

    fn boundary(&self, version: WriteVersion) {
        self.passes.iter().for_each(|pass| pass.feed().boundary(version));
    }

    fn safe_snapshot(&self, version: WriteVersion) {
        self.passes.iter().for_each(|pass| pass.feed().safe_snapshot(version));
    }
}

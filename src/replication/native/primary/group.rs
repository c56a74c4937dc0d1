// SPDX-License-Identifier: Apache-2.0
//! What the sessions with all replicas have in common: the data store, whom it tells, how many replicas must have an
//! epoch, and whether replication goes on.

use super::events::Events;
use super::taps::Taps;
use crate::datastore::Datastore;
use crate::error::{Error, Result};
use crate::lock_order::{Mutex, Rank};
use crate::replication::addresses::check_another;
use crate::replication::digests::MakesDigests;
use crate::replication::quorum::{Quorum, Seat};
use crate::replication::replica_store::directory_id;
use crate::replication::settings::{Mode, Replica, ReplicationSettings};
use crate::types::Epoch;
use crate::wal::history_file::DirectoryHistory;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;

pub(super) struct Group {
    pub(super) store: Arc<Datastore>,
    pub(super) settings: ReplicationSettings,
    pub(super) state: DirectoryHistory,
    pub(super) quorum: Arc<Quorum>,
    pub(super) taps: Taps,
    /// The replicas as they are now, by their places.
    roster: Mutex<BTreeMap<usize, Replica>>,
    /// What the thread that watches over all has to look at.
    pub(super) events: Events,
    stopping: AtomicBool,
    /// A replica has seen a later term.
    fenced: AtomicBool,
    /// Somebody waits for what the replicas confirm.
    awaited: AtomicBool,
    /// It was said that the term cannot be noted.
    told: AtomicBool,
    /// Makes digests for replicas, and whether it makes one: one at a time.
    pub(super) digests: Arc<dyn MakesDigests>,
    pub(super) making_digest: AtomicBool,
}

impl Group {
    pub(super) fn new(
        store: Arc<Datastore>,
        settings: ReplicationSettings,
        state: DirectoryHistory,
        digests: Arc<dyn MakesDigests>,
    ) -> Group {
        let quorum = Arc::new(Quorum::new(settings.quorum, settings.replicas.len()));
        if state.is_unknown() {
            quorum.hold(state.term_began_with());
        }
        let roster = Mutex::new(Rank::Roster, settings.replicas.iter().cloned().enumerate().collect());
        Group {
            store,
            settings,
            state,
            quorum,
            taps: Taps::default(),
            roster,
            events: Events::default(),
            stopping: AtomicBool::new(false),
            fenced: AtomicBool::new(false),
            awaited: AtomicBool::new(false),
            told: AtomicBool::new(false),
            digests,
            making_digest: AtomicBool::new(false),
        }
    }

    /// The replicas as they are now, by their places.
    pub(super) fn roster(&self) -> BTreeMap<usize, Replica> {
        self.roster.lock().clone()
    }

    /// The name of the replica at this place.
    fn name_at(&self, slot: usize) -> String {
        self.roster.lock().get(&slot).map_or_else(String::new, |replica| replica.name.clone())
    }

    /// What to say of one whose directory is that of the replica at this place, for all that anybody can tell.
    pub(super) fn counts_as_one(&self, other: usize) -> String {
        format!(
            "its directory is that of the replica {}, or neither tells which it is: both count as one (a copy of a \
             directory counts for itself when its file {} was deleted while nobody served it)",
            self.name_at(other),
            directory_id::NAME
        )
    }

    /// Whether the replica must be named where one is spoken of.
    pub(super) fn has_several(&self) -> bool {
        self.roster.lock().len() > 1
    }

    /// Takes one more replica in and returns its place.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when it cannot be told from another; [`Error::WrongState`] when replication has
    /// ended.
    pub(super) fn admit(&self, replica: &Replica) -> Result<usize> {
        let mut roster = self.roster.lock();
        self.check_going_on()?;
        check_another(roster.values(), replica).map_err(Error::InvalidArgument)?;
        let slot = self.quorum.admit();
        roster.insert(slot, replica.clone());
        Ok(slot)
    }

    /// Lets a replica go, which does not count from now on, and returns its place.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when there is none of that name; [`Error::WrongState`] when those that are left could
    /// not be enough, or replication has ended.
    pub(super) fn dismiss(&self, name: &str) -> Result<usize> {
        let mut roster = self.roster.lock();
        self.check_going_on()?;
        let Some(slot) = roster.iter().find_map(|(slot, replica)| (replica.name == name).then_some(*slot)) else {
            let names: Vec<&str> = roster.values().map(|replica| replica.name.as_str()).collect();
            let text = format!("there is no replica \"{name}\"; those are known: {}", names.join(", "));
            return Err(Error::InvalidArgument(text));
        };
        let (left, needed) = (roster.len() - 1, self.quorum.needed());
        if left < needed {
            return Err(Error::WrongState(format!(
                "the replica \"{name}\" cannot be removed: {left} would be left, and the quorum is {needed}, so \
                 nothing would be PROPAGATED any more; add another one first"
            )));
        }
        roster.remove(&slot);
        self.quorum.dismiss(slot);
        Ok(slot)
    }

    fn check_going_on(&self) -> Result<()> {
        let reason = match (self.is_stopping(), self.is_fenced()) {
            (true, _) => "it ends",
            (_, true) => "another primary has taken over",
            _ => return Ok(()),
        };
        Err(Error::WrongState(format!("replication takes no changes any more: {reason}")))
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

    /// Up to where the engine was told that everything is as durable as the policy promises: what a replica lacks of it
    /// is lost when it takes over. Without waiting for replicas that is only what they have by now.
    pub(super) fn acknowledged(&self) -> Epoch {
        let propagated = self.store.propagated_epoch();
        match self.settings.mode {
            Mode::Async => propagated,
            Mode::Strict | Mode::Degrade(_) => propagated.max(self.store.notified_epoch()),
        }
    }

    /// When as many replicas as are needed have noted the term, no other directory can come to the same one, and what
    /// they confirm begins to count. On the disk first, so that this directory claims the term from then on.
    pub(super) fn look_who_knows(&self) {
        if self.quorum.can_be_released() {
            match self.store.note_known_term() {
                Ok(()) => self.quorum.release(),
                // Tried again with whatever is confirmed next, and told once.
                Err(e) if !self.is_stopping() && !self.told.swap(true, SeqCst) => {
                    log::error!("replication: nothing is PROPAGATED: {e}");
                }
                Err(_) => {}
            }
        }
    }

    /// Whether somebody waits for what the replicas confirm.
    pub(super) fn set_awaited(&self, awaited: bool) {
        self.awaited.store(awaited, SeqCst);
    }
}

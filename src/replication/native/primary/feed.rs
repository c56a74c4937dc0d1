// SPDX-License-Identifier: Apache-2.0
//! What a session with a replica is told by the tap. While the replica catches up, what ends meanwhile waits here by
//! reference; then everything goes straight to the lanes. Too much of it ends the waiting, and the replica catches up
//! once more.

use super::blobs::Blobs;
use super::lane::Item;
use super::queue::Queue;
use crate::blob::BlobStore;
#[cfg(doc)]
use crate::datastore::Tap;
use crate::datastore::{Datastore, EndedSession};
use crate::lock_order::{Mutex, Rank};
use crate::replication::native::protocol::lane_order::lane_of;
use crate::replication::native::protocol::message::{Message, Reason};
use crate::replication::native::protocol::primary_session::{PrimaryEvent, PrimarySession};
use crate::replication::native::protocol::Millis;
use crate::replication::quorum::Seat;
use crate::types::{Epoch, WriteVersion};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Sessions that may wait while the replica catches up.
pub(super) const PENDING_MAX: usize = 1 << 16;
/// Items that may wait in a lane, and BLOBs.
pub(super) const QUEUED_MAX: usize = 1 << 18;

/// What a live session tells those who run it.
pub(super) trait Observer: Send + Sync {
    /// The queues are full: the session must end.
    fn overflowed(&self, limit: usize);
    /// There is something for the control connection.
    fn control(&self);
}

/// Versions that wait to be sent on the control connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Versions {
    pub boundary: Option<WriteVersion>,
    pub safe_snapshot: Option<WriteVersion>,
}

/// What a session with a replica is told.
pub(super) struct Feed {
    seat: Seat,
    /// Counts the passes of the catch-up; what an earlier one is told does not count.
    pass: AtomicU64,
    lanes: Vec<Arc<Queue<Item>>>,
    blobs: Arc<Blobs>,
    store: Weak<Datastore>,
    observer: Weak<dyn Observer>,
    begun: Instant,
    state: Mutex<State>,
    versions: Mutex<Versions>,
}

/// The feed from a pass of its catch-up on. Whatever ends is told to one pass of a feed at most.
pub(super) struct Pass {
    feed: Arc<Feed>,
    number: u64,
}

impl Pass {
    pub(super) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// A session is written. Never waits for the replica.
    pub(super) fn session_ended(&self, session: EndedSession) {
        self.feed.session_ended(self.number, session);
    }
}

#[derive(Debug)]
enum Phase {
    /// The replica catches up.
    Pending(VecDeque<EndedSession>),
    Streaming,
    Overflowed,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    machine: PrimarySession,
    /// The current epoch as far as a switch has been told.
    switched: Epoch,
    /// Lanes with sessions that the replica was not asked to sync.
    unsynced: Vec<bool>,
    /// Bytes of sessions by their epoch, ascending; a late session counts with the last epoch.
    unconfirmed: VecDeque<(Epoch, u64)>,
}

impl Feed {
    /// For the session of `machine`.
    pub(super) fn new(
        seat: Seat,
        lanes: Vec<Arc<Queue<Item>>>,
        blobs: Arc<Blobs>,
        store: &Arc<Datastore>,
        observer: Weak<dyn Observer>,
        machine: PrimarySession,
    ) -> Feed {
        let state = State {
            phase: Phase::Overflowed,
            machine,
            switched: Epoch(0),
            unsynced: vec![false; lanes.len()],
            unconfirmed: VecDeque::new(),
        };
        Feed {
            seat,
            pass: AtomicU64::new(0),
            lanes,
            blobs,
            store: Arc::downgrade(store),
            observer,
            begun: Instant::now(),
            state: Mutex::new(Rank::Feed, state),
            versions: Mutex::default(),
        }
    }

    /// What the session reports with.
    pub(super) fn seat(&self) -> Seat {
        self.seat
    }

    fn now(&self) -> Millis {
        self.begun.elapsed().as_millis() as Millis
    }

    /// Begins to keep what the result is told, for a replica that catches up.
    pub(super) fn begin_pass(self: &Arc<Feed>) -> Pass {
        let mut state = self.state.lock();
        state.phase = Phase::Pending(VecDeque::new());
        Pass { number: self.pass.fetch_add(1, SeqCst) + 1, feed: self.clone() }
    }

    /// Takes nothing any more.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        self.pass.fetch_add(1, SeqCst);
        state.phase = Phase::Overflowed;
    }

    /// Sends a session of the log; its epoch is stored. True when BLOBs of it are gone.
    pub(super) fn send_old(&self, session: EndedSession, blobs: &BlobStore) -> bool {
        let present = self.blobs.present(blobs, &session.blobs);
        let missing = present.len() < session.blobs.len();
        self.blobs.queue(&present);
        self.state.lock().note(&session);
        self.lanes[self.lane_of(session.channel)].push(Item::Session(session));
        missing
    }

    /// Every session of the log up to `epoch` has been sent: asks the replica to confirm that.
    pub(super) fn delivered(&self, epoch: Epoch) {
        let mut state = self.state.lock();
        state.machine.delivered(epoch);
        self.commit(&mut state);
    }

    /// Puts the commit that is due on every lane.
    fn commit(&self, state: &mut State) {
        if let Some(epoch) = state.machine.take_commit(self.now()) {
            let blob_seq = self.blobs.last();
            for lane in &self.lanes {
                lane.push(Item::Commit { epoch, blob_seq });
            }
        }
    }

    /// Asks the replica to sync what it has not been asked for.
    fn sync(&self, state: &mut State) {
        for (lane, unsynced) in self.lanes.iter().zip(&mut state.unsynced) {
            if std::mem::take(unsynced) {
                lane.push(Item::Sync);
            }
        }
    }

    /// Waits until no lane has more than `limit` items; false when it takes longer than `timeout`.
    pub(super) fn wait_for_room(&self, limit: usize, timeout: std::time::Duration) -> bool {
        self.lanes.iter().all(|lane| lane.wait_for_room(limit, timeout))
    }

    /// Sends `held`, then what has ended meanwhile, and from now on everything as it comes. False when too much has
    /// ended meanwhile: nothing is sent then.
    pub(super) fn go_live(&self, held: Vec<EndedSession>) -> bool {
        let held: Vec<_> = held.into_iter().map(|session| self.with_present_blobs(session)).collect();
        let mut state = self.state.lock();
        let Phase::Pending(pending) = std::mem::replace(&mut state.phase, Phase::Overflowed) else {
            return false;
        };
        for session in held.into_iter().chain(pending) {
            state.note(&session);
            self.send(session);
        }
        state.phase = Phase::Streaming;
        state.machine.go_live();
        self.commit(&mut state);
        true
    }

    fn lane_of(&self, channel: u32) -> usize {
        lane_of(channel, self.lanes.len() as u32) as usize
    }

    /// The session with those of its BLOBs that are there: all channels meet at the lock, under which no file is looked
    /// up.
    fn with_present_blobs(&self, session: EndedSession) -> EndedSession {
        match self.store.upgrade().filter(|_| !session.blobs.is_empty()) {
            Some(store) => EndedSession { blobs: self.blobs.present(store.blobs(), &session.blobs), ..session },
            None => session,
        }
    }

    /// Returns how many items wait, of the kind of which most do.
    fn send(&self, session: EndedSession) -> usize {
        let waiting = self.blobs.queue(&session.blobs);
        let (lane, len) = (&self.lanes[self.lane_of(session.channel)], session.len);
        waiting.max(lane.push_at_leisure(Item::Session(session), len))
    }

    fn overflow(&self, state: &mut State, limit: usize) {
        let former = std::mem::replace(&mut state.phase, Phase::Overflowed);
        // While the replica catches up, its present pass is of use; otherwise the session ends.
        if matches!(former, Phase::Streaming) {
            if let Some(observer) = self.observer.upgrade() {
                observer.overflowed(limit);
            }
        }
    }

    /// Takes a message of the control connection. Returns up to where the replica has everything, and what it said.
    pub(super) fn on_control(&self, message: Message) -> Result<(Epoch, PrimaryEvent), Reason> {
        let mut state = self.state.lock();
        let event = state.machine.on_control(message, self.now())?;
        let confirmed = state.machine.confirmed();
        while state.unconfirmed.front().is_some_and(|&(epoch, _)| epoch <= confirmed) {
            state.unconfirmed.pop_front();
        }
        Ok((state.machine.propagated(), event))
    }

    /// What the time asks for.
    pub(super) fn tick(&self, switched: Epoch) -> Result<Option<Message>, Reason> {
        let mut state = self.state.lock();
        state.machine.switched(switched);
        state.machine.tick(self.now())
    }

    /// What the replica is to be told of what the engine was told.
    pub(super) fn take_report(&self, acknowledged: Epoch) -> Option<Message> {
        let now = self.now();
        self.state.lock().machine.take_report(acknowledged, now)
    }

    /// Outside of what the tap tells: everything up to this epoch is stored.
    pub(super) fn has_stored(&self, epoch: Epoch) {
        self.state.lock().machine.stored(epoch, None);
    }

    /// What the replica has to be told before a COMMIT goes out on the first lane.
    pub(super) fn announce(&self) -> Option<Message> {
        let now = self.now();
        self.state.lock().machine.announce(now)
    }

    /// The replica has something of a base sync to take, from now on; or nothing, or its answer may take long.
    pub(super) fn expects(&self, something: bool) {
        let now = self.now();
        let machine = &mut self.state.lock().machine;
        match something {
            true => machine.expect(now),
            false => machine.expect_nothing(),
        }
    }

    /// Whether the replica has reported or confirmed anything in this session.
    pub(super) fn has_progressed(&self) -> bool {
        self.state.lock().machine.has_progressed()
    }

    /// Whether every session goes over as it ends.
    pub(super) fn is_streaming(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Streaming)
    }

    /// Up to where the replica has everything.
    pub(super) fn propagated(&self) -> Epoch {
        self.state.lock().machine.propagated()
    }

    /// The replica's durable epoch.
    pub(super) fn confirmed(&self) -> Epoch {
        self.state.lock().machine.confirmed()
    }

    /// Bytes of sessions that were given to their lanes and are not confirmed.
    pub(super) fn unconfirmed_bytes(&self) -> u64 {
        self.state.lock().unconfirmed.iter().map(|&(_, bytes)| bytes).sum()
    }

    /// Takes what waits for the control connection.
    pub(super) fn take_versions(&self) -> Versions {
        std::mem::take(&mut self.versions.lock())
    }

    fn set_version(&self, set: impl FnOnce(&mut Versions)) {
        set(&mut self.versions.lock());
        if let Some(observer) = self.observer.upgrade() {
            observer.control();
        }
    }
}

impl State {
    /// Counts the bytes of a session that is given to its lane.
    fn note(&mut self, session: &EndedSession) {
        match self.unconfirmed.back_mut() {
            Some((epoch, bytes)) if *epoch >= session.epoch => *bytes += session.len,
            _ => self.unconfirmed.push_back((session.epoch, session.len)),
        }
    }
}

/// As [`Tap`] has them.
impl Feed {
    fn session_ended(&self, pass: u64, session: EndedSession) {
        if self.pass.load(SeqCst) != pass {
            return;
        }
        let session = self.with_present_blobs(session);
        let mut state = self.state.lock();
        if self.pass.load(SeqCst) != pass {
            return;
        }
        match &mut state.phase {
            Phase::Pending(pending) if pending.len() < PENDING_MAX => pending.push_back(session),
            Phase::Pending(_) => self.overflow(&mut state, PENDING_MAX),
            Phase::Streaming => {
                state.note(&session);
                state.unsynced[self.lane_of(session.channel)] = true;
                let is_last_of_its_epoch = session.epoch < state.switched;
                if self.send(session) > QUEUED_MAX {
                    self.overflow(&mut state, QUEUED_MAX);
                } else if is_last_of_its_epoch {
                    self.sync(&mut state);
                }
            }
            Phase::Overflowed => {}
        }
    }

    pub(super) fn switched(&self, epoch: Epoch) {
        let mut state = self.state.lock();
        state.switched = epoch;
        if matches!(state.phase, Phase::Streaming) {
            self.sync(&mut state);
        }
    }

    pub(super) fn stored(&self, stored: Epoch, last_written: Option<Epoch>) -> Option<Epoch> {
        let mut state = self.state.lock();
        state.machine.stored(stored, last_written);
        if !matches!(state.phase, Phase::Streaming) {
            return None;
        }
        self.commit(&mut state);
        Some(state.machine.propagated())
    }

    pub(super) fn boundary(&self, version: WriteVersion) {
        // Switches at the same time may be told in any order.
        self.set_version(|versions| versions.boundary = versions.boundary.max(Some(version)));
    }

    pub(super) fn safe_snapshot(&self, version: WriteVersion) {
        self.set_version(|versions| versions.safe_snapshot = versions.safe_snapshot.max(Some(version)));
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;

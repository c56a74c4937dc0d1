// SPDX-License-Identifier: Apache-2.0
//! The session of the one primary: its connections, the threads that serve them, and how all of them end together.

use super::answers::Answers;
use super::end::End;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::recorder::Recorder;
use crate::lock_order::{Condvar, Mutex, Rank};
use crate::replication::native::protocol::message::{Message, PrimaryIdentity};
use crate::replication::native::protocol::replica_session::{ReplicaAction, ReplicaSession};
use crate::replication::native::protocol::Millis;
use crate::replication::net::connection::Closer;
use crate::replication::replica_store::{StandbyStore, SwitchedVersions};
use crate::types::Epoch;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For so long the reason of the primary is waited for when a data connection is gone: it was sent before the end.
const LAST_WORDS: Duration = Duration::from_millis(500);

const STORED_POLL: Duration = Duration::from_millis(5);

/// The session of a primary and its connections.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) machine: Mutex<ReplicaSession>,
    pub(super) store: Arc<StandbyStore>,
    pub(super) primary: PrimaryIdentity,
    control: Outgoing,
    /// Held while what the session says next is decided and sent.
    telling: Mutex<()>,
    closers: Mutex<Vec<Closer>>,
    /// Why it ended; the first reason counts.
    ended: Mutex<Option<End>>,
    end_signal: Condvar,
    /// Threads of its connections, but for the control connection's.
    threads: Mutex<usize>,
    idle: Condvar,
    /// When something came last, on the clock of the node.
    heard: AtomicU64,
    /// Bytes that came on the connections that joined, and how much of them was synced.
    received: Arc<AtomicU64>,
    synced: AtomicU64,
    pub(super) recorder: Recorder,
    pub(super) answers: Answers,
}

/// A thread of a connection that is a part of the session.
pub(super) struct Joined<'a>(&'a Session);

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        // The first reason counts: this one is that of a thread that panicked.
        self.0.end(End::Lost("a thread of the session has ended".to_owned()));
        *self.0.threads.lock() -= 1;
        self.0.idle.notify_all();
    }
}

impl Session {
    pub(super) fn new(
        machine: ReplicaSession,
        store: Arc<StandbyStore>,
        primary: PrimaryIdentity,
        control: Outgoing,
        now: Millis,
    ) -> Session {
        let closers = vec![control.closer()];
        Session {
            machine: Mutex::new(Rank::Leaf, machine),
            store,
            primary,
            control,
            telling: Mutex::new(Rank::Telling, ()),
            closers: Mutex::new(Rank::Leaf, closers),
            ended: Mutex::new(Rank::ServingEnd, None),
            end_signal: Condvar::new(),
            threads: Mutex::default(),
            idle: Condvar::new(),
            heard: AtomicU64::new(now),
            received: Arc::default(),
            synced: AtomicU64::new(0),
            recorder: Recorder::default(),
            answers: Answers::default(),
        }
    }

    /// Something came from the primary.
    pub(super) fn heard(&self, now: Millis) {
        self.heard.store(now, SeqCst);
        self.machine.lock().heard(now);
    }

    pub(super) fn silent_ms(&self, now: Millis) -> Millis {
        now.saturating_sub(self.heard.load(SeqCst))
    }

    /// Takes the connection of this thread into the session, of which it is a part until the guard goes: it is closed
    /// with it, and ends it. `None` when the session has ended.
    pub(super) fn join(&self, incoming: &mut Incoming) -> Option<Joined<'_>> {
        let ended = self.ended.lock();
        if ended.is_some() {
            return None;
        }
        self.closers.lock().push(incoming.out().closer());
        incoming.count(self.received.clone());
        *self.threads.lock() += 1;
        Some(Joined(self))
    }

    /// So much of what came was synced.
    pub(super) fn synced(&self, bytes: u64) {
        self.synced.fetch_add(bytes, SeqCst);
    }

    /// The primary's stored epoch. When it is below `epoch`, what it says next on the control connection is waited for,
    /// but not longer than `patience`: nothing orders the connections.
    pub(super) fn stored_by_primary(&self, epoch: Epoch, patience: Duration) -> Epoch {
        let deadline = Instant::now() + patience;
        loop {
            let (_, stored, _) = self.machine.lock().primary_epochs();
            if stored >= epoch || Instant::now() >= deadline || self.ended().is_some() {
                return stored;
            }
            std::thread::sleep(STORED_POLL);
        }
    }

    /// Does what the time asks for, see [`ReplicaSession::tick`].
    pub(super) fn tick(&self, now: Millis) -> std::result::Result<(), End> {
        // Until it is sent: a durable epoch must not be told behind a later one.
        let _telling = self.telling.lock();
        let action = {
            let mut machine = self.machine.lock();
            machine.progress(self.received.load(SeqCst), self.synced.load(SeqCst));
            machine.tick(now).map_err(End::of_reason)?
        };
        self.carry_out(action)
    }

    /// Confirms an epoch, the record of which is synced.
    pub(super) fn recorded(&self, epoch: Epoch, now: Millis) -> std::result::Result<(), End> {
        let _telling = self.telling.lock();
        let actions = self.machine.lock().recorded(epoch, now);
        self.carry_out(actions)
    }

    /// Waits for the threads of all connections that joined, and until what they were told to commit is recorded.
    /// Nothing is appended, synced or recorded for the session after that.
    pub(super) fn wait(&self) {
        let mut threads = self.threads.lock();
        while *threads > 0 {
            self.idle.wait(&mut threads);
        }
        drop(threads);
        self.recorder.finish();
    }

    /// Ends the session with its first reason; all its connections are closed.
    pub(super) fn end(&self, end: End) {
        let mut ended = self.ended.lock();
        if ended.is_some() {
            return;
        }
        if let End::Told(reason) = &end {
            // Who does not listen any more does not hear it.
            let _ = self.send(&Message::Error(reason.clone()));
        }
        *ended = Some(end);
        self.end_signal.notify_all();
        self.closers.lock().iter().for_each(Closer::close);
    }

    /// Ends the session because one of its data connections is gone, unless the primary says meanwhile on the control
    /// connection why.
    pub(super) fn lost(&self, reason: String) {
        let deadline = Instant::now() + LAST_WORDS;
        let mut ended = self.ended.lock();
        while ended.is_none() && !self.end_signal.wait_until(&mut ended, deadline).timed_out() {}
        drop(ended);
        self.end(End::Lost(reason));
    }

    pub(super) fn ended(&self) -> Option<End> {
        self.ended.lock().clone()
    }

    /// Sends on the control connection.
    pub(super) fn send(&self, message: &Message) -> std::io::Result<()> {
        self.control.send(message)
    }

    /// Everything up to `epoch` that came on the lane is synced, and a COMMIT asked for it.
    pub(super) fn lane_synced(&self, lane: u32, epoch: Epoch, blob_seq: u64) -> std::result::Result<(), End> {
        let action = self.machine.lock().lane_synced(lane, epoch, blob_seq).map_err(End::Told)?;
        self.carry_out(action)
    }

    /// Carries out what the session asks for, in its order; epochs are recorded by a thread of their own.
    pub(super) fn carry_out(&self, actions: impl IntoIterator<Item = ReplicaAction>) -> std::result::Result<(), End> {
        for action in actions {
            match action {
                ReplicaAction::Send(message) => {
                    self.send(&message).map_err(|e| End::Lost(format!("the primary cannot be told: {e}")))?;
                }
                ReplicaAction::Record(epoch) => self.recorder.record(epoch),
                ReplicaAction::Boundary(version) => {
                    self.store.raise_versions(SwitchedVersions { boundary: Some(version), ..Default::default() });
                }
                ReplicaAction::SafeSnapshot(version) => {
                    self.store.raise_versions(SwitchedVersions { safe_snapshot: Some(version), ..Default::default() });
                }
                ReplicaAction::Digest(answer) => self.answers.put(answer),
                ReplicaAction::Ended => return Err(End::Bye),
            }
        }
        Ok(())
    }
}

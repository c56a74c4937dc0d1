// SPDX-License-Identifier: Apache-2.0
//! The session of the one primary: its connections, the threads that serve them, and how all of them end together.

use super::end::End;
use super::recorder::Recorder;
use crate::replication::native::protocol::message::{Message, PrimaryIdentity};
use crate::replication::native::protocol::replica_session::{ReplicaAction, ReplicaSession};
use crate::replication::native::protocol::Millis;
use crate::replication::net::transport;
use crate::replication::replica_store::{StandbyStore, SwitchedVersions};
use crate::types::Epoch;
use parking_lot::{Condvar, Mutex};
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;

/// The session of a primary and its connections.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) machine: Mutex<ReplicaSession>,
    pub(super) store: Arc<StandbyStore>,
    pub(super) primary: PrimaryIdentity,
    control: Mutex<TcpStream>,
    streams: Mutex<Vec<TcpStream>>,
    /// Why it ended; the first reason counts.
    ended: Mutex<Option<End>>,
    /// Threads of its connections, but for the control connection's.
    threads: Mutex<usize>,
    idle: Condvar,
    /// When something came last, on the clock of the node.
    heard: AtomicU64,
    pub(super) recorder: Recorder,
}

impl Session {
    pub(super) fn new(
        machine: ReplicaSession,
        store: Arc<StandbyStore>,
        primary: PrimaryIdentity,
        control: TcpStream,
        now: Millis,
    ) -> std::io::Result<Session> {
        let streams = vec![control.try_clone()?];
        Ok(Session {
            machine: Mutex::new(machine),
            store,
            primary,
            control: Mutex::new(control),
            streams: Mutex::new(streams),
            ended: Mutex::default(),
            threads: Mutex::default(),
            idle: Condvar::new(),
            heard: AtomicU64::new(now),
            recorder: Recorder::default(),
        })
    }

    /// Something came from the primary.
    pub(super) fn heard(&self, now: Millis) {
        self.heard.store(now, SeqCst);
        self.machine.lock().heard(now);
    }

    pub(super) fn silent_ms(&self, now: Millis) -> Millis {
        now.saturating_sub(self.heard.load(SeqCst))
    }

    /// Takes a connection into the session: it is closed with it. False when the session has ended.
    pub(super) fn join(&self, stream: &TcpStream) -> std::io::Result<bool> {
        let ended = self.ended.lock();
        if ended.is_some() {
            return Ok(false);
        }
        self.streams.lock().push(stream.try_clone()?);
        *self.threads.lock() += 1;
        Ok(true)
    }

    /// The thread of a connection that joined ends.
    pub(super) fn leave(&self) {
        *self.threads.lock() -= 1;
        self.idle.notify_all();
    }

    /// Waits for the threads of all connections that joined, and until what they were told to commit is recorded. Nothing
    /// is appended, synced or recorded for the session after that.
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
        for stream in self.streams.lock().iter() {
            transport::close(stream);
        }
    }

    pub(super) fn ended(&self) -> Option<End> {
        self.ended.lock().clone()
    }

    /// Sends on the control connection.
    pub(super) fn send(&self, message: &Message) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.control.lock().write_all(&bytes)
    }

    /// Everything up to `epoch` that came on the lane is synced, and a COMMIT asked for it.
    pub(super) fn lane_synced(&self, lane: u32, epoch: Epoch, blob_seq: u64) -> std::result::Result<(), End> {
        let action = self.machine.lock().lane_synced(lane, epoch, blob_seq);
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
                ReplicaAction::Ended => return Err(End::Bye),
            }
        }
        Ok(())
    }
}

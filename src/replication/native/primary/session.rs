// SPDX-License-Identifier: Apache-2.0
//! One session with the replica, from connecting to its end: handshakes, the threads of its connections, catch-up, and
//! then waiting for the end, which whoever sees a failure first brings about for all.

use super::base_sync;
use super::blobs::Blobs;
use super::connection::{unexpected, Opening, Receiver, Sender};
use super::core::Core;
use super::end::End;
use super::feed::{Feed, Observer};
use super::lane::{Item, Lane};
use super::queue::Queue;
use crate::datastore::{EndedSession, Subscription, Tap};
use crate::replication::backlog::{Backlog, BacklogError, NotShippable};
use crate::replication::native::protocol::message::{
    Code, ConnectionKind, Message, Outcome, PrimaryIdentity, Reason, ReplicaIdentity, SessionId, Term, CHANNELS_MAX,
};
use crate::replication::native::protocol::primary_session::PrimarySession;
use crate::replication::net::transport;
use crate::replication::secret;
use crate::replication::status::LinkState;
use crate::types::{Epoch, WriteVersion};
use parking_lot::{Condvar, Mutex};
use std::cell::Cell;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

/// Sessions that wait in a lane while the replica catches up.
const CATCH_UP_QUEUE: usize = 1 << 10;
/// While the replica catches up it is asked to confirm after so many bytes.
const CATCH_UP_COMMIT_BYTES: u64 = 16 << 20;
/// Sessions above the stored epoch that a subscription may find.
const HELD_MAX: usize = 1 << 16;

thread_local! {
    static OWN_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// To be called first on each thread of replication.
pub(super) fn mark_own_thread() {
    OWN_THREAD.set(true);
}

/// Whether this is a thread of replication, which cannot wait for the end of all of them.
pub(super) fn is_own_thread() -> bool {
    OWN_THREAD.get()
}

/// A session; its threads share it.
pub(super) struct Session {
    core: Arc<Core>,
    id: SessionId,
    streams: Mutex<Vec<TcpStream>>,
    lanes: Mutex<Vec<Arc<Queue<Item>>>>,
    blobs: Arc<Blobs>,
    control: Mutex<Option<Sender>>,
    feed: Mutex<Option<Arc<Feed>>>,
    end: Mutex<Option<End>>,
    ended: Condvar,
    pub(super) sent_bytes: AtomicU64,
}

impl Observer for Session {
    fn overflowed(&self, limit: usize) {
        self.finish(End::TooSlow(limit));
    }

    fn control(&self) {
        self.core.wake();
    }
}

impl Session {
    pub(super) fn new(core: Arc<Core>) -> Result<Session, End> {
        Ok(Session {
            id: secret::random().map_err(|e| End::Local(e.to_string()))?,
            core,
            streams: Mutex::default(),
            lanes: Mutex::default(),
            blobs: Arc::new(Blobs::new()),
            control: Mutex::default(),
            feed: Mutex::default(),
            end: Mutex::default(),
            ended: Condvar::new(),
            sent_bytes: AtomicU64::new(0),
        })
    }

    /// Ends the session for all its threads. Only the first reason counts. Never blocks.
    pub(super) fn finish(&self, end: End) {
        let mut guard = self.end.lock();
        if guard.is_none() {
            *guard = Some(end);
        }
        drop(guard);
        self.streams.lock().iter().for_each(transport::close);
        self.lanes.lock().iter().for_each(|lane| lane.close());
        self.blobs.close();
        self.ended.notify_all();
    }

    fn check(&self) -> Result<(), End> {
        self.end.lock().clone().map_or(Ok(()), Err)
    }

    /// Makes a connection known, so that the end of the session ends it.
    fn register(&self, stream: &TcpStream) -> Result<(), End> {
        let clone = stream.try_clone().map_err(|e| End::Local(e.to_string()))?;
        self.streams.lock().push(clone);
        // The end may have come before.
        self.check().inspect_err(|_| transport::close(stream))
    }

    /// Runs the session and returns why it ended. All its threads have ended then.
    pub(super) fn run(self: &Arc<Self>) -> End {
        let mut threads = Vec::new();
        let end = match self.connect_and_send(&mut threads) {
            Ok(()) => {
                let mut end = self.end.lock();
                while end.is_none() {
                    self.ended.wait(&mut end);
                }
                end.clone().unwrap_or(End::Stopped)
            }
            Err(end) => end,
        };
        self.finish(end);
        self.core.store.unsubscribe();
        for thread in threads {
            // A thread that panicked has ended the session.
            let _ = thread.join();
        }
        *self.feed.lock() = None;
        self.end.lock().clone().unwrap_or(End::Stopped)
    }

    fn connect_and_send(self: &Arc<Self>, threads: &mut Vec<JoinHandle<()>>) -> Result<(), End> {
        let settings = &self.core.settings;
        let stream =
            transport::connect(&settings.endpoints, settings.timeout).map_err(|e| End::Unreachable(e.to_string()))?;
        let peer = stream.peer_addr().map_err(|e| End::Lost(e.to_string()))?;
        if !secret::is_peer_allowed(peer.ip(), &settings.secret, settings.allow_no_secret) {
            return Err(End::Local(format!(
                "{peer} is not on this machine and no secret is set: set TSURUGI_REPLICATION_SECRET_FILE on both sides, \
                 or TSURUGI_REPLICATION_ALLOW_NO_SECRET=1"
            )));
        }
        let identity = self.identity();
        let (sender, receiver, replica) = self.open(stream, ConnectionKind::Control, Some(&identity))?;
        let replica =
            replica.ok_or_else(|| End::Protocol("the Answer on the control connection is empty".to_owned()))?;
        self.core.connected(peer);
        if replica.outcome == Outcome::BaseSync {
            return self.base_sync(peer, sender, receiver, threads);
        }
        let feed = self.start_threads(peer, sender, receiver, (identity.stored, &replica), threads)?;
        self.catch_up(&feed, replica.durable)
    }

    fn identity(&self) -> PrimaryIdentity {
        let core = &self.core;
        PrimaryIdentity {
            uuid: core.store.instance_uuid().to_owned(),
            term: core.state.term,
            history: core
                .state
                .history
                .iter()
                .map(|term| Term { term: term.term, first_epoch: Epoch(term.first_epoch) })
                .collect(),
            stored: core.store.last_epoch(),
            oldest_shippable: core.oldest_shippable(),
            lanes: core.settings.lanes as u32,
            max_channels: CHANNELS_MAX,
            capabilities: 0,
        }
    }

    fn open(
        &self,
        stream: TcpStream,
        kind: ConnectionKind,
        primary: Option<&PrimaryIdentity>,
    ) -> Result<(Sender, Receiver, Option<ReplicaIdentity>), End> {
        self.register(&stream)?;
        let settings = &self.core.settings;
        let opening = Opening { secret: &settings.secret, session_id: self.id, timeout: settings.timeout };
        opening.open(stream, kind, primary).map_err(|end| match self.check() {
            // Closed by this side.
            Err(reason) => reason,
            Ok(()) => end,
        })
    }

    /// One more connection to the replica that answered on the control connection.
    fn join(&self, peer: SocketAddr, kind: ConnectionKind) -> Result<(Sender, Receiver), End> {
        let stream = transport::connect_address(peer, self.core.settings.timeout)
            .map_err(|e| End::Unreachable(format!("{kind}: {peer}: {e}")))?;
        let (sender, receiver, _) = self.open(stream, kind, None)?;
        Ok((sender, receiver))
    }

    fn spawn(
        self: &Arc<Self>,
        threads: &mut Vec<JoinHandle<()>>,
        name: &str,
        body: impl FnOnce(&Arc<Session>) -> Result<(), End> + Send + 'static,
    ) -> Result<(), End> {
        /// Ends the session also when the thread panics.
        struct Finish(Arc<Session>);
        impl Drop for Finish {
            fn drop(&mut self) {
                self.0.finish(End::Local("a thread of replication ended".to_owned()));
            }
        }
        let finish = Finish(self.clone());
        let thread = std::thread::Builder::new().name(format!("repl_{name}")).spawn(move || {
            mark_own_thread();
            let session = finish.0.clone();
            if let Err(end) = body(&session) {
                session.finish(end);
            }
        });
        threads.push(thread.map_err(|e| End::Local(format!("cannot start a thread: {e}")))?);
        Ok(())
    }

    fn start_threads(
        self: &Arc<Self>,
        peer: SocketAddr,
        sender: Sender,
        receiver: Receiver,
        (stored, replica): (Epoch, &ReplicaIdentity),
        threads: &mut Vec<JoinHandle<()>>,
    ) -> Result<Arc<Feed>, End> {
        let mut lanes = Vec::new();
        for number in 0..self.core.settings.lanes as u32 {
            // Nothing comes back on a lane.
            let (sender, _) = self.join(peer, ConnectionKind::Lane(number))?;
            let lane = Lane::new(sender, replica.max_channels.min(CHANNELS_MAX));
            let queue = Arc::new(Queue::new());
            lanes.push(queue.clone());
            self.lanes.lock().push(queue.clone());
            self.spawn(threads, &format!("lane_{number}"), move |session| {
                lane.run(&queue, |bytes, commit| session.sent(bytes, commit))
            })?;
        }
        let (mut blob_sender, _) = self.join(peer, ConnectionKind::Blob)?;
        self.spawn(threads, "blobs", move |session| {
            let store = &session.core.store;
            let moved = |bytes| session.moved(bytes);
            session.blobs.send(&mut blob_sender, store.vfs(), store.blobs(), moved)
        })?;
        let observer: Weak<dyn Observer> = Arc::downgrade(&(self.clone() as Arc<dyn Observer>));
        let timeout = self.core.settings.timeout.as_millis() as u64;
        let machine = PrimarySession::new(stored, replica, timeout, 0);
        let feed = Arc::new(Feed::new(lanes, self.blobs.clone(), &self.core.store, observer, machine));
        *self.feed.lock() = Some(feed.clone());
        *self.control.lock() = Some(sender);
        self.spawn(threads, "control", move |session| session.receive(receiver))?;
        self.check().map(|()| feed)
    }

    /// Sends what the replica lacks from the log, then lets everything through as it comes.
    fn catch_up(&self, feed: &Arc<Feed>, durable: Epoch) -> Result<(), End> {
        let mut above = durable;
        let mut told = false;
        let (begun, mut bytes) = (Instant::now(), 0);
        loop {
            self.core.store.unsubscribe();
            feed.begin_pass();
            let subscription = self.core.store.subscribe(feed.clone()).map_err(|e| End::Local(e.to_string()))?;
            if !std::mem::replace(&mut told, true) {
                // Later switches reach the tap.
                self.tell_versions(feed);
            }
            let stored_before = subscription.stored_before;
            let (held, sent) = self.send_log(feed, subscription, above)?;
            bytes += sent;
            if held.len() <= HELD_MAX && feed.go_live(held) {
                self.core.streaming(durable, bytes, begun.elapsed());
                return Ok(());
            }
            // Everything up to the stored epoch has been sent, and nothing else; the next pass begins above it.
            above = above.max(stored_before);
        }
    }

    /// Lets the replica know the versions that were switched to before the session.
    fn tell_versions(&self, feed: &Feed) {
        let boundary = self.core.store.available_boundary_version();
        if boundary > WriteVersion::default() {
            feed.boundary(boundary);
        }
        if let Some(snapshot) = self.core.store.safe_snapshot() {
            feed.safe_snapshot(snapshot.version);
        }
    }

    /// Sends the stored sessions of the log above an epoch; returns the others and the bytes that were sent.
    fn send_log(&self, feed: &Feed, subscription: Subscription, above: Epoch) -> Result<(Vec<EndedSession>, u64), End> {
        let stored_before = subscription.stored_before;
        let source = Backlog::new(subscription, above).map_err(|e| self.not_shippable(e, above))?;
        let (mut held, mut total, mut pending, mut last) = (Vec::new(), 0, 0, None);
        // BLOBs that are gone belong to entries that later ones have replaced: only with those the replica is right.
        let mut hold_commits = false;
        let mut from = above;
        loop {
            let mut window = source.window(from).map_err(|e| self.not_shippable(e, from))?;
            if window.bytes > 0 {
                self.core.set_state(LinkState::CatchUp);
            }
            while let Some(session) = source.next(&mut window) {
                if session.epoch > stored_before {
                    held.push(session);
                    if held.len() > HELD_MAX {
                        break;
                    }
                    continue;
                }
                if let Some(last) = last.filter(|&last| last < session.epoch && pending >= CATCH_UP_COMMIT_BYTES) {
                    if !hold_commits {
                        feed.delivered(last);
                        pending = 0;
                    }
                }
                while !feed.wait_for_room(CATCH_UP_QUEUE, self.core.settings.timeout) {
                    self.check()?;
                }
                self.check()?;
                (total, pending, last) = (total + session.len, pending + session.len, Some(session.epoch));
                hold_commits |= feed.send_old(session, self.core.store.blobs());
            }
            match window.rest_above {
                Some(rest) if held.len() <= HELD_MAX => from = rest,
                _ => break,
            }
        }
        if last.is_some() {
            feed.delivered(stored_before);
        }
        Ok((held, total))
    }

    fn not_shippable(&self, error: BacklogError, above: Epoch) -> End {
        match error {
            BacklogError::NotShippable(reason) => {
                let oldest = match reason {
                    NotShippable::Compacted { compacted, .. } => compacted,
                    NotShippable::Unended { epoch, .. } => epoch,
                    NotShippable::BeforeFirstEpoch { .. } => Epoch(1),
                };
                End::NotShippable { oldest: Epoch(oldest.max(above).0 + 1), reason: reason.to_string() }
            }
            other => End::Local(other.to_string()),
        }
    }

    fn base_sync(
        self: &Arc<Self>,
        peer: SocketAddr,
        sender: Sender,
        receiver: Receiver,
        threads: &mut Vec<JoinHandle<()>>,
    ) -> Result<(), End> {
        self.core.set_state(LinkState::BaseSync);
        let (mut base, mut answers) = self.join(peer, ConnectionKind::Base)?;
        *self.control.lock() = Some(sender);
        self.spawn(threads, "control", move |session| session.receive(receiver))?;
        let store = &self.core.store;
        let backup = store.begin_detailed_backup(self.core.settings.timeout).map_err(|e| End::Local(e.to_string()))?;
        let files: Vec<PathBuf> = backup.files().iter().map(|file| file.source.clone()).collect();
        let moved = |bytes| self.moved(bytes);
        let sent = base_sync::send(store.vfs(), store.location(), &files, (&mut base, &mut answers), moved);
        match sent {
            Ok(()) => Err(End::BaseSynced),
            // When the other side ended the session it said why on the control connection.
            Err(end) => Err(self.check().err().unwrap_or(end)),
        }
    }

    fn feed(&self) -> Option<Arc<Feed>> {
        self.feed.lock().clone()
    }

    /// What comes on the control connection.
    fn receive(&self, mut receiver: Receiver) -> Result<(), End> {
        loop {
            let message = receiver.next()?;
            self.core.heard();
            let Some(feed) = self.feed() else {
                match message {
                    // A base sync goes on.
                    Message::Alive { .. } => continue,
                    other => return Err(unexpected(other, "an Alive")),
                }
            };
            let (propagated, ended) = feed.on_control(message).map_err(|reason| match reason.code {
                Code::PROTOCOL => End::Protocol(reason.text),
                _ => End::Ended(reason),
            })?;
            if ended {
                return Err(End::Ended(Reason::new(Code::SHUTDOWN, "it ends")));
            }
            if propagated > self.core.store.propagated_epoch() {
                // After a shutdown or a failure nothing is acknowledged any more.
                let _ = self.core.store.confirm_propagated(propagated);
                self.core.progressed();
            }
        }
    }

    /// A lane has sent so much.
    fn sent(&self, bytes: u64, commit: Option<Epoch>) {
        self.sent_bytes.fetch_add(bytes, SeqCst);
        if let Some(feed) = self.feed() {
            feed.sent(commit);
        }
    }

    /// Bytes of a BLOB or a file went over.
    fn moved(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, SeqCst);
        if let Some(feed) = self.feed() {
            feed.moved();
        }
    }

    /// To be called now and then: shows the replica that this side is alive, and looks whether its epoch moves.
    pub(super) fn tick(&self) {
        if self.end.lock().is_some() {
            return;
        }
        let store = &self.core.store;
        let (switched, stored) = (store.switched_epoch(), store.last_epoch());
        let mut messages = Vec::new();
        match self.feed() {
            Some(feed) => {
                let versions = feed.take_versions();
                messages.extend(versions.boundary.map(|version| Message::Boundary { version }));
                messages.extend(versions.safe_snapshot.map(|version| Message::SafeSnapshot { version }));
                match feed.tick(switched) {
                    Ok(heartbeat) => messages.extend(heartbeat),
                    Err(reason) => return self.finish(End::Stalled(reason)),
                }
            }
            None => messages.push(Message::Heartbeat { switched, stored, written: None }),
        }
        if let Err(end) = messages.iter().try_for_each(|message| self.send_control(message)) {
            self.finish(end);
        }
    }

    /// Up to where the replica has everything, when there is a session.
    pub(super) fn propagated(&self) -> Option<Epoch> {
        self.feed().map(|feed| feed.propagated())
    }

    /// The replica's durable epoch, when there is a session.
    pub(super) fn confirmed(&self) -> Option<Epoch> {
        self.feed().map(|feed| feed.confirmed())
    }

    /// Bytes that were given to the lanes and are not confirmed.
    pub(super) fn unconfirmed_bytes(&self) -> u64 {
        self.feed().map_or(0, |feed| feed.unconfirmed_bytes())
    }

    /// Whether every session goes over as it ends.
    pub(super) fn is_streaming(&self) -> bool {
        self.feed().is_some_and(|feed| feed.is_streaming())
    }

    fn send_control(&self, message: &Message) -> Result<(), End> {
        match &mut *self.control.lock() {
            Some(sender) => sender.send(message),
            None => Ok(()),
        }
    }

    /// Ends the session in good order.
    pub(super) fn say_goodbye(&self) {
        // The replica sees the end of the connection in any case.
        let _ = self.send_control(&Message::Bye);
        self.finish(End::Stopped);
    }
}

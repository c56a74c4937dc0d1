// SPDX-License-Identifier: Apache-2.0
//! One session with the replica: its connections with their handshakes, its threads, and its end, which whoever sees a
//! failure first brings about for all.

use super::blobs::Blobs;
use super::connection::{self, Receiver, Sender};
use super::core::Core;
use super::digest_desk::Digests;
use super::end::End;
use super::feed::{Feed, Observer};
use super::lane::{Item, Lane};
use super::queue::Queue;
use crate::error::catch_panic;
use crate::lock_order::{Condvar, Mutex, Rank};
use crate::replication::native::protocol::handshake::{PrimaryHandshake, Terms};
use crate::replication::native::protocol::message::{
    Code, ConnectionKind, DigestMessage, Message, Nonce, Outcome, PrimaryIdentity, Reason, ReplicaIdentity, SessionId,
    CHANNELS_MAX,
};
use crate::replication::native::protocol::primary_session::{PrimaryEvent, PrimarySession};
use crate::replication::net::connection::{Closer, Connection};
use crate::replication::net::deadline::Deadline;
use crate::replication::net::dial;
use crate::replication::quorum::Seat;
use crate::replication::secret;
use crate::types::Epoch;
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections that are opened at a time.
const JOINING_MAX: usize = 8;
/// For so long the replica's reason is waited for when a connection is gone: it was sent before the end.
const LAST_WORDS: Duration = Duration::from_millis(500);

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

/// For so many time-outs a connection for data may take nothing. Sooner the replica is lost when it does not tell on
/// the control connection that it does anything.
const UNTAKEN_TIMEOUTS: u32 = 10;

/// What a session is for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Base {
    /// It sends the log.
    #[default]
    None,
    /// A base sync; which files is not known yet.
    Preparing,
    /// Files whose content ends with this epoch: the replica will need the log beyond it.
    Files(Epoch),
}

/// A session; its threads share it.
pub(super) struct Session {
    pub(super) core: Arc<Core>,
    id: SessionId,
    /// The host in the address of the replica.
    host: Mutex<String>,
    closers: Mutex<Vec<Closer>>,
    lanes: Mutex<Vec<Arc<Queue<Item>>>>,
    blobs: Arc<Blobs>,
    control: Mutex<Option<Sender>>,
    feed: Mutex<Option<Arc<Feed>>>,
    end: Mutex<Option<End>>,
    ended: Condvar,
    base: Mutex<Base>,
    /// Connections that are being opened.
    joining: Mutex<usize>,
    joined: Condvar,
    progressed: AtomicBool,
    pub(super) digests: Digests,
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
            host: Mutex::default(),
            closers: Mutex::default(),
            lanes: Mutex::new(Rank::SessionLanes, Vec::new()),
            blobs: Arc::new(Blobs::new()),
            control: Mutex::new(Rank::Control, None),
            feed: Mutex::new(Rank::FeedSlot, None),
            end: Mutex::default(),
            ended: Condvar::new(),
            base: Mutex::new(Rank::Base, Base::None),
            joining: Mutex::default(),
            joined: Condvar::new(),
            progressed: AtomicBool::new(false),
            digests: Digests::default(),
        })
    }

    /// Ends the session for all its threads. Only the first reason counts. Never blocks.
    pub(super) fn finish(&self, end: End) {
        let mut guard = self.end.lock();
        if guard.is_none() {
            *guard = Some(end);
        }
        drop(guard);
        self.closers.lock().iter().for_each(Closer::close);
        self.lanes.lock().iter().for_each(|lane| lane.close());
        self.blobs.close();
        self.digests.close();
        self.ended.notify_all();
    }

    /// Ends the session because a thread of it cannot go on. When its connection is gone, the replica may have said why
    /// on the control connection.
    pub(super) fn lost(&self, reason: End) {
        if matches!(reason, End::Lost(_)) {
            self.wait_for_end_until(Instant::now() + LAST_WORDS);
        }
        self.finish(reason);
    }

    /// Waits for the end of the session.
    pub(super) fn wait_for_end(&self) {
        let mut end = self.end.lock();
        while end.is_none() {
            self.ended.wait(&mut end);
        }
    }

    /// Waits for the end of the session, at most until then.
    pub(super) fn wait_for_end_until(&self, deadline: Instant) {
        let mut end = self.end.lock();
        while end.is_none() && !self.ended.wait_until(&mut end, deadline).timed_out() {}
    }

    pub(super) fn check(&self) -> Result<(), End> {
        self.end.lock().clone().map_or(Ok(()), Err)
    }

    /// Makes a connection known, so that the end of the session ends it.
    fn register(&self, connection: &Connection) -> Result<(), End> {
        self.closers.lock().push(connection.closer());
        // The end may have come before.
        self.check().inspect_err(|_| connection.closer().close())
    }

    /// Waits for the end and returns why it came. All threads of the session have ended then.
    pub(super) fn finished(&self, threads: Vec<JoinHandle<()>>) -> End {
        self.core.group.taps.remove(&self.core.store, self.core.slot);
        for thread in threads {
            // Its panics are caught.
            let _ = thread.join();
        }
        self.digests.join();
        if let Some(feed) = self.feed.lock().take() {
            feed.close();
            self.progressed.store(feed.has_progressed(), SeqCst);
        }
        self.end.lock().clone().unwrap_or(End::Stopped)
    }

    pub(super) fn identity(&self) -> PrimaryIdentity {
        let core = &self.core;
        PrimaryIdentity {
            uuid: core.store.instance_uuid().to_owned(),
            term: core.state.term,
            history: core.state.history.clone(),
            stored: core.store.last_epoch(),
            oldest_shippable: core.oldest_shippable(),
            lanes: core.settings.lanes as u32,
            max_channels: CHANNELS_MAX,
            capabilities: if core.group.quorum.is_unknown() { PrimaryIdentity::TERM_UNKNOWN } else { 0 },
        }
    }

    /// Opens one connection of the session. `primary` is sent on the control connection.
    pub(super) fn open(
        &self,
        connection: Connection,
        kind: ConnectionKind,
        primary: Option<&PrimaryIdentity>,
    ) -> Result<(Sender, Receiver, Option<ReplicaIdentity>), End> {
        self.register(&connection)?;
        let closer = connection.closer();
        self.shake_hands(connection, kind, primary).map_err(|end| {
            // The session may go on with another address, and knows of this one to its end.
            closer.close();
            // Closed by this side.
            self.check().err().unwrap_or(end)
        })
    }

    fn shake_hands(
        &self,
        connection: Connection,
        kind: ConnectionKind,
        primary: Option<&PrimaryIdentity>,
    ) -> Result<(Sender, Receiver, Option<ReplicaIdentity>), End> {
        let settings = &self.core.settings;
        let connection = match &settings.tls {
            Some(certificates) => {
                let host = self.host.lock().clone();
                let secured = certificates.connect(connection, &host, Deadline::after(settings.timeout));
                secured.map_err(|e| End::of_io(&e, settings.timeout))?
            }
            None => connection,
        };
        let (secret, version_min) = (settings.secret.clone(), settings.version_min);
        let terms = Terms { secret, version_min, is_protected: settings.tls.is_some() };
        let nonce: Nonce = secret::random().map_err(|e| End::Local(e.to_string()))?;
        let handshake = PrimaryHandshake::start(kind, self.id, nonce, terms, primary.cloned());
        connection::open(connection, settings.timeout, handshake)
    }

    /// Under which name the replica was found that is tried now.
    pub(super) fn set_host(&self, host: &str) {
        host.clone_into(&mut self.host.lock());
    }

    /// One more connection to the replica that answered on the control connection.
    pub(super) fn join(&self, peer: SocketAddr, kind: ConnectionKind) -> Result<(Sender, Receiver), End> {
        let connection = dial::connect(peer, self.core.settings.timeout)
            .map_err(|e| End::Unreachable(format!("{kind}: {peer}: {e}")))?;
        let (mut sender, receiver, _) = self.open(connection, kind, None)?;
        if kind != ConnectionKind::Base {
            sender.wait_longer(UNTAKEN_TIMEOUTS);
        }
        Ok((sender, receiver))
    }

    pub(super) fn spawn(
        self: &Arc<Self>,
        threads: &mut Vec<JoinHandle<()>>,
        name: &str,
        body: impl FnOnce(&Arc<Session>) -> Result<(), End> + Send + 'static,
    ) -> Result<(), End> {
        /// Ends the session with the thread.
        struct Finish(Arc<Session>);
        impl Drop for Finish {
            fn drop(&mut self) {
                self.0.finish(End::Local("a thread of replication ended".to_owned()));
            }
        }
        let finish = Finish(self.clone());
        let name = format!("repl_{name}");
        let what = format!("the thread {name}");
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            mark_own_thread();
            let session = finish.0.clone();
            match catch_panic(&what, || body(&session)) {
                Ok(Ok(())) => {}
                Ok(Err(end)) => session.lost(end),
                // What the replica has confirmed is asked anew by the next session; nothing of this one counts.
                Err(panic) => session.lost(End::Local(panic.to_string())),
            }
        });
        threads.push(thread.map_err(|e| End::Local(format!("cannot start a thread: {e}")))?);
        Ok(())
    }

    /// Makes known what sends and hears from now on.
    pub(super) fn begin(
        self: &Arc<Self>,
        control: Sender,
        (primary, replica): (&PrimaryIdentity, &ReplicaIdentity),
        lanes: usize,
    ) -> Result<Arc<Feed>, End> {
        let observer: Weak<dyn Observer> = Arc::downgrade(&(self.clone() as Arc<dyn Observer>));
        let timeout = self.core.settings.timeout.as_millis() as u64;
        let machine = PrimarySession::new(primary.stored, replica, timeout, 0);
        let lanes: Vec<_> = (0..lanes).map(|_| Arc::new(Queue::new())).collect();
        *self.lanes.lock() = lanes.clone();
        let feed = Arc::new(Feed::new(
            self.take_seat(primary, replica)?,
            lanes,
            self.blobs.clone(),
            &self.core.store,
            observer,
            machine,
        ));
        *self.control.lock() = Some(control);
        *self.feed.lock() = Some(feed.clone());
        // The end may have come before the queues could be closed with it.
        self.check().map(|()| feed)
    }

    /// From now on what this session confirms counts, and nothing else of the same directory.
    fn take_seat(&self, primary: &PrimaryIdentity, replica: &ReplicaIdentity) -> Result<Seat, End> {
        let core = &self.core;
        // What is replaced by a base sync is not taken over when this primary is lost meanwhile.
        let has = if replica.outcome == Outcome::BaseSync { Epoch(0) } else { replica.durable };
        let (seat, other) = core.group.quorum.begin(core.slot, replica.directory, has, primary.is_unknown());
        if let Some(other) = other {
            log::warn!("{}: {}", core.label(), core.group.counts_as_one(other));
        }
        core.group.look_who_knows();
        Ok(seat)
    }

    /// Opens the lanes and the connection for BLOBs, several at a time; what is to be sent on them may wait already.
    pub(super) fn join_lanes(
        self: &Arc<Self>,
        peer: SocketAddr,
        channels_max: u32,
        threads: &mut Vec<JoinHandle<()>>,
    ) -> Result<(), End> {
        let lanes = self.lanes.lock().clone();
        for (number, queue) in lanes.into_iter().enumerate() {
            self.spawn(threads, &format!("lane_{number}"), move |session| {
                let (sender, _) = session.join_in_turn(peer, ConnectionKind::Lane(number as u32))?;
                Lane::new(sender, channels_max).run(&queue, || match number {
                    0 => session.announce(),
                    _ => Ok(()),
                })
            })?;
        }
        self.spawn(threads, "blobs", move |session| {
            let (mut sender, _) = session.join_in_turn(peer, ConnectionKind::Blob)?;
            let store = &session.core.store;
            session.blobs.send(&mut sender, store.vfs(), store.blobs())
        })
    }

    /// As [`Self::join`]; of all threads that call this, a few join at a time.
    fn join_in_turn(&self, peer: SocketAddr, kind: ConnectionKind) -> Result<(Sender, Receiver), End> {
        let mut joining = self.joining.lock();
        while *joining == JOINING_MAX {
            self.joined.wait(&mut joining);
        }
        *joining += 1;
        drop(joining);
        let result = self.check().and_then(|()| self.join(peer, kind));
        *self.joining.lock() -= 1;
        self.joined.notify_one();
        result
    }

    fn feed(&self) -> Option<Arc<Feed>> {
        self.feed.lock().clone()
    }

    /// What comes on the control connection; `hear` takes what is about digests.
    pub(super) fn receive(
        &self,
        mut receiver: Receiver,
        feed: &Feed,
        hear: impl Fn(DigestMessage) -> Result<(), End>,
    ) -> Result<(), End> {
        loop {
            let message = receiver.next()?;
            self.core.heard();
            let (propagated, event) = feed.on_control(message).map_err(|reason| match reason.code {
                Code::PROTOCOL => End::Protocol(reason.text),
                _ => End::Ended(reason),
            })?;
            match event {
                PrimaryEvent::Ended => return Err(End::Ended(Reason::new(Code::SHUTDOWN, "it ends"))),
                PrimaryEvent::Digest(asks) => hear(asks)?,
                PrimaryEvent::Alive | PrimaryEvent::Confirmed(_) => {}
            }
            self.core.group.confirm(feed.seat(), propagated);
            self.check_counted(feed)?;
        }
    }

    /// Tells the replica what is stored, before a COMMIT or the files of a base sync say so.
    pub(super) fn announce(&self) -> Result<(), End> {
        // Held until it is sent: epochs must not be told in another order.
        let mut control = self.control.lock();
        match (&mut *control, self.feed().and_then(|feed| feed.announce())) {
            (Some(control), Some(message)) => control.send(&message),
            _ => Ok(()),
        }
    }

    /// Sends on the control connection, when there is one.
    pub(super) fn say(&self, message: &Message) -> Result<(), End> {
        self.control.lock().as_mut().map_or(Ok(()), |control| control.send(message))
    }

    /// Whether the replica may ask what this side has.
    pub(super) fn takes_digests(&self) -> bool {
        self.control.lock().as_ref().is_some_and(Sender::takes_digests)
    }

    /// To be called now and then: shows the replica that this side is alive, and looks whether it takes what it gets.
    pub(super) fn tick(&self) {
        let Some(feed) = self.feed().filter(|_| self.end.lock().is_none()) else { return };
        if let Err(end) = self.tell(&feed).and_then(|()| self.check_counted(&feed)) {
            self.finish(end);
        }
    }

    /// A base sync goes on: a session follows it anyway.
    fn check_counted(&self, feed: &Feed) -> Result<(), End> {
        let sends_log = matches!(*self.base.lock(), Base::None);
        match sends_log && self.core.group.quorum.has_to_begin_again(feed.seat()) {
            true => Err(End::NotCounted),
            false => Ok(()),
        }
    }

    fn tell(&self, feed: &Feed) -> Result<(), End> {
        let mut control = self.control.lock();
        let Some(control) = &mut *control else { return Ok(()) };
        let versions = feed.take_versions();
        let heartbeat = feed.tick(self.core.store.switched_epoch()).map_err(End::Stalled)?;
        let report = control.takes_reports().then(|| feed.take_report(self.core.group.acknowledged())).flatten();
        let boundary = versions.boundary.map(|version| Message::Boundary { version });
        let safe_snapshot = versions.safe_snapshot.map(|version| Message::SafeSnapshot { version });
        let messages = boundary.into_iter().chain(safe_snapshot).chain(heartbeat).chain(report);
        messages.into_iter().try_for_each(|message| control.send(&message))
    }

    /// Up to where the replica has everything, when there is a session.
    pub(super) fn propagated(&self) -> Option<Epoch> {
        self.feed().map(|feed| feed.propagated())
    }

    /// The same with what the session reports with.
    pub(super) fn standing(&self) -> Option<(Seat, Epoch)> {
        self.feed().map(|feed| (feed.seat(), feed.propagated()))
    }

    /// From where on the log must be kept for the replica, when there is a session that tells.
    pub(super) fn confirmed(&self) -> Option<Epoch> {
        match *self.base.lock() {
            Base::None => self.feed().map(|feed| feed.confirmed()),
            Base::Preparing => None,
            Base::Files(epoch) => Some(epoch),
        }
    }

    /// What became of a base sync.
    pub(super) fn set_base(&self, base: Base) {
        *self.base.lock() = base;
    }

    /// Whether the replica has reported or confirmed anything.
    pub(super) fn has_progressed(&self) -> bool {
        self.progressed.load(SeqCst)
    }

    /// Bytes that were given to the lanes and are not confirmed.
    pub(super) fn unconfirmed_bytes(&self) -> u64 {
        self.feed().map_or(0, |feed| feed.unconfirmed_bytes())
    }

    /// Whether every session goes over as it ends.
    pub(super) fn is_streaming(&self) -> bool {
        self.feed().is_some_and(|feed| feed.is_streaming())
    }

    /// Ends the session in good order.
    pub(super) fn say_goodbye(&self) {
        // First, so that a replica that closes its side at once is not taken for one that was lost.
        self.end.lock().get_or_insert(End::Stopped);
        // The replica sees the end of the connection in any case.
        if let Some(control) = &mut *self.control.lock() {
            let _ = control.send(&Message::Bye);
        }
        self.finish(End::Stopped);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What a primary's replication threads would do for one replica.

use crate::base::BaseSync;
use crate::link::{Arrival, End};
use crate::setup::{Sabotage, Setup, TIMEOUT};
use crate::tap::{expected, seen, Event, Fan, Queue, Step, QUEUE_MAX};
use limestone_core::datastore::{Datastore, EndedSession};
use limestone_core::replication::backlog::{Backlog, BacklogError, Window};
use limestone_core::replication::native::protocol::frame::LogFrame;
use limestone_core::replication::native::protocol::handshake::{PrimaryHandshake, PrimaryStep};
use limestone_core::replication::native::protocol::lane_order::lane_of;
use limestone_core::replication::native::protocol::message::{
    BlobPiece, Code, ConnectionKind, Message, Outcome, PrimaryIdentity, Reason, ReplicaIdentity, SessionId,
};
use limestone_core::replication::native::protocol::primary_session::PrimarySession;
use limestone_core::replication::native::protocol::Millis;
use limestone_core::replication::quorum::{Quorum, Seat};
use limestone_core::replication::secret::Secret;
use limestone_core::types::Epoch;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What all links of a primary share.
pub struct Shared {
    pub store: Arc<Datastore>,
    pub setup: Setup,
    pub quorum: Quorum,
    /// Whom the data store tells, by machine.
    pub taps: BTreeMap<usize, Arc<Queue>>,
    /// What was stored and propagated when it was told that another primary has taken over.
    pub fenced: Option<(Epoch, Epoch)>,
}

impl Shared {
    /// As a primary does when a replica has noted its term.
    fn look_who_knows(&self) {
        if self.quorum.can_be_released() && self.store.note_known_term().is_ok() {
            self.quorum.release();
        }
    }
}

/// The link to one replica.
pub struct Feeder {
    link: Link,
    session_id: SessionId,
    /// What the replica was told to be stored when the link was opened.
    stored: Epoch,
    /// What the replica was told of the term, without a mistake.
    told_unknown: bool,
    /// The machine that the link goes to.
    pub peer: usize,
    /// The log has something before this epoch that cannot be sent.
    oldest_shippable: Epoch,
    /// The replica has something that is not in the history of this primary, and is not accepted.
    pub diverged: bool,
    /// How often a replica could not follow and was put back to catch-up.
    pub demotions: u64,
}

/// A session with the replica after the handshake of its control connection.
struct Open {
    control: End,
    lanes: Vec<Lane>,
    blobs: Lane,
    /// The number of the last BLOB that was sent.
    blob_seq: u64,
    session: PrimarySession,
    source: Backlog,
    window: Window,
    /// The session of the window that is sent next.
    next: Option<EndedSession>,
    stored_before: Epoch,
    queue: Arc<Queue>,
    seat: Seat,
    /// With the mistake, the replica has another one.
    second_seat: Option<Seat>,
}

pub struct Lane {
    pub end: End,
    /// Gone when the replica has accepted the lane.
    pub handshake: Option<PrimaryHandshake>,
    announced: BTreeSet<u32>,
}

enum Link {
    Down,
    Shaking(Box<(End, PrimaryHandshake)>),
    Open(Box<Open>),
    Base(Box<BaseSync>),
}

impl Feeder {
    pub fn new(peer: usize) -> Feeder {
        let (link, session_id, stored, oldest_shippable) = (Link::Down, [0; 16], Epoch(0), Epoch(0));
        Feeder { link, session_id, stored, told_unknown: false, peer, oldest_shippable, diverged: false, demotions: 0 }
    }

    /// Whether the log goes over it.
    pub fn is_open(&self) -> bool {
        matches!(self.link, Link::Open(_))
    }

    pub fn is_connected(&self) -> bool {
        !matches!(self.link, Link::Down)
    }

    /// Opens the control connection.
    pub fn connect(&mut self, shared: &mut Shared, session_id: SessionId, end: End) {
        self.hang_up(shared, false);
        let Some(known) = shared.store.history() else { return };
        let is_unknown = shared.quorum.is_unknown() && shared.setup.sabotage != Some(Sabotage::NotToldUnknown);
        self.told_unknown = shared.quorum.is_unknown();
        self.stored = shared.store.last_epoch();
        let identity = PrimaryIdentity {
            uuid: shared.store.instance_uuid().to_owned(),
            term: known.term,
            history: seen(&known.history, shared.setup),
            stored: self.stored,
            oldest_shippable: self.oldest_shippable.max(shared.store.compacted_epoch().next()),
            lanes: shared.setup.lanes,
            max_channels: shared.setup.channels as u32,
            capabilities: if is_unknown { PrimaryIdentity::TERM_UNKNOWN } else { 0 },
        };
        self.session_id = session_id;
        let (handshake, hello) =
            PrimaryHandshake::start(ConnectionKind::Control, session_id, [1; 32], Secret::default(), Some(identity));
        end.send(&hello);
        self.link = Link::Shaking(Box::new((end, handshake)));
    }

    /// Ends the session; `silently` lets the replica find out by itself.
    pub fn hang_up(&mut self, shared: &mut Shared, silently: bool) {
        if shared.taps.remove(&self.peer).is_some() && shared.taps.is_empty() {
            shared.store.unsubscribe();
        }
        match std::mem::replace(&mut self.link, Link::Down) {
            Link::Down => {}
            Link::Shaking(shaking) if silently => shaking.0.vanish(),
            Link::Open(open) if silently => {
                open.control.vanish();
                open.lanes.into_iter().chain([open.blobs]).for_each(|lane| lane.end.vanish());
            }
            Link::Base(base) if silently => base.vanish(),
            _ => {}
        }
    }

    /// Reads what has arrived and sends what can be sent. `lane_ends` gives a new connection to the replica.
    pub fn poll(&mut self, shared: &mut Shared, now: Millis, connect: &mut dyn FnMut() -> End) -> Step {
        match &mut self.link {
            Link::Down => Ok(()),
            Link::Shaking(shaking) => {
                let (end, handshake) = &mut **shaking;
                let step = match end.read()? {
                    Arrival::Nothing => return Ok(()),
                    Arrival::Over => Ok(PrimaryStep::Refused(Reason::new(Code::BUSY, "the connection is over"))),
                    Arrival::Message(message) => handshake.on_message(message),
                };
                match step {
                    Ok(PrimaryStep::Send(message)) => end.send(&message),
                    Ok(PrimaryStep::Accepted(Some(replica))) => self.open(shared, replica, now, connect)?,
                    Ok(PrimaryStep::Accepted(None)) => return Err("the replica did not say who it is".to_owned()),
                    Ok(PrimaryStep::Refused(reason)) | Err(reason) => {
                        self.hang_up(shared, false);
                        self.refused(shared, &reason);
                        expected(reason)?;
                    }
                }
                Ok(())
            }
            Link::Base(base) => {
                if base.poll(&shared.store, shared.setup, now)? {
                    self.hang_up(shared, false);
                }
                Ok(())
            }
            Link::Open(open) => match open.poll(shared, now)? {
                Next::GoOn => Ok(()),
                Next::End => {
                    self.hang_up(shared, false);
                    Ok(())
                }
                Next::Demote => {
                    self.demotions += 1;
                    self.hang_up(shared, false);
                    Ok(())
                }
            },
        }
    }

    fn refused(&mut self, shared: &mut Shared, reason: &Reason) {
        self.diverged |= reason.code == Code::DIVERGED;
        if reason.code == Code::FENCED && shared.fenced.is_none() {
            if shared.setup.sabotage != Some(Sabotage::FencedGoesOn) {
                shared.store.fence(&reason.text);
            }
            shared.fenced = Some((shared.store.last_epoch(), shared.store.propagated_epoch()));
        }
    }

    fn open(
        &mut self,
        shared: &mut Shared,
        replica: ReplicaIdentity,
        now: Millis,
        connect: &mut dyn FnMut() -> End,
    ) -> Step {
        let Link::Shaking(shaking) = std::mem::replace(&mut self.link, Link::Down) else { return Ok(()) };
        let (control, _) = *shaking;
        self.diverged = false;
        let mut join = |kind| {
            let end = connect();
            let (handshake, hello) = PrimaryHandshake::start(kind, self.session_id, [2; 32], Secret::default(), None);
            end.send(&hello);
            Lane { end, handshake: Some(handshake), announced: BTreeSet::new() }
        };
        let is_base_sync = replica.outcome == Outcome::BaseSync;
        let (seat, second_seat) = self.take_seat(shared, &replica);
        if is_base_sync {
            let session = PrimarySession::new(shared.store.last_epoch(), &replica, TIMEOUT, now);
            // The disk may have lost its power.
            if let Ok(base) = BaseSync::begin(&shared.store, control, join(ConnectionKind::Base), session) {
                self.link = Link::Base(Box::new(base));
            }
            return Ok(());
        }
        let queue = Arc::new(Queue::default());
        shared.taps.insert(self.peer, queue.clone());
        let fan = Fan(shared.taps.values().cloned().collect());
        let Ok(subscription) = shared.store.subscribe(Arc::new(fan)) else { return Ok(()) };
        let stored_before = subscription.stored_before;
        // A disk that has lost its power cannot be read either.
        let backlog = Backlog::new(subscription, replica.durable);
        let read = backlog.and_then(|source| source.window(replica.durable).map(|window| (source, window)));
        let (source, window) = match read {
            Ok(read) => read,
            Err(BacklogError::NotShippable(_)) => {
                self.oldest_shippable = replica.durable.next().next();
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        let lanes = (0..shared.setup.lanes).map(|number| join(ConnectionKind::Lane(number))).collect();
        let blobs = join(ConnectionKind::Blob);
        let mut session = PrimarySession::new(self.stored, &replica, TIMEOUT, now);
        // What the subscription itself says; the rest is looked at when the log has been sent.
        if let Some(Event::Stored(stored, last_written)) = queue.0.lock().unwrap().pop_front() {
            session.stored(stored, last_written);
        }
        let mut open = Open {
            seat,
            second_seat,
            control,
            lanes,
            blobs,
            blob_seq: 0,
            session,
            source,
            window,
            next: None,
            stored_before,
            queue,
        };
        open.next = open.source.next(&mut open.window);
        self.link = Link::Open(Box::new(open));
        Ok(())
    }

    /// With the mistake, the replica has another one.
    fn take_seat(&self, shared: &Shared, replica: &ReplicaIdentity) -> (Seat, Option<Seat>) {
        let Shared { quorum, setup, .. } = shared;
        let has = if replica.outcome == Outcome::BaseSync { Epoch(0) } else { replica.durable };
        let begin = |slot, directory| quorum.begin(slot, directory, has, self.told_unknown).0;
        let twice = setup.sabotage == Some(Sabotage::CountTwice);
        let seats =
            (begin(self.peer, replica.directory), twice.then(|| begin(quorum.admit(), u64::MAX - replica.directory)));
        shared.look_who_knows();
        seats
    }
}

enum Next {
    GoOn,
    End,
    Demote,
}

impl Open {
    fn poll(&mut self, shared: &Shared, now: Millis) -> Result<Next, String> {
        let Shared { store, setup, quorum, .. } = shared;
        loop {
            let message = match self.control.read()? {
                Arrival::Message(message) => message,
                Arrival::Nothing => break,
                Arrival::Over => return Ok(Next::End),
            };
            if let Err(reason) = self.session.on_control(message, now) {
                return expected(reason).map(|()| Next::End);
            }
        }
        for lane in self.lanes.iter_mut().chain([&mut self.blobs]) {
            let message = match lane.end.read()? {
                Arrival::Message(message) => message,
                Arrival::Nothing => continue,
                Arrival::Over => return Ok(Next::End),
            };
            let Some(handshake) = &mut lane.handshake else { return Err(format!("{message:?} on a lane")) };
            match handshake.on_message(message) {
                Ok(PrimaryStep::Send(message)) => lane.end.send(&message),
                Ok(PrimaryStep::Accepted(_)) => lane.handshake = None,
                Ok(PrimaryStep::Refused(reason)) | Err(reason) => return expected(reason).map(|()| Next::End),
            }
        }
        self.session.switched(store.switched_epoch());
        match self.session.tick(now) {
            Ok(message) => message.iter().for_each(|message| self.control.send(message)),
            Err(reason) => return expected(reason).map(|()| Next::End),
        }
        let report = self.session.take_report(store.propagated_epoch(), now);
        report.iter().for_each(|message| self.control.send(message));
        let is_open = self.lanes.iter().chain([&self.blobs]).all(|lane| lane.handshake.is_none());
        if is_open && !self.pump(store, *setup, now) {
            return Ok(Next::End);
        }
        let propagated = match setup.sabotage {
            Some(Sabotage::PropagateWhatIsStored) => store.last_epoch(),
            _ => self.session.propagated(),
        };
        let seats = [Some(self.seat), self.second_seat];
        let reached = seats.into_iter().flatten().map(|seat| quorum.confirm(seat, propagated)).max();
        let _ = store.confirm_propagated(reached.unwrap_or_default());
        let _ = store.drain();
        if quorum.has_to_begin_again(self.seat) {
            return Ok(Next::End);
        }
        let queued = self.queue.0.lock().unwrap().len();
        Ok(if queued > QUEUE_MAX { Next::Demote } else { Next::GoOn })
    }

    /// Puts sessions and COMMITs on the lanes while there is room; false when the disk cannot be read.
    fn pump(&mut self, store: &Datastore, setup: Setup, now: Millis) -> bool {
        while !self.lanes.iter().chain([&self.blobs]).any(|lane| lane.end.is_full()) {
            if setup.sabotage == Some(Sabotage::SkipCatchUp) {
                self.next = None;
            }
            if let Some(session) = self.next.take() {
                if !self.ship(store, &session, setup) {
                    return false;
                }
                self.next = self.source.next(&mut self.window);
                // An epoch that was not stored then may have more sessions behind the window.
                let is_last = self.next.as_ref().is_none_or(|next| next.epoch > session.epoch);
                if is_last && session.epoch <= self.stored_before {
                    self.session.delivered(session.epoch);
                }
                self.commit(now);
                continue;
            }
            if !self.session.is_live() {
                if setup.sabotage == Some(Sabotage::CommitWithoutRecord) {
                    self.session.stored(self.stored_before, Some(self.stored_before));
                }
                self.session.delivered(self.stored_before);
                self.commit(now);
                self.session.go_live();
            }
            let event = self.queue.0.lock().unwrap().pop_front();
            match event {
                Some(Event::Session(session)) => {
                    if setup.sabotage == Some(Sabotage::CommitBeforeSession) {
                        self.session.stored(session.epoch, Some(session.epoch));
                        self.commit(now);
                    }
                    if !self.ship(store, &session, setup) {
                        return false;
                    }
                    if setup.sabotage == Some(Sabotage::CommitBeforeStored) {
                        self.session.stored(session.epoch, Some(session.epoch));
                        self.commit(now);
                    }
                }
                Some(Event::Switched) => self.lanes.iter().for_each(|lane| lane.end.send(&Message::Sync)),
                Some(Event::Stored(stored, last_written)) => {
                    self.session.stored(stored, last_written);
                    self.commit(now);
                }
                None => break,
            }
        }
        true
    }

    fn commit(&mut self, now: Millis) {
        if let Some(epoch) = self.session.take_commit(now) {
            self.session.announce(now).iter().for_each(|message| self.control.send(message));
            self.lanes.iter().for_each(|lane| lane.end.send(&Message::Commit { epoch, blob_seq: self.blob_seq }));
        }
    }

    fn ship(&mut self, store: &Datastore, session: &EndedSession, setup: Setup) -> bool {
        for &id in session.blobs.iter() {
            let Ok(content) = store.vfs().read(&store.blobs().file(id).0, 1 << 20) else { return false };
            self.blob_seq += 1;
            let (seq, size, crc) = (self.blob_seq, content.len() as u64, crc32fast::hash(&content));
            let mut offset = 0;
            loop {
                let end = content.len().min(offset + setup.piece_bytes);
                let (bytes, last) = (content[offset..end].to_vec(), end == content.len());
                let crc = if last { crc } else { 0 };
                let piece = BlobPiece { seq, id, size, offset: offset as u64, last, crc, bytes };
                self.blobs.end.send(&Message::Blob(piece));
                offset = end;
                if last {
                    break;
                }
            }
        }
        let mut bytes = vec![0; session.len as usize];
        if !matches!(session.file.read_at(session.start, &mut bytes), Ok(read) if read == bytes.len()) {
            return false;
        }
        let lane = &mut self.lanes[lane_of(session.channel, setup.lanes) as usize];
        if lane.announced.insert(session.channel) {
            lane.end.send(&Message::Channel { channel: session.channel });
        }
        let pieces = bytes.chunks(setup.piece_bytes).count();
        for (number, piece) in bytes.chunks(setup.piece_bytes).enumerate() {
            let mut frame = Vec::new();
            LogFrame::around(session.epoch.0, session.channel, number == 0, number + 1 == pieces, piece)
                .write(&mut frame, piece)
                .expect("memory takes everything");
            lane.end.send_bytes(&frame);
        }
        true
    }
}

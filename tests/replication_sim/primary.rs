// SPDX-License-Identifier: Apache-2.0
//! The primary's process: a real data store on a simulated disk, and what its replication threads would do.

use crate::base::BaseSync;
use crate::link::{Arrival, End};
use crate::model::{Model, DATA, LOCATION, MARKERS};
use crate::setup::{Sabotage, Setup, TIMEOUT};
use crate::tap::{expected, seen, Event, Queue, Step, QUEUE_MAX};
use limestone_core::blob::BlobPool;
use limestone_core::datastore::{Channel, Datastore, EndedSession, Settings};
use limestone_core::replication::backlog::{Backlog, BacklogError, Window};
use limestone_core::replication::native::protocol::frame::LogFrame;
use limestone_core::replication::native::protocol::handshake::{PrimaryHandshake, PrimaryStep};
use limestone_core::replication::native::protocol::lane_order::lane_of;
use limestone_core::replication::native::protocol::message::{
    BlobPiece, Code, ConnectionKind, Message, Outcome, PrimaryIdentity, Reason, ReplicaIdentity, SessionId,
};
use limestone_core::replication::native::protocol::primary_session::PrimarySession;
use limestone_core::replication::native::protocol::Millis;
use limestone_core::replication::secret::Secret;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{SimFs, Vfs};
use limestone_core::wal::history_file::DirectoryHistory;
use limestone_core::wal::names;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

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

/// A session that is being written: its number in the model, and where its BLOB comes from.
type Writing = (usize, BlobPool);

pub struct Primary {
    pub store: Arc<Datastore>,
    channels: Vec<(Arc<Channel>, Option<Writing>)>,
    setup: Setup,
    link: Link,
    session_id: SessionId,
    /// The machine that the link goes to.
    pub peer: usize,
    minor: u64,
    /// The log has something before this epoch that cannot be sent.
    oldest_shippable: Epoch,
    /// With the mistake: the run, which is not on the disk yet, and the epoch after which it is.
    late: Option<(DirectoryHistory, Epoch)>,
    /// What was stored and propagated when it was told that another primary has taken over.
    pub fenced: Option<(Epoch, Epoch)>,
    /// The replica has something that is not in the history of this primary, and is not accepted.
    pub diverged: bool,
    /// How often a replica could not follow and was put back to catch-up.
    pub demotions: u64,
}

/// How a start of a primary ends.
pub enum Start {
    /// It runs; this was durable.
    Runs(Box<Primary>, Epoch),
    /// No primary may start on the directory.
    Refused(String),
}

impl Primary {
    /// Starts on what is on the disk, and compacts it first if it is told to.
    pub fn start(fs: &SimFs, setup: Setup, compact: bool) -> Result<Start, String> {
        let failed = |e| format!("the primary cannot start: {e}");
        let file = Path::new(LOCATION).join(names::HISTORY);
        let before = fs.files().get(&file).cloned();
        let settings = Settings::new(LOCATION).vfs(Arc::new(fs.clone())).replicated(true).recovery_threads(1);
        let store = Datastore::open(settings.commit(setup.commit)).map_err(failed)?;
        let channels = (0..setup.channels).map(|_| Ok((store.create_channel().map_err(failed)?, None)));
        let channels = channels.collect::<Result<_, String>>()?;
        let report = match store.ready() {
            Err(limestone_core::error::Error::WrongState(why)) => return Ok(Start::Refused(why)),
            other => other.map_err(failed)?,
        };
        store.blobs().wait_for_collection();
        let mut late = None;
        if setup.sabotage == Some(Sabotage::LateRun) {
            late = store.history().map(|history| (history, report.last_epoch));
            let undone = match before {
                Some(bytes) => fs.put(&file, &bytes),
                None => fs.unlink(&file),
            };
            undone.map_err(|e| e.to_string())?;
        }
        // Before the first switch nothing has to be waited for.
        if compact && store.switched_epoch() > Epoch(0) {
            store.compact().map_err(|e| format!("the primary cannot compact: {e}"))?;
        }
        let primary = Primary {
            store,
            channels,
            setup,
            link: Link::Down,
            session_id: [0; 16],
            peer: 0,
            minor: 0,
            oldest_shippable: Epoch(0),
            late,
            fenced: None,
            diverged: false,
            demotions: 0,
        };
        primary.switch();
        Ok(Start::Runs(Box::new(primary), report.durable_epoch))
    }

    /// With the mistake, the run comes to the disk when something of it is stored.
    pub fn save_late_run(&mut self) {
        let stored = self.store.last_epoch();
        if let Some((history, _)) = self.late.take_if(|(_, after)| stored > *after) {
            let _ = history.save(self.store.vfs(), self.store.location());
        }
    }

    /// The disk may fail in any of these; the world looks at the disk afterwards. Epochs that they complete are told
    /// when they return, so that the calls have one order.
    pub fn switch(&self) {
        let _ = self.store.switch_epoch(Epoch(self.store.switched_epoch().0 + 1));
        let _ = self.store.drain();
    }

    pub fn rotate(&self) {
        let _ = self.store.rotate();
    }

    /// Begins a session, writes to it, or ends it.
    pub fn write(&mut self, channel: usize, pick: u64, model: &mut Model, next_id: &mut usize) -> Step {
        let channel = channel % self.channels.len();
        self.minor += 1;
        let minor = self.minor;
        let (log, open) = &mut self.channels[channel];
        let Some((id, pool)) = open else {
            let Ok(epoch) = log.begin_session() else { return Ok(()) };
            let id = *next_id;
            *next_id += 1;
            model.begin(id, epoch);
            *open = Some((id, self.store.blob_pool()));
            let version = WriteVersion { major: epoch.0, minor };
            let _ = log.add_entry(StorageId(MARKERS), format!("f{id}").as_bytes(), b"", version, &[]);
            return Ok(());
        };
        let id = *id;
        let version = WriteVersion { major: model.sessions[&id].epoch.0, minor };
        if !pick.is_multiple_of(3) {
            let key = [pick as u8 % 16];
            let value = vec![id as u8; (pick / 7 % 200) as usize];
            let _ = log.add_entry(StorageId(DATA), &key, &value, version, &[]);
            return Ok(());
        }
        let mut content = Vec::new();
        let mut blobs = Vec::new();
        if pick.is_multiple_of(2) {
            content = vec![id as u8; (pick / 11 % 300) as usize];
            let Ok(blob) = pool.register_data(&content) else { return Ok(()) };
            blobs.push(blob);
        }
        let marked = log.add_entry(StorageId(MARKERS), format!("l{id}").as_bytes(), &content, version, &blobs);
        *open = None;
        if marked.is_ok() && log.end_session().is_ok() {
            let _ = self.store.drain();
            model.end(id);
            if self.fenced.is_some() {
                return Err("a fenced primary has acknowledged the end of a session".to_owned());
            }
        }
        Ok(())
    }

    pub fn is_connected(&self) -> bool {
        !matches!(self.link, Link::Down)
    }

    /// Opens the control connection.
    pub fn connect(&mut self, session_id: SessionId, peer: usize, end: End) {
        self.hang_up(false);
        self.diverged &= self.peer == peer;
        self.peer = peer;
        let Some(known) = self.store.history() else { return };
        let identity = PrimaryIdentity {
            uuid: self.store.instance_uuid().to_owned(),
            term: known.term,
            history: seen(&known.history, self.setup),
            stored: self.store.last_epoch(),
            oldest_shippable: self.oldest_shippable.max(self.store.compacted_epoch().next()),
            lanes: self.setup.lanes,
            max_channels: self.setup.channels as u32,
            capabilities: 0,
        };
        self.session_id = session_id;
        let (handshake, hello) =
            PrimaryHandshake::start(ConnectionKind::Control, session_id, [1; 32], Secret::default(), Some(identity));
        end.send(&hello);
        self.link = Link::Shaking(Box::new((end, handshake)));
    }

    /// Ends the session; `silently` lets the replica find out by itself.
    pub fn hang_up(&mut self, silently: bool) {
        self.store.unsubscribe();
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
    pub fn poll(&mut self, now: Millis, connect: &mut dyn FnMut() -> End) -> Step {
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
                    Ok(PrimaryStep::Accepted(Some(replica))) => self.open(replica, now, connect)?,
                    Ok(PrimaryStep::Accepted(None)) => return Err("the replica did not say who it is".to_owned()),
                    Ok(PrimaryStep::Refused(reason)) | Err(reason) => {
                        self.hang_up(false);
                        self.refused(&reason);
                        expected(reason)?;
                    }
                }
                Ok(())
            }
            Link::Base(base) => {
                if base.poll(&self.store, self.setup, now)? {
                    self.hang_up(false);
                }
                Ok(())
            }
            Link::Open(open) => match open.poll(&self.store, self.setup, now)? {
                Next::GoOn => Ok(()),
                Next::End => {
                    self.hang_up(false);
                    Ok(())
                }
                Next::Demote => {
                    self.demotions += 1;
                    self.hang_up(false);
                    Ok(())
                }
            },
        }
    }

    fn refused(&mut self, reason: &Reason) {
        self.diverged |= reason.code == Code::DIVERGED;
        if reason.code == Code::FENCED && self.fenced.is_none() {
            if self.setup.sabotage != Some(Sabotage::FencedGoesOn) {
                self.store.fence(&reason.text);
            }
            self.fenced = Some((self.store.last_epoch(), self.store.propagated_epoch()));
        }
    }

    fn open(&mut self, replica: ReplicaIdentity, now: Millis, connect: &mut dyn FnMut() -> End) -> Step {
        let Link::Shaking(shaking) = std::mem::replace(&mut self.link, Link::Down) else { return Ok(()) };
        let (control, _) = *shaking;
        self.diverged = false;
        let mut join = |kind| {
            let end = connect();
            let (handshake, hello) = PrimaryHandshake::start(kind, self.session_id, [2; 32], Secret::default(), None);
            end.send(&hello);
            Lane { end, handshake: Some(handshake), announced: BTreeSet::new() }
        };
        if replica.outcome == Outcome::BaseSync {
            let session = PrimarySession::new(self.store.last_epoch(), &replica, TIMEOUT, now);
            // The disk may have lost its power.
            if let Ok(base) = BaseSync::begin(&self.store, control, join(ConnectionKind::Base), session) {
                self.link = Link::Base(Box::new(base));
            }
            return Ok(());
        }
        let queue = Arc::new(Queue::default());
        let Ok(subscription) = self.store.subscribe(queue.clone()) else { return Ok(()) };
        let (stored, stored_before) = (self.store.last_epoch(), subscription.stored_before);
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
        let lanes = (0..self.setup.lanes).map(|number| join(ConnectionKind::Lane(number))).collect();
        let blobs = join(ConnectionKind::Blob);
        let mut session = PrimarySession::new(stored, &replica, TIMEOUT, now);
        // What the subscription itself says; the rest is looked at when the log has been sent.
        if let Some(Event::Stored(stored, last_written)) = queue.0.lock().unwrap().pop_front() {
            session.stored(stored, last_written);
        }
        let mut open =
            Open { control, lanes, blobs, blob_seq: 0, session, source, window, next: None, stored_before, queue };
        open.next = open.source.next(&mut open.window);
        self.link = Link::Open(Box::new(open));
        Ok(())
    }
}

enum Next {
    GoOn,
    End,
    Demote,
}

impl Open {
    fn poll(&mut self, store: &Datastore, setup: Setup, now: Millis) -> Result<Next, String> {
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
        let is_open = self.lanes.iter().chain([&self.blobs]).all(|lane| lane.handshake.is_none());
        if is_open && !self.pump(store, setup, now) {
            return Ok(Next::End);
        }
        let propagated = match setup.sabotage {
            Some(Sabotage::PropagateWhatIsStored) => store.last_epoch(),
            _ => self.session.propagated(),
        };
        let _ = store.confirm_propagated(propagated);
        let _ = store.drain();
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

// SPDX-License-Identifier: Apache-2.0
//! The replica's process: a real standby store on a simulated disk, and what its threads would do.

use crate::link::{Arrival, End};
use crate::model::LOCATION;
use crate::setup::{Sabotage, Setup, TIMEOUT};
use crate::tap::{expected, seen, Step};
use limestone_core::directory::Keep;
use limestone_core::replication::native::protocol::handshake::{
    check_term, decide, followed, history_of, Identified, ReplicaHandshake, ReplicaStep, Standing,
};
use limestone_core::replication::native::protocol::lane_order::{LaneOrder, LaneStep};
use limestone_core::replication::native::protocol::message::{
    Code, ConnectionKind, Message, Outcome, PrimaryIdentity, Reason, ReplicaIdentity, SessionId,
};
use limestone_core::replication::native::protocol::replica_session::{ReplicaAction, ReplicaSession};
use limestone_core::replication::native::protocol::Millis;
use limestone_core::replication::replica_store::{BaseStaging, BlobReceiver, StandbyStore};
use limestone_core::replication::secret::Secret;
use limestone_core::types::Epoch;
use limestone_core::vfs::{SimFs, Vfs};
use limestone_core::wal::history::Common;
use limestone_core::wal::history_file::{DirectoryHistory, Place, Role};
use std::path::Path;
use std::sync::Arc;

/// What the replica has done since it was asked last.
pub enum News {
    /// It has accepted a primary of this term.
    Accepted { session: SessionId, outcome: Outcome, term: u64 },
    /// A base sync is in place.
    Installed { session: SessionId },
    /// It has taken back what this primary does not have, or given everything up for a base sync.
    Rewound { session: SessionId, all: bool },
}

/// Opens the directory as a replica's.
fn opened(fs: &SimFs, setup: Setup) -> limestone_core::error::Result<StandbyStore> {
    StandbyStore::open_with(Arc::new(fs.clone()), Path::new(LOCATION), setup.commit)
}

struct Open {
    session: ReplicaSession,
    primary: PrimaryIdentity,
    control: End,
    lanes: Vec<Lane>,
    blobs: Option<Blobs>,
    base: Option<(End, BaseStaging)>,
    /// An epoch whose record the disk has still to write.
    recording: Option<Epoch>,
    sabotage: Option<Sabotage>,
}

struct Lane {
    number: u32,
    end: End,
    order: LaneOrder,
    /// What the thread that syncs has still to do: whether to sync, the last COMMIT and its BLOB.
    sync: bool,
    commit: Option<(Epoch, u64)>,
}

struct Blobs {
    end: End,
    receiver: BlobReceiver,
    whole: u64,
}

pub struct Replica {
    pub store: StandbyStore,
    /// The number of its directory.
    pub directory: u64,
    fs: SimFs,
    setup: Setup,
    accepted: Vec<(End, ReplicaHandshake)>,
    open: Option<Open>,
    pub news: Vec<News>,
}

enum Verdict {
    GoOn,
    /// The session is over.
    End,
    Violation(String),
}

impl From<Reason> for Verdict {
    fn from(reason: Reason) -> Verdict {
        expected(reason).map_or_else(Verdict::Violation, |()| Verdict::End)
    }
}

impl Replica {
    /// Starts on what is on the disk.
    pub fn start(fs: &SimFs, setup: Setup) -> Result<Replica, String> {
        let failed = |e: String| format!("the replica cannot start: {e}");
        let store = opened(fs, setup).map_err(|e| failed(e.to_string()))?;
        // Another process would not take up what this one has begun to receive.
        let parts = fs.files().into_keys().filter(|path| path.extension().is_some_and(|found| found == "part"));
        parts.into_iter().try_for_each(|path| fs.unlink(&path)).map_err(|e| failed(e.to_string()))?;
        let (accepted, news) = (Vec::new(), Vec::new());
        Ok(Replica { store, directory: 0, fs: fs.clone(), setup, accepted, open: None, news })
    }

    pub fn history(&self) -> Option<DirectoryHistory> {
        let uuid = self.store.identity();
        let place = Place { vfs: &**self.store.vfs(), location: self.store.location(), instance: &uuid };
        let known = DirectoryHistory::load(place).ok()?;
        Some(known.unwrap_or_else(|| DirectoryHistory::unknown(&uuid, Role::Replica)))
    }

    /// What the directory says of itself.
    fn standing(&self, known: &DirectoryHistory) -> Standing {
        let (uuid, empty) = (self.store.identity(), self.store.is_empty());
        // What was given up counts for nothing.
        let durable = if known.is_given_up() { Epoch(0) } else { self.store.durable() };
        Standing { empty, term: known.term, history: seen(&known.history, self.setup), durable, uuid }
    }

    pub fn accept(&mut self, end: End) {
        self.accepted.push((end, ReplicaHandshake::new([3; 32], Secret::default())));
    }

    /// Reads what has arrived.
    pub fn poll(&mut self, now: Millis) -> Step {
        let mut kept = Vec::new();
        for (mut end, mut handshake) in std::mem::take(&mut self.accepted) {
            let Arrival::Message(message) = (match end.read()? {
                Arrival::Over => continue,
                Arrival::Nothing => {
                    kept.push((end, handshake));
                    continue;
                }
                message => message,
            }) else {
                continue;
            };
            match handshake.on_message(message) {
                Ok(ReplicaStep::Send(message)) => {
                    end.send(&message);
                    kept.push((end, handshake));
                }
                Ok(ReplicaStep::Identified(peer)) => self.identified(end, peer, now)?,
                Err(reason) => return Err(format!("the handshake of an honest primary failed: {reason}")),
            }
        }
        self.accepted = kept;
        let base = self.poll_base(now)?;
        let Some(open) = &mut self.open else { return Ok(()) };
        let verdict = match base {
            Verdict::GoOn => open.poll(&self.store, now)?,
            other => other,
        };
        let (told, durable) = (open.session.told(), self.store.durable());
        let next = self.history().and_then(|known| known.told(told, durable));
        match verdict {
            // The disk has failed.
            Verdict::GoOn if next.is_some_and(|next| next.save(&self.fs, Path::new(LOCATION)).is_err()) => {
                self.open = None;
                Ok(())
            }
            Verdict::GoOn => Ok(()),
            Verdict::End => {
                self.open = None;
                Ok(())
            }
            Verdict::Violation(text) => Err(text),
        }
    }

    fn identified(&mut self, end: End, peer: Identified, now: Millis) -> Step {
        let refuse = |end: End, reason: Reason| {
            end.send(&Message::Refused(reason.clone()));
            expected(reason)
        };
        if let Some(primary) = peer.primary {
            // None when the disk has failed.
            let Some(known) = self.history() else { return Ok(()) };
            if let Err(reason) = check_term(&primary, &known.instance, known.term) {
                return refuse(end, reason);
            }
            return match self.open {
                Some(_) => refuse(end, Reason::new(Code::BUSY, "another session is open")),
                None => self.begin(end, peer.session_id, primary, &known, now),
            };
        }
        match &mut self.open {
            None => refuse(end, Reason::new(Code::UNKNOWN_SESSION, "no session is open")),
            Some(open) => match (open.session.attach(peer.session_id, peer.kind), peer.kind) {
                (Ok(Some(order)), ConnectionKind::Lane(lane)) => {
                    end.send(&Message::Answer { replica: None });
                    open.lanes.push(Lane { number: lane, end, order, sync: false, commit: None });
                    Ok(())
                }
                (Ok(None), ConnectionKind::Blob) => {
                    end.send(&Message::Answer { replica: None });
                    open.blobs = Some(Blobs { end, receiver: self.store.blob_receiver(), whole: 0 });
                    Ok(())
                }
                (Ok(None), ConnectionKind::Base) => {
                    let staging = BaseStaging::open(self.store.vfs().clone(), self.store.location());
                    if let Ok(staging) = staging {
                        end.send(&Message::Answer { replica: None });
                        open.base = Some((end, staging));
                    }
                    Ok(())
                }
                (Ok(_), kind) => Err(format!("a {kind} connection was not expected")),
                (Err(reason), _) => refuse(end, reason),
            },
        }
    }

    /// Ends the session.
    pub fn hang_up(&mut self) {
        self.open = None;
    }

    fn begin(
        &mut self,
        end: End,
        id: SessionId,
        primary: PrimaryIdentity,
        known: &DirectoryHistory,
        now: Millis,
    ) -> Step {
        if self.setup.sabotage != Some(Sabotage::NoDiscard) && self.store.discard_beyond_durable().is_err() {
            return Ok(());
        }
        let (standing, claim) = (self.standing(known), known.claim(self.store.durable()));
        let outcome = match decide(&primary, &standing) {
            Ok(outcome) => outcome,
            Err(reason) if reason.code == Code::DIVERGED && self.setup.rewinds => {
                end.send(&Message::Refused(Reason::new(Code::BUSY, "the directory goes back")));
                return self.rewind(id, &primary, &standing);
            }
            Err(reason) => {
                end.send(&Message::Refused(reason.clone()));
                return expected(reason);
            }
        };
        if self.store.adopt_identity(&primary.uuid).is_err() {
            return Ok(());
        }
        let follows = followed(&standing, claim, &primary, outcome).going_on_from(known, standing.durable);
        if follows.save(&**self.store.vfs(), self.store.location()).is_err() {
            return Ok(());
        }
        let session = ReplicaSession::new(id, &primary, (outcome, standing.durable), TIMEOUT, now);
        let replica = ReplicaIdentity {
            uuid: if standing.empty { String::new() } else { standing.uuid },
            term: standing.term,
            history: standing.history,
            durable: standing.durable,
            outcome,
            max_channels: session.max_channels(),
            directory: self.directory,
        };
        end.send(&Message::Answer { replica: Some(replica) });
        self.news.push(News::Accepted { session: id, outcome, term: primary.term });
        self.open = Some(Open {
            session,
            primary,
            control: end,
            lanes: Vec::new(),
            blobs: None,
            base: None,
            recording: None,
            sabotage: self.setup.sabotage,
        });
        Ok(())
    }

    /// Takes the directory back to where the primary's went another way.
    fn rewind(&mut self, session: SessionId, primary: &PrimaryIdentity, standing: &Standing) -> Step {
        let common = primary.history.common(primary.stored, &standing.history, standing.durable);
        let last = match common {
            Common::UpTo(last) => Some(match self.setup.sabotage {
                Some(Sabotage::RewindShort) => last.next(),
                Some(Sabotage::RewindTooFar) => Epoch(last.0.saturating_sub(1)),
                _ => last,
            }),
            Common::Nothing | Common::Forgotten => None,
        };
        // The power may have gone: the machine ends then.
        let Some(held) = self.store.hold() else {
            return if self.fs.has_failed() { Ok(()) } else { Err("the directory is not held".to_owned()) };
        };
        let cut = held.cut(last, Keep::default());
        let result = cut.and_then(|cut| Ok((cut, StandbyStore::open_held(held, self.setup.commit)?)));
        match result {
            Err(_) if self.fs.has_failed() => Ok(()),
            Err(e) => Err(format!("a rewind to {last:?}: {e}")),
            Ok((cut, store)) => {
                self.store = store;
                self.news.push(News::Rewound { session, all: cut.extent.is_all() });
                Ok(())
            }
        }
    }

    /// Takes what has come of a base sync.
    fn poll_base(&mut self, now: Millis) -> Result<Verdict, String> {
        let had = self.store.durable();
        let known = self.history().unwrap_or_else(|| DirectoryHistory::unknown("", Role::Replica));
        let Some(open) = &mut self.open else { return Ok(Verdict::GoOn) };
        let Some((end, staging)) = &mut open.base else { return Ok(Verdict::GoOn) };
        loop {
            let message = match end.read()? {
                Arrival::Message(message) => message,
                Arrival::Nothing => return Ok(Verdict::GoOn),
                Arrival::Over => return Ok(Verdict::End),
            };
            open.session.heard(now);
            let done = match message {
                Message::Offer(offer) => {
                    staging.offer(&offer.name, offer.size, offer.crc).map(|offset| end.send(&Message::Want { offset }))
                }
                Message::Data { offset, bytes } => staging.data(offset, &bytes),
                Message::FileEnd => staging.file_end(),
                Message::Done { files } => {
                    // As for a start: the number of calls may depend on threads.
                    self.fs.heal();
                    let (_, stored, _) = open.session.primary_epochs();
                    staging.verify(files, &open.primary.uuid, |_| stored).map_err(|e| e.to_string())?;
                    let _paused = self.store.pause_journal().map_err(|e| e.to_string())?;
                    let history = history_of(&open.primary, known.claim(had)).going_on_from(&known, had);
                    staging.install(files, &history).map_err(|e| e.to_string())?;
                    self.store.close();
                    self.store = opened(&self.fs, self.setup).map_err(|e| e.to_string())?;
                    end.send(&Message::Staged);
                    self.news.push(News::Installed { session: open.session.id() });
                    Ok(())
                }
                other => return Err(format!("{other:?} in a base sync")),
            };
            match done {
                Ok(()) => {}
                Err(limestone_core::error::Error::InvalidArgument(text)) => return Ok(Verdict::Violation(text)),
                Err(_) => return Ok(Verdict::End),
            }
        }
    }

    /// Lets some of the threads that sync and record do what they were asked for; `which` has a bit for each.
    pub fn disk(&mut self, which: u64, now: Millis) {
        let Some(open) = &mut self.open else { return };
        for number in (0..open.lanes.len() + 2).filter(|number| which >> number & 1 == 1) {
            let actions = match number {
                0 => open.record(&self.store, now),
                1 => open.sync_blobs(),
                lane => open.sync_lane(lane - 2, &self.store),
            };
            open.carry_out(actions);
        }
    }
}

impl Open {
    fn record(&mut self, store: &StandbyStore, now: Millis) -> Vec<ReplicaAction> {
        let Some(epoch) = self.recording.take() else { return Vec::new() };
        // With the mistake it is acknowledged, and the record is lost with the process.
        if self.sabotage != Some(Sabotage::AcknowledgeBeforeSync) && store.record(epoch).is_err() {
            return Vec::new();
        }
        self.session.recorded(epoch, now)
    }

    fn sync_blobs(&mut self) -> Vec<ReplicaAction> {
        let Some(blobs) = &mut self.blobs else { return Vec::new() };
        match blobs.receiver.sync_names(|| {}) {
            Ok(()) => self.session.blobs_synced(blobs.whole).into_iter().collect(),
            Err(_) => Vec::new(),
        }
    }

    fn sync_lane(&mut self, index: usize, store: &StandbyStore) -> Vec<ReplicaAction> {
        let Lane { number, sync, commit, .. } = &mut self.lanes[index];
        let (log, commit) = (store.lane(*number), commit.take());
        let synced = match (std::mem::take(sync), commit) {
            (true, _) => log.sync(),
            (false, Some((epoch, _))) => log.sync_up_to(epoch),
            (false, None) => return Vec::new(),
        };
        match (synced, commit) {
            (Ok(()), Some((epoch, blob_seq))) => {
                // What contradicts itself is found by the invariants: an honest primary does not.
                self.session.lane_synced(*number, epoch, blob_seq).expect("COMMITs that agree").into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn poll_blobs(&mut self, now: Millis) -> Result<Verdict, String> {
        let Some(blobs) = &mut self.blobs else { return Ok(Verdict::GoOn) };
        loop {
            let piece = match blobs.end.read()? {
                Arrival::Message(Message::Blob(piece)) => piece,
                Arrival::Message(other) => return Err(format!("{other:?} among BLOBs")),
                Arrival::Nothing => return Ok(Verdict::GoOn),
                Arrival::Over => return Ok(Verdict::End),
            };
            self.session.heard(now);
            if piece.seq != blobs.whole + 1 {
                return Err(format!("BLOB number {} after {}", piece.seq, blobs.whole));
            }
            let crc = piece.last.then_some(piece.crc);
            match blobs.receiver.piece(piece.id, piece.size, piece.offset, &piece.bytes, crc) {
                Ok(()) => blobs.whole += u64::from(piece.last),
                Err(limestone_core::error::Error::InvalidArgument(text)) => return Ok(Verdict::Violation(text)),
                Err(_) => return Ok(Verdict::End),
            }
        }
    }

    fn carry_out(&mut self, actions: impl IntoIterator<Item = ReplicaAction>) -> bool {
        for action in actions {
            match action {
                ReplicaAction::Send(message) => self.control.send(&message),
                ReplicaAction::Record(epoch) => self.recording = Some(epoch),
                ReplicaAction::Ended => return false,
                ReplicaAction::Boundary(_) | ReplicaAction::SafeSnapshot(_) | ReplicaAction::Digest(_) => {}
            }
        }
        true
    }

    fn poll(&mut self, store: &StandbyStore, now: Millis) -> Result<Verdict, String> {
        loop {
            let message = match self.control.read()? {
                Arrival::Message(message) => message,
                Arrival::Nothing => break,
                Arrival::Over => return Ok(Verdict::End),
            };
            match self.session.on_control(message, now) {
                Ok(actions) => {
                    if !self.carry_out(actions) {
                        return Ok(Verdict::End);
                    }
                }
                Err(reason) => return Ok(reason.into()),
            }
        }
        for index in 0..self.lanes.len() {
            match self.poll_lane(index, store, now)? {
                Verdict::GoOn => {}
                other => return Ok(other),
            }
        }
        match self.poll_blobs(now)? {
            Verdict::GoOn => {}
            other => return Ok(other),
        }
        match self.session.tick(now) {
            Ok(actions) => self.carry_out(actions),
            Err(reason) => return Ok(reason.into()),
        };
        Ok(Verdict::GoOn)
    }

    fn poll_lane(&mut self, index: usize, store: &StandbyStore, now: Millis) -> Result<Verdict, String> {
        loop {
            let lane = &mut self.lanes[index];
            let message = match lane.end.read()? {
                Arrival::Message(message) => message,
                Arrival::Nothing => return Ok(Verdict::GoOn),
                Arrival::Over => return Ok(Verdict::End),
            };
            self.session.heard(now);
            let log = store.lane(lane.number);
            match lane.order.on_message(message) {
                Ok(LaneStep::Noted) => {}
                Ok(LaneStep::Append(piece)) => match log.append(piece.epoch, piece.first, piece.last, &piece.bytes) {
                    Ok(()) => {}
                    Err(limestone_core::error::Error::InvalidArgument(text)) => return Ok(Verdict::Violation(text)),
                    Err(_) => return Ok(Verdict::End),
                },
                Ok(LaneStep::Sync) => lane.sync = true,
                Ok(LaneStep::Commit { epoch, blob_seq }) => {
                    let blob_seq = if self.sabotage == Some(Sabotage::IgnoreBlobs) { 0 } else { blob_seq };
                    if log.is_synced_up_to(epoch) {
                        let action = self.session.lane_synced(lane.number, epoch, blob_seq);
                        self.carry_out(action.map_err(|reason| reason.to_string())?);
                    } else {
                        lane.commit = Some((epoch, blob_seq));
                    }
                }
                Err(reason) => return Ok(reason.into()),
            }
        }
    }
}

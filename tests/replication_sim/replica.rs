// SPDX-License-Identifier: Apache-2.0
//! The replica's process: a real standby store on a simulated disk, and what its threads would do.

use crate::link::{Arrival, End};
use crate::model::LOCATION;
use crate::primary::{expected, Step};
use crate::world::{Sabotage, Setup, TIMEOUT};
use limestone_core::replication::native::protocol::handshake::{
    decide, Identified, ReplicaHandshake, ReplicaStep, Standing,
};
use limestone_core::replication::native::protocol::lane_order::{LaneOrder, LaneStep};
use limestone_core::replication::native::protocol::message::{Code, ConnectionKind, Message, Reason, ReplicaIdentity};
use limestone_core::replication::native::protocol::replica_session::{ReplicaAction, ReplicaSession};
use limestone_core::replication::native::protocol::Millis;
use limestone_core::replication::replica_store::{BlobReceiver, StandbyStore};
use limestone_core::replication::secret::Secret;
use limestone_core::types::Epoch;
use limestone_core::vfs::SimFs;
use limestone_core::wal::history_file::{DirectoryHistory, Place, Role};
use std::path::Path;
use std::sync::Arc;

struct Open {
    session: ReplicaSession,
    control: End,
    lanes: Vec<Lane>,
    blobs: Option<Blobs>,
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
    setup: Setup,
    accepted: Vec<(End, ReplicaHandshake)>,
    open: Option<Open>,
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
        let store = StandbyStore::open(Arc::new(fs.clone()), Path::new(LOCATION));
        let store = store.map_err(|e| format!("the replica cannot start: {e}"))?;
        Ok(Replica { store, setup, accepted: Vec::new(), open: None })
    }

    /// What the directory says of itself; none when its disk has failed.
    fn standing(&self) -> Option<Standing> {
        let (uuid, empty, durable) = (self.store.identity(), self.store.is_empty(), self.store.durable());
        let place = Place { vfs: &**self.store.vfs(), location: self.store.location(), instance: &uuid };
        let known = DirectoryHistory::load(place).ok()?;
        let known = known.unwrap_or_else(|| DirectoryHistory::unknown(&uuid, Role::Replica));
        Some(Standing { empty, term: known.term, history: known.history, durable, uuid })
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
        let Some(open) = &mut self.open else { return Ok(()) };
        match open.poll(&self.store, now)? {
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
        match (peer.primary, &mut self.open) {
            (Some(_), Some(_)) => refuse(end, Reason::new(Code::BUSY, "another session is open")),
            (Some(primary), None) => {
                let Some(standing) = self.standing() else { return Ok(()) };
                let outcome = match decide(&primary, &standing) {
                    Ok(outcome) => outcome,
                    Err(reason) => return refuse(end, reason),
                };
                if self.setup.sabotage != Some(Sabotage::NoDiscard) && self.store.discard_beyond_durable().is_err() {
                    return Ok(());
                }
                let follows = DirectoryHistory::following(&primary.uuid, primary.term, primary.history.clone());
                if self.store.adopt_identity(&primary.uuid).is_err()
                    || follows.save(&**self.store.vfs(), self.store.location()).is_err()
                {
                    return Ok(());
                }
                let durable = self.store.durable();
                let session = ReplicaSession::new(peer.session_id, &primary, (outcome, durable), TIMEOUT, now);
                let replica = ReplicaIdentity {
                    uuid: if standing.empty { String::new() } else { standing.uuid },
                    term: standing.term,
                    history: standing.history,
                    durable,
                    outcome,
                    max_channels: session.max_channels(),
                    capabilities: 0,
                };
                end.send(&Message::Answer { replica: Some(replica) });
                let sabotage = self.setup.sabotage;
                self.open =
                    Some(Open { session, control: end, lanes: Vec::new(), blobs: None, recording: None, sabotage });
                Ok(())
            }
            (None, None) => refuse(end, Reason::new(Code::UNKNOWN_SESSION, "no session is open")),
            (None, Some(open)) => match (open.session.attach(peer.session_id, peer.kind), peer.kind) {
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
                (Ok(_), kind) => Err(format!("a {kind} connection was not expected")),
                (Err(reason), _) => refuse(end, reason),
            },
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
        match blobs.receiver.sync_names() {
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
                ReplicaAction::Boundary(_) | ReplicaAction::SafeSnapshot(_) => {}
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

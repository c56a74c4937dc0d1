// SPDX-License-Identifier: Apache-2.0
//! A session as the replica sees it: which connections belong to it, when an epoch may be recorded, when the primary
//! counts as lost. An epoch is recorded when every lane has synced what it got before the epoch's COMMIT and the BLOBs
//! up to the COMMIT's number are synced, and the primary has said that it is stored; it is acknowledged when its record
//! is synced. Whatever the primary sends, the memory held here is bounded.

use super::clock::{heartbeat_interval, Millis};
use super::lane_order::LaneOrder;
use super::message::{
    Alive, Code, ConnectionKind, DigestMessage, Message, Outcome, PrimaryIdentity, Reason, SessionId,
};
use super::message::{CHANNELS_MAX, VERSION, VERSION_DIGESTS};
use crate::types::{self, Epoch, WriteVersion};
use crate::wal::known_lack::Told;
use std::cmp::Ordering;
use std::collections::VecDeque;

/// Epochs that may wait for BLOBs one by one; beyond that the last ones are recorded together.
const WAITING_MAX: usize = 1024;

/// What the replica does next.
#[derive(Debug, PartialEq, Eq)]
pub enum ReplicaAction {
    /// Send on the control connection.
    Send(Message),
    /// Record the epoch, then tell [`ReplicaSession::recorded`]. One at a time.
    Record(Epoch),
    Boundary(WriteVersion),
    SafeSnapshot(WriteVersion),
    /// What the primary says to a question, see [`ReplicaSession::ask`].
    Digest(DigestMessage),
    /// The primary ended the session in good order.
    Ended,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    attached: bool,
    synced: Epoch,
    blob_seq: u64,
}

/// A session of a primary. It ends with the end of any of its connections, with any error, or when the primary is lost.
#[derive(Debug)]
pub struct ReplicaSession {
    id: SessionId,
    outcome: Outcome,
    max_channels: u32,
    lanes: Vec<Lane>,
    blob_attached: bool,
    base_attached: bool,
    blobs_synced: u64,
    /// Epochs that every lane has, with the BLOB that each needs; both grow.
    waiting: VecDeque<(Epoch, u64)>,
    recording: Option<Epoch>,
    /// The durable epoch at the handshake, which lanes begin with.
    base: Epoch,
    durable: Epoch,
    switched: Epoch,
    stored: Epoch,
    written: Option<Epoch>,
    reported: Epoch,
    /// The version that is spoken.
    version: u16,
    /// How many digests were asked for.
    asked: u64,
    /// An epoch that was committed and that the primary had not announced as stored then, and when that was.
    unannounced: Option<(Epoch, Millis)>,
    /// What [`Message::Alive`] says besides the durable epoch.
    received: u64,
    synced: u64,
    timeout: Millis,
    heard: Millis,
    sent: Millis,
}

impl ReplicaSession {
    /// A session whose control connection was accepted with this outcome. Everything beyond `durable` has been
    /// discarded.
    pub fn new(
        id: SessionId,
        primary: &PrimaryIdentity,
        (outcome, durable): (Outcome, Epoch),
        timeout: Millis,
        now: Millis,
    ) -> ReplicaSession {
        ReplicaSession {
            id,
            outcome,
            max_channels: primary.max_channels.min(CHANNELS_MAX),
            lanes: vec![Lane { synced: durable, ..Lane::default() }; primary.lanes as usize],
            blob_attached: false,
            base_attached: false,
            blobs_synced: 0,
            waiting: VecDeque::new(),
            recording: None,
            base: durable,
            durable,
            switched: Epoch(0),
            stored: primary.stored,
            written: None,
            reported: Epoch(0),
            version: VERSION,
            asked: 0,
            unannounced: None,
            received: 0,
            synced: 0,
            timeout,
            heard: now,
            sent: now,
        }
    }

    /// The same in another version than the present one.
    pub fn in_version(self, version: u16) -> ReplicaSession {
        ReplicaSession { version, ..self }
    }

    /// The number of a question about the primary's content, which the caller sends, or why it cannot be asked.
    pub fn ask(&mut self) -> Result<u64, String> {
        if self.outcome == Outcome::BaseSync {
            return Err("the primary is filling this replica by a base sync just now".to_owned());
        }
        if self.version < VERSION_DIGESTS {
            return Err(format!(
                "the primary speaks version {} of the protocol, and tells what it has from version {VERSION_DIGESTS} \
                 on: update it, or compare with what `tgreplica digest --json` prints there",
                self.version
            ));
        }
        self.asked += 1;
        Ok(self.asked)
    }

    pub fn id(&self) -> SessionId {
        self.id
    }

    pub fn durable(&self) -> Epoch {
        self.durable
    }

    /// The epochs of the primary as far as the replica has heard: switched, stored, and the last stored one that wrote
    /// anything.
    pub fn primary_epochs(&self) -> (Epoch, Epoch, Option<Epoch>) {
        (self.switched, self.stored, self.written)
    }

    /// The same for what the directory says of itself.
    pub fn told(&self) -> Told {
        Told { stored: self.stored, written: self.written, reported: self.reported }
    }

    /// The number of channels that both sides can do.
    pub fn max_channels(&self) -> u32 {
        self.max_channels
    }

    /// Takes another connection of the session, of a kind that its outcome allows; on a lane, the returned order
    /// watches over it.
    pub fn attach(&mut self, id: SessionId, kind: ConnectionKind) -> Result<Option<LaneOrder>, Reason> {
        if id != self.id {
            return Err(Reason::new(
                Code::UNKNOWN_SESSION,
                "the connection belongs to a session that is not open here",
            ));
        }
        let is_base_sync = self.outcome == Outcome::BaseSync;
        if kind != ConnectionKind::Control && is_base_sync != (kind == ConnectionKind::Base) {
            let session = if is_base_sync { "is a base sync" } else { "sends the log" };
            return Err(Reason::new(Code::PROTOCOL, format!("a {kind} connection in a session that {session}")));
        }
        let lanes = self.lanes.len();
        let (attached, order) = match kind {
            ConnectionKind::Control => return Err(Reason::new(Code::PROTOCOL, "a second control connection")),
            ConnectionKind::Lane(lane) => match self.lanes.get_mut(lane as usize) {
                Some(found) => {
                    let number = (lane, lanes as u32);
                    (&mut found.attached, Some(LaneOrder::new(number, self.max_channels, self.base)))
                }
                None => return Err(Reason::new(Code::LIMIT, format!("lane {lane} of a session with {lanes} lanes"))),
            },
            ConnectionKind::Blob => (&mut self.blob_attached, None),
            ConnectionKind::Base => (&mut self.base_attached, None),
        };
        match std::mem::replace(attached, true) {
            false => Ok(order),
            true => Err(Reason::new(Code::PROTOCOL, format!("a second {kind} connection"))),
        }
    }

    /// The lane has synced everything that came before the COMMIT of `epoch`.
    ///
    /// # Errors
    /// When COMMITs of different lanes contradict each other.
    pub fn lane_synced(&mut self, lane: u32, epoch: Epoch, blob_seq: u64) -> Result<Option<ReplicaAction>, Reason> {
        let Some(found) = self.lanes.get_mut(lane as usize) else { return Ok(None) };
        if epoch > found.synced {
            (found.synced, found.blob_seq) = (epoch, blob_seq);
        }
        let contradicts = |other: &&Lane| match other.synced.cmp(&epoch) {
            Ordering::Less => other.blob_seq > blob_seq,
            Ordering::Equal => other.blob_seq != blob_seq,
            Ordering::Greater => other.blob_seq < blob_seq,
        };
        if let Some(other) = self.lanes.iter().find(contradicts) {
            let text = format!("COMMIT of epoch {epoch} needs BLOB {blob_seq} on lane {lane}");
            let text = format!("{text}, that of epoch {} BLOB {} on another", other.synced, other.blob_seq);
            return Err(Reason::new(Code::PROTOCOL, text));
        }
        // Every lane gets every COMMIT, so the one that is furthest behind says which epoch all have.
        let Some(&behind) = self.lanes.iter().min_by_key(|lane| lane.synced) else { return Ok(None) };
        let last =
            self.waiting.back().map_or(self.durable.max(self.recording.unwrap_or_default()), |&(epoch, _)| epoch);
        if behind.synced > last {
            if self.waiting.len() == WAITING_MAX {
                self.waiting.pop_back();
            }
            self.waiting.push_back((behind.synced, behind.blob_seq));
        }
        Ok(self.next_record())
    }

    /// All BLOBs up to number `seq` and their names are synced.
    pub fn blobs_synced(&mut self, seq: u64) -> Option<ReplicaAction> {
        self.blobs_synced = self.blobs_synced.max(seq);
        self.next_record()
    }

    fn next_record(&mut self) -> Option<ReplicaAction> {
        if self.recording.is_some() {
            return None;
        }
        let is_ready = |&&(epoch, blob): &&(Epoch, u64)| blob <= self.blobs_synced && epoch <= self.stored;
        let ready = self.waiting.iter().take_while(is_ready).count();
        let (epoch, _) = self.waiting.drain(..ready).next_back()?;
        self.recording = Some(epoch);
        Some(ReplicaAction::Record(epoch))
    }

    /// The record of `epoch` is synced.
    pub fn recorded(&mut self, epoch: Epoch, now: Millis) -> Vec<ReplicaAction> {
        debug_assert_eq!(self.recording, Some(epoch));
        self.recording = None;
        self.durable = self.durable.max(epoch);
        self.sent = now;
        let mut actions = vec![ReplicaAction::Send(Message::Durable { epoch: self.durable })];
        actions.extend(self.next_record());
        actions
    }

    /// How many bytes have come on other connections than this one, and how much of them was synced.
    pub fn progress(&mut self, received: u64, synced: u64) {
        (self.received, self.synced) = (self.received.max(received), self.synced.max(synced));
    }

    /// Something came on a lane, BLOB or base connection: the primary is alive.
    pub fn heard(&mut self, now: Millis) {
        self.heard = self.heard.max(now);
    }

    /// Takes a message of the control connection. After an error the session is to be closed and the error sent.
    pub fn on_control(&mut self, message: Message, now: Millis) -> Result<Option<ReplicaAction>, Reason> {
        self.heard(now);
        match message {
            Message::Heartbeat { switched, stored, written } => {
                let is_back = switched < self.switched || stored < self.stored;
                let is_impossible =
                    stored > switched || written > Some(stored) || !types::may_come_to(self.durable.0, switched.0);
                if is_back || is_impossible {
                    let found = format!("switched {switched}, stored {stored} and written {written:?}");
                    let text = format!("{found} after switched {} and stored {}", self.switched, self.stored);
                    return Err(Reason::new(Code::PROTOCOL, text));
                }
                (self.switched, self.stored, self.written) = (switched, stored, written.max(self.written));
                Ok(self.next_record())
            }
            Message::Reported { epoch } => {
                if epoch < self.reported || epoch > self.stored {
                    let text = format!("reported {epoch} after {}, stored {}", self.reported, self.stored);
                    return Err(Reason::new(Code::PROTOCOL, text));
                }
                self.reported = epoch;
                Ok(None)
            }
            Message::Boundary { version } => Ok(Some(ReplicaAction::Boundary(version))),
            Message::SafeSnapshot { version } => Ok(Some(ReplicaAction::SafeSnapshot(version))),
            Message::Digest(
                answer @ (DigestMessage::Work { number, .. }
                | DigestMessage::Piece { number, .. }
                | DigestMessage::Failed { number, .. }),
            ) if (1..=self.asked).contains(&number) => Ok(Some(ReplicaAction::Digest(answer))),
            Message::Bye => Ok(Some(ReplicaAction::Ended)),
            Message::Error(reason) => Err(reason),
            other => {
                let text = format!("a {} message of a primary on the control connection", other.kind().name());
                Err(Reason::new(Code::PROTOCOL, text))
            }
        }
    }

    /// What the time asks for; call it at least every [`heartbeat_interval`]. An error: the primary is lost.
    pub fn tick(&mut self, now: Millis) -> Result<Option<ReplicaAction>, Reason> {
        let silent = now.saturating_sub(self.heard);
        if silent > self.timeout {
            return Err(Reason::new(Code::TIMEOUT, format!("nothing was heard from the primary for {silent} ms")));
        }
        self.check_announced(now)?;
        if now.saturating_sub(self.sent) < heartbeat_interval(self.timeout) {
            return Ok(None);
        }
        self.sent = now;
        let Self { durable, received, synced, .. } = *self;
        Ok(Some(ReplicaAction::Send(Message::Alive(Alive { durable, received, synced }))))
    }

    /// A COMMIT may overtake the announcement that its epoch is stored, but not for long.
    fn check_announced(&mut self, now: Millis) -> Result<(), Reason> {
        self.unannounced = self.unannounced.filter(|&(epoch, _)| epoch > self.stored);
        match (self.unannounced, self.waiting.back()) {
            (Some((epoch, since)), _) if now.saturating_sub(since) > self.timeout => {
                let text = format!("COMMIT of epoch {epoch}, but the primary has stored {} only", self.stored);
                Err(Reason::new(Code::PROTOCOL, text))
            }
            (None, Some(&(epoch, _))) if epoch > self.stored => {
                self.unannounced = Some((epoch, now));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "replica_session_tests.rs"]
mod tests;

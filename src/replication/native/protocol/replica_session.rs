// SPDX-License-Identifier: Apache-2.0
//! A session as the replica sees it: which connections belong to it, when an epoch may be recorded, when the primary
//! counts as lost. An epoch is recorded when every lane has synced what it got before the epoch's COMMIT and the BLOBs up
//! to the COMMIT's number are synced; it is acknowledged when its record is synced. Whatever the primary sends, the
//! memory held here is bounded.

use super::clock::{heartbeat_interval, Millis};
pub use super::lane_order::{LaneOrder, LaneStep};
use super::message::{Code, ConnectionKind, Message, PrimaryIdentity, Reason, SessionId, CHANNELS_MAX};
use crate::types::{Epoch, WriteVersion};
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
    timeout: Millis,
    heard: Millis,
    sent: Millis,
}

impl ReplicaSession {
    /// A session whose control connection was accepted. Everything beyond `durable` has been discarded.
    pub fn new(
        id: SessionId,
        primary: &PrimaryIdentity,
        durable: Epoch,
        timeout: Millis,
        now: Millis,
    ) -> ReplicaSession {
        ReplicaSession {
            id,
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
            timeout,
            heard: now,
            sent: now,
        }
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

    /// The number of channels that both sides can do.
    pub fn max_channels(&self) -> u32 {
        self.max_channels
    }

    /// Takes another connection of the session; on a lane, the returned order watches over it.
    pub fn attach(&mut self, id: SessionId, kind: ConnectionKind) -> Result<Option<LaneOrder>, Reason> {
        if id != self.id {
            return Err(Reason::new(
                Code::UNKNOWN_SESSION,
                "the connection belongs to a session that is not open here",
            ));
        }
        let lanes = self.lanes.len();
        let (attached, order) = match kind {
            ConnectionKind::Control => return Err(Reason::new(Code::PROTOCOL, "a second control connection")),
            ConnectionKind::Lane(lane) => match self.lanes.get_mut(lane as usize) {
                Some(found) => (&mut found.attached, Some(LaneOrder::new(self.max_channels, self.base))),
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
    pub fn lane_synced(&mut self, lane: u32, epoch: Epoch, blob_seq: u64) -> Option<ReplicaAction> {
        let found = self.lanes.get_mut(lane as usize)?;
        if epoch > found.synced {
            (found.synced, found.blob_seq) = (epoch, blob_seq);
        }
        // Every lane gets every COMMIT, so the one that is furthest behind says which epoch all have.
        let behind = *self.lanes.iter().min_by_key(|lane| lane.synced)?;
        let last =
            self.waiting.back().map_or(self.durable.max(self.recording.unwrap_or_default()), |&(epoch, _)| epoch);
        if behind.synced > last {
            if self.waiting.len() == WAITING_MAX {
                self.waiting.pop_back();
            }
            self.waiting.push_back((behind.synced, behind.blob_seq));
        }
        self.next_record()
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
        let ready = self.waiting.iter().take_while(|(_, blob)| *blob <= self.blobs_synced).count();
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

    /// Something came on a lane, BLOB or base connection: the primary is alive.
    pub fn heard(&mut self, now: Millis) {
        self.heard = self.heard.max(now);
    }

    /// Takes a message of the control connection. After an error the session is to be closed and the error sent.
    pub fn on_control(&mut self, message: Message, now: Millis) -> Result<Option<ReplicaAction>, Reason> {
        self.heard(now);
        match message {
            Message::Heartbeat { switched, stored, written } => {
                if switched < self.switched || stored < self.stored || stored > switched || written > Some(stored) {
                    let found = format!("switched {switched}, stored {stored} and written {written:?}");
                    let text = format!("{found} after switched {} and stored {}", self.switched, self.stored);
                    return Err(Reason::new(Code::PROTOCOL, text));
                }
                (self.switched, self.stored, self.written) = (switched, stored, written.max(self.written));
                Ok(None)
            }
            Message::Boundary { version } => Ok(Some(ReplicaAction::Boundary(version))),
            Message::SafeSnapshot { version } => Ok(Some(ReplicaAction::SafeSnapshot(version))),
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
        if now.saturating_sub(self.sent) < heartbeat_interval(self.timeout) {
            return Ok(None);
        }
        self.sent = now;
        Ok(Some(ReplicaAction::Send(Message::Alive { durable: self.durable })))
    }
}

#[cfg(test)]
#[path = "replica_session_tests.rs"]
mod tests;

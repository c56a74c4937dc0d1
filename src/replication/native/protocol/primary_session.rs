// SPDX-License-Identifier: Apache-2.0
//! A session as the primary sees it: which epoch may be committed, what the replica has confirmed, whether it is lost
//! or stalled: what the replica reports, received, synced and durable, is what counts. COMMIT e goes out when e is
//! stored and every session up to e has been put on its lane, and only for epochs that had writes.

use super::clock::{heartbeat_interval, Millis};
use super::message::{Alive, Code, DigestMessage, Message, Reason, ReplicaIdentity};
use crate::types::Epoch;
use std::collections::VecDeque;

/// Epochs with writes that may wait for being reported; beyond that the replica hears of fewer.
const WRITTEN_MAX: usize = 1024;

/// What a message of the replica means.
#[derive(Debug, PartialEq, Eq)]
pub enum PrimaryEvent {
    /// The replica is alive.
    Alive,
    /// The replica has confirmed more; [`PrimarySession::propagated`] may have grown.
    Confirmed(Epoch),
    /// The replica asks what this side has, or goes on with that.
    Digest(DigestMessage),
    /// The replica ended the session in good order.
    Ended,
}

/// A session with a replica.
#[derive(Debug)]
pub struct PrimarySession {
    /// Every session up to this epoch has been put on its lane; `None` when each is as soon as it has ended.
    delivered: Option<Epoch>,
    switched: Epoch,
    stored: Epoch,
    /// The last epoch up to `stored` that the epoch file of this disk covers: none behind it wrote anything.
    last_written: Epoch,
    /// `last_written` was told in this session.
    knows_written: bool,
    /// Epochs that wrote something and are not reported; grows.
    written: VecDeque<Epoch>,
    /// The last of them that is, and what the replica was told of that, and when.
    reported: Epoch,
    told_reported: Option<(Epoch, Millis)>,
    committed: Epoch,
    confirmed: Epoch,
    propagated: Epoch,
    timeout: Millis,
    heard: Millis,
    sent: Millis,
    /// A heartbeat is due before its time.
    announce: bool,
    /// The stored epoch that the replica was told.
    announced: Epoch,
    /// What the replica has received and synced, as it said last; both only grow.
    received: u64,
    synced: u64,
    has_progressed: bool,
    /// Since when the replica owes something and has reported nothing new.
    owing_since: Option<Millis>,
}

impl PrimarySession {
    /// A session that begins with catch-up, after the replica's Answer; `stored` is what the Identity said. The time
    /// after which a silent replica counts as lost is also the one after which a replica counts as stalled that owes
    /// something and reports nothing new.
    pub fn new(stored: Epoch, replica: &ReplicaIdentity, timeout: Millis, now: Millis) -> PrimarySession {
        PrimarySession {
            delivered: Some(replica.durable),
            switched: stored,
            stored,
            last_written: Epoch(0),
            knows_written: false,
            written: VecDeque::new(),
            reported: Epoch(0),
            told_reported: None,
            committed: replica.durable,
            confirmed: replica.durable,
            propagated: replica.durable,
            timeout,
            heard: now,
            sent: now,
            announce: false,
            announced: stored,
            received: 0,
            synced: 0,
            has_progressed: false,
            owing_since: None,
        }
    }

    /// The last epoch that the replica confirmed.
    pub fn confirmed(&self) -> Epoch {
        self.confirmed
    }

    /// The last epoch that was committed.
    pub fn committed(&self) -> Epoch {
        self.committed
    }

    /// Whether every session goes on its lane as it ends.
    pub fn is_live(&self) -> bool {
        self.delivered.is_none()
    }

    /// During catch-up: every session up to `epoch` has been put on its lane.
    pub fn delivered(&mut self, epoch: Epoch) {
        if let Some(delivered) = &mut self.delivered {
            *delivered = epoch.max(*delivered);
        }
    }

    /// The catch-up is complete: every session that has ended is on its lane, and every other will be when it ends. The
    /// replica hears of the epochs at once, so that it knows when it has them.
    pub fn go_live(&mut self) {
        self.delivered = None;
        self.announce = true;
    }

    /// The primary has switched to an epoch.
    pub fn switched(&mut self, epoch: Epoch) {
        self.switched = self.switched.max(epoch);
    }

    /// An epoch is stored; `last_written` is the last one with writes that was recorded with it.
    pub fn stored(&mut self, stored: Epoch, last_written: Option<Epoch>) {
        self.stored = self.stored.max(stored);
        self.switched = self.switched.max(stored);
        if let Some(written) = last_written.filter(|&written| written > self.last_written) {
            self.last_written = written;
            if self.written.len() < WRITTEN_MAX {
                self.written.push_back(written);
            }
        }
        self.knows_written |= last_written.is_some();
    }

    /// The epoch whose COMMIT has to be put on every lane now, behind all sessions there; it counts as sent.
    pub fn take_commit(&mut self, now: Millis) -> Option<Epoch> {
        // Nothing above the last record of this disk: after a crash such a number may come again, with writes.
        let epoch = self.delivered.map_or(self.last_written, |delivered| delivered.min(self.last_written));
        if epoch <= self.committed {
            return None;
        }
        self.committed = epoch;
        self.owing_since.get_or_insert(now);
        Some(epoch)
    }

    /// What the replica has to know before a COMMIT: that its epoch is stored. To be sent on the control connection
    /// before the COMMIT is sent on the first lane.
    pub fn announce(&mut self, now: Millis) -> Option<Message> {
        (self.stored > self.announced).then(|| self.heartbeat(now))
    }

    fn heartbeat(&mut self, now: Millis) -> Message {
        (self.announce, self.sent, self.announced) = (false, now, self.stored);
        let written = self.knows_written.then_some(self.last_written);
        Message::Heartbeat { switched: self.switched, stored: self.stored, written }
    }

    /// What the replica has to be told when the engine was told that `acknowledged` is durable; nothing before it was
    /// told that it is stored, and once in a [`heartbeat_interval`].
    pub fn take_report(&mut self, acknowledged: Epoch, now: Millis) -> Option<Message> {
        let known = acknowledged.min(self.announced);
        let count = self.written.partition_point(|epoch| *epoch <= known);
        self.reported = self.written.drain(..count).next_back().unwrap_or(self.reported);
        let (told, at) = self.told_reported.unwrap_or_default();
        let is_due = self.told_reported.is_none() || now.saturating_sub(at) >= heartbeat_interval(self.timeout);
        if self.reported <= told || !is_due {
            return None;
        }
        self.told_reported = Some((self.reported, now));
        Some(Message::Reported { epoch: self.reported })
    }

    /// The replica has something to take, from now on; outside of COMMITs, for a base sync.
    pub fn expect(&mut self, now: Millis) {
        self.owing_since.get_or_insert(now);
    }

    /// The replica has nothing to take, or its answer may take long.
    pub fn expect_nothing(&mut self) {
        self.owing_since = None;
    }

    /// Whether the replica has reported or confirmed anything.
    pub fn has_progressed(&self) -> bool {
        self.has_progressed
    }

    /// The epoch up to which everything is durable on the replica: an epoch without writes needs no word with it.
    pub fn propagated(&mut self) -> Epoch {
        let lacks_nothing = self.is_live() && self.confirmed >= self.last_written;
        let now = if lacks_nothing { self.stored } else { self.confirmed.min(self.stored) };
        self.propagated = self.propagated.max(now);
        self.propagated
    }

    /// Takes a message of the control connection. After an error the session is to be closed and the error sent.
    pub fn on_control(&mut self, message: Message, now: Millis) -> Result<PrimaryEvent, Reason> {
        self.heard = self.heard.max(now);
        match message {
            Message::Durable { epoch } => self.confirm(epoch, now),
            Message::Alive(alive) => self.alive(alive, now),
            Message::Digest(
                asks @ (DigestMessage::Want { .. } | DigestMessage::Next { .. } | DigestMessage::End { .. }),
            ) => Ok(PrimaryEvent::Digest(asks)),
            Message::Bye => Ok(PrimaryEvent::Ended),
            Message::Error(reason) => Err(reason),
            other => {
                let text = format!("a {} message of a replica on the control connection", other.kind().name());
                Err(Reason::new(Code::PROTOCOL, text))
            }
        }
    }

    fn alive(&mut self, alive: Alive, now: Millis) -> Result<PrimaryEvent, Reason> {
        let Alive { durable, received, synced } = alive;
        if received < self.received || synced < self.synced {
            let text = format!(
                "the replica reports {received} bytes received and {synced} synced after {} and {}",
                self.received, self.synced
            );
            return Err(Reason::new(Code::PROTOCOL, text));
        }
        if (received, synced) != (self.received, self.synced) {
            (self.received, self.synced, self.has_progressed) = (received, synced, true);
            self.owing_since = self.owing_since.map(|_| now);
        }
        match durable == self.confirmed {
            true => Ok(PrimaryEvent::Alive),
            false => self.confirm(durable, now),
        }
    }

    fn confirm(&mut self, epoch: Epoch, now: Millis) -> Result<PrimaryEvent, Reason> {
        if epoch <= self.confirmed || epoch > self.committed {
            let text = format!(
                "the replica confirms epoch {epoch}, expected one above {} and up to {}",
                self.confirmed, self.committed
            );
            return Err(Reason::new(Code::PROTOCOL, text));
        }
        (self.confirmed, self.has_progressed) = (epoch, true);
        self.owing_since = (epoch < self.committed).then_some(now);
        Ok(PrimaryEvent::Confirmed(epoch))
    }

    /// What the time asks for; call it at least every [`heartbeat_interval`]. An error: the replica is lost or stalled.
    pub fn tick(&mut self, now: Millis) -> Result<Option<Message>, Reason> {
        let silent = now.saturating_sub(self.heard);
        if silent > self.timeout {
            return Err(Reason::new(Code::TIMEOUT, format!("nothing was heard from the replica for {silent} ms")));
        }
        let owing = self.owing_since.map_or(0, |since| now.saturating_sub(since));
        if owing > self.timeout {
            let (confirmed, committed) = (self.confirmed, self.committed);
            let text = format!(
                "the replica has taken nothing more for {owing} ms: it stays at epoch {confirmed}, committed is \
                 {committed}"
            );
            return Err(Reason::new(Code::TIMEOUT, text));
        }
        if !self.announce && now.saturating_sub(self.sent) < heartbeat_interval(self.timeout) {
            return Ok(None);
        }
        Ok(Some(self.heartbeat(now)))
    }
}

#[cfg(test)]
#[path = "primary_session_tests.rs"]
mod tests;

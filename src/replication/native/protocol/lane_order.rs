// SPDX-License-Identifier: Apache-2.0
//! The order of messages on one lane, as a replica holds the primary to it. Whole sessions come one after the other,
//! each of an announced channel and of an epoch that is not committed; a COMMIT stands between sessions.

use super::message::{Code, Log, Message, Reason};
use crate::types::Epoch;
use std::collections::BTreeSet;

/// The lane that a channel is pinned to.
pub fn lane_of(channel: u32, lanes: u32) -> u32 {
    channel % lanes.max(1)
}

/// What a replica does with a message of a lane.
#[derive(Debug, PartialEq, Eq)]
pub enum LaneStep {
    /// Nothing.
    Noted,
    /// Append the bytes to the lane's log.
    Append(Log),
    /// All sessions up to `epoch` of this lane have been appended: sync the lane, then tell
    /// [`ReplicaSession::lane_synced`](super::replica_session::ReplicaSession::lane_synced).
    Commit { epoch: Epoch, blob_seq: u64 },
    /// Sync what has come: a COMMIT for it will follow, and needs the record only then.
    Sync,
}

/// One lane of a session on the replica. Belongs to the thread that reads the lane.
#[derive(Debug)]
pub struct LaneOrder {
    /// The number of the lane, of so many.
    lane: u32,
    lanes: u32,
    max_channels: u32,
    channels: BTreeSet<u32>,
    /// Channel and epoch of the session that has begun and not ended.
    open: Option<(u32, Epoch)>,
    /// The last COMMIT; at first what the replica had before.
    committed: Epoch,
    blob_seq: u64,
}

impl LaneOrder {
    /// Lane number `lane` of `lanes`; the replica has everything up to `durable`.
    pub(super) fn new((lane, lanes): (u32, u32), max_channels: u32, durable: Epoch) -> LaneOrder {
        let channels = BTreeSet::new();
        LaneOrder { lane, lanes, max_channels, channels, open: None, committed: durable, blob_seq: 0 }
    }

    /// Takes the next message. After an error the session is to be closed.
    pub fn on_message(&mut self, message: Message) -> Result<LaneStep, Reason> {
        let violation = |text: String| Err(Reason::new(Code::PROTOCOL, text));
        if let (Some((channel, epoch)), false) = (self.open, matches!(message, Message::Log(_))) {
            let name = message.kind().name();
            return violation(format!("a {name} message inside a session of channel {channel} and epoch {epoch}"));
        }
        match message {
            Message::Channel { channel } if channel >= self.max_channels => {
                let text = format!("channel {channel} was announced, {} were agreed", self.max_channels);
                Err(Reason::new(Code::LIMIT, text))
            }
            Message::Channel { channel } if lane_of(channel, self.lanes) != self.lane => {
                let expected = lane_of(channel, self.lanes);
                violation(format!("channel {channel} on lane {}, it belongs on lane {expected}", self.lane))
            }
            Message::Channel { channel } => match self.channels.insert(channel) {
                true => Ok(LaneStep::Noted),
                false => violation(format!("channel {channel} was announced twice")),
            },
            Message::ChannelEnd { channel } => match self.channels.remove(&channel) {
                true => Ok(LaneStep::Noted),
                false => violation(format!("channel {channel} ended that was not announced")),
            },
            Message::Log(log) => self.log(log),
            Message::Commit { epoch, blob_seq } => {
                if epoch <= self.committed || blob_seq < self.blob_seq {
                    let text = format!("COMMIT of epoch {epoch} and BLOB {blob_seq} after epoch {}", self.committed);
                    return violation(format!("{text} and BLOB {}", self.blob_seq));
                }
                (self.committed, self.blob_seq) = (epoch, blob_seq);
                Ok(LaneStep::Commit { epoch, blob_seq })
            }
            Message::Sync => Ok(LaneStep::Sync),
            Message::Error(reason) => Err(reason),
            other => violation(format!("a {} message on a lane", other.kind().name())),
        }
    }

    fn log(&mut self, log: Log) -> Result<LaneStep, Reason> {
        let violation = |text: String| Err(Reason::new(Code::PROTOCOL, text));
        let Log { channel, epoch, first, last, .. } = log;
        match self.open {
            Some(open) if first || open != (channel, epoch) => {
                let found = format!("of channel {channel} and epoch {epoch}, first: {first},");
                return violation(format!(
                    "a piece {found} inside a session of channel {} and epoch {}",
                    open.0, open.1
                ));
            }
            Some(_) => {}
            None if !first => return violation(format!("a session of epoch {epoch} goes on that never began")),
            None if !self.channels.contains(&channel) => {
                return violation(format!("a session of channel {channel}, which is not announced"));
            }
            None if epoch <= self.committed => {
                return violation(format!("a session of epoch {epoch} after COMMIT of epoch {}", self.committed));
            }
            None => {}
        }
        if log.bytes.is_empty() {
            return violation(format!("an empty piece of a session of epoch {epoch}"));
        }
        self.open = (!last).then_some((channel, epoch));
        Ok(LaneStep::Append(log))
    }
}

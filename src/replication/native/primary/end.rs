// SPDX-License-Identifier: Apache-2.0
//! Why a session with the replica ended, or did not come about.

use crate::replication::native::protocol::frame::FrameError;
use crate::replication::native::protocol::message::{Code, Reason};
use crate::replication::net::deadline::is_timeout;
use crate::types::Epoch;
use std::io;
use std::time::Duration;

/// The reason in the words of the log and the status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum End {
    #[error("cannot connect: {0}")]
    Unreachable(String),
    #[error("the replica refused: {0}")]
    Refused(Reason),
    #[error("the replica is not accepted: {0}")]
    Rejected(Reason),
    #[error("{0}")]
    Insecure(String),
    #[error("the connection was lost: {0}")]
    Lost(String),
    #[error("nothing was heard from the replica for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("the replica is lost or stalled: {0}")]
    Stalled(Reason),
    #[error("the replica is too slow for the queue of {0} sessions and has to catch up from the log")]
    TooSlow(usize),
    #[error("the log is not enough for the replica: {reason}")]
    NotShippable { oldest: Epoch, reason: String },
    #[error("the replica ended the session: {0}")]
    Ended(Reason),
    #[error("the replica broke the protocol: {0}")]
    Protocol(String),
    #[error("{0}")]
    Local(String),
    #[error("the replica counts from now on: the term is known, or its directory is no other's any more")]
    NotCounted,
    #[error("the base sync is complete")]
    BaseSynced,
    #[error("another replica has seen a later term: this primary has been replaced")]
    Fenced,
    #[error("replication ends")]
    Stopped,
}

impl End {
    /// Whether a person has to act before another attempt can succeed.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            // Over by itself: the replica is started again.
            End::Refused(reason) => !self.is_busy() && reason.code != Code::SHUTDOWN,
            end => matches!(end, End::Rejected(_) | End::Insecure(_) | End::Protocol(_) | End::Fenced),
        }
    }

    /// Whether the replica is there and will be ready by itself: another session ends, a compaction or rewind is done.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, End::Refused(reason) if reason.code == Code::BUSY)
    }

    /// Whether the replica has seen a later term: this primary has been replaced for good.
    pub(super) fn is_fenced(&self) -> bool {
        matches!(self, End::Refused(reason) if reason.code == Code::FENCED)
    }

    /// Whether the next attempt should follow at once.
    pub(super) fn is_part_of_the_plan(&self) -> bool {
        matches!(self, End::TooSlow(_) | End::NotShippable { .. } | End::NotCounted | End::BaseSynced)
    }

    /// For an error while reading or writing a connection whose calls are bounded by `timeout`.
    pub(super) fn of_io(error: &io::Error, timeout: Duration) -> End {
        match error.kind() {
            _ if is_timeout(error) => End::Silent(timeout),
            // TLS does not take what came.
            io::ErrorKind::InvalidData => End::Insecure(error.to_string()),
            _ => End::Lost(error.to_string()),
        }
    }

    /// For what came instead of a frame.
    pub(super) fn of_frame(error: FrameError, timeout: Duration) -> End {
        match error {
            FrameError::Io(error) => End::of_io(&error, timeout),
            FrameError::Cut { .. } => End::Lost(error.to_string()),
            other => End::Protocol(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_is_busy_needs_no_person() {
        for (code, needs_person) in [(Code::BUSY, false), (Code::SHUTDOWN, false), (Code::FENCED, true)] {
            assert_eq!(End::Refused(Reason::new(code, "why")).is_refusal(), needs_person, "{code:?}");
        }
    }
}

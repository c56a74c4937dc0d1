// SPDX-License-Identifier: Apache-2.0
//! Why a session with a primary ended.

use crate::replication::native::protocol::message::{Code, Reason};

/// Why a session ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// The primary took its leave.
    Bye,
    /// This side ends it, and says why.
    Told(Reason),
    /// The link was lost, or the primary said why it ends.
    Lost(String),
}

impl End {
    /// What the session objects to is told to the primary, but for what the primary itself said and its silence.
    pub(super) fn of_reason(reason: Reason) -> End {
        match reason.code {
            Code::TIMEOUT => End::Lost(reason.to_string()),
            _ => End::Told(reason),
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Why a session with a primary ended.

use crate::replication::native::protocol::message::Reason;

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

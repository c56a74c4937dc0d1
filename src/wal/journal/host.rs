// SPDX-License-Identifier: Apache-2.0
//! What a journal needs of those who use it.

use super::format::JournalId;
use crate::error::{Error, Result};

/// What surrounds a journal. Calls may come from any thread and must not call back into the journal.
pub trait Host: Send + Sync {
    /// Makes durable what sessions refer to that were gathered before this call.
    fn before_group(&self) -> Result<()>;
    /// Says in the manifest, durably, that this journal is in use, or that none is.
    fn set_in_use(&self, journal: Option<&JournalId>) -> Result<()>;
    /// A failure in the background: nothing may be acknowledged from now on.
    fn failed(&self, error: Error);
}

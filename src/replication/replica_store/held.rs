// SPDX-License-Identifier: Apache-2.0
//! The directory of a store that was closed and is to be opened again soon: its lock is kept, so that nobody can have
//! changed it meanwhile, and what was read need not be read again.

use crate::directory::{self, Cut, Keep, LogDirectory};
use crate::error::Result;
use crate::types::Epoch;
use crate::wal::file_sync::NameSync;
use std::sync::Arc;

/// A closed store's directory with its lock, which goes when this is dropped.
#[derive(Debug)]
pub struct HeldDirectory {
    pub(super) directory: LogDirectory,
    pub(super) durable: Epoch,
    pub(super) names: Arc<NameSync>,
}

impl HeldDirectory {
    /// Takes it back to `last`; see [`directory::cut`]. Opening it completes that.
    ///
    /// # Errors
    /// As those of [`directory::cut`].
    pub fn cut(&self, last: Option<Epoch>, keep: Keep) -> Result<Cut> {
        directory::cut(&self.directory, self.durable, self.names.marks(), last, keep)
    }
}

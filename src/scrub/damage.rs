// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a log file.

use crate::error::{self, Error, Remedy};
use std::path::Path;

/// Bytes that are read at a time to find it.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// A file that does not hold any more what it held, twice in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// In the directory.
    pub name: String,
    pub wrong: Wrong,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// The CRC-32 of the content is another one.
    #[error("CRC {expected:08x} expected, {found:08x} found")]
    Changed { expected: u32, found: u32 },
    /// The disk does not give it, for this reason.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

impl Damage {
    /// For whoever cannot go on with the file.
    pub(super) fn error(&self, location: &Path) -> Error {
        let (found, expected) = match &self.wrong {
            Wrong::Changed { expected, found } => (format!("CRC {found:08x}"), format!("CRC {expected:08x}")),
            Wrong::Unreadable(why) => (why.clone(), "its content".to_owned()),
        };
        Error::Corrupted(Box::new(error::Damage {
            file: location.join(&self.name),
            offset: 0,
            epoch: None,
            reason: "the file does not hold any more what was written".to_owned(),
            found,
            expected,
            remedy: Remedy::OtherCopy,
        }))
    }
}

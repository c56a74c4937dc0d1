// SPDX-License-Identifier: Apache-2.0
//! What a replica asks its primary for when both are compared: a digest of the primary's content. How one is made is
//! known further up; here is only what is wanted, and how the work is watched over.

use crate::types::Epoch;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::Arc;

/// Which digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DigestWanted {
    /// Of the content at this epoch.
    pub epoch: Epoch,
    /// Whether what BLOBs hold counts, and not only which they are.
    pub with_blobs: bool,
    /// At most so much is read in a second; `None` for as fast as can be.
    pub bytes_per_second: Option<u64>,
}

/// The work on a digest, for those who watch over it.
#[derive(Clone, Debug, Default)]
pub struct DigestWork {
    /// Set by who does not want it any more; the work ends soon then, with an error.
    pub stop: Arc<AtomicBool>,
    /// Bytes that have been read.
    pub read: Arc<AtomicU64>,
}

/// Who makes digests of a directory that is in use.
pub trait MakesDigests: Send + Sync {
    /// The document, or why there is none. Takes long, behind all others for processors and disk, and calls for a
    /// thread of its own: that one does not come forward again.
    fn make(&self, wanted: DigestWanted, work: &DigestWork) -> Result<Vec<u8>, String>;
}

/// How that is told; an error says that nothing more is wanted.
pub type Tell<'a> = &'a mut dyn FnMut(Step<'_>) -> io::Result<()>;

/// What is told to who has asked for the digest of a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// There is nothing new; told all the time, so that who asks can say that it does not want any more.
    GoesOn,
    /// The next piece of the document.
    Piece(&'a [u8]),
}

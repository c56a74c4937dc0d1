// SPDX-License-Identifier: Apache-2.0
//! How replication gets to see what is written: a *tap* is told about each session that ends, between its write and its
//! sync, and about each epoch that is stored. [`super::Datastore::subscribe`] sets it and gives the log that was
//! written before, so that between the two nothing is lost and nothing comes twice. The data store knows nothing else
//! of replicas.

use crate::types::{BlobId, Epoch, WriteVersion};
use crate::vfs::VfsFile;
use crate::wal::epoch_marks::FileMarks;
use std::fmt;
use std::sync::Arc;

/// A session that has ended and is written, by reference: its bytes, from the begin to the end marker, stay where they
/// are as long as the file is held, also when the file is rotated or loses its name.
#[derive(Clone, Debug)]
pub struct EndedSession {
    pub epoch: Epoch,
    /// Number of its channel, as in the name of the file.
    pub channel: u32,
    pub file: Arc<dyn VfsFile>,
    pub start: u64,
    pub len: u64,
    /// The BLOBs that its entries refer to; they are on the disk, but their names may not be durable.
    pub blobs: Arc<[BlobId]>,
}

/// Told what happens in a data store. Calls come from any thread, some with locks held: none may wait, fail, or call
/// back into the data store.
pub trait Tap: Send + Sync {
    /// A session is written and not yet synced. Comes before its epoch can be stored; its channel is locked meanwhile.
    fn session_ended(&self, session: EndedSession);
    /// The session that the channel gave last is on the disk, or in the hands of the commit journal; the channel is
    /// still locked.
    fn session_synced(&self, _channel: u32) {}
    /// The current epoch is `epoch` now. Sessions of earlier ones may still be given.
    fn switched(&self, _epoch: Epoch) {}
    /// `epoch` is about to be recorded: every session up to it is on the disk.
    fn recording(&self, _epoch: Epoch) {}
    /// Everything up to `stored` is on the disk; `last_written` is the last epoch with writes that was recorded with
    /// it. Returns up to where the replicas are known to have everything, if they lack nothing: an epoch without writes
    /// needs no word with them.
    fn stored(&self, stored: Epoch, last_written: Option<Epoch>) -> Option<Epoch>;
    /// Versions below this one are not read any more.
    fn boundary(&self, version: WriteVersion);
    /// Readers use this version from now on.
    fn safe_snapshot(&self, version: WriteVersion);
}

/// A tap that can stand in what is printed for debugging.
#[derive(Clone)]
pub(super) struct TapHandle(pub(super) Arc<dyn Tap>);

impl fmt::Debug for TapHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap")
    }
}

/// A log file as far as sessions in it had ended when the tap was set.
#[derive(Clone, Debug)]
pub struct WrittenLog {
    pub name: String,
    /// Number of the channel that wrote it, 0 for a name without one.
    pub channel: u32,
    pub file: Arc<dyn VfsFile>,
    /// Whatever stands behind reaches the tap when it ends.
    pub len: u64,
    /// Where to begin to read it.
    pub marks: FileMarks,
}

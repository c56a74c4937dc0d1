// SPDX-License-Identifier: Apache-2.0
//! A session as it arrives: entries become the bytes of a log file, BLOBs become files. It is appended to the log as a
//! whole when it ends, so nothing of a session that never ends is ever in the log; a large one waits in a file without
//! a name.

use crate::error::{Error, Result};
use crate::replication::replica_store::{BlobReceiver, LaneLog, StandbyStore};
use crate::replication::upstream::protocol::codec::entry_kind;
use crate::replication::upstream::protocol::reader::{EntrySink, ReadEntry, WireError};
use crate::types::{BlobId, Epoch};
use crate::vfs::{Vfs, VfsFile};
use crate::wal::entry::{self, tag};
use std::path::Path;

/// More than this waits on the disk.
const BUFFER_BYTES: usize = 256 << 10;

/// Why entries could not be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Store(#[from] Error),
}

/// The session that a connection is inside.
#[derive(Debug)]
pub(super) struct Session {
    epoch: Epoch,
    bytes: Vec<u8>,
    spilled: Option<Spill>,
}

#[derive(Debug)]
struct Spill {
    file: Box<dyn VfsFile>,
    len: u64,
}

impl Session {
    /// `epoch` is that of the message with the begin flag; no other message's is looked at.
    pub(super) fn new(epoch: Epoch) -> Session {
        Session { epoch, bytes: entry::marker(tag::BEGIN, epoch).to_vec(), spilled: None }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn put(&mut self, entry: ReadEntry<'_>) {
        let ReadEntry { kind, storage, key, value, version, blobs } = entry;
        match kind {
            entry_kind::PUT => entry::encode_put(&mut self.bytes, storage, key, value, version, &[]),
            entry_kind::PUT_WITH_BLOBS => entry::encode_put(&mut self.bytes, storage, key, value, version, blobs),
            entry_kind::REMOVE => entry::encode_remove(&mut self.bytes, storage, key, version),
            entry_kind::CLEAR_STORAGE | entry_kind::ADD_STORAGE | entry_kind::REMOVE_STORAGE => {
                entry::encode_storage(&mut self.bytes, kind, storage, version);
            }
            // So does the original.
            other => log::warn!("an entry of unknown type {other} in storage {storage} is skipped"),
        }
    }

    fn spill(&mut self, vfs: &dyn Vfs, location: &Path) -> Result<()> {
        let failed = |e| Error::io("cannot keep a large session in", location, e);
        let spill = match &mut self.spilled {
            Some(spill) => spill,
            none => none.insert(Spill { file: vfs.temp_file(location).map_err(failed)?, len: 0 }),
        };
        spill.file.write_at(spill.len, &self.bytes).map_err(failed)?;
        spill.len += self.bytes.len() as u64;
        self.bytes = Vec::new();
        Ok(())
    }

    /// Appends the whole session to the log; it is durable after the next sync of that.
    pub(super) fn append_to(mut self, lane: &LaneLog, location: &Path) -> Result<()> {
        entry::encode_end(&mut self.bytes, self.epoch);
        let Some(spill) = self.spilled else {
            return lane.append(self.epoch, true, true, &self.bytes);
        };
        let failed = |e| Error::io("cannot read a large session from", location, e);
        let mut piece = vec![0; BUFFER_BYTES];
        let mut offset = 0;
        while offset < spill.len {
            let wanted = (spill.len - offset).min(BUFFER_BYTES as u64) as usize;
            let got = spill.file.read_at(offset, &mut piece[..wanted]).map_err(failed)?;
            if got != wanted {
                return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
            }
            lane.append(self.epoch, offset == 0, false, &piece[..wanted])?;
            offset += wanted as u64;
        }
        lane.append(self.epoch, false, true, &self.bytes)
    }
}

/// Takes the entries of one message into a session.
pub(super) struct Collect<'a> {
    pub(super) session: &'a mut Session,
    pub(super) blobs: &'a mut Blobs,
    pub(super) store: &'a StandbyStore,
}

/// Receives the BLOBs of one connection.
#[derive(Debug)]
pub(super) struct Blobs {
    receiver: BlobReceiver,
    current: Option<Blob>,
}

#[derive(Debug)]
struct Blob {
    id: BlobId,
    size: u64,
    written: u64,
    crc: crc32fast::Hasher,
}

impl Blobs {
    pub(super) fn new(store: &StandbyStore) -> Blobs {
        Blobs { receiver: store.blob_receiver(), current: None }
    }

    /// Makes the names of all that came durable.
    pub(super) fn sync_names(&mut self) -> Result<()> {
        self.receiver.sync_names(|| {})
    }
}

impl EntrySink for Collect<'_> {
    type Error = SinkError;

    fn blob(&mut self, id: BlobId, size: u32) -> std::result::Result<(), SinkError> {
        let size = u64::from(size);
        self.blobs.current = Some(Blob { id, size, written: 0, crc: crc32fast::Hasher::new() });
        Ok(())
    }

    fn blob_bytes(&mut self, bytes: &[u8]) -> std::result::Result<(), SinkError> {
        if let Some(blob) = &mut self.blobs.current {
            self.blobs.receiver.piece(blob.id, blob.size, blob.written, bytes, None)?;
            blob.crc.update(bytes);
            blob.written += bytes.len() as u64;
        }
        Ok(())
    }

    fn blob_end(&mut self) -> std::result::Result<(), SinkError> {
        if let Some(blob) = self.blobs.current.take() {
            self.blobs.receiver.piece(blob.id, blob.size, blob.written, &[], Some(blob.crc.finalize()))?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: ReadEntry<'_>) -> std::result::Result<(), SinkError> {
        self.session.put(entry);
        if self.session.bytes.len() > BUFFER_BYTES {
            self.session.spill(&**self.store.vfs(), self.store.location())?;
        }
        Ok(())
    }
}

// SPDX-License-Identifier: Apache-2.0
//! BLOBs on their way to the replica: numbered in the order in which sessions refer to them, so that a commit can say
//! how many the replica must have.

use super::connection::Sender;
use super::end::End;
use super::queue::Queue;
use crate::blob::BlobStore;
use crate::lock_order::{Mutex, Rank};
use crate::replication::native::protocol::frame::PIECE_BYTES_MAX;
use crate::replication::native::protocol::message::{BlobPiece, Message};
use crate::types::BlobId;
use crate::vfs::{Open, Vfs};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// A BLOB that was referred to not long ago is not sent again; so many are remembered.
const REMEMBERED_MAX: usize = 1 << 16;

/// The BLOBs of a session with the replica.
#[derive(Debug)]
pub(super) struct Blobs {
    queue: Queue<(u64, BlobId)>,
    numbered: Mutex<Numbered>,
}

#[derive(Debug, Default)]
struct Numbered {
    last: u64,
    remembered: HashSet<BlobId>,
}

impl Blobs {
    pub(super) fn new() -> Blobs {
        Blobs { queue: Queue::new(), numbered: Mutex::new(Rank::BlobNumbers, Numbered::default()) }
    }

    /// Those that are there. Others belong to entries that later ones have replaced. Looks files up: to be called
    /// without a lock that channels share.
    pub(super) fn present(&self, store: &BlobStore, ids: &[BlobId]) -> Arc<[BlobId]> {
        let is_remembered = |id: &BlobId| self.numbered.lock().remembered.contains(id);
        ids.iter().copied().filter(|id| is_remembered(id) || store.file(*id).1).collect()
    }

    /// Queues the BLOBs of a session, which are there, ahead of the commit of its epoch. Returns how many wait.
    pub(super) fn queue(&self, ids: &[BlobId]) -> usize {
        let mut waiting = 0;
        for &id in ids {
            let mut numbered = self.numbered.lock();
            if numbered.remembered.contains(&id) {
                continue;
            }
            if numbered.remembered.len() >= REMEMBERED_MAX {
                numbered.remembered.clear();
            }
            numbered.remembered.insert(id);
            numbered.last += 1;
            waiting = self.queue.push((numbered.last, id));
        }
        waiting
    }

    /// The number of the last BLOB that was queued.
    pub(super) fn last(&self) -> u64 {
        self.numbered.lock().last
    }

    pub(super) fn close(&self) {
        self.queue.close();
    }

    /// Sends what comes until the queue is closed.
    pub(super) fn send(&self, sender: &mut Sender, vfs: &dyn Vfs, store: &BlobStore) -> Result<(), End> {
        let mut items = VecDeque::new();
        while self.queue.take(&mut items) {
            for (seq, id) in items.drain(..) {
                send_one(sender, vfs, store, seq, id)?;
            }
        }
        Ok(())
    }
}

fn send_one(sender: &mut Sender, vfs: &dyn Vfs, store: &BlobStore, seq: u64, id: BlobId) -> Result<(), End> {
    let (path, _) = store.file(id);
    let failed = |e: std::io::Error| End::Local(format!("BLOB {id} cannot be read: {}: {e}", path.display()));
    let file = vfs.open(&path, Open::Read).map_err(failed)?;
    let size = file.len().map_err(failed)?;
    let mut checksum = crc32fast::Hasher::new();
    let mut offset = 0;
    loop {
        let mut bytes = vec![0; (size - offset).min(PIECE_BYTES_MAX as u64) as usize];
        let got = file.read_at(offset, &mut bytes).map_err(failed)?;
        if got != bytes.len() {
            return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        checksum.update(&bytes);
        let last = offset + got as u64 == size;
        let crc = if last { checksum.clone().finalize() } else { 0 };
        sender.send(&Message::Blob(BlobPiece { seq, id, size, offset, last, crc, bytes }))?;
        offset += got as u64;
        if last {
            return Ok(());
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! A log channel in use: its open session, the BLOBs of its transactions, and what the model is told about them.

use crate::blobs::{Blob, Blobs};
use crate::model::{first_marker, last_marker, Change, Model, Progress, SessionId, MARKERS};
use crate::random::Random;
use limestone_core::blob::BlobPool;
use limestone_core::datastore::{Channel, Datastore};
use limestone_core::types::{BlobId, StorageId, WriteVersion};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// The first of the storages with data; the first of all holds the markers.
const STORAGE: u64 = 2;
const STORAGES: u64 = 3;
const KEYS: u64 = 10;
/// More than a session keeps in memory.
const LARGE: u64 = 300_000;

/// What all writers share.
#[derive(Clone)]
pub struct Shared {
    pub store: Arc<Datastore>,
    pub model: Arc<Mutex<Model>>,
    /// Gives every entry another version and every BLOB another content.
    pub serial: Arc<AtomicU64>,
}

pub struct Open {
    pub id: SessionId,
    pub epoch: u64,
    /// An entry was refused, so that the session must not end well.
    refused: bool,
    /// Storage and key of every entry; no key for a whole storage.
    pub touched: BTreeSet<(u64, Option<Vec<u8>>)>,
}

pub struct Writer {
    shared: Shared,
    channel: Arc<Channel>,
    pub open: Option<Open>,
    pool: BlobPool,
    registered: Vec<Blob>,
    /// Pools of ended transactions that have not been released.
    later: Vec<BlobPool>,
    blobs: Blobs,
}

pub fn text(error: limestone_core::error::Error) -> String {
    error.to_string()
}

impl Writer {
    pub fn new(shared: &Shared, channel: Arc<Channel>, blobs: Blobs) -> Writer {
        let pool = shared.store.blob_pool();
        let (shared, registered, later) = (shared.clone(), Vec::new(), Vec::new());
        Writer { shared, channel, open: None, pool, registered, later, blobs }
    }

    fn model(&self) -> std::sync::MutexGuard<'_, Model> {
        self.shared.model.lock().expect("no writer panicked")
    }

    pub fn begin(&mut self) -> Result<(), String> {
        let epoch = self.channel.begin_session().map_err(text)?.0;
        let id = self.model().begin(epoch);
        self.open = Some(Open { id, epoch, refused: false, touched: BTreeSet::new() });
        self.put(MARKERS, first_marker(id), b"1".to_vec(), &[])
    }

    /// One random entry of the open session.
    pub fn change(&mut self, random: &mut Random) -> Result<(), String> {
        let storage = STORAGE + random.below(STORAGES);
        let key = format!("key {}", random.below(KEYS)).into_bytes();
        match random.below(40) {
            0 => self.clear(storage),
            1..=7 => self.remove(storage, key),
            8..=13 => {
                let mut blobs = Vec::new();
                for _ in 0..1 + random.below(2) {
                    // Registered just now, or at any time since the transaction before.
                    let known = self.registered.len() as u64;
                    blobs.push(match random.below(2) {
                        0 if known > 0 => self.registered[random.below(known) as usize],
                        _ => self.register(random)?,
                    });
                }
                self.put_blobs(storage, key, &blobs)
            }
            n => {
                let len = match n {
                    14 => LARGE + random.below(1000),
                    15..=17 => random.below(20_000),
                    _ => random.below(60),
                };
                let mut value = format!("{}|", self.shared.serial.load(SeqCst)).into_bytes();
                value.resize(value.len().max(len as usize), b'.');
                self.put(storage, key, value, &[])
            }
        }
    }

    /// An entry that refers to these BLOBs.
    pub fn put_blobs(&mut self, storage: u64, key: Vec<u8>, blobs: &[Blob]) -> Result<(), String> {
        let ids: Vec<BlobId> = blobs.iter().map(|blob| blob.id).collect();
        self.put(storage, key, Blob::describe(blobs).into_bytes(), &ids)
    }

    fn put(&mut self, storage: u64, key: Vec<u8>, value: Vec<u8>, blobs: &[BlobId]) -> Result<(), String> {
        let change = Change::Put { storage, key: key.clone(), value: value.clone() };
        self.apply(storage, Some(key.clone()), change, |channel, version| {
            channel.add_entry(StorageId(storage), &key, &value, version, blobs)
        })
    }

    fn remove(&mut self, storage: u64, key: Vec<u8>) -> Result<(), String> {
        self.apply(storage, Some(key.clone()), Change::Remove { storage, key: key.clone() }, |channel, version| {
            channel.remove_entry(StorageId(storage), &key, version)
        })
    }

    fn clear(&mut self, storage: u64) -> Result<(), String> {
        self.apply(storage, None, Change::Clear { storage }, |channel, version| match version.minor % 2 {
            0 => channel.truncate_storage(StorageId(storage), version),
            _ => {
                channel.remove_storage(StorageId(storage), version)?;
                channel.add_storage(StorageId(storage), version)
            }
        })
    }

    fn apply(
        &mut self,
        storage: u64,
        key: Option<Vec<u8>>,
        change: Change,
        call: impl FnOnce(&Channel, WriteVersion) -> limestone_core::error::Result<()>,
    ) -> Result<(), String> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let version = WriteVersion { major: open.epoch, minor: self.shared.serial.fetch_add(1, SeqCst) };
        open.touched.insert((storage, key));
        let id = open.id;
        let result = call(&self.channel, version);
        open.refused |= result.is_err();
        self.model().sessions[id].changes.push(((version.major, version.minor), change));
        result.map_err(text)
    }

    /// Registers a BLOB for the running transaction.
    pub fn register(&mut self, random: &mut Random) -> Result<Blob, String> {
        let nonce = self.shared.serial.fetch_add(1, SeqCst);
        let known = match self.registered.len() as u64 {
            0 => None,
            len => Some(self.registered[random.below(len) as usize]),
        };
        let blob = self.blobs.register(&self.pool, nonce, known, random)?;
        self.registered.push(blob);
        Ok(blob)
    }

    pub fn end(&mut self, random: &mut Random) -> Result<(), String> {
        let Some(id) = self.open.as_ref().map(|open| open.id) else { return Ok(()) };
        let marked = self.put(MARKERS, last_marker(id), b"2".to_vec(), &[]);
        let refused = self.open.take().is_some_and(|open| open.refused);
        if !refused {
            self.model().sessions[id].progress = Progress::Ending;
        }
        if random.below(4) == 0 {
            // The transaction is over before its session is on the disk.
            self.pool.release();
        }
        let ended = self.channel.end_session().map_err(text);
        self.finish_transaction(random);
        ended?;
        if refused {
            return Err(format!("VIOLATION: session {id} ended well though one of its entries was refused"));
        }
        self.model().sessions[id].progress = Progress::Ended;
        marked
    }

    pub fn abort(&mut self, random: &mut Random) -> Result<(), String> {
        let Some(open) = self.open.take() else { return Ok(()) };
        // From the call on: whether it succeeds or not, the session has not ended.
        self.model().sessions[open.id].progress = Progress::Discarded;
        let aborted = self.channel.abort_session().map_err(text);
        self.finish_transaction(random);
        aborted
    }

    fn finish_transaction(&mut self, random: &mut Random) {
        let pool = std::mem::replace(&mut self.pool, self.shared.store.blob_pool());
        self.registered.clear();
        match random.below(10) {
            0 => drop(pool),
            1..=3 => self.later.push(pool),
            _ => pool.release(),
        }
    }

    /// Releases pools of transactions that ended before.
    pub fn release(&mut self) {
        self.later.drain(..).for_each(|pool| pool.release());
    }
}

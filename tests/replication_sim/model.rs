// SPDX-License-Identifier: Apache-2.0
//! What was written, and what may and must be found again. A session's first and last entry are keys of its own, so
//! that a session that is there in part is seen. The value of the last one is the content of the BLOB that it refers
//! to, if any.

use limestone_core::datastore::{Datastore, Settings};
use limestone_core::types::Epoch;
use limestone_core::vfs::{Loss, SimFs};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub const LOCATION: &str = "/log";
/// Storages of the marker keys and of ordinary ones.
pub const MARKERS: u64 = 1;
pub const DATA: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not ended, or ended and not known to have survived a crash.
    Open,
    /// Ended in a process that goes on, or found after a crash.
    Alive,
    /// Gone with a crash: must never be seen again.
    Dead,
}

#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub epoch: Epoch,
    pub fate: Fate,
}

#[derive(Default)]
pub struct Model {
    pub sessions: Vec<Session>,
}

/// What a directory recovers to.
pub struct Found {
    pub durable: Epoch,
    pub sessions: BTreeSet<usize>,
    pub data: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Recovers a copy of the disk after a power cut.
pub fn recover(fs: &SimFs, loss: Loss) -> Result<Found, String> {
    let settings = Settings::new(LOCATION).vfs(Arc::new(fs.reboot(loss))).recovery_threads(1);
    let store = Datastore::open(settings).map_err(|e| e.to_string())?;
    let report = store.ready().map_err(|e| e.to_string())?;
    store.blobs().wait_for_collection();
    read(&store, report.durable_epoch)
}

/// The content of a data store that has just started.
pub fn read(store: &Datastore, durable: Epoch) -> Result<Found, String> {
    let mut markers: BTreeMap<usize, usize> = BTreeMap::new();
    let mut data = BTreeMap::new();
    let mut cursor = store.snapshot().map_err(|e| e.to_string())?.cursor();
    while let Some(row) = cursor.next().map_err(|e| e.to_string())? {
        if row.storage.0 == MARKERS {
            let key = String::from_utf8_lossy(row.key).into_owned();
            let id = key[1..].parse().map_err(|_| format!("the key {key:?} was never written"))?;
            *markers.entry(id).or_default() += 1;
            for blob in row.blobs.iter() {
                let (path, _) = store.blobs().file(blob);
                let content = store.vfs().read(&path, 1 << 20);
                if !content.as_ref().is_ok_and(|content| content == row.value) {
                    return Err(format!("BLOB {blob} of session {id} is not there: {content:?}"));
                }
            }
        } else {
            data.insert(row.key.to_vec(), row.value.to_vec());
        }
    }
    if let Some((id, _)) = markers.iter().find(|(_, count)| **count != 2) {
        return Err(format!("session {id} is there in part"));
    }
    Ok(Found { durable, sessions: markers.into_keys().collect(), data })
}

impl Model {
    pub fn begin(&mut self, epoch: Epoch) -> usize {
        self.sessions.push(Session { epoch, fate: Fate::Open });
        self.sessions.len() - 1
    }

    /// The last epoch up to `limit` that holds anything.
    pub fn last_written(&self, limit: Epoch) -> Epoch {
        let alive = self.sessions.iter().filter(|session| session.fate == Fate::Alive && session.epoch <= limit);
        alive.map(|session| session.epoch).max().unwrap_or_default()
    }

    /// After a start of the primary nothing is open: what it did not find is gone for good.
    pub fn settle(&mut self, found: &Found, stored: Epoch) -> Result<(), String> {
        for (id, session) in self.sessions.iter_mut().enumerate() {
            match (found.sessions.contains(&id), session.fate) {
                (true, Fate::Dead) => return Err(format!("session {id} came back on the primary")),
                (true, _) => session.fate = Fate::Alive,
                (false, Fate::Alive) if session.epoch <= stored => {
                    return Err(format!("session {id} of epoch {} is gone, {stored} was stored", session.epoch));
                }
                (false, _) => session.fate = Fate::Dead,
            }
        }
        Ok(())
    }

    /// A replica has exactly what is alive up to its durable epoch.
    pub fn check_replica(&self, found: &Found) -> Result<(), String> {
        let durable = found.durable;
        for (id, Session { epoch, fate }) in self.sessions.iter().enumerate() {
            match (found.sessions.contains(&id), *fate) {
                (true, fate) if *epoch > durable || fate != Fate::Alive => {
                    return Err(format!("the replica with epoch {durable} shows session {id} of {epoch}, {fate:?}"));
                }
                (false, Fate::Alive) if *epoch <= durable => {
                    return Err(format!("the replica with epoch {durable} lacks session {id} of epoch {epoch}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

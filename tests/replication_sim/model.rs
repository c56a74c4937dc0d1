// SPDX-License-Identifier: Apache-2.0
//! What a directory may and must hold. A session's first and last entry are keys of its own, so that a session that is
//! there in part is seen, and its number is used once in a run of the simulation, so that what another directory wrote
//! is told apart. The value of the last entry is the content of the BLOB that it refers to, if any.

use limestone_core::datastore::{Datastore, Settings};
use limestone_core::types::Epoch;
use limestone_core::vfs::{Loss, SimFs, Vfs};
use limestone_core::wal::names;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
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

/// The sessions of a directory; what is not among them was never in it.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub sessions: BTreeMap<usize, Session>,
}

/// What a directory recovers to.
pub struct Found {
    pub durable: Epoch,
    pub sessions: BTreeSet<usize>,
    pub data: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Recovers a copy of the disk after a power cut, whatever the history of the directory says.
pub fn recover(fs: &SimFs, loss: Loss) -> Result<Found, String> {
    let image = fs.reboot(loss);
    let _ = image.unlink(&Path::new(LOCATION).join(names::HISTORY));
    let settings = Settings::new(LOCATION).vfs(Arc::new(image)).recovery_threads(1);
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
    pub fn begin(&mut self, id: usize, epoch: Epoch) {
        self.sessions.insert(id, Session { epoch, fate: Fate::Open });
    }

    pub fn end(&mut self, id: usize) {
        self.sessions.entry(id).and_modify(|session| session.fate = Fate::Alive);
    }

    /// The last epoch up to `limit` that holds anything.
    pub fn last_written(&self, limit: Epoch) -> Epoch {
        let alive = self.sessions.values().filter(|session| session.fate == Fate::Alive && session.epoch <= limit);
        alive.map(|session| session.epoch).max().unwrap_or_default()
    }

    /// After a start nothing is open: what was not found is gone for good. Everything up to `stored` must be there.
    pub fn settle(&mut self, found: &Found, stored: Epoch) -> Result<(), String> {
        self.check_known(found)?;
        for (id, session) in self.sessions.iter_mut() {
            match (found.sessions.contains(id), session.fate) {
                (true, Fate::Dead) => return Err(format!("session {id} came back")),
                (true, _) => session.fate = Fate::Alive,
                (false, Fate::Alive) if session.epoch <= stored => {
                    return Err(format!("session {id} of epoch {} is gone, {stored} was stored", session.epoch));
                }
                (false, _) => session.fate = Fate::Dead,
            }
        }
        Ok(())
    }

    fn check_known(&self, found: &Found) -> Result<(), String> {
        match found.sessions.iter().find(|id| !self.sessions.contains_key(id)) {
            Some(id) => Err(format!("session {id} is there, which another directory wrote")),
            None => Ok(()),
        }
    }

    /// The directory has exactly what is alive up to its durable epoch.
    pub fn check_exact(&self, found: &Found) -> Result<(), String> {
        self.check_known(found)?;
        let durable = found.durable;
        for (id, Session { epoch, fate }) in &self.sessions {
            match (found.sessions.contains(id), *fate) {
                (true, fate) if *epoch > durable || fate != Fate::Alive => {
                    return Err(format!(
                        "session {id} of epoch {epoch}, {fate:?}, is there, the durable epoch is {durable}"
                    ));
                }
                (false, Fate::Alive) if *epoch <= durable => {
                    return Err(format!("session {id} of epoch {epoch} is not there, the durable epoch is {durable}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Everything alive up to an epoch is there, whatever else is.
    pub fn check_has(&self, found: &Found, epoch: Epoch) -> Result<(), String> {
        let mut alive = self.sessions.iter().filter(|(_, session)| session.fate == Fate::Alive);
        match alive.find(|(id, session)| session.epoch <= epoch && !found.sessions.contains(id)) {
            Some((id, session)) => {
                Err(format!("session {id} of epoch {} is missing, {epoch} was confirmed", session.epoch))
            }
            None => Ok(()),
        }
    }

    /// Forgets what is not there: an operator has put this content in place.
    pub fn of(&self, found: &Found) -> Model {
        let there = |id: &usize| Some((*id, Session { fate: Fate::Alive, ..*self.sessions.get(id)? }));
        Model { sessions: found.sessions.iter().filter_map(there).collect() }
    }
}

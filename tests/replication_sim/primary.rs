// SPDX-License-Identifier: Apache-2.0
//! The primary's process: a real data store on a simulated disk, and its links to replicas.

use crate::feeder::{Feeder, Shared};
use crate::link::End;
use crate::model::{Model, DATA, LOCATION, MARKERS};
use crate::setup::{Sabotage, Setup};
use crate::tap::Step;
use limestone_core::blob::BlobPool;
use limestone_core::datastore::{Channel, Datastore, Settings};
use limestone_core::replication::native::protocol::message::SessionId;
use limestone_core::replication::native::protocol::Millis;
use limestone_core::replication::quorum::Quorum;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{SimFs, Vfs};
use limestone_core::wal::history_file::DirectoryHistory;
use limestone_core::wal::names;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A link may go to any of so many.
const MACHINES_MAX: usize = 5;

/// A session that is being written: its number in the model, and where its BLOB comes from.
type Writing = (usize, BlobPool);

pub struct Primary {
    pub shared: Shared,
    channels: Vec<(Arc<Channel>, Option<Writing>)>,
    pub links: Vec<Feeder>,
    minor: u64,
    /// With the mistake: the run, which is not on the disk yet, and the epoch after which it is.
    late: Option<(DirectoryHistory, Epoch)>,
}

/// How a start of a primary ends.
pub enum Start {
    /// It runs; this was durable.
    Runs(Box<Primary>, Epoch),
    /// No primary may start on the directory.
    Refused(String),
}

impl Primary {
    /// Starts on what is on the disk, and compacts it first if it is told to.
    pub fn start(fs: &SimFs, setup: Setup, peers: &[usize], compact: bool) -> Result<Start, String> {
        let failed = |e| format!("the primary cannot start: {e}");
        let file = Path::new(LOCATION).join(names::HISTORY);
        let before = fs.files().get(&file).cloned();
        let settings = Settings::new(LOCATION).vfs(Arc::new(fs.clone())).replicated(true).recovery_threads(1);
        let store = Datastore::open(settings.commit(setup.commit)).map_err(failed)?;
        let channels = (0..setup.channels).map(|_| Ok((store.create_channel().map_err(failed)?, None)));
        let channels = channels.collect::<Result<_, String>>()?;
        let report = match store.ready() {
            Err(limestone_core::error::Error::WrongState(why)) => return Ok(Start::Refused(why)),
            other => other.map_err(failed)?,
        };
        store.blobs().wait_for_collection();
        let mut late = None;
        if setup.sabotage == Some(Sabotage::LateRun) {
            late = store.history().map(|history| (history, report.last_epoch));
            let undone = match before {
                Some(bytes) => fs.put(&file, &bytes),
                None => fs.unlink(&file),
            };
            undone.map_err(|e| e.to_string())?;
        }
        // Before the first switch nothing has to be waited for.
        if compact && store.switched_epoch() > Epoch(0) {
            store.compact().map_err(|e| format!("the primary cannot compact: {e}"))?;
        }
        let (quorum, taps) = (Quorum::new(setup.quorum, MACHINES_MAX), BTreeMap::new());
        if let Some(history) = store.history().filter(|history| history.is_unknown()) {
            let counts_all = setup.sabotage == Some(Sabotage::CountFormerTerms);
            quorum.hold(if counts_all { Epoch(0) } else { history.term_began_with() });
        }
        let shared = Shared { store, setup, quorum, taps, fenced: None };
        let links = peers.iter().map(|&peer| Feeder::new(peer)).collect();
        let primary = Primary { shared, channels, links, minor: 0, late };
        primary.switch();
        Ok(Start::Runs(Box::new(primary), report.durable_epoch))
    }

    /// With the mistake, the run comes to the disk when something of it is stored.
    pub fn save_late_run(&mut self) {
        let stored = self.shared.store.last_epoch();
        if let Some((history, _)) = self.late.take_if(|(_, after)| stored > *after) {
            let _ = history.save(self.shared.store.vfs(), self.shared.store.location());
        }
    }

    pub fn store(&self) -> &Arc<Datastore> {
        &self.shared.store
    }

    /// The disk may fail in any of these; the world looks at the disk afterwards. Epochs that they complete are told
    /// when they return, so that the calls have one order.
    pub fn switch(&self) {
        let _ = self.shared.store.switch_epoch(Epoch(self.shared.store.switched_epoch().0 + 1));
        let _ = self.shared.store.drain();
    }

    pub fn rotate(&self) {
        let _ = self.shared.store.rotate();
    }

    /// Begins a session, writes to it, or ends it.
    pub fn write(&mut self, channel: usize, pick: u64, model: &mut Model, next_id: &mut usize) -> Step {
        let channel = channel % self.channels.len();
        self.minor += 1;
        let minor = self.minor;
        let (log, open) = &mut self.channels[channel];
        let Some((id, pool)) = open else {
            let Ok(epoch) = log.begin_session() else { return Ok(()) };
            let id = *next_id;
            *next_id += 1;
            model.begin(id, epoch);
            *open = Some((id, self.shared.store.blob_pool()));
            let version = WriteVersion { major: epoch.0, minor };
            let _ = log.add_entry(StorageId(MARKERS), format!("f{id}").as_bytes(), b"", version, &[]);
            return Ok(());
        };
        let id = *id;
        let version = WriteVersion { major: model.sessions[&id].epoch.0, minor };
        if !pick.is_multiple_of(3) {
            let key = [pick as u8 % 16];
            let value = vec![id as u8; (pick / 7 % 200) as usize];
            let _ = log.add_entry(StorageId(DATA), &key, &value, version, &[]);
            return Ok(());
        }
        let mut content = Vec::new();
        let mut blobs = Vec::new();
        if pick.is_multiple_of(2) {
            content = vec![id as u8; (pick / 11 % 300) as usize];
            let Ok(blob) = pool.register_data(&content) else { return Ok(()) };
            blobs.push(blob);
        }
        let marked = log.add_entry(StorageId(MARKERS), format!("l{id}").as_bytes(), &content, version, &blobs);
        *open = None;
        if marked.is_ok() && log.end_session().is_ok() {
            let _ = self.shared.store.drain();
            model.end(id);
            if self.shared.fenced.is_some() {
                return Err("a fenced primary has acknowledged the end of a session".to_owned());
            }
        }
        Ok(())
    }

    /// The machine that the first link goes to.
    pub fn peer(&self) -> usize {
        self.links[0].peer
    }

    pub fn is_connected(&self) -> bool {
        self.links[0].is_connected()
    }

    /// Opens the control connection of the first link, wherever it went before.
    pub fn connect(&mut self, session_id: SessionId, peer: usize, end: End) {
        let link = &mut self.links[0];
        link.hang_up(&mut self.shared, false);
        link.diverged &= link.peer == peer;
        link.peer = peer;
        link.connect(&mut self.shared, session_id, end);
    }

    /// Ends the sessions; `silently` lets the replicas find out by themselves.
    pub fn hang_up(&mut self, silently: bool) {
        self.links.iter_mut().for_each(|link| link.hang_up(&mut self.shared, silently));
    }

    /// Reads what has arrived and sends what can be sent. `connect` gives a new connection to a machine.
    pub fn poll(&mut self, now: Millis, connect: &mut dyn FnMut(usize) -> End) -> Step {
        self.links.iter_mut().try_for_each(|link| {
            let peer = link.peer;
            link.poll(&mut self.shared, now, &mut || connect(peer))
        })
    }
}

// SPDX-License-Identifier: Apache-2.0
//! One case: a disk, the data directory in use, and all that is known about it.

use crate::backups::{Kept, Taken};
use crate::blobs::{self, Blobs};
use crate::commits;
use crate::disk::Disk;
use crate::model::{Model, Progress};
use crate::random::Random;
use crate::writer::{text, Shared, Writer};
use limestone_core::datastore::{Datastore, Durability, EpochEvent, Outcome, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const LINES_SHOWN: usize = 120;

pub type Compaction = JoinHandle<Result<Outcome, String>>;

pub struct World {
    pub disk: Disk,
    pub random: Random,
    pub location: PathBuf,
    /// What may be in the directory; more than one only after a restore that did not come to its end.
    pub candidates: Vec<Model>,
    pub shared: Option<Shared>,
    pub writers: Vec<Writer>,
    pub switched: u64,
    pub compaction: Option<Compaction>,
    /// A compaction waits for the end of a backup; a thread of the data store does it at any time.
    pub postponed: bool,
    pub taken: Vec<Taken>,
    pub kept: Vec<Kept>,
    serial: Arc<AtomicU64>,
    pub directories: u64,
    violations: Arc<Mutex<Vec<String>>>,
    history: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
    /// The last calls of the disk that the power was cut from.
    pub calls_before: Vec<String>,
    /// Calls that had failed when this process began.
    pub failures_before: usize,
}

impl World {
    pub fn new(disk: Disk, random: Random) -> World {
        World {
            location: disk.path("log"),
            disk,
            random,
            candidates: vec![Model::default()],
            shared: None,
            writers: Vec::new(),
            switched: 0,
            compaction: None,
            postponed: false,
            taken: Vec::new(),
            kept: Vec::new(),
            serial: Arc::new(AtomicU64::new(1)),
            directories: 0,
            violations: Arc::default(),
            history: Vec::new(),
            counts: BTreeMap::new(),
            calls_before: Vec::new(),
            failures_before: 0,
        }
    }

    pub fn note(&mut self, what: impl Into<String>) {
        self.history.push(what.into());
    }

    /// Counts what has come to its end well.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// What happened last.
    pub fn report(&self) -> String {
        let last = |lines: &[String]| lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n  ");
        let calls = last(&self.calls());
        format!("steps:\n  {}\nbefore:\n  {}\ncalls:\n  {calls}", last(&self.history), last(&self.calls_before))
    }

    /// All calls to the disk since its power was cut.
    pub fn calls(&self) -> Vec<String> {
        self.disk.sim().map(|fs| fs.trace()).unwrap_or_default()
    }

    pub fn store(&self) -> Arc<Datastore> {
        self.shared.as_ref().expect("the data store is open").store.clone()
    }

    /// The model of the running data store.
    pub fn model(&self) -> std::sync::MutexGuard<'_, Model> {
        self.shared.as_ref().expect("the data store is open").model.lock().expect("nobody panicked")
    }

    /// Whether a call to the disk was made to fail in this process.
    pub fn is_hurt(&self) -> bool {
        self.disk.failures() > self.failures_before
    }

    pub fn blobs(&self) -> Blobs {
        Blobs { vfs: self.disk.vfs(), sources: self.disk.path("in") }
    }

    /// Those of the next life, which commits in one way or the other.
    pub fn settings(&mut self, location: PathBuf) -> Settings {
        // One thread makes the calls to the simulated disk the same in every run.
        let commit = commits::ways()[self.random.below(2) as usize];
        self.note(format!("commits: {commit:?}"));
        Settings::new(location).vfs(self.disk.vfs()).recovery_threads(1).commit(commit)
    }

    /// Makes an opened data store ready and compares what it shows with what may be there.
    pub fn ready(&mut self, store: Arc<Datastore>, channels: usize) -> Result<(), String> {
        // Channels may come before the start or behind it.
        let early = self.random.below(channels as u64 + 1) as usize;
        let create = || store.create_channel().map_err(text);
        let mut created = (0..early).map(|_| create()).collect::<Result<Vec<_>, _>>()?;
        store.ready().map_err(text)?;
        store.blobs().wait_for_collection();
        let last_epoch = store.last_epoch().0;
        let (content, needed) = blobs::read(&store, &self.disk).map_err(violation)?;
        let mut reasons = Vec::new();
        let mut fitting = None;
        for model in &self.candidates {
            match model.check(&content, last_epoch) {
                Ok(visible) => fitting = fitting.or_else(|| Some((model.clone(), visible))),
                Err(reason) => reasons.push(reason),
            }
        }
        let Some((mut model, visible)) = fitting else {
            return Err(violation(format!("after a start: {}", reasons.join("; or: "))));
        };
        if self.candidates.len() > 1 {
            self.count("starts after an interrupted restore");
        }
        model.settle(&visible, last_epoch);
        let (next, persisted) = (store.blobs().next_id().0, blobs::largest_persisted(&model));
        if next <= persisted {
            return Err(violation(format!("the next BLOB id is {next}, but {persisted} was issued and persisted")));
        }
        if !self.is_hurt() {
            let there: BTreeSet<u64> = blobs::files(&self.disk, &self.location)?.into_keys().collect();
            if there != needed {
                return Err(violation(format!("BLOB files {there:?} are there, needed are {needed:?}")));
            }
        }
        self.watch(&store, &model);
        self.candidates.clear();
        self.switched = last_epoch;
        for _ in early..channels {
            created.push(create()?);
        }
        let shared = Shared { store, model: Arc::new(Mutex::new(model)), serial: self.serial.clone() };
        let writer = |channel| Writer::new(&shared, channel, self.blobs());
        self.writers = created.into_iter().map(writer).collect();
        self.shared = Some(shared);
        Ok(())
    }

    fn watch(&self, store: &Datastore, model: &Model) {
        let acknowledged = model.acknowledged.clone();
        let violations = self.violations.clone();
        store.set_persistent_callback(Some(Arc::new(move |event: EpochEvent| {
            let before = acknowledged.fetch_max(event.epoch.0, SeqCst);
            if event.state != Durability::Stored || before >= event.epoch.0 {
                violations.lock().unwrap().push(format!("{event:?} after epoch {before}"));
            }
        })));
    }

    /// What must never happen and was seen by a callback.
    pub fn check_violations(&self) -> Result<(), String> {
        match self.violations.lock().unwrap().first() {
            Some(what) => Err(violation(what.clone())),
            None => Ok(()),
        }
    }

    /// Lets go of the data store, whatever is open in it, and keeps what may be in the directory now.
    pub fn let_go(&mut self) -> Result<(), String> {
        self.taken.clear();
        self.postponed = false;
        let Some(shared) = self.shared.take() else { return Ok(()) };
        shared.store.shutdown();
        self.writers.clear();
        if let Some(compaction) = self.compaction.take() {
            // Broken off, or done: what it left is checked by the next start.
            let _ = compaction.join().map_err(|_| violation("a compaction panicked".to_owned()))?;
        }
        let model = shared.model.lock().expect("nobody panicked").clone();
        self.candidates = vec![model];
        drop(shared);
        self.check_violations()
    }

    /// Indexes of writers with and without an open session.
    pub fn open_writers(&self, open: bool) -> Vec<usize> {
        (0..self.writers.len()).filter(|at| self.writers[*at].open.is_some() == open).collect()
    }

    /// A number for a directory that has not been used.
    pub fn unused_directory(&mut self, what: &str) -> PathBuf {
        self.directories += 1;
        self.disk.path(&format!("{what}{}", self.directories))
    }
}

/// Marks an error as one that no failing disk excuses.
pub fn violation(what: String) -> String {
    format!("VIOLATION: {what}")
}

pub fn is_violation(error: &str) -> bool {
    error.starts_with("VIOLATION")
}

/// The sessions that count when everything up to `epoch` is durable.
pub fn visible_up_to(model: &Model, epoch: u64) -> BTreeSet<usize> {
    let counts = |id: &usize| match model.sessions[*id].progress {
        Progress::Settled => true,
        Progress::Ended | Progress::Ending => model.sessions[*id].epoch <= epoch,
        _ => false,
    };
    (0..model.sessions.len()).filter(counts).collect()
}

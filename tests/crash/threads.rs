// SPDX-License-Identifier: Apache-2.0
//! Many threads at once against the model: the interleaving is the machine's, all decisions come from a seed that is
//! printed. `LIMESTONE_TEST_SEED` replays one.

use crate::model::{first_marker, last_marker, Change, Content, Model, Progress, SessionId, MARKERS};
use crate::random::{seeds, Random};
use crate::runner::{read, LOCATION};
use limestone_core::datastore::{Channel, Commit, Datastore, Outcome, Settings};
use limestone_core::error::Result;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, Loss, RealFs, SimFs, Vfs};
use limestone_core::wal::journal;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const WRITERS: usize = 4;
const EPOCHS: u64 = 60;
/// Far more time than two compactions or backups take on a busy machine.
const DONE_WITHIN: Duration = Duration::from_secs(60);

struct Shared {
    store: Arc<Datastore>,
    model: Mutex<Model>,
    minor: AtomicU64,
    stop: AtomicBool,
    /// What was done beside the writers.
    done: AtomicU32,
}

/// What goes on beside the writers; with how often it must be done before the end.
#[derive(Clone, Copy)]
enum Beside {
    Nothing,
    Compactions(u32),
    Backups(u32),
}

impl Beside {
    fn wanted(self) -> u32 {
        match self {
            Beside::Nothing => 0,
            Beside::Compactions(wanted) | Beside::Backups(wanted) => wanted,
        }
    }
}

impl Shared {
    fn open(vfs: Arc<dyn Vfs>, location: &Path, commit: Commit) -> Result<Shared> {
        let store = Datastore::open(Settings::new(location).vfs(vfs).commit(commit))?;
        let model = Model::default();
        let acknowledged = model.acknowledged.clone();
        store.set_persistent_callback(Some(Arc::new(move |event| {
            let before = acknowledged.fetch_max(event.epoch.0, Ordering::SeqCst);
            assert!(before < event.epoch.0, "epoch {} was reported after {before}", event.epoch);
        })));
        store.ready()?;
        Ok(Shared {
            store,
            model: Mutex::new(model),
            minor: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            done: AtomicU32::new(0),
        })
    }

    /// Sessions until told to stop or until a call fails.
    fn write(&self, channel: &Channel, random: &mut Random) -> Result<()> {
        while !self.stop.load(Ordering::SeqCst) {
            let epoch = channel.begin_session()?;
            let id = self.model.lock().unwrap().begin(epoch.0);
            let put = |storage, key| Change::Put { storage, key, value: id.to_string().into_bytes() };
            self.change(channel, id, put(MARKERS, first_marker(id)))?;
            for _ in 0..random.below(12) {
                let key = random.below(40).to_string().into_bytes();
                let change = match random.below(20) {
                    0 => Change::Clear { storage: 2 },
                    1..=4 => Change::Remove { storage: 2, key },
                    5 => Change::Put { storage: 2, key, value: vec![b'x'; 100_000] },
                    n => put(2 + n % 2, key),
                };
                self.change(channel, id, change)?;
            }
            self.change(channel, id, put(MARKERS, last_marker(id)))?;
            self.model.lock().unwrap().sessions[id].progress = Progress::Ending;
            channel.end_session()?;
            self.model.lock().unwrap().sessions[id].progress = Progress::Ended;
        }
        Ok(())
    }

    fn change(&self, channel: &Channel, id: SessionId, change: Change) -> Result<()> {
        let minor = self.minor.fetch_add(1, Ordering::SeqCst);
        let major = {
            let mut model = self.model.lock().unwrap();
            let session = &mut model.sessions[id];
            session.changes.push(((session.epoch, minor), change.clone()));
            session.epoch
        };
        let version = WriteVersion { major, minor };
        match change {
            Change::Put { storage, key, value } => channel.add_entry(StorageId(storage), &key, &value, version, &[]),
            Change::Remove { storage, key } => channel.remove_entry(StorageId(storage), &key, version),
            Change::Clear { storage } => channel.truncate_storage(StorageId(storage), version),
        }
    }

    /// Switches epochs and rotates now and then until a call fails or enough epochs have passed; sessions are then in
    /// full flight, and the data store is shut down under them.
    fn switch(&self, random: &mut Random) -> Result<()> {
        for epoch in 1..=EPOCHS {
            self.store.switch_epoch(Epoch(epoch))?;
            if random.below(8) == 0 {
                self.store.rotate()?;
            }
            for _ in 0..random.below(4) {
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Switches epochs until so much is done.
    fn switch_until_done(&self, wanted: u32) -> Result<()> {
        let deadline = Instant::now() + DONE_WITHIN;
        for epoch in EPOCHS + 1.. {
            if self.done.load(Ordering::SeqCst) >= wanted || Instant::now() > deadline {
                break;
            }
            self.store.switch_epoch(Epoch(epoch))?;
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Compacts again and again until a call fails, at the latest because of the shutdown.
    fn compact(&self) {
        // Before the first switch a compaction is refused.
        while self.store.switched_epoch() == Epoch(0) && !self.stop.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        while let Ok(outcome) = self.store.compact() {
            self.done.fetch_add(u32::from(outcome == Outcome::Done), Ordering::SeqCst);
        }
    }

    /// Keeps a backup open until epochs were reported that began after it, again and again until the end. Whatever is
    /// cut or fails, it ends when nothing is reported any more.
    fn back_up(&self) {
        let acknowledged = || self.model.lock().unwrap().acknowledged();
        while !self.stop.load(Ordering::SeqCst) {
            let Ok(backup) = self.store.begin_detailed_backup(DONE_WITHIN) else {
                std::thread::yield_now();
                continue;
            };
            let begun = self.store.switched_epoch().0;
            while acknowledged() < begun + 2 && !self.stop.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            self.done.fetch_add(u32::from(acknowledged() >= begun + 2), Ordering::SeqCst);
            drop(backup);
        }
    }

    fn run(&self, seed: u64, beside: Beside) {
        std::thread::scope(|scope| {
            match beside {
                Beside::Nothing => {}
                Beside::Compactions(_) => _ = scope.spawn(|| self.compact()),
                Beside::Backups(_) => _ = scope.spawn(|| self.back_up()),
            }
            for writer in 0..WRITERS as u64 {
                let channel = self.store.create_channel().expect("a channel before the end");
                scope.spawn(move || self.write(&channel, &mut Random::new(seed ^ (writer << 32))));
            }
            // An error ends the run like the last epoch does.
            let switched = self.switch(&mut Random::new(seed));
            let _ = switched.and_then(|()| self.switch_until_done(beside.wanted()));
            self.store.shutdown();
            self.stop.store(true, Ordering::SeqCst);
        });
    }

    fn check(&self, vfs: Arc<dyn Vfs>, location: &Path) -> std::result::Result<(), String> {
        let store = Datastore::open(Settings::new(location).vfs(vfs)).map_err(|e| e.to_string())?;
        store.ready().map_err(|e| e.to_string())?;
        let content: Content = read(&store)?;
        self.model.lock().unwrap().check(&content, store.last_epoch().0).map(drop)
    }
}

/// The seeds with each way to commit. The journal is as small as it may be, and settles often.
fn cases(count: u64) -> impl Iterator<Item = (u64, Commit)> {
    let idle = Some(Duration::from_millis(1));
    let journal = Commit::Journal(journal::Settings::default().bytes_max(0).idle(idle));
    seeds(count).into_iter().flat_map(move |seed| [(seed, Commit::Direct), (seed, journal)])
}

#[test]
fn threads_that_are_stopped_in_full_flight_leave_what_was_acknowledged() {
    for (seed, commit) in cases(6) {
        println!("LIMESTONE_TEST_SEED={seed} {commit:?}");
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().join("log");
        let shared = Shared::open(Arc::new(RealFs), &location, commit).unwrap();
        shared.run(seed, Beside::Nothing);
        let sessions = shared.model.lock().unwrap().sessions.len();
        shared.check(Arc::new(RealFs), &location).unwrap_or_else(|e| panic!("seed {seed}, {sessions} sessions: {e}"));
    }
}

#[test]
fn compaction_under_long_sessions_leaves_what_was_acknowledged() {
    done_under_long_sessions(Beside::Compactions(2));
}

#[test]
fn epochs_are_reported_and_safe_while_backups_are_open_under_threads() {
    done_under_long_sessions(Beside::Backups(3));
}

fn done_under_long_sessions(beside: Beside) {
    for (seed, commit) in cases(4) {
        println!("LIMESTONE_TEST_SEED={seed} {commit:?}");
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().join("log");
        let shared = Shared::open(Arc::new(RealFs), &location, commit).unwrap();
        shared.run(seed, beside);
        let done = shared.done.load(Ordering::SeqCst);
        assert!(done >= beside.wanted(), "seed {seed}: done {done} times");
        let sessions = shared.model.lock().unwrap().sessions.len();
        shared.check(Arc::new(RealFs), &location).unwrap_or_else(|e| panic!("seed {seed}, {sessions} sessions: {e}"));
    }
}

#[test]
fn power_cut_under_threads_leaves_what_was_acknowledged() {
    power_cut_under_threads(Beside::Nothing, 80, 600);
}

#[test]
fn power_cut_under_threads_and_compactions_leaves_what_was_acknowledged() {
    power_cut_under_threads(Beside::Compactions(0), 80, 1200);
}

#[test]
fn power_cut_under_threads_and_open_backups_leaves_what_was_acknowledged() {
    power_cut_under_threads(Beside::Backups(0), 80, 1200);
}

fn power_cut_under_threads(beside: Beside, count: u64, calls: u64) {
    for (seed, commit) in cases(count) {
        println!("LIMESTONE_TEST_SEED={seed} {commit:?}");
        let fs = SimFs::new();
        let shared = Shared::open(Arc::new(fs.clone()), Path::new(LOCATION), commit).unwrap();
        fs.fail_at(fs.operations() + 1 + Random::new(seed).below(calls), Fault::PowerCut);
        shared.run(seed, beside);
        let torn = (0..4).map(|n| Loss::Torn { seed: seed.wrapping_add(n) });
        for (loss, image) in fs.reboots([Loss::DropUnsynced, Loss::KeepUnsynced].into_iter().chain(torn)) {
            let result = shared.check(Arc::new(image), Path::new(LOCATION));
            result.unwrap_or_else(|e| panic!("seed {seed}, {loss:?} after {} calls: {e}", fs.operations()));
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What the recorded process does: this test program again, told by the environment to be an engine. It writes a line
//! to a journal before a session ends and when it is told that an epoch is durable.

use crate::commits;
use limestone_core::datastore::{Channel, Datastore, Settings};
use limestone_core::engine::Engine;
use limestone_core::replication::settings::ReplicationSettings;
use limestone_core::types::{Durability, Epoch, StorageId, WriteVersion};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Set to the [`Kind`] in the recorded process.
pub const KIND: &str = "LIMESTONE_TEST_WORKLOAD";
/// Its data directory.
pub const DIRECTORY: &str = "LIMESTONE_TEST_WORKLOAD_DIRECTORY";
/// The journal, which is appended to.
pub const JOURNAL: &str = "LIMESTONE_TEST_WORKLOAD_JOURNAL";

/// Entries of each session.
pub const ENTRIES: u64 = 3;
const WORKERS: u64 = 3;
const EPOCH: Duration = Duration::from_millis(3);
const LARGE_BYTES: usize = 300_000;

/// What is done beside the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sessions,
    Rotations,
    Compactions,
    Backups,
    Pair,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Sessions => "sessions",
            Kind::Rotations => "rotations",
            Kind::Compactions => "compactions",
            Kind::Backups => "backups",
            Kind::Pair => "pair",
        }
    }

    fn from_environment() -> Option<Kind> {
        let name = std::env::var(KIND).ok()?;
        let kinds = [Kind::Sessions, Kind::Rotations, Kind::Compactions, Kind::Backups, Kind::Pair];
        Some(kinds.into_iter().find(|kind| kind.name() == name).unwrap_or_else(|| panic!("no workload {name}")))
    }
}

/// Where the replica of [`Kind::Pair`] has its data, given the primary's directory.
pub fn replica_of(directory: &Path) -> PathBuf {
    directory.with_extension("replica")
}

/// Does the work and gives true when this process is the recorded one.
pub fn run_if_told() -> bool {
    let Some(kind) = Kind::from_environment() else {
        return false;
    };
    let path = |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set")));
    let journal = Arc::new(File::options().create(true).append(true).open(path(JOURNAL)).unwrap());
    match kind {
        Kind::Pair => with_replica(&path(DIRECTORY), &journal),
        _ => engine(kind, &path(DIRECTORY), &journal),
    }
    true
}

fn say(journal: &File, line: &str) {
    let mut journal = journal;
    journal.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Ends a child that the test has started, whatever becomes of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn with_replica(directory: &Path, journal: &Arc<File>) {
    let replica = replica_of(directory);
    std::fs::create_dir(&replica).unwrap();
    let ready = directory.with_extension("replica-listens");
    let endpoint = format!("tcp://127.0.0.1:{}", crate::ports::free_port());
    let log = File::create(&ready).unwrap();
    let program = env!("CARGO_BIN_EXE_tgreplica");
    let child = Command::new(program).args(["--listen", &endpoint]).arg(&replica).stderr(log).spawn().unwrap();
    let _child = Running(child);
    std::env::set_var("TSURUGI_REPLICATION_ENDPOINT", &endpoint);
    engine(Kind::Pair, directory, journal);
}

fn engine(kind: Kind, directory: &Path, journal: &Arc<File>) {
    let replication = ReplicationSettings::from_environment().unwrap();
    let is_replicated = replication.is_some();
    let engine = Engine::open(Settings::new(directory).commit(commits::as_told()), replication).unwrap();
    let store = engine.store();
    let told = journal.clone();
    store.set_persistent_callback(Some(Arc::new(move |event| {
        let state = match event.state {
            Durability::Stored => "stored",
            Durability::Propagated => "propagated",
        };
        say(&told, &format!("{state} {}", event.epoch));
    })));
    let channels: Vec<Arc<Channel>> = (0..WORKERS).map(|_| engine.create_channel().unwrap()).collect();
    let report = engine.ready().unwrap();
    say(journal, &format!("started {}", report.last_epoch));
    let mut epoch = report.last_epoch.0 + 1;
    store.switch_epoch(Epoch(epoch)).unwrap();

    let sessions = 24;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = channels
            .iter()
            .enumerate()
            .map(|(worker, channel)| {
                let journal = journal.clone();
                scope.spawn(move || work(worker as u64, epoch * 1000, sessions, store, channel, &journal))
            })
            .collect();
        let beside = scope.spawn(|| beside(kind, store, &done, journal));
        while !workers.iter().all(|worker| worker.is_finished()) {
            std::thread::sleep(EPOCH);
            epoch += 1;
            store.switch_epoch(Epoch(epoch)).unwrap();
        }
        done.store(true, Ordering::SeqCst);
        while !beside.is_finished() {
            std::thread::sleep(EPOCH);
            epoch += 1;
            store.switch_epoch(Epoch(epoch)).unwrap();
        }
    });
    store.switch_epoch(Epoch(epoch + 1)).unwrap();
    if is_replicated {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !store.durability(Epoch(epoch)).propagated && Instant::now() < deadline {
            std::thread::sleep(EPOCH);
        }
    }
    engine.shutdown();
}

fn beside(kind: Kind, store: &Datastore, done: &AtomicBool, journal: &File) {
    while !done.load(Ordering::SeqCst) {
        std::thread::sleep(EPOCH * 4);
        match kind {
            Kind::Sessions | Kind::Pair => {}
            Kind::Rotations => store.rotate().unwrap(),
            Kind::Compactions => drop(store.compact().unwrap()),
            Kind::Backups => {
                let backup = store.begin_detailed_backup(Duration::from_secs(5)).unwrap();
                let files: Vec<String> = backup.files().iter().map(|file| file.source.display().to_string()).collect();
                say(journal, &format!("backup {} {}", backup.log_finish(), files.join(" ")));
                std::thread::sleep(EPOCH);
                say(journal, "backup-ends");
            }
        }
    }
}

fn work(worker: u64, first: u64, count: u64, store: &Datastore, channel: &Channel, journal: &File) {
    let pool = store.blob_pool();
    for session in first..first + count {
        let epoch = channel.begin_session().unwrap();
        let version = WriteVersion { major: epoch.0, minor: session };
        for entry in 0..ENTRIES {
            let filler = if session % 12 == 7 && entry == 1 { LARGE_BYTES } else { 40 };
            let blobs = match session % 8 == 3 && entry == 0 {
                true => vec![pool.register_data(format!("{worker}/{session}").as_bytes()).unwrap()],
                false => Vec::new(),
            };
            let value = format!("{:020}{}", epoch.0, ".".repeat(filler));
            let key = format!("{worker}/{session}/{entry}");
            channel.add_entry(StorageId(1), key.as_bytes(), value.as_bytes(), version, &blobs).unwrap();
        }
        // Always overwritten, so that a compaction has something to drop.
        let newest = session.to_string();
        let key = format!("newest/{worker}");
        channel.add_entry(StorageId(2), key.as_bytes(), newest.as_bytes(), version, &[]).unwrap();
        say(journal, &format!("session {worker} {session} {epoch}"));
        channel.end_session().unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
}

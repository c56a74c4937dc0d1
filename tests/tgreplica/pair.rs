// SPDX-License-Identifier: Apache-2.0
//! A data store that replicates to the program: what it was told is PROPAGATED is what a takeover finds.

use crate::commits;
use crate::program::{run, status, status_when, take_over, Replica, DEADLINE};
use limestone_core::datastore::{Channel, Durability, Outcome, Settings};
use limestone_core::engine;
use limestone_core::error::Error;
use limestone_core::monitoring::settings::{metrics_endpoint, LISTEN};
use limestone_core::replication::settings::ReplicationSettings;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// An engine on a directory, and what it wrote.
pub struct Engine {
    pub engine: engine::Engine,
    channels: Vec<Arc<Channel>>,
    epoch: u64,
    written: BTreeMap<String, String>,
}

/// A primary, and its replica as the program.
pub struct Pair {
    /// Of the primary, and of the replica.
    pub dirs: [TempDir; 2],
    pub replica: Replica,
    pub engine: Engine,
}

impl Pair {
    /// Starts both with nothing in them; the replica in this environment.
    pub fn start(environment: &[(&str, &str)]) -> Pair {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let replica = Replica::start_with(dirs[1].path(), &[], environment);
        let engine = Engine::start(dirs[0].path(), replica.address, &[]);
        Pair { dirs, replica, engine }
    }

    pub fn paths(&self) -> [&str; 2] {
        self.dirs.each_ref().map(|dir| dir.path().to_str().unwrap())
    }

    pub fn stop(self) -> [TempDir; 2] {
        self.engine.stop();
        self.replica.stop();
        self.dirs
    }
}

impl Engine {
    pub fn start(dir: &Path, replica: SocketAddr, more: &[(&str, &str)]) -> Engine {
        let endpoint = format!("tcp://{replica}");
        let variables =
            [("TSURUGI_REPLICATION_ENDPOINT", endpoint.as_str()), ("TSURUGI_REPLICATION_TIMEOUT_MS", "5000")];
        let variables = variables.iter().chain(more).map(|&(name, value)| (name.into(), value.into()));
        let replication = ReplicationSettings::parse(variables).unwrap();
        let engine = open(dir, replication);
        let metrics = |name| (name == LISTEN).then(|| "tcp://127.0.0.1:0".into());
        let engine = engine.metrics_endpoint(metrics_endpoint(metrics).unwrap());
        let channels: Vec<_> = (0..3).map(|_| engine.create_channel().unwrap()).collect();
        let report = engine.ready().unwrap();
        let epoch = report.last_epoch.0 + 1;
        engine.store().switch_epoch(Epoch(epoch)).unwrap();
        Engine { engine, channels, epoch, written: BTreeMap::new() }
    }

    /// Writes epochs, each with sessions on some channels, and every fourth with none.
    pub fn write(&mut self, epochs: u64, value_bytes: usize) {
        for _ in 0..epochs {
            let epoch = self.epoch;
            for (number, channel) in self.channels.iter().enumerate().filter(|_| !epoch.is_multiple_of(4)) {
                channel.begin_session().unwrap();
                let (key, value) = (format!("{epoch}.{number}"), "v".repeat(value_bytes));
                let version = WriteVersion { major: epoch, minor: number as u64 };
                channel.add_entry(StorageId(1), key.as_bytes(), value.as_bytes(), version, &[]).unwrap();
                channel.end_session().unwrap();
                self.written.insert(key, value);
            }
            self.epoch += 1;
            self.engine.store().switch_epoch(Epoch(self.epoch)).unwrap();
        }
    }

    /// Writes one session with these keys in an epoch of its own.
    pub fn write_keys(&mut self, keys: impl Iterator<Item = String>) {
        let (channel, version) = (&self.channels[0], WriteVersion { major: self.epoch, minor: 0 });
        channel.begin_session().unwrap();
        for key in keys {
            channel.add_entry(StorageId(2), key.as_bytes(), b"v", version, &[]).unwrap();
            self.written.insert(key, "v".to_owned());
        }
        channel.end_session().unwrap();
        self.epoch += 1;
        self.engine.store().switch_epoch(Epoch(self.epoch)).unwrap();
    }

    /// Waits until everything written is on the replica.
    pub fn propagated(&self) {
        let last = Epoch(self.epoch - 1);
        let reached = self.engine.store().wait_durable(last, Durability::Propagated, Some(DEADLINE)).unwrap();
        assert!(reached, "{}", self.engine.status());
    }

    pub fn stop(self) -> BTreeMap<String, String> {
        self.engine.shutdown();
        self.written
    }
}

/// A process that another test starts at this moment has the lock of the directory as well, until it is its program.
fn open(dir: &Path, replication: Option<ReplicationSettings>) -> engine::Engine {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match engine::Engine::open(Settings::new(dir).commit(commits::as_told()), replication.clone()) {
            Err(Error::Locked { .. }) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            opened => return opened.unwrap(),
        }
    }
}

#[test]
fn everything_propagated_is_there_after_a_takeover_whatever_happened_to_the_replica() {
    for lanes in ["1", "3"] {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let replica = Replica::start(dirs[1].path());
        let address = replica.address;
        let mut engine = Engine::start(dirs[0].path(), address, &[("TSURUGI_REPLICATION_LANES", lanes)]);
        engine.write(20, 100);
        engine.propagated();
        let mut replica = replica;
        for round in 0..3 {
            engine.write(5, 1000);
            replica.kill();
            engine.write(10, 300_000 * (round % 2) + 10);
            replica = Replica::start_at(dirs[1].path(), address);
            engine.write(5, 10);
            engine.propagated();
        }
        status_when(dirs[1].path(), |status| status["state"] == "streaming" && status["lag"]["bytes"] == 0);
        let written = engine.stop();
        replica.stop();
        let (found, last) = take_over(dirs[1].path());
        assert!(found == written, "{} of {} entries, last epoch {last}", found.len(), written.len());
    }
}

#[test]
fn an_empty_replica_of_a_compacted_primary_gets_a_base_sync_and_then_follows() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let unused = Replica::start(dirs[1].path());
    let address = unused.address;
    unused.stop();
    let variables = [("TSURUGI_REPLICATION_MODE", "async"), ("TSURUGI_REPLICATION_RETAIN_MB", "0")];
    let mut engine = Engine::start(dirs[0].path(), address, &variables);
    engine.write(20, 50_000);
    let store = engine.engine.store().clone();
    let compacting = std::thread::spawn(move || store.compact().unwrap());
    while !compacting.is_finished() {
        engine.write(1, 10);
    }
    assert_eq!(compacting.join().unwrap(), Outcome::Done);
    let replica = Replica::start_at(dirs[1].path(), address);
    engine.write(10, 10);
    engine.propagated();
    engine.write(10, 10);
    engine.propagated();
    let written = engine.stop();
    let log = replica.stop();
    assert!(log.contains("the base sync is in place"), "{log}");
    let (found, _) = take_over(dirs[1].path());
    assert!(found == written, "{} of {} entries", found.len(), written.len());
}

#[test]
fn a_primary_that_comes_back_goes_on_with_its_replica() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let replica = Replica::start(dirs[1].path());
    let mut written = BTreeMap::new();
    for _ in 0..3 {
        let mut engine = Engine::start(dirs[0].path(), replica.address, &[]);
        engine.write(10, 100);
        engine.propagated();
        written.extend(engine.stop());
    }
    replica.stop();
    assert!(take_over(dirs[1].path()).0 == written);
}

#[test]
fn a_pair_that_is_set_to_the_upstream_protocol_works_the_same() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let protocol = [("TSURUGI_REPLICATION_PROTOCOL", "upstream")];
    let replica = Replica::start_with(dirs[1].path(), &[], &protocol);
    let mut engine = Engine::start(dirs[0].path(), replica.address, &protocol);
    engine.write(20, 100);
    engine.propagated();
    let document = status_when(dirs[1].path(), |status| status["state"] == "streaming");
    assert_eq!(document["protocol"], "upstream");
    let written = engine.stop();
    let log = replica.stop();
    assert!(log.contains("tgreplica ends, durable epoch"), "{log}");
    assert!(take_over(dirs[1].path()).0 == written);
}

#[test]
fn one_command_tells_of_an_engine_and_of_a_replica_while_they_run_and_afterwards() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let replica = Replica::start(dirs[1].path());
    let mut engine = Engine::start(dirs[0].path(), replica.address, &[]);
    engine.write(6, 100);
    engine.propagated();
    let shown = status_when(dirs[0].path(), |status| status["lag"]["epochs"] == 0);
    assert_eq!((shown["role"].as_str(), shown["state"].as_str()), (Some("primary"), Some("streaming")), "{shown}");
    let has = shown["propagated_epoch"].as_u64().unwrap();
    assert!(shown["heard_ms"].is_u64() && has >= engine.epoch - 1, "{shown}");
    let shown = status_when(dirs[1].path(), |status| status["lag"]["epochs"] == 0);
    assert_eq!((shown["role"].as_str(), shown["state"].as_str()), (Some("replica"), Some("streaming")), "{shown}");
    engine.stop();
    replica.stop();
    for (dir, role) in dirs.iter().zip(["primary", "replica"]) {
        let (exit, shown) = status(dir.path());
        assert_eq!(
            (exit, shown["role"].as_str(), shown["state"].as_str()),
            (6, Some(role), Some("stopped")),
            "{shown}"
        );
        assert!(shown["lag"]["epochs"].is_null() && shown["state_ms"].is_null(), "{shown}");
    }
}

#[test]
fn a_former_primary_s_directory_rejoins_with_one_command_that_says_what_went_and_where_it_is() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let former_dir = dirs[0].path().to_str().unwrap();
    let replica = Replica::start(dirs[1].path());
    let address = replica.address;
    let mut former = Engine::start(dirs[0].path(), address, &[]);
    former.write(6, 100);
    former.propagated();
    let mut expected = former.written.clone();
    replica.stop();
    former.write(3, 100);
    let all = former.stop();
    assert_eq!(run(&["promote", dirs[1].path().to_str().unwrap()], &[]).exit, 0);
    let mut new = Engine::start(dirs[1].path(), address, &[]);
    new.write(3, 100);
    let listen = format!("tcp://{address}");
    let rejoined = run(&["rejoin", "--json", "--listen", &listen, former_dir], &[]);
    assert_eq!(rejoined.exit, 0, "{}", rejoined.stderr);
    let document: serde_json::Value = serde_json::from_str(&rejoined.stdout).unwrap();
    let went = all.len() - expected.len();
    assert_eq!((document["entries"].as_u64(), document["term"].as_u64()), (Some(went as u64), Some(2)), "{document}");
    let saved = std::path::PathBuf::from(document["cut_off"].as_str().unwrap());
    let replica = Replica::start_at(dirs[0].path(), address);
    new.write(3, 100);
    new.propagated();
    expected.extend(new.stop());
    replica.stop();
    assert!(take_over(dirs[0].path()).0 == expected);
    let found = take_over(&saved).0;
    assert!(found.iter().all(|(key, value)| all.get(key) == Some(value)) && found.len() == went, "{found:?}");
}

// SPDX-License-Identifier: Apache-2.0
//! An engine's data store and a replica in one process, with real sockets on loopback.

use crate::commits;
pub use crate::ports::free_port;
use crate::status_watch::side::SideWatch;
use crate::unlocked::unlocked;
use limestone_core::datastore::{Channel, Commit, Datastore, Outcome, Settings};
use limestone_core::engine;
use limestone_core::replication::native::replica::{self, Options, Server};
use limestone_core::replication::net::listener;
use limestone_core::replication::secret::Secret;
use limestone_core::replication::settings::{Endpoint, ReplicationSettings};
use limestone_core::replication::status::{LinkState, Status};
use limestone_core::scrub::{Rate, Scrubbing};
use limestone_core::types::{BlobId, Durability, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::RealFs;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No test waits longer than this for anything that has to come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server that has taken nothing of its disk for damaged when it goes.
pub struct Undamaged(pub Server);

impl Drop for Undamaged {
    fn drop(&mut self) {
        let scrub = self.0.status().scrub;
        if !std::thread::panicking() {
            assert!(scrub.as_ref().is_some_and(|scrub| scrub.found == 0), "{scrub:?}");
        }
    }
}

impl Deref for Undamaged {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl DerefMut for Undamaged {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.0
    }
}

/// A replica whose status is compared with what it has, all along.
pub struct Replica {
    // It is ended first.
    _watch: SideWatch,
    server: Undamaged,
}

impl Replica {
    pub fn of(server: Server) -> Replica {
        let (durable, says) = (server.status_source(), server.status_source());
        let has = move || (None, durable().propagated_epoch);
        Replica { _watch: SideWatch::start(has, says), server: Undamaged(server) }
    }
}

impl Deref for Replica {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Replica {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

/// Starts a replica on the directory; with port 0 on one that it can come back to.
pub fn replica(dir: &Path, port: u16, secret: &Secret) -> Replica {
    replica_with(dir, port, Options { secret: secret.clone(), ..options() })
}

/// How the replicas of these tests serve: they look at their disk all the time.
pub fn options() -> Options {
    let scrubbing = Some(Scrubbing { rate: Rate { bytes_per_s: 1 << 30 }, period: Duration::from_millis(100) });
    Options { timeout: Duration::from_secs(5), commit: commits::as_told(), scrubbing, ..Options::default() }
}

/// Starts a replica that serves so.
pub fn replica_with(dir: &Path, port: u16, options: Options) -> Replica {
    let port = if port == 0 { free_port() } else { port };
    let listener = listener::listen(&Endpoint { host: "127.0.0.1".to_owned(), port }).unwrap();
    Replica::of(unlocked(|| replica::open(Arc::new(RealFs), dir, options.clone())).serve(listener).unwrap())
}

/// Each way to commit, with the name of the thread on which an engine hears what its replica confirms to it.
pub fn ways_to_commit() -> [(Commit, &'static str); 2] {
    [(Commit::Direct, "repl_control"), (commits::small_journal(), "lstone_commit")]
}

/// The settings of an engine whose replica listens on the port; `variables` without their common prefix.
pub fn settings(port: u16, variables: &[(&str, &str)]) -> ReplicationSettings {
    let endpoint = format!("tcp://127.0.0.1:{port}");
    all_settings(&[&[("ENDPOINT", endpoint.as_str())], variables].concat())
}

/// The same with nothing else.
pub fn all_settings(variables: &[(&str, &str)]) -> ReplicationSettings {
    let all = variables.iter().map(|&(name, value)| (format!("TSURUGI_REPLICATION_{name}").into(), value.into()));
    ReplicationSettings::parse(all).unwrap().unwrap()
}

/// An engine that writes, and whose status is compared with what it has, all along.
pub struct Engine {
    // It is ended first.
    pub watch: SideWatch,
    pub store: Arc<Datastore>,
    pub engine: Arc<engine::Engine>,
    pub channels: Vec<Arc<Channel>>,
    pub epoch: u64,
}

impl Engine {
    /// Opens the directory and starts.
    pub fn start(dir: &Path, settings: ReplicationSettings) -> Engine {
        Engine::start_with(dir, settings, commits::as_told())
    }

    /// The same, committing in this way.
    pub fn start_with(dir: &Path, settings: ReplicationSettings, commit: Commit) -> Engine {
        let engine = Engine::recovered_with(dir, settings, commit);
        engine.store.switch_epoch(Epoch(engine.epoch)).unwrap();
        engine
    }

    /// The same without the first epoch: a replica that refuses this engine may have stopped it before that.
    pub fn recovered(dir: &Path, settings: ReplicationSettings) -> Engine {
        Engine::recovered_with(dir, settings, commits::as_told())
    }

    fn recovered_with(dir: &Path, settings: ReplicationSettings, commit: Commit) -> Engine {
        let store = Settings::new(dir).commit(commit);
        let engine = Arc::new(unlocked(|| engine::Engine::open(store.clone(), Some(settings.clone()))));
        let store = engine.store().clone();
        let channels = (0..2).map(|_| engine.create_channel().unwrap()).collect();
        let report = engine.ready().unwrap();
        let epoch = report.last_epoch.0 + 1;
        Engine { watch: watch(&engine), store, engine, channels, epoch }
    }

    /// Writes these keys with the number of the epoch as value, ends the epoch and returns it.
    pub fn write(&mut self, keys: &[&str]) -> Epoch {
        self.write_with_blobs(keys, &[])
    }

    pub fn write_with_blobs(&mut self, keys: &[&str], blobs: &[BlobId]) -> Epoch {
        let epoch = self.epoch;
        for (number, channel) in self.channels.iter().enumerate() {
            channel.begin_session().unwrap();
            for key in keys.iter().skip(number).step_by(self.channels.len()) {
                let version = WriteVersion { major: epoch, minor: 0 };
                let value = epoch.to_string();
                channel.add_entry(StorageId(1), key.as_bytes(), value.as_bytes(), version, blobs).unwrap();
            }
            channel.end_session().unwrap();
        }
        self.next_epoch();
        Epoch(epoch)
    }

    /// Ends the epoch without writing.
    pub fn next_epoch(&mut self) {
        self.epoch += 1;
        self.store.switch_epoch(Epoch(self.epoch)).unwrap();
    }

    /// Compacts what may be, while epochs go on.
    pub fn compact(&mut self) -> Outcome {
        let store = self.store.clone();
        let compaction = std::thread::spawn(move || store.compact().unwrap());
        while !compaction.is_finished() {
            self.next_epoch();
            std::thread::yield_now();
        }
        compaction.join().unwrap()
    }

    pub fn status(&self) -> Status {
        self.engine.status()
    }

    /// Waits until the replica has the epoch.
    pub fn wait_propagated(&self, epoch: Epoch) {
        self.wait_durable(epoch, Durability::Propagated);
    }

    /// Waits until the epoch has this state.
    pub fn wait_durable(&self, epoch: Epoch, state: Durability) {
        let reached = self.store.wait_durable(epoch, state, Some(PATIENCE)).unwrap();
        assert!(reached, "epoch {epoch} is not {state:?}: {:?}", self.status());
    }

    /// Waits until the engine is notified of the epoch: whoever waits for it is woken before.
    pub fn wait_notified(&self, epoch: Epoch) {
        let deadline = Instant::now() + PATIENCE;
        while self.store.notified_epoch() < epoch {
            assert!(Instant::now() < deadline, "notified is {}: {:?}", self.store.notified_epoch(), self.status());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the status is as wanted.
    pub fn wait_status(&self, wanted: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn wait_state(&self, state: LinkState) -> Status {
        self.wait_status(|status| status.state == state)
    }

    /// Ends as an engine does.
    pub fn shutdown(self) {
        self.engine.shutdown();
    }
}

fn watch(engine: &Arc<engine::Engine>) -> SideWatch {
    let (store, engine) = (engine.store().clone(), engine.clone());
    let has = move || match store.is_shut_down() {
        true => (None, None),
        false => (Some(store.last_epoch().0), Some(store.propagated_epoch().0)),
    };
    SideWatch::start(has, move || engine.status())
}

/// Writes `early` with the value `0`. Without replication the first sessions may be of epoch 0, which no catch-up
/// sends.
pub fn write_before_replication(dir: &Path) {
    let store = Datastore::open(Settings::new(dir)).unwrap();
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    channel.begin_session().unwrap();
    channel.add_entry(StorageId(1), b"early", b"0", WriteVersion::default(), &[]).unwrap();
    channel.end_session().unwrap();
    store.switch_epoch(Epoch(5)).unwrap();
    store.shutdown();
}

/// What a start on the directory gives: keys and values.
pub fn content(dir: &Path) -> BTreeMap<String, String> {
    let store = unlocked(|| Datastore::open(Settings::new(dir)));
    let report = store.ready().unwrap();
    assert_eq!(report.warnings, Vec::<String>::new(), "the directory is in order");
    let mut cursor = store.snapshot().unwrap().cursor();
    let mut content = BTreeMap::new();
    while let Some(row) = cursor.next().unwrap() {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        content.insert(text(row.key), text(row.value));
    }
    content
}

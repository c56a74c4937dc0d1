// SPDX-License-Identifier: Apache-2.0
//! The engine as a primary that speaks the protocol of the original.

use limestone_core::blob::BlobPool;
use limestone_core::datastore::{Channel, Datastore, NotifyLevel, Settings};
use limestone_core::error::Error;
use limestone_core::replication::policy::keeper::PolicyKeeper;
use limestone_core::replication::settings::{Endpoint, Mode, ReplicationSettings};
use limestone_core::replication::status::Known;
use limestone_core::replication::upstream::primary::{Observer, Primary};
use limestone_core::types::{BlobId, Durability, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::RealFs;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::commits;
use crate::golden_data::{number, text, unhex};
use crate::peer::DEADLINE;
use crate::status_watch::side::SideWatch;

/// A data store and what sends its log. Its status is compared with what it has, all along.
pub struct Engine {
    // It is ended first.
    _watch: SideWatch,
    pub store: Arc<Datastore>,
    pub channels: Vec<Arc<Channel>>,
    pub primary: Arc<Primary>,
    pool: Option<BlobPool>,
}

struct Report(Weak<Datastore>, PolicyKeeper);

impl Observer for Report {
    fn propagated(&self, epoch: Epoch) {
        if let Some(store) = self.0.upgrade() {
            // After a shutdown nobody is told any more.
            let _ = store.confirm_propagated(epoch);
        }
    }

    fn given_up(&self) {}

    fn look(&self, connected: bool, problem: Option<&str>) -> Option<Duration> {
        self.1.look(&*self.0.upgrade()?, connected, problem);
        self.1.wait()
    }

    fn failed(&self, panic: Error) {
        if let Some(store) = self.0.upgrade() {
            store.fail(panic);
        }
    }
}

impl Engine {
    /// Opened, and not ready.
    pub fn open(dir: &Path, replica: SocketAddr, timeout: Duration, mode: Mode) -> Engine {
        Engine::open_with(dir, replica, timeout, mode, false)
    }

    /// Opened, and not ready; both switches of the original on or off.
    pub fn open_with(dir: &Path, replica: SocketAddr, timeout: Duration, mode: Mode, switches: bool) -> Engine {
        Engine::open_at(dir, &[replica], timeout, mode, switches)
    }

    fn open_at(dir: &Path, replica: &[SocketAddr], timeout: Duration, mode: Mode, switches: bool) -> Engine {
        let settings = Settings::new(dir).recovery_threads(1).replicated(true).notify_level(NotifyLevel::Propagated);
        let settings = settings.sessions_above_recovered(false).commit(commits::as_told());
        let store = Datastore::open(settings).unwrap();
        let variables = [("ENDPOINT", "tcp://127.0.0.1:1"), ("PROTOCOL", "upstream")];
        let variables = variables.map(|(name, value)| (format!("TSURUGI_REPLICATION_{name}").into(), value.into()));
        let replication = ReplicationSettings {
            endpoints: replica.iter().map(|at| Endpoint { host: at.ip().to_string(), port: at.port() }).collect(),
            timeout,
            async_session_close: switches,
            async_group_commit: switches,
            ..ReplicationSettings::parse(variables).unwrap().unwrap()
        };
        let report = Box::new(Report(Arc::downgrade(&store), PolicyKeeper::new(mode)));
        let primary = Arc::new(Primary::new(replication, Arc::new(RealFs), dir, report).unwrap());
        Engine { _watch: watch(&store, &primary), store, channels: Vec::new(), primary, pool: None }
    }

    /// Ready, with channels and an epoch begun.
    pub fn start(dir: &Path, replica: SocketAddr, timeout: Duration, channels: usize) -> Engine {
        Engine::start_at(dir, &[replica], timeout, channels)
    }

    /// The same with several addresses of the replica.
    pub fn start_at(dir: &Path, replica: &[SocketAddr], timeout: Duration, channels: usize) -> Engine {
        let mut engine = Engine::open_at(dir, replica, timeout, Mode::Strict, false);
        (0..channels).for_each(|_| engine.create_channel());
        engine.ready();
        engine
    }

    pub fn create_channel(&mut self) {
        self.channels.push(self.store.create_channel().unwrap());
        self.primary.add_channel(self.channels.len() - 1);
    }

    pub fn ready(&self) {
        self.store.ready().unwrap();
        let subscription = self.store.subscribe(self.primary.clone()).unwrap();
        self.primary.ready(self.store.last_epoch(), subscription).unwrap();
    }

    /// Switches; the epochs that this completes are told when it returns.
    pub fn switch(&self, epoch: u64) {
        self.store.switch_epoch(Epoch(epoch)).unwrap();
        self.store.drain().unwrap();
    }

    /// A whole session with one entry of storage 1.
    pub fn write(&self, channel: usize, key: &str, epoch: u64) {
        let channel = &self.channels[channel];
        channel.begin_session().unwrap();
        let version = WriteVersion { major: epoch, minor: 0 };
        channel.add_entry(StorageId(1), key.as_bytes(), epoch.to_string().as_bytes(), version, &[]).unwrap();
        channel.end_session().unwrap();
    }

    /// Waits until the replica has confirmed the epoch.
    #[track_caller]
    pub fn wait_propagated(&self, epoch: u64) {
        let reached = self.store.wait_durable(Epoch(epoch), Durability::Propagated, Some(DEADLINE)).unwrap();
        assert!(reached, "epoch {epoch} was not propagated: {:?}", self.primary.status());
    }

    pub fn shutdown(&self) {
        let _ = self.store.drain();
        self.primary.shutdown(DEADLINE);
        self.store.shutdown();
    }

    /// Makes one call of a capture.
    pub fn call(&mut self, call: &Value) {
        let channel = call.get("channel").map(|channel| self.channels[number(channel) as usize].clone());
        let channel = || channel.clone().unwrap();
        let storage = || StorageId(number(&call["storage_id"]));
        let bytes = |name: &str| unhex(text(&call[name]));
        let version =
            || WriteVersion { major: number(&call["write_version"][0]), minor: number(&call["write_version"][1]) };
        match text(&call["call"]) {
            "datastore.create_channel" => self.create_channel(),
            "datastore.ready" => self.ready(),
            "datastore.switch_epoch" => self.switch(number(&call["epoch"])),
            "datastore.shutdown" => self.shutdown(),
            "datastore.acquire_blob_pool" => self.pool = Some(self.store.blob_pool()),
            "blob_pool.release" => self.pool.take().unwrap().release(),
            "blob_pool.register_data" => {
                let data = match call.get("data_hex") {
                    Some(hex) => unhex(text(hex)),
                    None => (0..300u32).map(|j| (7 * j + (j >> 8)) as u8).collect(),
                };
                self.pool.as_ref().unwrap().register_data(&data).unwrap();
            }
            "log_channel.begin_session" => drop(channel().begin_session().unwrap()),
            "log_channel.end_session" => {
                channel().end_session().unwrap();
                self.store.drain().unwrap();
            }
            "log_channel.add_entry" => {
                let blobs: Vec<_> = call["blob_ids"].as_array().unwrap().iter().map(|id| BlobId(number(id))).collect();
                let (key, value) = (bytes("key_hex"), bytes("value_hex"));
                channel().add_entry(storage(), &key, &value, version(), &blobs).unwrap();
            }
            "log_channel.remove_entry" => channel().remove_entry(storage(), &bytes("key_hex"), version()).unwrap(),
            "log_channel.add_storage" => channel().add_storage(storage(), version()).unwrap(),
            "log_channel.remove_storage" => channel().remove_storage(storage(), version()).unwrap(),
            "log_channel.truncate_storage" => channel().truncate_storage(storage(), version()).unwrap(),
            other => panic!("unknown call {other}"),
        }
    }
}

fn watch(store: &Arc<Datastore>, primary: &Arc<Primary>) -> SideWatch {
    let (known, store, primary) = (store.clone(), store.clone(), primary.clone());
    let has = move || match known.is_shut_down() {
        true => (None, None),
        false => (Some(known.last_epoch().0), Some(known.propagated_epoch().0)),
    };
    SideWatch::start(has, move || primary.describe(Known::of_store(&store)).document())
}

/// Sessions of a life, each with the key of its epoch; the last of them are stored and confirmed by nobody.
pub fn write_some(engine: &Engine, epochs: std::ops::RangeInclusive<u64>) {
    for epoch in epochs {
        engine.switch(epoch);
        engine.write(0, &format!("{epoch:04}"), epoch);
    }
}

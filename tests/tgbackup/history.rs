// SPDX-License-Identifier: Apache-2.0
//! An engine that writes, and a model of what its directory holds after each epoch.

use crate::commits;
use crate::program::open;
use crate::unlocked::unlocked;
use limestone_core::datastore::{Channel, Datastore, Durability, Settings};
use limestone_core::engine::Engine;
use limestone_core::replication::settings::ReplicationSettings;
use limestone_core::types::{BlobId, Epoch, StorageId, WriteVersion};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// Keys with their values, or with the content of their BLOBs.
pub type Content = BTreeMap<String, String>;

pub struct Writer {
    pub engine: Engine,
    channels: Vec<Arc<Channel>>,
    /// The epoch that is being written.
    pub epoch: u64,
    now: Content,
    /// What is there when this epoch has ended.
    pub after: BTreeMap<u64, Content>,
}

/// An engine that has written so many epochs: what goes at the end, its directory, and a folder for backups of it.
pub fn wrote(epochs: u64) -> (TempDir, PathBuf, PathBuf, Writer) {
    let top = tempfile::tempdir().unwrap();
    let (dir, target) = (top.path().join("data"), top.path().join("backups"));
    let mut writer = Writer::start(&dir);
    writer.write(epochs);
    (top, dir, target, writer)
}

impl Writer {
    pub fn start(dir: &Path) -> Writer {
        Writer::start_with(dir, None)
    }

    pub fn start_with(dir: &Path, replication: Option<ReplicationSettings>) -> Writer {
        let settings = || Settings::new(dir).commit(commits::as_told());
        let engine = unlocked(|| Engine::open(settings(), replication.clone()));
        let channels: Vec<_> = (0..3).map(|_| engine.create_channel().unwrap()).collect();
        let report = engine.ready().unwrap();
        let now = content_of(engine.store());
        let epoch = report.last_epoch.0 + 1;
        engine.store().switch_epoch(Epoch(epoch)).unwrap();
        Writer { engine, channels, epoch, now, after: BTreeMap::new() }
    }

    /// Writes epochs: some keys come again and again, some go, some have BLOBs.
    pub fn write(&mut self, epochs: u64) {
        let pool = self.engine.store().blob_pool();
        for _ in 0..epochs {
            let epoch = self.epoch;
            for (number, channel) in self.channels.iter().enumerate().filter(|_| !epoch.is_multiple_of(5)) {
                let version = WriteVersion { major: epoch, minor: number as u64 };
                let (key, value) = (format!("{}.{number}", epoch % 7), format!("{epoch} {}", "v".repeat(50)));
                channel.begin_session().unwrap();
                if epoch % 3 == number as u64 {
                    let blob = pool.register_data(value.as_bytes()).unwrap();
                    let id = blob.to_string();
                    channel.add_entry(StorageId(2), key.as_bytes(), id.as_bytes(), version, &[blob]).unwrap();
                    self.now.insert(format!("blob {key}"), value);
                } else if epoch.is_multiple_of(4) {
                    channel.remove_entry(StorageId(1), key.as_bytes(), version).unwrap();
                    self.now.remove(&key);
                } else {
                    channel.add_entry(StorageId(1), key.as_bytes(), value.as_bytes(), version, &[]).unwrap();
                    self.now.insert(key, value);
                }
                channel.end_session().unwrap();
            }
            self.after.insert(epoch, self.now.clone());
            self.epoch += 1;
            self.engine.store().switch_epoch(Epoch(self.epoch)).unwrap();
        }
        let durable = self.engine.store().wait_durable(Epoch(self.epoch - 1), Durability::Stored, None).unwrap();
        assert!(durable);
        pool.release();
    }

    /// What is there now.
    pub fn content(&self) -> Content {
        self.now.clone()
    }

    pub fn stop(self) -> Content {
        self.engine.shutdown();
        self.now
    }
}

/// What a start on the directory shows.
pub fn content(dir: &Path) -> Content {
    let store = open(dir);
    store.ready().unwrap();
    let content = content_of(&store);
    store.shutdown();
    content
}

fn content_of(store: &Datastore) -> Content {
    let mut cursor = store.snapshot().unwrap().cursor();
    let mut content = Content::new();
    while let Some(row) = cursor.next().unwrap() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (key, value) = (text(row.key), text(row.value));
        match row.storage {
            StorageId(2) => {
                let (path, is_there) = store.blobs().file(BlobId(value.parse().unwrap()));
                assert!(is_there, "{} is there", path.display());
                content.insert(format!("blob {key}"), text(&std::fs::read(path).unwrap()))
            }
            _ => content.insert(key, value),
        };
    }
    content
}

// SPDX-License-Identifier: Apache-2.0
//! An aborted session leaves nothing: not in its file, not for the next start, not for the original, not for its epoch.

mod golden_data;
mod upstream_checker;

use limestone_core::datastore::{Channel, Datastore, Settings};
use limestone_core::error::Error;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// More than a session keeps in memory.
const LARGE: usize = 600_000;

fn open(dir: &Path) -> (Arc<Datastore>, Arc<Channel>) {
    let store = Datastore::open(Settings::new(dir)).unwrap();
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    (store, channel)
}

fn add(channel: &Channel, key: &str, len: usize) {
    let version = WriteVersion { major: 1, minor: 0 };
    channel.add_entry(StorageId(1), key.as_bytes(), &vec![b'v'; len], version, &[]).unwrap();
}

fn session(channel: &Channel, key: &str) {
    channel.begin_session().unwrap();
    add(channel, key, 10);
    channel.end_session().unwrap();
}

fn keys(dir: &Path) -> Vec<String> {
    let (store, _) = open(dir);
    let mut keys = Vec::new();
    let mut cursor = store.snapshot().unwrap().cursor();
    while let Some(row) = cursor.next().unwrap() {
        keys.push(String::from_utf8(row.key.to_vec()).unwrap());
    }
    keys
}

#[test]
fn the_next_start_sees_the_other_sessions_of_the_channel_only() {
    for len in [10, LARGE] {
        let dir = tempfile::tempdir().unwrap();
        let (store, channel) = open(dir.path());
        store.switch_epoch(Epoch(1)).unwrap();
        session(&channel, "before");
        let before = std::fs::read(channel.path()).unwrap();
        channel.begin_session().unwrap();
        add(&channel, "aborted", len);
        channel.abort_session().unwrap();
        assert!(std::fs::read(channel.path()).unwrap() == before, "the file is as it was");
        session(&channel, "behind");
        store.switch_epoch(Epoch(2)).unwrap();
        assert_eq!(store.last_epoch(), Epoch(1));
        store.shutdown();
        let upstream = upstream_checker::upstream_start(dir.path()).unwrap();
        let upstream: Vec<_> = upstream.rows.iter().map(|row| String::from_utf8(row.key.clone()).unwrap()).collect();
        assert_eq!(upstream, ["before", "behind"], "for the original");
        assert_eq!(keys(dir.path()), ["before", "behind"]);
    }
}

#[test]
fn its_epoch_completes_at_the_abort_as_one_without_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, channel) = open(dir.path());
    let events: Arc<Mutex<Vec<(u64, bool)>>> = Arc::default();
    let told = events.clone();
    store.set_persistent_callback(Some(Arc::new(move |event| {
        told.lock().unwrap().push((event.epoch.0, event.had_writes));
    })));
    store.switch_epoch(Epoch(1)).unwrap();
    channel.begin_session().unwrap();
    add(&channel, "aborted", LARGE);
    store.switch_epoch(Epoch(3)).unwrap();
    assert_eq!(*events.lock().unwrap(), []);
    channel.abort_session().unwrap();
    assert_eq!(*events.lock().unwrap(), [(2, false)]);
    assert_eq!((store.last_epoch(), store.recorded_epoch()), (Epoch(2), Epoch(0)), "nothing was recorded");
    assert_eq!(channel.finished_epoch(), Epoch(0), "an aborted session has not finished");
}

#[test]
fn a_session_that_was_moved_by_a_rotation_can_be_aborted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, channel) = open(dir.path());
    store.switch_epoch(Epoch(1)).unwrap();
    session(&channel, "before");
    channel.begin_session().unwrap();
    add(&channel, "aborted 1", LARGE);
    store.rotate().unwrap();
    add(&channel, "aborted 2", LARGE);
    channel.abort_session().unwrap();
    assert_eq!(std::fs::metadata(channel.path()).unwrap().len(), 0);
    session(&channel, "behind");
    store.switch_epoch(Epoch(2)).unwrap();
    store.shutdown();
    assert_eq!(keys(dir.path()), ["before", "behind"]);
}

#[test]
fn only_an_open_session_can_be_aborted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, channel) = open(dir.path());
    let refused = |channel: &Channel| matches!(channel.abort_session(), Err(Error::WrongState(_)));
    assert!(refused(&channel));
    store.switch_epoch(Epoch(1)).unwrap();
    session(&channel, "a");
    assert!(refused(&channel));
    channel.begin_session().unwrap();
    channel.abort_session().unwrap();
    assert!(refused(&channel));
    channel.begin_session().unwrap();
    store.shutdown();
    assert!(refused(&channel));
}

#[test]
fn the_pool_deletes_the_blobs_that_only_an_aborted_session_refers_to() {
    let dir = tempfile::tempdir().unwrap();
    let (store, channel) = open(dir.path());
    store.switch_epoch(Epoch(1)).unwrap();
    let pool = store.blob_pool();
    let ids = [pool.register_data(b"ended").unwrap(), pool.register_data(b"aborted").unwrap()];
    let refer = |blobs| {
        channel.begin_session().unwrap();
        let version = WriteVersion { major: 1, minor: 0 };
        channel.add_entry(StorageId(1), b"key", b"value", version, blobs).unwrap();
    };
    refer(&ids[..1]);
    channel.end_session().unwrap();
    refer(&ids);
    channel.abort_session().unwrap();
    let there = || ids.map(|id| store.blobs().file(id).1);
    assert_eq!(there(), [true, true], "the pool may refer to them again");
    pool.release();
    assert_eq!(there(), [true, false]);
}

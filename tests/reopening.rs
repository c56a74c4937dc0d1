// SPDX-License-Identifier: Apache-2.0
//! A data store after its shutdown: started again, backed up, restored.

use limestone_core::datastore::{Channel, Datastore, Settings};
use limestone_core::error::Error;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, SimFs};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

fn put(channel: &Channel, key: &str) {
    let epoch = channel.begin_session().unwrap();
    let version = WriteVersion { major: epoch.0, minor: 0 };
    channel.add_entry(StorageId(1), key.as_bytes(), b"v", version, &[]).unwrap();
    channel.end_session().unwrap();
}

fn keys(store: &Datastore) -> BTreeSet<String> {
    let mut cursor = store.snapshot().unwrap().cursor();
    let mut keys = BTreeSet::new();
    while let Some(row) = cursor.next().unwrap() {
        keys.insert(String::from_utf8(row.key.to_vec()).unwrap());
    }
    keys
}

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

#[test]
fn a_data_store_that_was_shut_down_starts_again_with_its_channels_and_callbacks() {
    let store = Datastore::open(Settings::new("/log").vfs(Arc::new(SimFs::new()))).unwrap();
    let told: Arc<Mutex<Vec<u64>>> = Arc::default();
    let epochs = told.clone();
    store.set_notify_callback(Some(Arc::new(move |epoch| epochs.lock().unwrap().push(epoch.0))));
    let channel = store.create_channel().unwrap();
    let mut expected = Vec::new();
    let mut told_before = Vec::new();
    for round in 0..3 {
        let report = store.ready().unwrap();
        assert_eq!((report.durable_epoch, report.warnings), (Epoch(2 * round), Vec::new()));
        assert_eq!(keys(&store), set(&expected));
        assert_eq!(store.switched_epoch(), Epoch(2 * round));
        store.switch_epoch(Epoch(2 * round + 1)).unwrap();
        let key = ["a", "b", "c"][round as usize];
        put(&channel, key);
        put(&store.create_channel().unwrap(), &format!("{key}2"));
        store.switch_epoch(Epoch(2 * round + 2)).unwrap();
        // Open when the data store ends, and so nowhere afterwards.
        channel.begin_session().unwrap();
        store.switch_epoch(Epoch(2 * round + 3)).unwrap();
        assert_eq!(store.last_epoch(), Epoch(2 * round + 1));
        told_before.push(2 * round + 1);
        assert_eq!(*told.lock().unwrap(), told_before);
        store.shutdown();
        store.shutdown();
        assert!(matches!(channel.begin_session(), Err(Error::WrongState(_))));
        expected.extend([["a", "a2"], ["b", "b2"], ["c", "c2"]][round as usize]);
        // The epoch in which a session was open left a trace.
        let next = Datastore::open(Settings::new("/log").vfs(store.shared_vfs())).unwrap();
        assert!(matches!(store.ready(), Err(Error::Locked(_))), "somebody else has the directory");
        next.shutdown();
        assert_eq!(store.ready().unwrap().durable_epoch, Epoch(2 * round + 1));
        store.switch_epoch(Epoch(2 * round + 2)).unwrap();
        put(&channel, &format!("{key}3"));
        store.switch_epoch(Epoch(2 * round + 3)).unwrap();
        told_before.push(2 * round + 2);
        store.shutdown();
        expected.push(["a3", "b3", "c3"][round as usize]);
    }
}

#[test]
fn a_failed_sync_is_not_forgotten_by_a_shutdown() {
    let fs = SimFs::new();
    let store = Datastore::open(Settings::new("/log").vfs(Arc::new(fs.clone()))).unwrap();
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    store.switch_epoch(Epoch(1)).unwrap();
    channel.begin_session().unwrap();
    fs.fail_at(fs.operations() + 1, Fault::IoError);
    channel.end_session().unwrap_err();
    fs.heal();
    store.shutdown();
    assert!(matches!(store.ready(), Err(Error::Poisoned(_))));
}

#[test]
fn after_a_shutdown_a_detailed_backup_holds_what_counts_and_a_restore_brings_it_back() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let store = Datastore::open(Settings::new(dirs[0].path())).unwrap();
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    store.switch_epoch(Epoch(1)).unwrap();
    put(&channel, "a");
    store.switch_epoch(Epoch(2)).unwrap();
    channel.begin_session().unwrap();
    store.shutdown();

    let backup = store.begin_detailed_backup(PATIENCE).unwrap();
    let names: BTreeSet<&Path> = backup.files().iter().map(|file| &*file.destination).collect();
    assert!(!names.contains(Path::new("pwal_0000")) && !names.contains(Path::new("epoch")), "{names:?}");
    for file in backup.files() {
        std::fs::copy(&file.source, dirs[1].path().join(&file.destination)).unwrap();
    }
    drop(backup);
    store.ready().unwrap();
    assert_eq!(keys(&store), set(&["a"]));
    let epoch = store.last_epoch().0 + 1;
    store.switch_epoch(Epoch(epoch)).unwrap();
    put(&channel, "b");
    store.switch_epoch(Epoch(epoch + 1)).unwrap();
    assert!(matches!(store.restore(dirs[1].path(), true), Err(Error::WrongState(_))), "it runs");
    store.shutdown();

    store.restore(dirs[1].path(), true).unwrap();
    let other = Datastore::open(Settings::new(dirs[0].path())).unwrap();
    other.shutdown();
    store.ready().unwrap();
    assert_eq!(keys(&store), set(&["a"]));
    store.shutdown();
}

#[test]
fn a_directory_that_was_deleted_is_an_error_with_its_number() {
    for shut_down in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().join("log");
        let store = Datastore::open(Settings::new(&location)).unwrap();
        store.ready().unwrap();
        store.switch_epoch(Epoch(1)).unwrap();
        if shut_down {
            store.shutdown();
        }
        std::fs::remove_dir_all(&location).unwrap();
        let error = store.begin_detailed_backup(PATIENCE).unwrap_err();
        assert_eq!(error.errno(), libc::ENOENT, "{error}");
        assert!(error.to_string().starts_with("I/O Error (No such file or directory): "), "{error}");
        assert!(!location.exists(), "nothing is made in its place");
    }
}

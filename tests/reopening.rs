// SPDX-License-Identifier: Apache-2.0
//! A data store after its shutdown: started again, backed up, restored.

#[allow(dead_code)]
mod commits;

use commits::{small_journal, ways};
use limestone_core::datastore::{Channel, Commit, Datastore, Settings};
use limestone_core::error::Error;
use limestone_core::types::{Durability, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, Loss, SimFs};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{mpsc, Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

fn open(fs: &SimFs, commit: Commit) -> Arc<Datastore> {
    Datastore::open(Settings::new("/log").vfs(Arc::new(fs.clone())).commit(commit)).unwrap()
}

/// Switches to the next epoch and waits until the one that ends is stored.
fn store_epoch(store: &Datastore) {
    let ended = store.switched_epoch();
    store.switch_epoch(Epoch(ended.0 + 1)).unwrap();
    assert!(store.wait_durable(ended, Durability::Stored, Some(PATIENCE)).unwrap());
}

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
        assert!(matches!(store.ready(), Err(Error::Locked { .. })), "somebody else has the directory");
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

#[test]
fn a_journal_that_could_not_be_put_away_ends_acknowledgement_for_good() {
    let (mut nth, mut poisoned) = (0, Vec::new());
    loop {
        nth += 1;
        let fs = SimFs::new();
        let store = open(&fs, small_journal());
        let channel = store.create_channel().unwrap();
        store.ready().unwrap();
        store.switch_epoch(Epoch(1)).unwrap();
        put(&channel, "a");
        store_epoch(&store);
        fs.fail_at(fs.operations() + nth, Fault::IoError);
        store.shutdown();
        if !fs.has_failed() {
            break;
        }
        fs.heal();
        match store.ready() {
            Ok(_) => assert_eq!(keys(&store), set(&["a"])),
            Err(Error::Poisoned(_)) => poisoned.push(nth),
            Err(e) => panic!("{e}"),
        }
        let next = open(&fs.reboot(Loss::DropUnsynced), Commit::Direct);
        next.ready().unwrap();
        assert_eq!(keys(&next), set(&["a"]));
    }
    // The log file, the epoch record, the manifest and the segment are the journal's; what follows is not.
    assert!(poisoned.len() > 3 && poisoned.iter().copied().eq(1..=poisoned.len() as u64), "{poisoned:?} of {nth}");
}

#[test]
fn a_callback_may_shut_down_and_the_next_start_waits_for_its_end() {
    for commit in ways() {
        let fs = SimFs::new();
        let store = open(&fs, commit);
        let channel = store.create_channel().unwrap();
        store.ready().unwrap();
        store.switch_epoch(Epoch(1)).unwrap();
        let told: Arc<Mutex<Vec<u64>>> = Arc::default();
        let (log, weak) = (told.clone(), Arc::downgrade(&store));
        let (is_down, wait_down) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let may_go_on = Mutex::new(may_go_on);
        store.set_notify_callback(Some(Arc::new(move |epoch| {
            log.lock().unwrap().push(epoch.0);
            let store = weak.upgrade().unwrap();
            if epoch == Epoch(2) {
                store.shutdown();
                store.shutdown();
                assert!(matches!(store.ready(), Err(Error::WrongState(_))), "the callback belongs to the former run");
                is_down.send(()).unwrap();
                let _ = may_go_on.lock().unwrap().recv_timeout(PATIENCE);
            }
        })));
        put(&channel, "a");
        store_epoch(&store);
        std::thread::scope(|scope| {
            put(&channel, "b");
            let switching = scope.spawn(|| store.switch_epoch(Epoch(3)));
            wait_down.recv_timeout(PATIENCE).unwrap();
            let other = open(&fs, Commit::Direct);
            other.shutdown();
            let starting = scope.spawn(|| store.ready().unwrap());
            let shutting_down = scope.spawn(|| store.shutdown());
            std::thread::sleep(Duration::from_millis(30));
            assert!(!starting.is_finished() && !shutting_down.is_finished(), "the callback has not ended");
            go_on.send(()).unwrap();
            assert_eq!(starting.join().unwrap().durable_epoch, Epoch(2));
            shutting_down.join().unwrap();
            // Whether it was told so before the shutdown or not.
            let _ = switching.join().unwrap();
        });
        if matches!(store.ready(), Ok(_) | Err(Error::WrongState(_))) {
            assert_eq!(keys(&store), set(&["a", "b"]));
        }
        store.switch_epoch(Epoch(store.last_epoch().0 + 1)).unwrap();
        put(&channel, "c");
        store_epoch(&store);
        let last = store.last_epoch().0;
        store.shutdown();
        store.ready().unwrap();
        assert_eq!(keys(&store), set(&["a", "b", "c"]));
        store.set_notify_callback(None);
        assert_eq!(told.lock().unwrap()[..2], [1, 2]);
        assert_eq!(told.lock().unwrap().last(), Some(&last));
    }
}

#[test]
fn starts_and_shutdowns_of_many_threads_leave_nothing_half_done() {
    for commit in ways() {
        let fs = SimFs::new();
        let store = open(&fs, commit);
        let channel = store.create_channel().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..30 {
                        match store.ready() {
                            Ok(_) | Err(Error::WrongState(_)) => {}
                            Err(e) => panic!("{e}"),
                        }
                        let epoch = Epoch(store.switched_epoch().0 + 1);
                        // Somebody else may have shut down.
                        let _ = store.switch_epoch(epoch).and_then(|()| channel.begin_session());
                        let _ = channel.end_session();
                        let _ = store.switch_epoch(Epoch(epoch.0 + 1));
                        store.shutdown();
                    }
                });
            }
        });
        store.shutdown();
        let left = fs.reboot(Loss::DropUnsynced).files();
        assert!(!left.keys().any(|path| path.to_string_lossy().contains("limestone-journal.")), "{:?}", left.keys());
        let other = open(&fs, Commit::Direct);
        other.shutdown();
        store.ready().unwrap();
    }
}

#[test]
fn no_journal_is_in_use_while_a_backup_is_open_whatever_begins_or_ends_meanwhile() {
    let fs = SimFs::new();
    let in_use = || fs.files().keys().any(|path| path.to_string_lossy().contains("limestone-journal."));
    let store = open(&fs, small_journal());
    let channel = store.create_channel().unwrap();
    let write = |key: &str| {
        put(&channel, key);
        store_epoch(&store);
    };
    let mut backups = vec![store.begin_backup().unwrap()];
    for round in 0..3 {
        store.ready().unwrap();
        store.switch_epoch(Epoch(store.last_epoch().0 + 1)).unwrap();
        write(&format!("{round} in the backup"));
        assert!(!in_use(), "a backup of a former run is open");
        backups.push(store.begin_detailed_backup(PATIENCE).unwrap());
        backups.remove(0);
        write(&format!("{round} beside the backup"));
        assert!(!in_use(), "a backup of this run is open");
        if round == 1 {
            backups.clear();
            write("without a backup");
            assert!(in_use());
        }
        store.shutdown();
        if round == 1 {
            backups.push(store.begin_detailed_backup(PATIENCE).unwrap());
        }
    }
    backups.clear();
    store.ready().unwrap();
    assert_eq!(keys(&store).len(), 7);
    store.switch_epoch(Epoch(store.last_epoch().0 + 1)).unwrap();
    write("afterwards");
    assert!(in_use());
}

#[test]
fn blobs_of_open_pools_and_of_open_backups_outlive_a_shutdown_and_a_start() {
    let store = open(&SimFs::new(), Commit::Direct);
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    let (owned, listed) = (store.blob_pool(), store.blob_pool());
    let own = owned.register_data(b"of a pool").unwrap();
    let copied = listed.register_data(b"of a backup").unwrap();
    let backup = store.begin_backup().unwrap();
    listed.release();
    for is_backed_up in [true, false] {
        store.shutdown();
        store.ready().unwrap();
        store.blobs().wait_for_collection();
        assert_eq!([own, copied].map(|id| store.blobs().file(id).1), [true, is_backed_up]);
        if is_backed_up {
            assert!(backup.files().iter().all(|file| store.vfs().kind(&file.source).unwrap().is_some()));
            break;
        }
    }
    drop(backup);
    store.shutdown();
    store.ready().unwrap();
    store.blobs().wait_for_collection();
    assert_eq!([own, copied].map(|id| store.blobs().file(id).1), [true, false]);
    store.switch_epoch(Epoch(store.last_epoch().0 + 1)).unwrap();
    channel.begin_session().unwrap();
    channel.add_entry(StorageId(1), b"k", b"v", WriteVersion { major: 9, minor: 0 }, &[own]).unwrap();
    channel.end_session().unwrap();
    store_epoch(&store);
    owned.release();
    store.shutdown();
    store.ready().unwrap();
    store.blobs().wait_for_collection();
    assert!(store.blobs().file(own).1);
}

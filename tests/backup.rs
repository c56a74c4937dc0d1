// SPDX-License-Identifier: Apache-2.0
//! Backups on the real disk: beside writers, with long sessions and BLOBs, and restores of what the original left.

mod golden_data;
mod upstream_checker;

use limestone_core::blob::paths;
use limestone_core::datastore::{Datastore, Settings};
use limestone_core::types::{BlobId, Epoch, StorageId, WriteVersion};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const WRITERS: u64 = 4;
const BACKUPS: usize = 6;

/// Keys with the ids of their BLOBs, as a start shows them; every BLOB must have its key as content.
fn recovered(dir: &Path) -> BTreeMap<String, u64> {
    let store = Datastore::open(Settings::new(dir)).unwrap();
    store.ready().unwrap();
    let mut rows = BTreeMap::new();
    let mut cursor = store.snapshot().unwrap().cursor();
    while let Some(row) = cursor.next().unwrap() {
        let key = String::from_utf8_lossy(row.key).into_owned();
        let id = String::from_utf8_lossy(row.value).parse().unwrap();
        let file = paths::file(&dir.join("blob"), BlobId(id));
        assert_eq!(fs::read_to_string(file).unwrap(), key, "the BLOB of {key}");
        rows.insert(key, id);
    }
    rows
}

#[test]
fn a_backup_beside_writers_recovers_to_exactly_what_was_durable_at_its_log_finish() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Datastore::open(Settings::new(scratch.path().join("log"))).unwrap();
    let channels: Vec<_> = (0..WRITERS).map(|_| store.create_channel().unwrap()).collect();
    store.ready().unwrap();
    store.switch_epoch(Epoch(1)).unwrap();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let reported = acknowledged.clone();
    store.set_persistent_callback(Some(Arc::new(move |event| {
        reported.fetch_max(event.epoch.0, SeqCst);
    })));
    // Every ended session with its epoch and the BLOBs of its keys.
    let ended: Mutex<Vec<(u64, BTreeMap<String, u64>)>> = Mutex::default();
    let over = AtomicBool::new(false);
    let mut finishes = Vec::new();
    std::thread::scope(|scope| {
        for (writer, channel) in channels.iter().enumerate() {
            let (store, ended, over) = (&store, &ended, &over);
            scope.spawn(move || {
                for session in 0.. {
                    if over.load(SeqCst) {
                        break;
                    }
                    let pool = store.blob_pool();
                    let epoch = channel.begin_session().unwrap();
                    // Each fifth one is long, so that backups begin while it is open.
                    let entries = if session % 5 == 0 { 12 } else { 1 };
                    let mut rows = BTreeMap::new();
                    for entry in 0..entries {
                        let key = format!("{writer} {session} {entry}");
                        let blob = pool.register_data(key.as_bytes()).unwrap();
                        let version = WriteVersion { major: epoch.0, minor: session };
                        let value = blob.to_string();
                        channel.add_entry(StorageId(1), key.as_bytes(), value.as_bytes(), version, &[blob]).unwrap();
                        rows.insert(key, blob.0);
                    }
                    channel.end_session().unwrap();
                    ended.lock().unwrap().push((epoch.0, rows));
                    pool.release();
                }
            });
        }
        scope.spawn(|| {
            for epoch in 2.. {
                if over.load(SeqCst) {
                    break;
                }
                store.switch_epoch(Epoch(epoch)).unwrap();
            }
        });
        for number in 0..BACKUPS {
            let before = acknowledged.load(SeqCst);
            let backup = store.begin_detailed_backup(Duration::from_secs(10)).unwrap();
            assert!(backup.log_finish().0 >= before, "{} is not below {before}", backup.log_finish());
            let to = scratch.path().join(format!("backup {number}"));
            fs::create_dir(&to).unwrap();
            for file in backup.files() {
                fs::copy(&file.source, to.join(&file.destination)).unwrap();
            }
            finishes.push((backup.log_finish().0, to));
        }
        over.store(true, SeqCst);
    });
    assert_eq!(store.backups().count(), 0);
    store.shutdown();
    let ended = ended.into_inner().unwrap();
    for (number, (finish, backup)) in finishes.iter().enumerate() {
        let dir = scratch.path().join(format!("restored {number}"));
        let restored = Datastore::open(Settings::new(&dir)).unwrap();
        restored.restore(backup, true).unwrap();
        restored.shutdown();
        drop(restored);
        let upstream = upstream_checker::upstream_start(&dir).expect("the original would start");
        let expected: BTreeMap<String, u64> =
            ended.iter().filter(|(epoch, _)| epoch <= finish).flat_map(|(_, rows)| rows.clone()).collect();
        assert_eq!(upstream.rows.len(), expected.len(), "what the original would show");
        assert_eq!(recovered(&dir), expected, "backup {number} with log_finish {finish}");
    }
}

/// The directories that the original opens, and what it would not restore or a start would refuse afterwards: the
/// manifest is broken or missing, or the log has no epoch file.
const NOT_RESTORED: [&str; 2] = ["epoch_file_missing", "manifest_broken_with_backup"];

#[test]
fn a_golden_directory_restored_from_flat_files_shows_what_it_showed_in_its_place() {
    let mut refused = Vec::new();
    for case in golden_data::cases().into_iter().filter(|case| case.upstream_opens()) {
        let scratch = tempfile::tempdir().unwrap();
        let (copy, from) = (scratch.path().join("copy"), scratch.path().join("from"));
        fs::create_dir(&copy).unwrap();
        case.copy_to(&copy);
        fs::create_dir(&from).unwrap();
        flatten(&copy, &from, true);
        let store = Datastore::open(Settings::new(scratch.path().join("log"))).unwrap();
        if store.restore(&from, false).is_err() {
            refused.push(case.name);
            continue;
        }
        assert_eq!(fs::read_dir(&from).unwrap().count(), 0, "{}: the backup is deleted", case.name);
        let in_place = Datastore::open(Settings::new(&copy)).unwrap();
        match (store.ready(), in_place.ready()) {
            (Ok(_), Ok(_)) => assert_eq!(rows(&store), rows(&in_place), "{}", case.name),
            (restored, original) => assert_eq!(restored.is_ok(), original.is_ok(), "{}", case.name),
        }
    }
    assert_eq!(refused, NOT_RESTORED);
}

/// Copies the files of a data directory and its BLOBs into one directory, as a backup has them.
fn flatten(dir: &Path, to: &Path, top: bool) {
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
        let is_blob = paths::id_of(&entry.file_name()).is_some();
        if entry.file_type().unwrap().is_dir() {
            flatten(&entry.path(), to, false);
        } else if top || is_blob {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

type Rows = Vec<(u64, Vec<u8>, Vec<u8>)>;

fn rows(store: &Datastore) -> Rows {
    let mut rows = Rows::new();
    let mut cursor = store.snapshot().unwrap().cursor();
    while let Some(row) = cursor.next().unwrap() {
        rows.push((row.storage.0, row.key.to_vec(), row.value.to_vec()));
    }
    rows
}

#[test]
fn an_empty_blob_is_in_a_backup_and_comes_back_with_a_restore() {
    let scratch = tempfile::tempdir().unwrap();
    let (dir, to) = (scratch.path().join("log"), scratch.path().join("backup"));
    fs::create_dir(&to).unwrap();
    let store = Datastore::open(Settings::new(&dir)).unwrap();
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    store.switch_epoch(Epoch(1)).unwrap();
    let pool = store.blob_pool();
    let blob = pool.register_data(b"").unwrap();
    channel.begin_session().unwrap();
    // The key is the content of the BLOB.
    let version = WriteVersion { major: 1, minor: 0 };
    channel.add_entry(StorageId(1), b"", blob.to_string().as_bytes(), version, &[blob]).unwrap();
    channel.end_session().unwrap();
    pool.release();
    store.switch_epoch(Epoch(2)).unwrap();
    let backup = store.begin_detailed_backup(Duration::from_secs(60)).unwrap();
    for file in backup.files() {
        fs::copy(&file.source, to.join(&file.destination)).unwrap();
    }
    drop(backup);
    store.shutdown();
    drop((channel, store));
    let expected = BTreeMap::from([(String::new(), blob.0)]);
    for round in 0..2 {
        let restored = Datastore::open(Settings::new(&dir)).unwrap();
        restored.restore(&to, true).unwrap();
        restored.shutdown();
        drop(restored);
        assert_eq!(recovered(&dir), expected, "restore {round}");
    }
}

#[test]
fn files_are_named_below_the_location_as_it_was_given() {
    let scratch = tempfile::tempdir().unwrap();
    let here = std::env::current_dir().unwrap();
    let up: std::path::PathBuf = here.components().skip(1).map(|_| "..").collect();
    let relative = up.join(scratch.path().strip_prefix("/").unwrap()).join("log");
    let store = Datastore::open(Settings::new(&relative)).unwrap();
    store.ready().unwrap();
    for backup in [store.begin_backup().unwrap(), store.begin_detailed_backup(Duration::ZERO).unwrap()] {
        assert!(!backup.files().is_empty());
        for file in backup.files() {
            assert!(file.source.starts_with(&relative) && file.source.exists(), "{file:?}");
        }
    }
    let (blob, _) = store.blobs().file(BlobId(255));
    assert_eq!(store.as_given(&blob), paths::file(&relative.join("blob"), BlobId(255)));
}

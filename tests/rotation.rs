// SPDX-License-Identifier: Apache-2.0
//! Which files get a rotated name, and what is in them then.

use limestone_core::datastore::{Datastore, Settings};
use limestone_core::replication::replica_store::StandbyStore;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{RealFs, Vfs};
use limestone_core::wal::entry::{encode_end, encode_put, marker, tag};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

#[test]
fn a_rotated_file_ends_with_an_ended_session_even_when_the_next_one_was_partly_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = Datastore::open(Settings::new(dir.path())).unwrap();
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    store.switch_epoch(Epoch(1)).unwrap();
    let add = |key: &[u8], len: usize| {
        let version = WriteVersion { major: 1, minor: 0 };
        channel.add_entry(StorageId(1), key, &vec![b'v'; len], version, &[]).unwrap();
    };
    channel.begin_session().unwrap();
    add(b"ended", 10);
    channel.end_session().unwrap();
    let ended = std::fs::read(channel.path()).unwrap();

    channel.begin_session().unwrap();
    add(b"open", 1 << 20);
    assert!(std::fs::metadata(channel.path()).unwrap().len() > ended.len() as u64, "a part was written");
    store.rotate().unwrap();
    let rotated = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let rotated: Vec<_> = rotated.filter(|path| path.to_string_lossy().contains("pwal_0000.")).collect();
    assert_eq!(rotated.len(), 1, "{rotated:?}");
    assert!(std::fs::read(&rotated[0]).unwrap() == ended, "only the ended session is in the rotated file");

    add(b"more", 10);
    channel.end_session().unwrap();
    store.switch_epoch(Epoch(2)).unwrap();
    store.shutdown();
    let store = Datastore::open(Settings::new(dir.path())).unwrap();
    assert_eq!(store.ready().unwrap().warnings, Vec::<String>::new());
    assert_eq!(store.snapshot().unwrap().len(), 3);
}

/// What stands in `pwal_0000` behind a whole session: one without an end, as the original leaves it; one that never
/// counted; one that was invalidated.
fn ends() -> [Vec<u8>; 3] {
    let session = |tag: u8, epoch: u64| {
        let mut bytes = marker(tag, Epoch(epoch)).to_vec();
        encode_put(&mut bytes, StorageId(1), b"last", b"v", WriteVersion { major: epoch, minor: 0 }, &[]);
        bytes
    };
    [session(tag::BEGIN, 1), session(tag::BEGIN, 9), session(tag::INVALIDATED, 1)]
}

fn directory(version: i32, end: &[u8]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let manifest = format!(r#"{{"format_version":"1.1","instance_uuid":"u","persistent_format_version":{version}}}"#);
    fs::write(dir.path().join("limestone-manifest.json"), manifest).unwrap();
    fs::write(dir.path().join("epoch"), marker(tag::DURABLE, Epoch(1))).unwrap();
    let mut log = marker(tag::BEGIN, Epoch(1)).to_vec();
    encode_put(&mut log, StorageId(1), b"whole", b"v", WriteVersion { major: 1, minor: 0 }, &[]);
    encode_end(&mut log, Epoch(1));
    log.extend_from_slice(end);
    fs::write(dir.path().join("pwal_0000"), log).unwrap();
    dir
}

/// Names of log files, with their lengths.
fn logs(dir: &Path) -> Vec<(String, u64)> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut logs: Vec<_> = entries
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.metadata().unwrap().len()))
        .filter(|(name, _)| name.starts_with("pwal_"))
        .collect();
    logs.sort();
    logs
}

fn keys(store: &Datastore) -> usize {
    store.snapshot().unwrap().len()
}

#[test]
fn a_start_renames_files_only_for_a_migration_and_nothing_is_appended_behind_a_session_without_an_end() {
    for (version, end) in (5..=7).flat_map(|version| ends().map(|end| (version, end))) {
        let dir = directory(version, &end);
        let before = logs(dir.path());
        let open = || Datastore::open(Settings::new(dir.path())).unwrap();
        let mut rows = 0;
        for start in 1..=2 {
            let store = open();
            let channel = store.create_channel().unwrap();
            store.ready().unwrap();
            rows = keys(&store);
            let migrates = version < 6;
            assert_eq!(
                logs(dir.path()) == before,
                !migrates,
                "version {version}, start {start}: {:?}",
                logs(dir.path())
            );
            if start == 2 {
                store.switch_epoch(Epoch(20)).unwrap();
                for key in [b"one", b"two"] {
                    channel.begin_session().unwrap();
                    let version = WriteVersion { major: 20, minor: 0 };
                    channel.add_entry(StorageId(1), key, b"v", version, &[]).unwrap();
                    channel.end_session().unwrap();
                }
                store.switch_epoch(Epoch(21)).unwrap();
            }
            store.shutdown();
        }
        let after = logs(dir.path());
        assert_eq!(after.len(), 2, "version {version}: {after:?}");
        assert_eq!(after[1].1, before[0].1, "version {version}: nothing is appended to the old one");
        let store = open();
        store.ready().unwrap();
        assert_eq!(keys(&store), rows + 2, "version {version}");
    }
}

#[test]
fn a_replica_appends_nothing_behind_a_session_without_an_end() {
    for end in ends() {
        let dir = directory(7, &end);
        let before = logs(dir.path());
        let vfs: Arc<dyn Vfs> = Arc::new(RealFs);
        let store = StandbyStore::open(vfs.clone(), dir.path()).unwrap();
        assert_eq!(logs(dir.path()), before);
        let mut session = marker(tag::BEGIN, Epoch(2)).to_vec();
        encode_put(&mut session, StorageId(1), b"new", b"v", WriteVersion { major: 2, minor: 0 }, &[]);
        encode_end(&mut session, Epoch(2));
        store.lane(0).append(Epoch(2), true, true, &session).unwrap();
        store.record(Epoch(2)).unwrap();
        store.close();
        let after = logs(dir.path());
        let lengths: Vec<u64> = after.iter().map(|(_, len)| *len).collect();
        assert_eq!(lengths, [session.len() as u64, before[0].1], "{after:?}");
        assert_eq!(StandbyStore::open(vfs, dir.path()).unwrap().durable(), Epoch(2));
    }
}

#[test]
fn what_a_plain_backup_lists_keeps_its_name_when_a_channel_begins_a_new_file() {
    let dir = directory(7, &ends()[0]);
    let store = Datastore::open(Settings::new(dir.path())).unwrap();
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    let backup = store.begin_backup().unwrap();
    let listed = || backup.files().iter().map(|file| fs::metadata(&file.source).map(|found| found.len()).ok());
    let before: Vec<_> = listed().collect();
    store.switch_epoch(Epoch(2)).unwrap();
    channel.begin_session().unwrap();
    assert_eq!(listed().collect::<Vec<_>>(), before);
    channel.end_session().unwrap();
    drop(backup);
    store.shutdown();
}

// SPDX-License-Identifier: Apache-2.0
//! Both ways between upstream and this project on one data directory: the checker agrees with what upstream was seen
//! doing, and what the engine leaves after a clean shutdown passes the checker.

#[allow(dead_code)]
mod commits;
mod data_dir;
mod engine_run;
mod golden_data;
mod upstream_checker;

use data_dir::{begin, end, put, records, session, DataDir};
use engine_run::start;
use golden_data::{copy_tree, number, rows, text, Row};
use limestone_core::datastore::{Channel, Commit, Datastore, Settings};
use limestone_core::types::{BlobId, Epoch, StorageId, WriteVersion};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use upstream_checker::{format, handover_violations, session_violations, upstream_start};

#[test]
fn checker_repeats_what_upstream_did_with_every_golden_directory() {
    for case in golden_data::cases() {
        let dir = tempfile::tempdir().unwrap();
        case.copy_to(dir.path());
        match upstream_start(dir.path()) {
            Ok(start) => {
                assert!(case.upstream_opens(), "{}: the checker opens what upstream refused", case.name);
                assert_eq!(start.rows, case.upstream_rows(), "{}", case.name);
                assert_eq!(start.last_epoch, case.upstream_last_epoch(), "{}", case.name);
                assert_eq!(start.next_blob_id, number(&case.expected["next_blob_id"]), "{}", case.name);
            }
            Err(reason) => {
                assert!(!case.upstream_opens(), "{}: the checker refuses what upstream opened: {reason}", case.name);
            }
        }
    }
}

#[test]
fn checker_repeats_what_upstream_did_with_every_case_of_the_parse_matrix() {
    for case in golden_data::parse_matrix() {
        let dir = tempfile::tempdir().unwrap();
        case.write_to(dir.path());
        match upstream_start(dir.path()) {
            Ok(start) => {
                assert_eq!(case.start["result"], "ok", "{}: the checker opens what upstream refused", case.name);
                assert_eq!(start.rows, rows(&case.start["entries"]), "{}", case.name);
                assert_eq!(start.last_epoch, number(&case.start["last_epoch"]), "{}", case.name);
                let patched = match text(&case.start["pwal_after"]) {
                    "unchanged" => BTreeMap::new(),
                    hex => BTreeMap::from([(case.file_name.clone(), golden_data::unhex(hex))]),
                };
                assert_eq!(start.patched, patched, "{}", case.name);
            }
            Err(reason) => assert_eq!(case.start["result"], "refused", "{}: {reason}", case.name),
        }
    }
}

fn open(dir: &Path, channels: usize) -> (Arc<Datastore>, Vec<Arc<Channel>>) {
    open_with(dir, channels, Commit::Direct)
}

fn open_with(dir: &Path, channels: usize, commit: Commit) -> (Arc<Datastore>, Vec<Arc<Channel>>) {
    let store = Datastore::open(Settings::new(dir).commit(commit)).unwrap();
    let channels = (0..channels).map(|_| store.create_channel().unwrap()).collect();
    store.ready().unwrap();
    (store, channels)
}

/// One session with one entry of storage 1.
fn write(channel: &Channel, key: &str, value: &str, major: u64) {
    channel.begin_session().unwrap();
    let version = WriteVersion { major, minor: 0 };
    channel.add_entry(StorageId(1), key.as_bytes(), value.as_bytes(), version, &[]).unwrap();
    channel.end_session().unwrap();
}

fn row(key: &str, value: &str) -> Row {
    Row { storage: 1, key: key.into(), value: value.into() }
}

/// Checks that upstream opens what stands in `dir` with these rows, and that §13 holds.
#[track_caller]
fn upstream_reads(dir: &Path, rows: &[Row]) {
    assert_eq!(handover_violations(dir), [""; 0]);
    assert_eq!(session_violations(dir), [""; 0]);
    let upstream = upstream_start(dir).expect("upstream refuses");
    assert_eq!(upstream.rows, rows);
    assert_eq!(upstream.patched, BTreeMap::new(), "a session that is not covered by the epoch file was left");
}

#[test]
fn upstream_opens_a_directory_that_was_only_created() {
    let dir = tempfile::tempdir().unwrap();
    let location = dir.path().join("log");
    let store = Datastore::open(Settings::new(&location)).unwrap();
    upstream_start(&location).unwrap();
    store.ready().unwrap();
    store.shutdown();
    upstream_reads(&location, &[]);
}

#[test]
fn upstream_reads_every_kind_of_entry() {
    let dir = tempfile::tempdir().unwrap();
    let (store, channels) = open(dir.path(), 1);
    let version = |minor| WriteVersion { major: 1, minor };
    store.switch_epoch(Epoch(1)).unwrap();
    let channel = &channels[0];
    channel.begin_session().unwrap();
    channel.add_storage(StorageId(2), version(0)).unwrap();
    channel.add_entry(StorageId(2), b"key1", b"value1", version(1), &[]).unwrap();
    channel.add_entry(StorageId(2), b"key2", b"v2", version(2), &[BlobId(3), BlobId(4)]).unwrap();
    channel.remove_entry(StorageId(2), b"key3", version(3)).unwrap();
    channel.truncate_storage(StorageId(7), version(4)).unwrap();
    channel.remove_storage(StorageId(3), version(5)).unwrap();
    channel.end_session().unwrap();
    store.switch_epoch(Epoch(2)).unwrap();
    store.shutdown();
    let case = golden_data::cases().into_iter().find(|case| case.name == "all_entry_types").unwrap();
    let log = |dir: &Path| std::fs::read(dir.join("pwal_0000")).unwrap();
    assert_eq!(log(dir.path()), log(&case.dir.join("data")), "the same bytes as upstream's");
    upstream_reads(dir.path(), &case.upstream_rows());
}

#[test]
fn upstream_opens_a_directory_after_more_than_a_hundred_epochs_and_three_lives() {
    let dir = tempfile::tempdir().unwrap();
    let mut epoch = 0;
    for life in 0..3 {
        let (store, channels) = open(dir.path(), 3);
        for _ in 0..130 {
            epoch += 1;
            store.switch_epoch(Epoch(epoch)).unwrap();
            write(&channels[epoch as usize % 3], "key", &epoch.to_string(), epoch);
        }
        store.switch_epoch(Epoch(epoch + 1)).unwrap();
        assert_eq!(store.last_epoch(), Epoch(epoch));
        store.shutdown();
        upstream_reads(dir.path(), &[row("key", &epoch.to_string())]);
        let records = format::epoch_records(&std::fs::read(dir.path().join("epoch")).unwrap()).unwrap();
        assert!(records.len() <= 200, "life {life}: {} records, the file is never replaced", records.len());
        assert_eq!(records.iter().max(), Some(&epoch));
    }
}

#[test]
fn upstream_opens_rotated_files_and_sessions_that_were_open_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let (store, channels) = open(dir.path(), 2);
    store.switch_epoch(Epoch(1)).unwrap();
    write(&channels[0], "a", "1", 1);
    channels[1].begin_session().unwrap();
    let version = |major| WriteVersion { major, minor: 0 };
    channels[1].add_entry(StorageId(1), b"b", b"1", version(1), &[]).unwrap();
    store.rotate().unwrap();
    channels[1].add_entry(StorageId(1), b"c", b"1", version(1), &[]).unwrap();
    channels[1].end_session().unwrap();
    store.switch_epoch(Epoch(2)).unwrap();
    write(&channels[0], "a", "2", 2);
    store.rotate().unwrap();
    store.rotate().unwrap();
    store.switch_epoch(Epoch(3)).unwrap();
    store.shutdown();
    let expected = [row("a", "2"), row("b", "1"), row("c", "1")];
    upstream_reads(dir.path(), &expected);
    assert_eq!(start(dir.path(), 2).unwrap().rows, expected);
}

#[test]
fn upstream_reads_the_acknowledged_part_of_a_killed_process_after_one_life_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let (store, channels) = open(dir.path(), 2);
    store.switch_epoch(Epoch(1)).unwrap();
    write(&channels[0], "a", "1", 1);
    store.switch_epoch(Epoch(2)).unwrap();
    write(&channels[0], "a", "2", 2);
    channels[1].begin_session().unwrap();
    for i in 0..10_000u64 {
        let (key, version) = (format!("lost{i}"), WriteVersion { major: 2, minor: i });
        channels[1].add_entry(StorageId(1), key.as_bytes(), &[7; 100], version, &[]).unwrap();
    }
    let image = tempfile::tempdir().unwrap();
    copy_tree(dir.path(), image.path());
    store.shutdown();
    for _ in 0..2 {
        let found = start(image.path(), 2).unwrap();
        assert_eq!(found.rows, [row("a", "1")]);
        upstream_reads(image.path(), &[row("a", "1")]);
    }
}

#[test]
fn upstream_opens_what_was_migrated_from_every_version() {
    for version in 1..=7 {
        let log = match version {
            ..=5 => [begin(1), put("a", "1", 1), begin(2), put("b", "2", 2)].concat(),
            _ => [session(1, "a"), session(2, "b")].concat(),
        };
        let dir = DataDir::of_version(version).write("epoch", records(&[1, 2])).write("pwal_0000", log);
        for life in 3..5 {
            let (store, channels) = open(dir.path(), 1);
            store.switch_epoch(Epoch(life)).unwrap();
            write(&channels[0], "c", &life.to_string(), life);
            store.switch_epoch(Epoch(life + 1)).unwrap();
            store.shutdown();
            assert_eq!(handover_violations(dir.path()), [""; 0], "version {version}");
            let upstream = upstream_start(dir.path()).unwrap();
            assert_eq!(upstream.rows, [row("a", "1"), row("b", "2"), row("c", &life.to_string())], "version {version}");
        }
    }
}

#[test]
fn upstream_reads_sessions_that_were_appended_behind_a_torn_tail() {
    let torn = put("x", "2", 2)[..20].to_vec();
    for tail in [[begin(3), put("x", "2", 2), torn].concat(), begin(3)[..4].to_vec(), vec![0; 700]] {
        let log = [session(1, "a"), tail].concat();
        let dir = DataDir::with_epochs(&[2]).write("pwal_0000", log);
        let (store, channels) = open(dir.path(), 1);
        let epoch = store.last_epoch().0 + 1;
        store.switch_epoch(Epoch(epoch)).unwrap();
        write(&channels[0], "b", "new", epoch);
        store.switch_epoch(Epoch(epoch + 1)).unwrap();
        store.shutdown();
        upstream_reads(dir.path(), &[row("a", "1"), row("b", "new")]);
        assert_eq!(start(dir.path(), 1).unwrap().rows, [row("a", "1"), row("b", "new")]);
    }
}

/// A hundred times each, in both ways to commit. What upstream writes and changes at a start: a session and its record,
/// another one that it did not end, one more epoch record.
#[test]
fn both_take_turns_on_one_directory() {
    for commit in commits::ways() {
        let (dir, mut expected) = (engine_run::quick_dir(), BTreeMap::new());
        for life in 1..=100u64 {
            let (store, channels) = open_with(dir.path(), 2, commit);
            let epoch = store.last_epoch().0 + 1;
            store.switch_epoch(Epoch(epoch)).unwrap();
            for key in ["key".to_owned(), format!("ours{life}")] {
                write(&channels[0], &key, &life.to_string(), epoch);
                expected.insert(key, life.to_string());
            }
            store.switch_epoch(Epoch(epoch + 1)).unwrap();
            if life % 7 == 0 {
                store.rotate().unwrap();
            }
            store.shutdown();
            upstream_reads(dir.path(), &expected.iter().map(|(key, value)| row(key, value)).collect::<Vec<_>>());
            let last = upstream_start(dir.path()).unwrap().last_epoch;
            let (theirs, killed) = (last + 1, last + 2);
            let key = format!("theirs{life}");
            let written = [begin(theirs), put(&key, "1", theirs), end(theirs), begin(killed), put("lost", "x", killed)];
            append(&dir.path().join("pwal_0001"), &written.concat());
            append(&dir.path().join("epoch"), &records(&[last, theirs]));
            expected.insert(key, "1".to_owned());
        }
    }
}

fn append(path: &Path, bytes: &[u8]) {
    let mut content = std::fs::read(path).unwrap_or_default();
    content.extend(bytes);
    std::fs::write(path, content).unwrap();
}

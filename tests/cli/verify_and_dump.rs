// SPDX-License-Identifier: Apache-2.0
//! `verify` and `dump`: everything that can be read, read without a change.

use crate::engine_run::{quick_dir, start};
use crate::golden_data::{cases, rows, tree, unhex};
use crate::tool::{directory, epoch_record, on, session};
use limestone_core::types::{BlobId, Epoch, StorageId, WriteVersion};
use limestone_core::wal::entry::{encode_end, encode_put, marker, tag};
use serde_json::Value;

#[test]
fn verify_finds_what_a_start_would_warn_of_or_refuse_and_changes_nothing() {
    let mut failed = Vec::new();
    for case in cases() {
        let dir = quick_dir();
        case.copy_to(dir.path());
        let before = tree(dir.path());
        let run = on(dir.path(), &["verify"]);
        let changed = tree(dir.path()) != before;
        let started = start(dir.path(), 1);
        let missing_blobs = run.stdout.iter().any(|line| line.contains("is missing"));
        let fits = match (&started, run.exit) {
            (Ok(started), 0) => started.warnings.is_empty(),
            (Ok(started), 1) => !started.warnings.is_empty(),
            (Ok(_), 2) => missing_blobs,
            (Err(_), 2) => true,
            // The manifest: a start may restore it.
            (_, 64) => case.name.starts_with("manifest_"),
            _ => false,
        };
        if !fits || changed {
            failed.push(format!("{}: changed: {changed}, {run:?}, start {started:?}", case.name));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn verify_says_which_epochs_are_complete_and_which_file_is_damaged() {
    let mut bad = session(2, "b", "2");
    bad[9] = 0x0b;
    let dir = directory(&epoch_record(3), &[("pwal_0000", [session(1, "a", "1"), bad].concat())]);
    let run = on(dir.path(), &["verify", "--json"]);
    assert_eq!(run.exit, 2);
    let report: Value = serde_json::from_str(&run.stdout[0]).unwrap();
    assert_eq!(report["status"], "damaged");
    assert_eq!(report["durable_epoch"], 3);
    assert_eq!(report["complete_up_to_epoch"], 1);
    assert_eq!(report["files"][0]["state"], "damaged");
}

#[test]
fn verify_names_blobs_that_are_missing() {
    let mut log = marker(tag::BEGIN, Epoch(1)).to_vec();
    encode_put(&mut log, StorageId(1), b"k", b"v", WriteVersion { major: 1, minor: 0 }, &[BlobId(101), BlobId(7)]);
    encode_end(&mut log, Epoch(1));
    let dir = directory(&epoch_record(1), &[("pwal_0000", log)]);
    let blob = dir.path().join("blob/dir_01/0000000000000065.blob");
    std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
    std::fs::write(blob, "content").unwrap();
    let run = on(dir.path(), &["verify"]);
    assert_eq!(run.exit, 2);
    let damage: Vec<_> = run.stdout.iter().filter(|line| line.starts_with("damage: ")).collect();
    assert_eq!(damage, ["damage: BLOB 7, to which a live entry refers, is missing"]);
    assert!(run.stdout.contains(&"blob-references: 2, missing: 1".to_owned()), "{:?}", run.stdout);
}

#[test]
fn dump_prints_durable_entries_and_filters_them() {
    let log = [session(1, "apple", "1"), session(2, "bee", "2"), session(3, "cat", "3")].concat();
    let dir = directory(&epoch_record(2), &[("pwal_0000", log)]);
    let keys = |options: &[&str]| {
        let run = on(dir.path(), &[&["dump", "--json"], options].concat());
        assert_eq!(run.exit, 0, "{run:?}");
        let lines = run.stdout.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| String::from_utf8(unhex(line["key"].as_str().unwrap())).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&[]), ["apple", "bee"]);
    assert_eq!(keys(&["--epoch", "2..9"]), ["bee"]);
    assert_eq!(keys(&["--epoch", "..1"]), ["apple"]);
    assert_eq!(keys(&["--storage=2"]), [""; 0]);
    assert_eq!(keys(&["--key_prefix=ap"]), ["apple"]);
    assert_eq!(keys(&["--key_prefix=0x62"]), ["bee"]);
    let text = on(dir.path(), &["dump", "--epoch=1"]);
    assert_eq!(
        text.stdout,
        [r#"file=pwal_0000 offset=9 epoch=1 type=put storage=1 major=1 minor=0 key="apple" value="1" blobs="#]
    );
}

#[test]
fn the_live_dump_is_what_a_start_gives() {
    for case in cases().into_iter().filter(|case| case.name == "online_compacted") {
        let dir = quick_dir();
        case.copy_to(dir.path());
        let run = on(dir.path(), &["dump", "--live", "--json"]);
        let fields = |line: &String| serde_json::from_str::<Value>(line).unwrap();
        let found: Vec<_> = run.stdout.iter().map(fields).collect();
        let expected = rows(&case.expected["entries"]);
        assert_eq!(found.len(), expected.len());
        for (line, row) in found.iter().zip(&expected) {
            assert_eq!(line["storage"], row.storage);
            assert_eq!(unhex(line["key"].as_str().unwrap()), row.key);
            assert_eq!(unhex(line["value"].as_str().unwrap()), row.value);
        }
    }
}

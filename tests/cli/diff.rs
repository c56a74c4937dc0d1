// SPDX-License-Identifier: Apache-2.0
//! `diff`: what two directories have differently.

use crate::golden_data::tree;
use crate::tool::{directory, epoch_record, on, session, tool, Run};
use limestone_core::types::{BlobId, Epoch, StorageId, WriteVersion};
use limestone_core::wal::entry::{encode_end, encode_put, encode_remove, marker, tag};
use serde_json::{json, Value};
use std::path::Path;
use tempfile::TempDir;

fn diff(options: &[&str], a: &Path, b: &Path) -> Run {
    tool(&[&["diff"], options, &[a.to_str().unwrap(), b.to_str().unwrap()]].concat())
}

fn two() -> (TempDir, TempDir) {
    let mut removed = marker(tag::BEGIN, Epoch(3)).to_vec();
    encode_remove(&mut removed, StorageId(1), b"gone", WriteVersion { major: 3, minor: 0 });
    encode_end(&mut removed, Epoch(3));
    let common = [session(1, "same", "s"), session(1, "gone", "g"), session(1, "new value", "1")].concat();
    let first = [common.clone(), session(2, "only", "o"), session(2, "new value", "2")].concat();
    let first = directory(&epoch_record(2), &[("pwal_0000", first)]);
    // In another file, as a replica has it, and with something that never counts.
    let rest = [removed, session(3, "more", "m"), session(9, "beyond", "b")].concat();
    let second = directory(&epoch_record(3), &[("pwal_0003", common), ("pwal_0007", rest)]);
    (first, second)
}

#[test]
fn entries_that_differ_are_listed_with_the_side_that_has_them() {
    let (a, b) = two();
    let before = (tree(a.path()), tree(b.path()));
    let run = diff(&[], a.path(), b.path());
    let line = |mark: &str, key: &str, epoch: u64, value: &str| {
        format!("{mark} storage=1 key=\"{key}\" major={epoch} minor=0 value=\"{value}\" blobs=")
    };
    let expected = [
        line("<", "gone", 1, "g"),
        line(">", "more", 3, "m"),
        line("<", "new value", 2, "2"),
        line(">", "new value", 1, "1"),
        line("<", "only", 2, "o"),
    ];
    assert_eq!((run.exit, &run.stdout[..]), (1, &expected[..]), "{}", run.stderr);
    assert!(run.stderr.contains("2 entries are only in the first directory, 1 only in the second, 1 differ"));
    let first_only = diff(&["--first_only"], a.path(), b.path());
    assert_eq!(first_only.exit, 1);
    assert!(!first_only.stdout.iter().any(|line| line.contains("more")), "{:?}", first_only.stdout);
    let run = diff(&["--json"], a.path(), b.path());
    let listed: Vec<Value> = run.stdout.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        listed[2],
        json!({
            "storage": 1, "key": "6e65772076616c7565", "side": "both",
            "first": { "value": "32", "major": 2, "minor": 0, "blobs": [] },
            "second": { "value": "31", "major": 1, "minor": 0, "blobs": [] },
        })
    );
    let sides: Vec<&Value> = listed.iter().map(|entry| &entry["side"]).collect();
    assert_eq!(sides, ["first", "second", "both", "first"]);
    assert_eq!((tree(a.path()), tree(b.path())), before, "nothing is changed");
}

#[test]
fn the_same_content_in_other_files_or_compacted_is_the_same() {
    let (a, _) = two();
    let compacted = directory(&epoch_record(2), &[]);
    for (name, bytes) in tree(a.path()) {
        std::fs::write(compacted.path().join(name), bytes).unwrap();
    }
    assert_eq!(on(compacted.path(), &["compaction", "--force"]).exit, 0);
    let run = diff(&[], a.path(), compacted.path());
    assert_eq!((run.exit, run.stdout), (0, vec![]), "{}", run.stderr);
    assert_eq!(diff(&[], a.path(), a.path()).exit, 0);
}

#[test]
fn one_id_may_stand_for_two_blobs() {
    let with_blob = |content: &str| {
        let mut log = marker(tag::BEGIN, Epoch(1)).to_vec();
        encode_put(&mut log, StorageId(1), b"k", b"v", WriteVersion { major: 1, minor: 0 }, &[BlobId(7)]);
        encode_end(&mut log, Epoch(1));
        let dir = directory(&epoch_record(1), &[("pwal_0000", log)]);
        let blob = dir.path().join("blob/dir_07/0000000000000007.blob");
        std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
        std::fs::write(blob, content).unwrap();
        dir
    };
    let (a, same, other) = (with_blob("one"), with_blob("one"), with_blob("two"));
    assert_eq!(diff(&[], a.path(), same.path()).exit, 0);
    let run = diff(&[], a.path(), other.path());
    assert_eq!((run.exit, run.stdout.len()), (1, 2), "{run:?}");
    assert!(run.stdout[0].ends_with("blobs=7"), "{run:?}");
}

#[test]
fn what_cannot_be_compared_is_no_difference() {
    let (a, b) = two();
    let mut bad = session(1, "b", "2");
    bad[9] = 0x0b;
    let damaged = directory(&epoch_record(3), &[("pwal_0000", [bad, session(2, "c", "3")].concat())]);
    let missing = a.path().join("nothing");
    for run in [
        diff(&[], a.path(), damaged.path()),
        diff(&[], damaged.path(), b.path()),
        diff(&[], a.path(), &missing),
        diff(&[], &missing, a.path()),
        on(a.path(), &["diff"]),
    ] {
        assert_eq!((run.exit, run.stdout.len()), (2, 0), "{run:?}");
        assert!(run.stderr.contains("ERROR"), "{run:?}");
    }
}

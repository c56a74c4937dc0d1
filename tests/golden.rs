// SPDX-License-Identifier: Apache-2.0
//! Directories that upstream left, whole, damaged and repaired: every case below `tests/golden/disk` and every byte
//! string of its parse matrix. Where upstream opens a directory, its entries are the expectation; where it refuses one,
//! the rules of `docs/recovery.md` (as the program in `start_model`) are.

#[allow(dead_code)]
mod commits;
mod engine_run;
mod golden_data;
mod start_model;
mod upstream_checker;

use engine_run::{quick_dir, start, Started};
use golden_data::{tree, Row};
use limestone_core::blob::paths;
use limestone_core::datastore::{Commit, Datastore, Settings};
use limestone_core::types::{BlobId, Epoch, StorageId, WriteVersion};
use start_model::{outcome, Outcome, Reason, Refusal};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use upstream_checker::{handover_violations, upstream_start};

/// A directory to open, and what upstream made of it.
struct Subject {
    name: String,
    dir: TempDir,
    /// Entries (without upstream's defects) and `last_epoch`; `None` if upstream refused.
    upstream: Option<(Vec<Row>, u64)>,
}

impl Subject {
    fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn subjects() -> Vec<Subject> {
    let mut subjects = Vec::new();
    for case in golden_data::cases() {
        let dir = quick_dir();
        case.copy_to(dir.path());
        let upstream = case.upstream_opens().then(|| (case.correct_rows(), case.upstream_last_epoch()));
        subjects.push(Subject { name: case.name, dir, upstream });
    }
    for case in golden_data::parse_matrix().into_iter().chain(golden_data::repaired_parse_matrix()) {
        let dir = quick_dir();
        case.write_to(dir.path());
        let upstream = (case.start["result"] == "ok")
            .then(|| (golden_data::rows(&case.start["entries"]), golden_data::number(&case.start["last_epoch"])));
        subjects.push(Subject { name: format!("parse matrix: {}", case.name), dir, upstream });
    }
    subjects
}

/// Runs `check` on every subject and reports all that fail, not only the first.
fn for_every_directory(check: impl Fn(&Subject) -> Result<(), String>) {
    let subjects = subjects();
    let failed: Vec<String> =
        subjects.iter().filter_map(|s| check(s).err().map(|e| format!("{}: {e}", s.name))).collect();
    assert!(failed.is_empty(), "{} of {} directories:\n{}", failed.len(), subjects.len(), failed.join("\n"));
}

fn ensure(holds: bool, complaint: impl FnOnce() -> String) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(complaint())
    }
}

#[test]
fn the_recovery_table_keeps_everything_that_upstream_opens() {
    for_every_directory(|subject| match (outcome(subject.path()), &subject.upstream) {
        (Outcome::Opens(opened), Some((rows, last_epoch))) => {
            ensure(opened.rows == *rows, || format!("rows {:?}, upstream {rows:?}", opened.rows))?;
            ensure(opened.last_epoch == *last_epoch, || format!("epoch {}, not {last_epoch}", opened.last_epoch))
        }
        (Outcome::Refused(refusal), Some(_)) => {
            ensure(refusal.reason == Reason::NoEpochRecord, || format!("upstream opens it, refused: {refusal:?}"))
        }
        (_, None) => Ok(()),
    });
}

#[test]
fn every_directory_opens_with_the_same_entries_and_epoch_or_is_refused_as_the_recovery_table_says() {
    for_every_directory(|subject| {
        for threads in [1, 8] {
            let dir = quick_dir();
            golden_data::copy_tree(subject.path(), dir.path());
            match (outcome(subject.path()), start(dir.path(), threads)) {
                (Outcome::Opens(expected), Ok(found)) => {
                    let (rows, last_epoch) = match &subject.upstream {
                        Some((rows, last_epoch)) => (rows, *last_epoch),
                        None => (&expected.rows, expected.last_epoch),
                    };
                    ensure(found.rows == *rows, || format!("{threads} threads: {:?}, not {rows:?}", found.rows))?;
                    ensure(found.last_epoch == last_epoch, || {
                        format!("{threads} threads: last_epoch {}, not {last_epoch}", found.last_epoch)
                    })?;
                    let (min, max) = (expected.warnings_min, expected.warnings_max);
                    ensure((min..=max).contains(&found.warnings.len()), || {
                        format!("warnings {:?}, expected {min} to {max}", found.warnings)
                    })?;
                }
                (Outcome::Refused(_), Err(_)) => {}
                (expected, found) => return Err(format!("{threads} threads: {found:?}, expected {expected:?}")),
            }
        }
        Ok(())
    });
}

#[test]
fn a_refused_start_loses_nothing_and_names_the_place() {
    for_every_directory(|subject| {
        let Outcome::Refused(refusal) = outcome(subject.path()) else {
            return Ok(());
        };
        let before = tree(subject.path());
        for attempt in ["first", "second"] {
            let Err(message) = start(subject.path(), 1) else {
                return Err(format!("{attempt} start: opened"));
            };
            names_the_place(&refusal, &message)?;
            let after = tree(subject.path());
            for (path, bytes) in &before {
                ensure(after.get(path) == Some(bytes), || format!("{attempt} start changed {}", path.display()))?;
            }
        }
        Ok(())
    });
}

fn names_the_place(refusal: &Refusal, message: &str) -> Result<(), String> {
    let mut needed = match refusal.reason {
        // Its text is upstream's, which names versions only.
        Reason::Manifest if message.contains("version mismatch") => vec![],
        _ => vec![refusal.file.clone()],
    };
    needed.extend(refusal.offset.map(|offset| offset.to_string()));
    needed.extend(refusal.epoch.map(|epoch| epoch.to_string()));
    match refusal.reason {
        Reason::Log => needed.push("tglogutil repair".into()),
        // A repair would give up every session.
        Reason::NoEpochRecord => ensure(!message.contains("repair"), || format!("bad advice: {message}"))?,
        _ => {}
    }
    for text in needed {
        ensure(message.contains(&text), || format!("the message lacks \"{text}\": {message}"))?;
    }
    Ok(())
}

#[test]
fn the_start_after_a_start_finds_the_same_and_has_nothing_to_warn_of() {
    for_every_directory(|subject| {
        let Ok(first) = start(subject.path(), 2) else {
            return Ok(());
        };
        let second = start(subject.path(), 2)?;
        let facts = |s: &Started| (s.rows.clone(), s.last_epoch);
        ensure(facts(&first) == facts(&second), || format!("first {first:?}, then {second:?}"))?;
        ensure(second.warnings.iter().all(|w| w.contains("end marker") || w.contains("is not read behind")), || {
            format!("cut off, but found again: {:?}", second.warnings)
        })
    });
}

#[test]
fn upstream_opens_what_a_start_leaves() {
    for_every_directory(|subject| {
        let Ok(ours) = start(subject.path(), 2) else {
            return Ok(());
        };
        let upstream = upstream_start(subject.path())?;
        ensure(upstream.rows == ours.rows, || format!("upstream {:?}, we {:?}", upstream.rows, ours.rows))?;
        ensure(upstream.last_epoch >= ours.last_epoch, || {
            format!("last_epoch: upstream {}, we {}", upstream.last_epoch, ours.last_epoch)
        })?;
        let violations = handover_violations(subject.path());
        ensure(violations.is_empty(), || format!("{violations:?}"))
    });
}

/// Where the epochs differ from upstream's traces on purpose: step → callbacks, and `last_epoch` after the restart.
struct Deviation {
    callbacks: HashMap<usize, Vec<u64>>,
    restart_epoch: Option<u64>,
}

fn deviation(trace: &str) -> Deviation {
    let (callbacks, restart_epoch) = match trace {
        // Upstream does not hold epoch 10 back for the second session in it, which is still open at the switch (H2).
        "same_epoch_second_session_open (defect)" => (HashMap::from([(7, vec![]), (8, vec![10])]), None),
        // Going back is ignored here: the session that upstream writes in epoch 8 belongs to epoch 11.
        "epoch_backwards" => (HashMap::new(), Some(11)),
        _ => (HashMap::new(), None),
    };
    Deviation { callbacks, restart_epoch }
}

#[test]
fn epochs_are_reported_as_upstream_reports_them() {
    commits::ways().into_iter().for_each(epochs_are_reported);
}

fn epochs_are_reported(commit: Commit) {
    for trace in golden_data::epoch_traces() {
        let name = golden_data::text(&trace["name"]);
        let expected = deviation(name);
        let dir = quick_dir();
        let store = Datastore::open(Settings::new(dir.path()).commit(commit)).unwrap();
        let count = golden_data::number(&trace["channels"]);
        let channels: Vec<_> = (0..count).map(|_| store.create_channel().unwrap()).collect();
        let called = Arc::new(Mutex::new(Vec::new()));
        let sink = called.clone();
        store.set_persistent_callback(Some(Arc::new(move |event| sink.lock().unwrap().push(event.epoch.0))));
        let mut last_epoch = 0;
        for (at, step) in trace["steps"].as_array().unwrap().iter().enumerate() {
            let op = golden_data::text(&step["op"]);
            let words: Vec<&str> = op.split(' ').collect();
            let number = |i: usize| words[i].parse::<u64>().unwrap();
            match words[0] {
                "ready" => drop(store.ready().unwrap()),
                "sw" => store.switch_epoch(Epoch(number(1))).unwrap(),
                "begin" => drop(channels[number(1) as usize].begin_session().unwrap()),
                "end" => channels[number(1) as usize].end_session().unwrap(),
                "add" => {
                    let (key, value) = (words[3].as_bytes(), words[4].as_bytes());
                    let version = WriteVersion { major: number(5), minor: number(6) };
                    let storage = StorageId(number(2));
                    channels[number(1) as usize].add_entry(storage, key, value, version, &[]).unwrap();
                }
                other => panic!("{name}: unknown operation {other}"),
            }
            if words[0] != "ready" {
                store.drain().unwrap();
            }
            let upstream = step["callbacks"].as_array().unwrap().iter().map(golden_data::number).collect();
            let callbacks = expected.callbacks.get(&at).unwrap_or(&upstream);
            assert_eq!(std::mem::take(&mut *called.lock().unwrap()), *callbacks, "{name}, step {at} ({op})");
            last_epoch = callbacks.last().copied().unwrap_or(last_epoch);
            assert_eq!(store.last_epoch().0, last_epoch, "{name}, step {at} ({op})");
        }
        store.shutdown();
        let restarted = start(dir.path(), 1).unwrap();
        let restart = &trace["after_restart"];
        let epoch = expected.restart_epoch.unwrap_or_else(|| golden_data::number(&restart["last_epoch"]));
        assert_eq!(restarted.rows, golden_data::rows(&restart["entries"]), "{name}");
        assert_eq!(restarted.last_epoch, epoch, "{name}, after a restart");
        assert_eq!(restarted.warnings, [""; 0], "{name}");
    }
}

#[test]
fn after_the_garbage_collection_exactly_the_blobs_that_upstream_has_are_there() {
    let mut seen = 0;
    for case in golden_data::cases() {
        let Some(blobs) = case.expected["blobs"].as_array() else {
            continue;
        };
        let dir = quick_dir();
        case.copy_to(dir.path());
        let files = tree(&dir.path().join("blob"));
        let store = Datastore::open(Settings::new(dir.path())).unwrap();
        store.ready().unwrap();
        let next = store.blobs().next_id();
        assert!(next.0 >= golden_data::number(&case.expected["next_blob_id"]), "{}: next id {next}", case.name);
        store.blobs().wait_for_collection();
        for blob in blobs {
            let id = BlobId(golden_data::number(&blob["id"]));
            let (path, available) = store.blobs().file(id);
            assert_eq!(available, blob["available"] == true, "{}: BLOB {id}", case.name);
            if available {
                let content = golden_data::unhex(golden_data::text(&blob["content"]));
                assert_eq!(std::fs::read(path).unwrap(), content, "{}: BLOB {id}", case.name);
            }
            seen += 1;
        }
        let id = store.blob_pool().register_data(b"new").unwrap();
        let largest = files.keys().filter_map(|path| paths::id_of(path.file_name()?)).max();
        assert!(Some(id) > largest, "{}: the id {id} was given out before", case.name);
    }
    assert!(seen > 0, "no golden case has BLOBs");
}

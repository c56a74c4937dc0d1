// SPDX-License-Identifier: Apache-2.0
//! `tglogutil compaction`: its transcript, what it keeps, and what an interruption at any disk call leaves.

use crate::engine_run::{quick_dir, rows, start};
use crate::golden_data::{cases, tree, Row};
use crate::tool::{directory, epoch_record, files, on, session, tool, Run};
use limestone_core::datastore::{Datastore, Settings};
use limestone_core::tglogutil;
use limestone_core::types::{BlobId, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, Loss, SimFs, Vfs};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

const FORCE: &[&str] = &["compaction", "--force"];

fn two_logs() -> TempDir {
    let logs = [
        ("pwal_0000", [session(1, "a", "old"), session(2, "a", "new"), session(3, "x", "never")].concat()),
        ("pwal_0001.01795356604107.0", session(1, "b", "1")),
    ];
    // The directory to compact has neighbours.
    let outer = quick_dir();
    let inner = directory(&[epoch_record(1), epoch_record(2)].concat(), &logs);
    fs::rename(inner.path(), outer.path().join("d0")).unwrap();
    outer
}

fn keys(dir: &Path) -> Vec<String> {
    let found = start(dir, 2).unwrap();
    found.rows.iter().map(|row| format!("{}={}", row.key.escape_ascii(), row.value.escape_ascii())).collect()
}

fn neighbours(outer: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(outer).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Runs the tool and answers its question.
fn answered(dir: &Path, args: &[&str], answer: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tglogutil"))
        .args(args)
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let stdout = text(&output.stdout).lines().map(str::to_owned).collect();
    Run { exit: output.status.code().unwrap(), stdout, stderr: text(&output.stderr) }
}

#[test]
fn the_transcript_is_that_of_the_original() {
    let outer = two_logs();
    let dir = outer.path().join("d0");
    let run = answered(&dir, &["compaction"], "y\n");
    let name = dir.display();
    let [first, epoch, work, last] = &run.stdout[..] else { panic!("{run:?}") };
    assert_eq!((run.exit, first, epoch.as_str()), (0, &format!("dblogdir: \"{name}\""), "durable-epoch: 2"));
    let canonical = fs::canonicalize(&dir).unwrap();
    assert!(work.starts_with(&format!("working-directory: \"{}.work_", canonical.display())), "{work}");
    assert_eq!(last, &format!("execute? (y/N) compaction was successfully completed: \"{name}\""));
    assert_eq!(neighbours(outer.path()), ["d0"]);
    let mut left: Vec<String> = tree(&dir).into_keys().map(|path| path.to_string_lossy().into_owned()).collect();
    left.retain(|name| name != "compaction_catalog.back");
    assert_eq!(left, ["compaction_catalog", "epoch", "limestone-manifest.json", "pwal_0000.compacted"]);
    assert_eq!(fs::read(dir.join("epoch")).unwrap(), epoch_record(2));
    assert_eq!(keys(&dir), ["a=new", "b=1"]);
}

#[test]
fn nothing_is_done_without_a_yes() {
    for answer in ["n\n", "\n", "", "x"] {
        let outer = two_logs();
        let dir = outer.path().join("d0");
        let before = tree(&dir);
        for args in [&["compaction"][..], &["compaction", "--dry_run"]] {
            let run = answered(&dir, args, answer);
            assert_eq!(run.exit, 0, "{answer:?}");
            assert!(run.stderr.contains("ERROR: aborted"), "{}", run.stderr);
            assert_eq!(tree(&dir), before);
        }
    }
}

#[test]
fn a_dry_run_changes_nothing() {
    let outer = two_logs();
    let dir = outer.path().join("d0");
    let before = tree(&dir);
    let run = on(&dir, &["compaction", "--force", "--dry_run"]);
    assert_eq!((run.exit, run.status()), (0, "compaction will be successfully completed (dry-run mode)"));
    assert_eq!(tree(&dir), before);
    assert_eq!(neighbours(outer.path()), ["d0"]);
}

#[test]
fn the_backup_is_the_directory_as_it_was() {
    let outer = two_logs();
    let dir = outer.path().join("d0");
    let before = tree(&dir);
    assert_eq!(on(&dir, &["compaction", "--force", "--make_backup"]).exit, 0);
    let [name, backup] = &neighbours(outer.path())[..] else { panic!("two directories") };
    assert!(name == "d0" && backup.starts_with("d0.backup_") && backup.len() == 16, "{backup}");
    assert_eq!(tree(&outer.path().join(backup)), before);
    let manifest = |dir: &Path| fs::read(dir.join("limestone-manifest.json")).unwrap();
    assert_eq!(manifest(&dir), manifest(&outer.path().join(backup)), "the identity stays");
    // A start of the compacted directory does not reach into the backup.
    assert_eq!(keys(&dir), ["a=new", "b=1"]);
    assert_eq!(tree(&outer.path().join(backup)), before);
    assert_eq!(keys(&outer.path().join(backup)), ["a=new", "b=1"]);
}

#[test]
fn the_working_directory_may_be_given_and_must_be_empty() {
    let outer = two_logs();
    let dir = outer.path().join("d0");
    // Most often another file system than that of the test directory.
    let work = tempfile::tempdir_in("/tmp").unwrap();
    let given = format!("--working_dir={}", work.path().display());
    fs::write(work.path().join("foreign"), "x").unwrap();
    let run = on(&dir, &["compaction", "--force", &given]);
    assert!(run.exit == 64 && run.stderr.contains("is not empty"), "{run:?}");
    fs::remove_file(work.path().join("foreign")).unwrap();
    let run = on(&dir, &["compaction", "--force", &given]);
    assert_eq!((run.exit, &run.stdout[2]), (0, &format!("working-directory: \"{}\"", work.path().display())));
    assert_eq!(keys(&dir), ["a=new", "b=1"]);
    let missing = on(&dir, &["compaction", "--force", "--working_dir=/nowhere/at/all"]);
    assert_eq!(missing.exit, 64);
}

#[test]
fn the_epoch_option_limits_what_stays() {
    let outer = two_logs();
    let dir = outer.path().join("d0");
    let run = on(&dir, &["compaction", "--force", "--epoch=1"]);
    assert_eq!(run.exit, 0);
    assert!(run.stdout[1].starts_with("working-directory: "), "no durable-epoch line");
    assert_eq!(fs::read(dir.join("epoch")).unwrap(), epoch_record(1));
    assert_eq!(keys(&dir), ["a=old", "b=1"]);
    assert_eq!(on(&dir, &["compaction", "--epoch=x"]).stdout.len(), 0);
}

#[test]
fn later_epochs_count_when_they_are_asked_for() {
    let outer = two_logs();
    let dir = outer.path().join("d0");
    assert_eq!(on(&dir, &["compaction", "--force", "--epoch=3"]).exit, 0);
    assert_eq!(keys(&dir), ["a=new", "b=1", "x=never"]);
}

#[test]
fn a_symbolic_link_is_refused() {
    let outer = two_logs();
    let link = outer.path().join("link");
    std::os::unix::fs::symlink(outer.path().join("d0"), &link).unwrap();
    for name in [link.display().to_string(), format!("{}//", link.display())] {
        let run = tool(&["compaction", "--force", &name]);
        assert_eq!(run.exit, 64, "{name}");
        assert!(run.stderr.contains("dblogdir is symlink; compaction target must not be symlink"), "{}", run.stderr);
    }
}

#[test]
fn a_damaged_log_is_refused_and_stays_as_it_is() {
    let mut bad = session(1, "a", "1");
    bad[9] = 0x0b;
    let dir = directory(&epoch_record(1), &[("pwal_0000", bad)]);
    let before = tree(dir.path());
    let run = on(dir.path(), FORCE);
    assert_eq!(run.exit, 64);
    let cause = "recover process failed. (cause: corruption detected in transaction log data directory)";
    let named = format!("dblogdir (transaction log directory): \"{}\"", dir.path().display());
    assert!(run.stderr.contains(cause) && run.stderr.contains(&named), "{}", run.stderr);
    assert_eq!(tree(dir.path()), before);
    let work = run.stdout[2].strip_prefix("working-directory: \"").unwrap().trim_end_matches('"').to_owned();
    fs::remove_dir_all(work).unwrap();
}

#[test]
fn every_golden_directory_that_starts_gives_the_same_afterwards() {
    let mut compacted = 0;
    for case in cases() {
        let outer = quick_dir();
        let (plain, dir) = (outer.path().join("plain"), outer.path().join("d0"));
        case.copy_to(&plain);
        case.copy_to(&dir);
        let Ok(expected) = start(&plain, 1) else { continue };
        let run = on(&dir, FORCE);
        if run.exit != 0 {
            // What a start mends beforehand, or takes for a new directory, the tool refuses.
            let torn_epoch = run.stderr.contains("reading epoch file is failed");
            let other = dir.join("limestone-manifest.json.back").exists() || run.stderr.contains("version 0");
            assert!(torn_epoch || other, "{}: {run:?}", case.name);
            continue;
        }
        compacted += 1;
        let found = start(&dir, 1).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!(found.rows, expected.rows, "{}", case.name);
        assert_eq!(files(&dir, "blob"), files(&plain, "blob"), "{}", case.name);
    }
    assert!(compacted > 20, "only {compacted} cases");
}

/// A directory with a compacted file, later removals, BLOBs, and a log of a channel that is gone.
fn sim_directory() -> (SimFs, Vec<Row>, BlobId) {
    let fs = SimFs::new();
    let store = Datastore::open(Settings::new("/db").vfs(Arc::new(fs.clone()))).unwrap();
    let channels = [store.create_channel().unwrap(), store.create_channel().unwrap()];
    store.ready().unwrap();
    let pool = store.blob_pool();
    let blob = pool.register_data(b"content").unwrap();
    let mut epoch = 0;
    let mut write = |channel: usize, key: &str, remove: bool, blobs: &[BlobId]| {
        epoch += 1;
        store.switch_epoch(Epoch(epoch)).unwrap();
        let version = WriteVersion { major: epoch, minor: 0 };
        channels[channel].begin_session().unwrap();
        match remove {
            true => channels[channel].remove_entry(StorageId(1), key.as_bytes(), version).unwrap(),
            false => channels[channel].add_entry(StorageId(1), key.as_bytes(), b"v", version, blobs).unwrap(),
        }
        channels[channel].end_session().unwrap();
        store.switch_epoch(Epoch(epoch + 1)).unwrap();
        epoch += 1;
    };
    write(0, "a", false, &[blob]);
    write(1, "b", false, &[]);
    std::thread::scope(|scope| {
        let compaction = scope.spawn(|| store.compact());
        let mut epoch = 100;
        while !compaction.is_finished() {
            epoch += 1;
            store.switch_epoch(Epoch(epoch)).unwrap();
            std::thread::yield_now();
        }
        compaction.join().unwrap().unwrap();
    });
    let epoch = store.switched_epoch().0;
    channels[0].begin_session().unwrap();
    channels[0].remove_entry(StorageId(1), b"b", WriteVersion { major: epoch, minor: 0 }).unwrap();
    channels[0].add_entry(StorageId(1), b"c", b"v", WriteVersion { major: epoch, minor: 1 }, &[]).unwrap();
    channels[0].end_session().unwrap();
    store.switch_epoch(Epoch(epoch + 1)).unwrap();
    pool.release();
    store.shutdown();
    let fs = fs.reboot(Loss::DropUnsynced);
    let (expected, _) = started(&fs.reboot(Loss::KeepUnsynced));
    (fs, expected, blob)
}

/// Rows of a start, and the next BLOB id.
fn started(fs: &SimFs) -> (Vec<Row>, BlobId) {
    let store = Datastore::open(Settings::new("/db").vfs(Arc::new(fs.clone()))).unwrap();
    store.ready().unwrap();
    let found = rows(&store.snapshot().unwrap());
    store.blobs().wait_for_collection();
    let next = store.blobs().next_id();
    store.shutdown();
    (found, next)
}

fn compact(fs: &SimFs) -> i32 {
    let args = ["tglogutil", "compaction", "--force", "--working_dir=/work", "--make_backup", "/db"];
    let _ = fs.create_dir(Path::new("/work"));
    for name in fs.files().keys().filter(|path| path.starts_with("/work")) {
        fs.unlink(name).unwrap();
    }
    tglogutil::run(args, Arc::new(fs.clone()), &mut Vec::new())
}

#[test]
fn a_compaction_may_be_interrupted_at_every_disk_call() {
    for other_file_system in [false, true] {
        let (fresh, expected, blob) = sim_directory();
        let prepared = || {
            let fs = fresh.reboot(Loss::KeepUnsynced);
            if other_file_system {
                fs.mount(Path::new("/work"));
            }
            fs
        };
        let undisturbed = prepared();
        assert_eq!(compact(&undisturbed), 0, "{}", undisturbed.trace().join("\n"));
        let calls = undisturbed.operations();
        for n in 1..=calls {
            for fault in [Fault::PowerCut, Fault::IoError, Fault::SyncLoses, Fault::TornWrite, Fault::NoSpace] {
                for loss in [Loss::DropUnsynced, Loss::KeepUnsynced, Loss::Torn { seed: n }] {
                    let fs = prepared();
                    fs.fail_at(n, fault);
                    // The first calls belong to the preparation of the test.
                    let exit = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compact(&fs))).unwrap_or(64);
                    let rebooted = fs.reboot(loss);
                    let case = format!("call {n} of {calls}, {fault:?}, {loss:?}, exit {exit}");
                    let (found, next) = started(&rebooted.reboot(Loss::KeepUnsynced));
                    assert_eq!(found, expected, "{case}\n{}", fs.trace().join("\n"));
                    assert!(next > blob, "{case}: BLOB id {next} again");
                    let content = rebooted.files().get(Path::new("/db/blob/dir_01/0000000000000001.blob")).cloned();
                    assert_eq!(content.as_deref(), Some(&b"content"[..]), "{case}");
                    if exit != 0 && n % 3 == 0 {
                        assert_eq!(compact(&rebooted), 0, "{case}");
                        assert_eq!(started(&rebooted).0, expected, "{case}, again");
                    }
                }
            }
        }
    }
}

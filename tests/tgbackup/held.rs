// SPDX-License-Identifier: Apache-2.0
//! Backups of directories in use: who holds them, and what becomes of one that is not ended.

use crate::history::{content, wrote, Writer};
use crate::program::{command, create, done, json, open, text, wait_until};
use crate::unlocked::unlocked;
use limestone_core::blob::BlobPool;
use limestone_core::directory::{Access, OfflineDirectory};
use limestone_core::replication::backup_socket::OpenBackup;
use limestone_core::types::Epoch;
use limestone_core::vfs::RealFs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

/// An engine with a BLOB that takes a while to copy, and a run that copies it.
fn copying(top: &Path, args: &[&str]) -> (Writer, BlobPool, Child, PathBuf) {
    let (dir, target) = (top.join("data"), top.join("backups"));
    let mut writer = Writer::start(&dir);
    writer.write(10);
    let big = top.join("big");
    std::fs::write(&big, vec![7; 256 << 20]).unwrap();
    let pool = writer.engine.store().blob_pool();
    pool.register_file(&big, true).unwrap();
    let args = [&["create", text(&dir), text(&target)], args].concat();
    let child = command(&args).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("it copies", || names(&target).iter().any(|name| name.contains("Z-")));
    (writer, pool, child, target)
}

fn names(target: &Path) -> Vec<String> {
    let listed = std::fs::read_dir(target).into_iter().flatten();
    let mut names: Vec<_> = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_run_that_is_killed_holds_no_backup_and_what_it_left_is_deleted() {
    let top = tempfile::tempdir().unwrap();
    let (writer, _pool, mut child, target) = copying(top.path(), &[]);
    let held = || writer.engine.store().backups().count();
    // Who looks does not wait.
    assert_eq!(done(&["list", text(&target)])["backups"], serde_json::json!([]));
    assert_eq!(held(), 1, "it was killed too late");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the backup has ended", || held() == 0);
    assert!(names(&target)[0].ends_with(".partial"), "{:?}", names(&target));
    assert_eq!(done(&["list", text(&target)])["backups"], serde_json::json!([]));
    let name = create(&top.path().join("data"), &target);
    assert_eq!(names(&target), [name.as_str(), "tgbackup.lock"]);
    writer.stop();
}

#[test]
fn a_copy_of_files_that_were_not_held_to_its_end_does_not_count() {
    let top = tempfile::tempdir().unwrap();
    let (writer, _pool, child, target) = copying(top.path(), &["--json"]);
    writer.stop();
    let output = child.wait_with_output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.code() == Some(2) && told["error"].as_str().unwrap().contains("was not held"), "{told}");
    assert_eq!(names(&target), ["tgbackup.lock"]);
}

#[test]
fn an_engine_that_ends_does_not_wait_for_a_backup_and_the_copy_does_not_count() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let mut writer = Writer::start(&dir);
    writer.write(3);
    let open = OpenBackup::begin(&dir, &AtomicBool::new(false)).unwrap().unwrap();
    assert_eq!((open.epoch, writer.engine.store().backups().count()), (Epoch(3), 1));
    writer.stop();
    assert!(open.end().unwrap_err().to_string().contains("has ended the backup"));
    assert!(OpenBackup::begin(&dir, &AtomicBool::new(false)).unwrap().is_none());
}

#[test]
fn writers_go_on_beside_backups_and_each_holds_what_its_epoch_says() {
    let (top, dir, target, mut writer) = wrote(1);
    let (writer, names) = std::thread::scope(|scope| {
        let backups = scope.spawn(|| (0..4).map(|_| create(&dir, &target)).collect::<Vec<_>>());
        while !backups.is_finished() {
            writer.write(3);
        }
        (writer, backups.join().unwrap())
    });
    let after = writer.after.clone();
    writer.stop();
    for (number, name) in names.iter().enumerate() {
        let restored = top.path().join(number.to_string());
        let epoch = done(&["restore", text(&target), name, text(&restored)])["epoch"].as_u64().unwrap();
        assert_eq!(content(&restored), after[&epoch], "{name}");
    }
    assert_eq!(json(&["verify", text(&target)]).0, 0);
}

#[test]
fn a_directory_that_is_stopped_or_left_by_a_crash_is_read_and_not_changed() {
    let (top, dir, target, writer) = wrote(8);
    // As a process that dies leaves it: its commit journal is not settled.
    let crashed = top.path().join("crashed");
    let copied = std::process::Command::new("cp").arg("-a").arg(&dir).arg(&crashed).status().unwrap();
    assert!(copied.success());
    let expected = writer.stop();
    let files = |dir: &Path| {
        let listed = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        let mut files: Vec<_> = listed.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect();
        files.sort();
        files
    };
    for dir in [&crashed, &dir] {
        let before = files(dir);
        let name = create(dir, &target);
        assert!(files(dir) == before, "{}", dir.display());
        let restored = top.path().join(&name);
        done(&["restore", text(&target), &name, text(&restored)]);
        assert_eq!(content(&restored), expected, "{}", dir.display());
    }
    assert_eq!(json(&["verify", text(&target)]).0, 0);
    // Somebody who makes no backups has it.
    let store = open(&dir);
    let (exit, refused) = json(&["create", text(&dir), text(&target)]);
    assert!(exit == 3 && refused["error"].as_str().unwrap().contains("another process"), "{refused}");
    drop(store);
    // Several may read it.
    let reader = unlocked(|| OfflineDirectory::open(Arc::new(RealFs), &dir, Access::Read));
    create(&dir, &target);
    drop(reader);
}

// SPDX-License-Identifier: Apache-2.0
//! Backups of directories in use: who holds them, and what becomes of one that is not ended.

use crate::history::{content, Writer};
use crate::program::{command, create, done, json, open, text, unlocked, wait_until};
use limestone_core::directory::{Access, OfflineDirectory};
use limestone_core::replication::backup_socket::OpenBackup;
use limestone_core::types::Epoch;
use limestone_core::vfs::RealFs;
use std::process::Stdio;
use std::sync::Arc;

#[test]
fn a_run_that_is_killed_holds_no_backup_and_what_it_left_is_deleted() {
    let top = tempfile::tempdir().unwrap();
    let (dir, target) = (top.path().join("data"), top.path().join("backups"));
    let mut writer = Writer::start(&dir);
    writer.write(10);
    let big = top.path().join("big");
    std::fs::write(&big, vec![7; 256 << 20]).unwrap();
    let pool = writer.engine.store().blob_pool();
    pool.register_file(&big, true).unwrap();
    let held = || writer.engine.store().backups().count();
    let mut child = command(&["create", text(&dir), text(&target)]).stdout(Stdio::null()).spawn().unwrap();
    let entries = || std::fs::read_dir(&target).map_or(0, |entries| entries.count());
    wait_until("it copies", || entries() == 2 || child_has_ended(&target));
    let was_held = held();
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the backup has ended", || held() == 0);
    assert_eq!(was_held, 1, "it was killed too late");
    let left: Vec<_> = std::fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().any(|name| name.to_str().unwrap().ends_with(".partial")), "{left:?}");
    assert_eq!(done(&["list", text(&target)])["backups"], serde_json::json!([]));
    let name = create(&dir, &target);
    let mut left: Vec<_> = std::fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [name.as_str(), "tgbackup.lock"]);
    pool.release();
    writer.stop();
}

/// Whether a backup stands in its place.
fn child_has_ended(target: &std::path::Path) -> bool {
    std::fs::read_dir(target)
        .is_ok_and(|mut entries| entries.any(|entry| entry.unwrap().file_name().to_str().unwrap().contains("Z-")))
}

#[test]
fn an_engine_that_ends_does_not_wait_for_a_backup_and_the_copy_does_not_count() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("data");
    let mut writer = Writer::start(&dir);
    writer.write(3);
    let open = OpenBackup::begin(&dir).unwrap().unwrap();
    assert_eq!((open.epoch, writer.engine.store().backups().count()), (Epoch(3), 1));
    writer.stop();
    assert!(open.end().unwrap_err().to_string().contains("has ended the backup"));
    assert!(OpenBackup::begin(&dir).unwrap().is_none());
}

#[test]
fn writers_go_on_beside_backups_and_each_holds_what_its_epoch_says() {
    let top = tempfile::tempdir().unwrap();
    let (dir, target) = (top.path().join("data"), top.path().join("backups"));
    let mut writer = Writer::start(&dir);
    writer.write(1);
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
    let top = tempfile::tempdir().unwrap();
    let (dir, target) = (top.path().join("data"), top.path().join("backups"));
    let mut writer = Writer::start(&dir);
    writer.write(8);
    // As a process that dies leaves it: its commit journal is not settled.
    let crashed = top.path().join("crashed");
    let copied = std::process::Command::new("cp").arg("-a").arg(&dir).arg(&crashed).status().unwrap();
    assert!(copied.success());
    let expected = writer.stop();
    let files = |dir: &std::path::Path| {
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

// SPDX-License-Identifier: Apache-2.0
//! A replica finds what its disk has changed in files that nobody writes to, and gets them anew from its primary.

use crate::compare::{compare, find_value, flip, rot, text};
use crate::pair::{Engine, Pair};
use crate::program::{run, status_when, Replica, DEADLINE};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// As fast as it can, all the time.
const BUSY: [(&str, &str); 2] =
    [("TSURUGI_REPLICATION_SCRUB_MB_S", "1000"), ("TSURUGI_REPLICATION_SCRUB_PERIOD_S", "1")];

/// A pair that has something, and whose replica scrubs.
fn scrubbing() -> Pair {
    let mut pair = Pair::start(&BUSY);
    pair.engine.write(20, 50);
    pair.engine.propagated();
    pair
}

impl Pair {
    fn replica_dir(&self) -> &Path {
        self.dirs[1].path()
    }

    /// Lets the replica have all it has in a file that nobody writes to, and scrub that.
    fn compacted(&mut self) {
        compact(self.replica_dir());
        self.engine.write(3, 50);
        self.engine.propagated();
        wait_for_rounds(self.replica_dir());
    }

    fn assert_same(&self) {
        let (exit, found) = compare(&self.paths());
        assert_eq!(exit, 0, "{found}");
    }
}

/// Has the replica compact.
fn compact(dir: &Path) {
    let request = dir.join("ctrl/start_compaction");
    std::fs::write(&request, "").unwrap();
    let deadline = Instant::now() + DEADLINE;
    while request.exists() || !dir.join("pwal_0000.compacted").exists() {
        assert!(Instant::now() < deadline, "it does not compact");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until everything that is there now was recorded, and read again after that.
fn wait_for_rounds(dir: &Path) {
    let rounds = |status: &Value| status["scrub"]["rounds"].as_u64().unwrap_or(0);
    // The round that is under way may have begun before.
    let begun = rounds(&status_when(dir, |status| status["scrub"].is_object()));
    status_when(dir, |status| rounds(status) >= begun + 3);
}

fn damage(dir: &Path) -> String {
    let (path, at) = find_value(dir, b"5.1", &[b'v'; 50]);
    flip(&path, at);
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn is_whole(status: &Value) -> bool {
    status["scrub"]["damaged"] == serde_json::json!([]) && status["state"] == "streaming"
}

#[test]
fn a_flipped_bit_in_an_old_file_of_a_replica_is_found_and_healed_from_its_primary() {
    let mut pair = scrubbing();
    pair.compacted();
    pair.assert_same();
    let name = damage(pair.replica_dir());
    assert_eq!(name, "pwal_0000.compacted");
    status_when(pair.replica_dir(), |status| status["scrub"]["found"] == 1 && is_whole(status));
    pair.assert_same();
    let metrics = run(&["metrics", text(pair.replica_dir())], &[]).stdout;
    assert!(metrics.contains("limestone_found_damage_total 1\n"), "{metrics}");
    assert!(metrics.contains("limestone_damaged_files 0\n"), "{metrics}");
    // It goes on as before, also with what it finds.
    pair.engine.write(3, 50);
    pair.engine.propagated();
    wait_for_rounds(pair.replica_dir());
    damage(pair.replica_dir());
    status_when(pair.replica_dir(), |status| status["scrub"]["found"] == 2 && is_whole(status));
    pair.assert_same();
    let Pair { engine, replica, .. } = pair;
    engine.stop();
    let log = replica.stop();
    let told = log.lines().filter(|line| line.contains("is damaged: CRC ") && line.contains(" expected, "));
    assert_eq!(told.count(), 2, "{log}");
}

/// Builds what is preloaded to make a file unreadable.
pub fn library(folder: &Path) -> String {
    let (library, source) = (folder.join("reads.so"), concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tgreplica/reads.c"));
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).args([source, "-ldl"]).status();
    assert!(built.expect("a C compiler").success());
    library.into_os_string().into_string().unwrap()
}

#[test]
fn a_file_that_the_disk_of_a_replica_does_not_give_any_more_is_said_and_healed_from_its_primary() {
    let folder = tempfile::tempdir().unwrap();
    let (library, unreadable) = (library(folder.path()), folder.path().join("unreadable"));
    let preloaded = [("LD_PRELOAD", library.as_str()), ("LIMESTONE_TEST_UNREADABLE", text(&unreadable))];
    let mut pair = Pair::start(&[BUSY, preloaded].concat());
    pair.engine.write(20, 50);
    pair.engine.propagated();
    pair.compacted();
    // Kept open, so that no other file gets its number.
    let lost = std::fs::File::open(pair.replica_dir().join("pwal_0000.compacted")).unwrap();
    let number = lost.metadata().unwrap().ino();
    std::fs::write(&unreadable, format!("{number}\n")).unwrap();
    status_when(pair.replica_dir(), |status| status["scrub"]["found"] == 1 && is_whole(status));
    pair.engine.write(3, 50);
    pair.engine.propagated();
    wait_for_rounds(pair.replica_dir());
    let status = status_when(pair.replica_dir(), is_whole);
    assert_eq!(status["scrub"]["found"], 1, "{status}");
    pair.assert_same();
    let Pair { engine, replica, .. } = pair;
    engine.stop();
    let log = replica.stop();
    assert!(log.contains("pwal_0000.compacted is damaged: it cannot be read: "), "{log}");
}

#[test]
fn a_flipped_bit_in_a_file_that_is_still_appended_to_is_found_and_healed_as_well() {
    let mut pair = scrubbing();
    wait_for_rounds(pair.replica_dir());
    pair.engine.write(3, 50);
    pair.engine.propagated();
    assert_eq!(damage(pair.replica_dir()).len(), "pwal_0000".len());
    pair.engine.write(3, 50);
    status_when(pair.replica_dir(), |status| status["scrub"]["found"] == 1 && is_whole(status));
    pair.engine.propagated();
    pair.assert_same();
    pair.stop();
}

#[test]
fn without_its_primary_a_damaged_replica_says_so_is_not_promoted_and_is_healed_when_the_primary_is_back() {
    let mut pair = scrubbing();
    pair.compacted();
    let Pair { dirs, replica, engine } = pair;
    engine.stop();
    let dir = dirs[1].path();
    let name = damage(dir);
    let is_damaged = |status: &Value| status["scrub"]["damaged"] == serde_json::json!([name]);
    status_when(dir, is_damaged);
    let refused = run(&["promote", text(dir)], &[]);
    assert!(refused.exit == 2 && refused.stderr.contains("not complete"), "{}{}", refused.stdout, refused.stderr);
    // It goes on, and the next process knows it as well.
    status_when(dir, is_damaged);
    let address = replica.address;
    replica.stop();
    assert!(dir.join(&name).exists(), "nothing is deleted before there is something better");
    let listen = format!("tcp://{address}");
    let replica = Replica::start_with(dir, &["--listen", &listen], &BUSY);
    status_when(dir, is_damaged);
    let engine = Engine::start(dirs[0].path(), address, &[]);
    let pair = Pair { dirs, replica, engine };
    status_when(pair.replica_dir(), is_whole);
    pair.engine.propagated();
    pair.assert_same();
    let dirs = pair.stop();
    let promoted = run(&["promote", text(dirs[1].path())], &[]);
    assert_eq!(promoted.exit, 0, "{}", promoted.stderr);
}

#[test]
fn a_compaction_of_a_replica_finds_damage_by_itself_and_has_it_healed_before_anything_is_deleted() {
    let mut pair = scrubbing();
    pair.compacted();
    let Pair { dirs, replica, engine } = pair;
    let listen = format!("tcp://{}", replica.address);
    replica.stop();
    let (path, at) = find_value(dirs[1].path(), b"5.1", &[b'v'; 50]);
    rot(&path, at);
    let never = [("TSURUGI_REPLICATION_SCRUB_MB_S", "0")];
    let replica = Replica::start_with(dirs[1].path(), &["--listen", &listen], &never);
    let mut pair = Pair { dirs, replica, engine };
    pair.engine.write(3, 50);
    pair.engine.propagated();
    compact(pair.replica_dir());
    status_when(pair.replica_dir(), |status| status["scrub"]["found"] == 1 && is_whole(status));
    pair.engine.write(3, 50);
    pair.engine.propagated();
    pair.assert_same();
    let Pair { engine, replica, .. } = pair;
    engine.stop();
    let log = replica.stop();
    assert_eq!(log.matches("is damaged: CRC ").count(), 1, "{log}");
}

#[test]
fn whatever_is_done_to_a_replica_nothing_is_taken_for_damage() {
    let mut pair = scrubbing();
    pair.compacted();
    for restarts in 0..3 {
        compact(pair.replica_dir());
        let repaired = run(&["repair", text(pair.replica_dir())], &[]);
        assert_eq!(repaired.exit, 0, "{}", repaired.stderr);
        pair.engine.write(3, 50);
        pair.engine.propagated();
        wait_for_rounds(pair.replica_dir());
        pair.engine.write(3, 50 + restarts);
        pair.engine.propagated();
        compact(pair.replica_dir());
        let Pair { dirs, replica, engine } = pair;
        let listen = format!("tcp://{}", replica.address);
        replica.kill();
        let replica = Replica::start_with(dirs[1].path(), &["--listen", &listen], &BUSY);
        pair = Pair { dirs, replica, engine };
        pair.engine.propagated();
        wait_for_rounds(pair.replica_dir());
        let status = status_when(pair.replica_dir(), is_whole);
        assert_eq!(status["scrub"]["found"], 0, "{status}");
    }
    pair.assert_same();
    pair.stop();
}

#[test]
fn it_can_be_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start_with(dir.path(), &[], &[("TSURUGI_REPLICATION_SCRUB_MB_S", "0")]);
    let status = status_when(dir.path(), |status| status["role"] == "replica");
    assert!(status["scrub"].is_null(), "{status}");
    replica.stop();
}

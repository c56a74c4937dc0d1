// SPDX-License-Identifier: Apache-2.0
//! The script that makes a replica's directory a primary's.

use crate::primary::Primary;
use crate::program::{run, status_when, take_over, Replica, Run, DEADLINE};
use limestone_core::datastore::{Datastore, Settings};
use limestone_core::replication::native::protocol::message::Message;
use limestone_core::types::Epoch;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn script(args: &[&str]) -> Run {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/takeover.sh");
    let mut command = Command::new("bash");
    command.arg(path).args(args);
    command.env("TGREPLICA", env!("CARGO_BIN_EXE_tgreplica")).env("TGLOGUTIL", env!("CARGO_BIN_EXE_tglogutil"));
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Run { exit: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// A replica that serves with everything up to epoch 41, and something beyond.
fn served(dir: &Path) -> (Replica, Primary) {
    let replica = Replica::start(dir);
    let mut primary = Primary::connect(replica.address, 0, 1).unwrap();
    primary.session(0, 41, "k", "v");
    primary.commit(41, 0);
    primary.durable(41);
    primary.session(0, 42, "beyond", "v");
    (replica, primary)
}

#[test]
fn the_script_promotes_the_directory_of_a_replica_that_serves_and_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let (replica, _primary) = served(dir.path());
    let ready = script(&["--stop", path]);
    assert_eq!(ready.exit, 0, "{}", ready.stderr);
    assert!(ready.stdout.contains("is promoted: durable epoch 41, term 2, run "), "{}", ready.stdout);
    let (exit, log) = replica.wait();
    assert_eq!(exit, Some(0), "{log}");
    assert!(log.contains("the directory is a primary's now"), "{log}");
    let again = script(&[path]);
    assert_eq!(again.exit, 2, "{}", again.stdout);
    assert!(again.stderr.contains("no replica's"), "{}", again.stderr);
    assert_eq!(take_over(dir.path()).0.into_keys().collect::<Vec<_>>(), ["k"]);
}

#[test]
fn a_promotion_that_is_refused_leaves_the_replica_serving_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let replica = Replica::start(dir.path());
    // It has a primary, and nothing of it yet.
    let first = Primary::connect(replica.address, 0, 1).unwrap();
    let empty = run(&["promote", "--json", path], &[]);
    drop(first);
    assert_eq!(empty.exit, 2, "{}", empty.stderr);
    let document: serde_json::Value = serde_json::from_str(&empty.stdout).unwrap();
    assert!(document["error"].as_str().unwrap().contains("nothing has ever been replicated"), "{document}");
    status_when(dir.path(), |status| status["state"] == "connecting");
    let mut primary = Primary::connect(replica.address, 0, 1).unwrap();
    primary.session(0, 41, "k", "v");
    primary.commit(41, 0);
    primary.durable(41);
    let done = run(&["promote", "--force", "--reason", "a rehearsal", "--json", path], &[]);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    let document: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((document["durable_epoch"].as_u64(), document["term"].as_u64()), (Some(41), Some(2)), "{document}");
    assert_eq!(document["run"].as_str().map(str::len), Some(32), "{document}");
    let (exit, log) = replica.wait();
    assert_eq!(exit, Some(0), "{log}");
    assert!(log.contains("the replica goes on") && log.contains("reason: a rehearsal"), "{log}");
}

#[test]
fn what_was_told_that_its_primary_went_on_without_it_is_not_promoted_before_it_has_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let (replica, mut primary) = served(dir.path());
    primary.heartbeat(60, Some(50));
    primary.control.send(&Message::Reported { epoch: Epoch(50) });
    let history = dir.path().join("limestone-history.json");
    let is_noted = || std::fs::read_to_string(&history).unwrap().contains(r#""reported":50"#);
    let deadline = Instant::now() + DEADLINE;
    while !is_noted() {
        assert!(Instant::now() < deadline, "what was told is not on the disk");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The link is cut, and the power is gone.
    drop(primary);
    replica.kill();
    let refused = run(&["promote", path], &[]);
    let expected = "up to 41 only, and the primary had told its engine that 50 is durable";
    assert!(refused.exit == 2 && refused.stderr.contains(expected), "{}", refused.stderr);
    let engine = Datastore::open(Settings::new(dir.path())).unwrap();
    let refused = engine.ready().unwrap_err().to_string();
    assert!(refused.contains(expected) && refused.contains("promote --force"), "{refused}");
    drop(engine);
    // It stays so when a primary comes and goes again, and is over with the epoch.
    let replica = Replica::start(dir.path());
    drop(Primary::connect(replica.address, 60, 1).unwrap());
    status_when(dir.path(), |status| status["state"] == "connecting");
    assert!(is_noted());
    let mut primary = Primary::connect(replica.address, 60, 1).unwrap();
    primary.session(0, 50, "later", "v");
    primary.commit(50, 0);
    primary.durable(50);
    let done = run(&["promote", path], &[]);
    assert_eq!(done.exit, 0, "{}", done.stderr);
    assert_eq!(take_over(dir.path()).0.into_keys().collect::<Vec<_>>(), ["k", "later"]);
}

#[test]
fn what_an_engine_uses_is_not_promoted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Datastore::open(Settings::new(dir.path())).unwrap();
    store.ready().unwrap();
    let refused = run(&["promote", dir.path().to_str().unwrap()], &[]);
    assert_eq!(refused.exit, 2, "no replica's: {}", refused.stderr);
    let forced = run(&["promote", "--force", dir.path().to_str().unwrap()], &[]);
    assert_eq!(forced.exit, 3, "{}", forced.stderr);
    assert!(forced.stderr.contains("end it first"), "{}", forced.stderr);
    store.shutdown();
    assert_eq!(run(&["promote", "--reason", "x", dir.path().to_str().unwrap()], &[]).exit, 1, "only with --force");
}

#[test]
fn the_script_refuses_wrong_use_and_a_damaged_directory() {
    assert_eq!(script(&[]).exit, 1);
    assert_eq!(script(&["/does/not/exist"]).exit, 1);
    let dir = tempfile::tempdir().unwrap();
    let empty = script(&[dir.path().to_str().unwrap()]);
    assert_eq!(empty.exit, 2, "{}", empty.stdout);
    Replica::start(dir.path()).stop();
    std::fs::write(dir.path().join("pwal_0000"), [0xff; 100]).unwrap();
    let damaged = script(&[dir.path().to_str().unwrap()]);
    assert_eq!(damaged.exit, 2, "{}", damaged.stdout);
}

// SPDX-License-Identifier: Apache-2.0
//! The script that makes a replica's directory a primary's.

use crate::primary::Primary;
use crate::program::{take_over, Replica, Run};
use std::path::Path;
use std::process::Command;

fn script(args: &[&str]) -> Run {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/takeover.sh");
    let mut command = Command::new("bash");
    command.arg(path).args(args);
    command.env("TGREPLICA", env!("CARGO_BIN_EXE_tgreplica")).env("TGLOGUTIL", env!("CARGO_BIN_EXE_tglogutil"));
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Run { exit: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

#[test]
fn the_script_refuses_a_served_directory_stops_the_replica_when_told_and_names_the_durable_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let replica = Replica::start(dir.path());
    let mut primary = Primary::connect(replica.address, 0, 1).unwrap();
    primary.session(0, 41, "k", "v");
    primary.commit(41, 0);
    primary.durable(41);
    primary.session(0, 42, "beyond", "v");
    let served = script(&[path]);
    assert_eq!(served.exit, 3, "{}", served.stderr);
    let ready = script(&["--stop", path]);
    assert_eq!(ready.exit, 0, "{}", ready.stderr);
    assert!(ready.stdout.contains("is promoted: durable epoch 41, term 2, run "), "{}", ready.stdout);
    assert_eq!(replica.wait().0, Some(0));
    let again = script(&[path]);
    assert_eq!(again.exit, 2, "{}", again.stdout);
    assert!(again.stderr.contains("no replica's"), "{}", again.stderr);
    assert_eq!(take_over(dir.path()).0.into_keys().collect::<Vec<_>>(), ["k"]);
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

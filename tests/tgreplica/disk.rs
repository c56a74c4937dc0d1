// SPDX-License-Identifier: Apache-2.0
//! What the program says while its disk takes its time, and when it fails.

use crate::pair::Engine;
use crate::primary::Primary;
use crate::program::{run, take_over, Replica, DEADLINE};
use crate::scrub;
use limestone_core::replication::native::protocol::message::Code;
use limestone_core::types::Epoch;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Builds what is preloaded to make syncs slow.
fn library(folder: &Path) -> String {
    let library = folder.join("syncs.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/replication_faults/disk.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).args([source, "-ldl"]).status();
    assert!(built.expect("a C compiler").success());
    library.into_os_string().into_string().unwrap()
}

fn wait_for(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_primary_that_comes_back_hears_of_the_epoch_that_was_being_recorded_when_the_link_was_lost() {
    let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (library, slow) = (library(folder.path()), folder.path().join("slow"));
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("LIMESTONE_TEST_SLOW_SYNCS", slow.to_str().unwrap()),
        ("LIMESTONE_TEST_SLOW_PART", "/epoch"),
        ("LIMESTONE_COMMIT", "direct"),
    ];
    let replica = Replica::start_with(dir.path(), &[], &environment);
    let mut primary = Primary::connect(replica.address, 0, 1).unwrap();
    primary.session(0, 1, "a", "1");
    primary.commit(1, 0);
    primary.durable(1);
    let record = || std::fs::metadata(dir.path().join("epoch")).unwrap().len();
    let before = record();
    std::fs::write(&slow, "").unwrap();
    primary.session(0, 2, "b", "2");
    primary.commit(2, 0);
    wait_for("the epoch is being recorded", || record() > before);
    drop(primary);
    let deadline = Instant::now() + DEADLINE;
    let again = loop {
        match Primary::connect(replica.address, 2, 1) {
            Ok(primary) => break primary,
            Err(reason) => assert!(reason.code == Code::BUSY && Instant::now() < deadline, "{reason:?}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(again.replica.durable, Epoch(2));
    drop(again);
    replica.stop();
    assert_eq!(take_over(dir.path()).0.len(), 2);
}

/// Lines of the log that say that something has failed.
fn errors(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("ERROR") || line.contains("Input/output error")).collect()
}

#[test]
fn a_disk_that_fails_is_one_line_of_the_log_in_both_protocols_and_ways_to_commit() {
    for (protocol, commit, fault) in [
        ("native", "journal", "sync 5 1 /limestone-journal"),
        ("native", "journal", "write 5 1000000 /pwal_"),
        ("native", "direct", "sync 5 1 /pwal_"),
        ("native", "direct", "sync 5 1000000 /epoch"),
        ("upstream", "journal", "sync 5 1000000 /limestone-journal"),
        ("upstream", "direct", "sync 5 1 /pwal_"),
        ("upstream", "direct", "write 5 1000000 /pwal_"),
    ] {
        let (near, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let (library, failing) = (library(folder.path()), folder.path().join("fault"));
        let protocol = ("TSURUGI_REPLICATION_PROTOCOL", protocol);
        let environment = [
            ("LD_PRELOAD", library.as_str()),
            ("LIMESTONE_TEST_DISK_FAULT", failing.to_str().unwrap()),
            ("LIMESTONE_COMMIT", commit),
            protocol,
        ];
        let replica = Replica::start_with(dir.path(), &[], &environment);
        let more = [protocol, ("TSURUGI_REPLICATION_MODE", "async"), ("TSURUGI_REPLICATION_TIMEOUT_MS", "1000")];
        let mut engine = Engine::start(near.path(), replica.address, &more);
        engine.write(6, 100);
        engine.propagated();
        std::fs::write(&failing, fault).unwrap();
        engine.write(6, 100);
        let (exit, log) = replica.wait();
        assert_eq!(exit, Some(4), "{protocol:?}, {commit}, {fault}: {log}");
        let said = errors(&log);
        assert!(said.len() == 1, "{protocol:?}, {commit}, {fault}: {said:#?}");
        assert!(said[0].contains("nothing is acknowledged any more, the program ends"), "{said:?}");
        let last = log.lines().last().unwrap();
        assert!(last.contains("INFO: tgreplica ends, durable epoch"), "{log}");
        engine.stop();
    }
}

#[test]
fn a_disk_that_does_not_give_a_file_at_the_start_is_no_reason_not_to_start_again() {
    let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Replica::start(dir.path()).stop();
    let (library, unreadable) = (scrub::library(folder.path()), folder.path().join("unreadable"));
    let environment = [("LD_PRELOAD", library.as_str()), ("LIMESTONE_TEST_UNREADABLE", unreadable.to_str().unwrap())];
    let lost = std::fs::metadata(dir.path().join("limestone-manifest.json")).unwrap();
    std::fs::write(&unreadable, format!("{}\n", lost.ino())).unwrap();
    let args = ["--listen", "tcp://127.0.0.1:0", dir.path().to_str().unwrap()];
    let ended = run(&args, &environment);
    assert!(ended.exit == 4 && ended.stderr.contains("Input/output error"), "{} {}", ended.exit, ended.stderr);
    // What a person has to mend is another matter.
    let unit = include_str!("../../dist/systemd/tgreplica@.service");
    assert!(unit.contains("\nRestartPreventExitStatus=1 2 3\n"), "4 is for what may pass");
    std::fs::write(dir.path().join("limestone-manifest.json"), "{").unwrap();
    assert_eq!(run(&args, &[]).exit, 2);
}

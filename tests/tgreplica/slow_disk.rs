// SPDX-License-Identifier: Apache-2.0
//! What the program says while its disk takes its time.

use crate::primary::Primary;
use crate::program::{take_over, Replica, DEADLINE};
use limestone_core::replication::native::protocol::message::Code;
use limestone_core::types::Epoch;
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

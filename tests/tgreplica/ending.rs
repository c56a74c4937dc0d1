// SPDX-License-Identifier: Apache-2.0
//! What is said of a process that starts or ends: it has the directory, and is never said to be gone.

use crate::program::{run, status, Replica, Run, DEADLINE};
use limestone_core::datastore::{Commit, Settings};
use limestone_core::engine::Engine;
use limestone_core::types::Epoch;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What each way to ask says.
fn asked(dir: &Path) -> [Run; 3] {
    ["status", "metrics", "replicas"].map(|word| run(&[word, dir.to_str().unwrap()], &[]))
}

#[test]
fn an_engine_that_has_not_started_or_is_ending_is_not_said_to_be_gone() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(Settings::new(dir.path()).commit(Commit::Direct), None).unwrap();
    for run in asked(dir.path()) {
        assert_eq!(run.exit, 7, "{}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains("does not answer: it starts, ends"), "{}", run.stderr);
    }

    engine.ready().unwrap();
    let log = engine.create_channel().unwrap();
    let (release, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    engine.store().switch_epoch(Epoch(1)).unwrap();
    let blocked = move |_| _ = wait.lock().unwrap().recv();
    engine.store().set_persistent_callback(Some(Arc::new(blocked)));
    let said = std::thread::scope(|scope| {
        scope.spawn(|| engine.store().switch_epoch(Epoch(2)).unwrap());
        let until = |reached: &dyn Fn() -> bool| {
            let deadline = Instant::now() + DEADLINE;
            while !reached() {
                assert!(Instant::now() < deadline);
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        until(&|| engine.store().last_epoch() == Epoch(1));
        scope.spawn(|| engine.shutdown());
        // The callback is waited for from here on.
        until(&|| log.begin_session().is_err());
        let said = (status(dir.path()), asked(dir.path()));
        drop(release);
        said
    });
    let ((exit, document), [_, metrics, replicas]) = said;
    assert_eq!((exit, document["state"].as_str(), document["role"].as_str()), (0, Some("stopped"), Some("primary")));
    assert_eq!(metrics.exit, 0, "{}", metrics.stderr);
    assert!(replicas.stderr.contains("replication"), "{}", replicas.stderr);
    assert!(asked(dir.path()).iter().all(|run| run.exit == 6));
}

#[test]
fn a_replica_that_is_asked_all_along_is_there_until_another_can_have_its_directory() {
    for protocol in ["native", "upstream"] {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::start_with(dir.path(), &[], &[("TSURUGI_REPLICATION_PROTOCOL", protocol)]);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| loop {
                let (exit, document) = status(dir.path());
                if exit == 6 {
                    // Whoever is not there has given the directory back.
                    return Engine::open(Settings::new(dir.path()), None).map(drop);
                }
                assert!([0, 7].contains(&exit), "{protocol}: {document}");
            });
            replica.stop();
            asking.join().unwrap().unwrap_or_else(|e| panic!("{protocol}: {e}"));
        });
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Directories that went different ways: a former primary, one that was set back, one that was replaced while it ran.

use crate::pair::{content, free_port, replica, settings, Engine};
use crate::unlocked::unlocked;
use limestone_core::datastore::{Datastore, Settings};
use limestone_core::error::Error;
use limestone_core::replication::promotion::promote;
use limestone_core::replication::secret::Secret;
use limestone_core::replication::status::LinkState;
use limestone_core::types::Epoch;
use limestone_core::vfs::RealFs;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn none() -> Secret {
    Secret::default()
}

fn write(engine: &mut Engine, tag: &str, count: usize) -> Epoch {
    (0..count).map(|n| engine.write(&[&format!("{tag}{n}")])).last().unwrap()
}

fn is_refused_as_diverged(engine: &Engine) {
    let status = engine.wait_state(LinkState::Refused);
    assert!(status.last_error.clone().unwrap().contains("diverged"), "{status:?}");
    assert_eq!(status.propagated_epoch.unwrap_or_default(), 0, "{status:?}");
}

#[test]
fn a_former_primary_does_not_follow_with_what_the_new_one_lacks() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = replica(second.path(), 0, &none());
    let mut former = Engine::start(first.path(), settings(server.address().port(), &[]));
    let shared = write(&mut former, "shared", 5);
    former.wait_propagated(shared);
    drop(server);
    write(&mut former, "only here", 5);
    former.shutdown();
    // The new primary has passed its epoch.
    let server = replica(first.path(), 0, &none());
    let mut new = Engine::start(second.path(), settings(server.address().port(), &[]));
    write(&mut new, "only there", 20);
    is_refused_as_diverged(&new);
    new.shutdown();
}

#[test]
fn a_primary_that_was_set_back_does_not_go_on_with_its_replica_when_it_has_passed_its_epoch() {
    for by_restore in [true, false] {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let saved = tempfile::tempdir().unwrap();
        let server = replica(second.path(), 0, &none());
        let port = server.address().port();
        let mut engine = Engine::start(first.path(), settings(port, &[]));
        let kept = write(&mut engine, "kept", 3);
        engine.wait_propagated(kept);
        let backup = engine.store.begin_detailed_backup(Duration::from_secs(5)).unwrap();
        for file in backup.files() {
            std::fs::copy(&file.source, saved.path().join(&file.destination)).unwrap();
        }
        drop(backup);
        let undone = write(&mut engine, "undone", 5);
        engine.wait_propagated(undone);
        engine.shutdown();
        drop(server);
        if by_restore {
            let store = Datastore::open(Settings::new(first.path())).unwrap();
            store.restore(saved.path(), true).unwrap();
            store.shutdown();
        } else {
            std::fs::remove_dir_all(first.path()).unwrap();
            std::fs::create_dir(first.path()).unwrap();
            for file in std::fs::read_dir(saved.path()).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), first.path().join(file.file_name())).unwrap();
            }
        }
        let mut engine = Engine::start(first.path(), settings(port, &[("MODE", "async")]));
        write(&mut engine, "redone", 10);
        let server = replica(second.path(), port, &none());
        write(&mut engine, "later", 2);
        is_refused_as_diverged(&engine);
        engine.shutdown();
        drop(server);
        assert!(content(second.path()).contains_key("undone4"), "the replica is left as it was");
    }
}

/// Two directories that share what the first wrote; a replica of the second, which has taken over, listens.
fn replaced(first: &Path, second: &Path) -> u16 {
    let server = replica(second, 0, &none());
    let mut engine = Engine::start(first, settings(server.address().port(), &[]));
    let last = write(&mut engine, "shared", 3);
    engine.wait_propagated(last);
    engine.shutdown();
    drop(server);
    Engine::start(second, settings(free_port(), &[("MODE", "async")])).shutdown();
    free_port()
}

#[test]
fn a_fenced_primary_acknowledges_nothing_any_more_in_any_policy_until_it_is_forced() {
    for mode in ["strict", "degrade 50", "async"] {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let port = replaced(first.path(), second.path());
        let mut old = Engine::start(first.path(), settings(port, &[("MODE", mode)]));
        write(&mut old, "before it is told", 1);
        let server = replica(second.path(), port, &none());
        let status = old.wait_state(LinkState::Refused);
        assert!(status.last_error.unwrap().contains("fenced"), "{mode}");
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let refused = loop {
            match old.channels[0].begin_session().and_then(|_| old.channels[0].end_session()) {
                Err(refused) => break refused,
                Ok(_) => assert!(std::time::Instant::now() < deadline, "{mode}: sessions go on"),
            }
        };
        assert!(refused.to_string().contains("fenced"), "{mode}: {refused}");
        old.shutdown();
        drop(server);
        let start = || {
            let store = Datastore::open(Settings::new(first.path())).unwrap();
            let result = store.ready();
            store.shutdown();
            result
        };
        for _ in 0..2 {
            let error = start().unwrap_err();
            assert!(matches!(&error, Error::WrongState(text) if text.contains("promote --force")), "{mode}: {error}");
        }
        assert!(promote(Arc::new(RealFs), first.path(), false, None).is_err());
        unlocked(|| promote(Arc::new(RealFs), first.path(), true, None));
        start().unwrap();
    }
}

/// Makes a directory one that version 1.0.0 left: it knew terms by their numbers only.
fn as_version_1_0_0(dir: &Path, role: &str) {
    std::fs::remove_file(dir.join("limestone-history.json")).unwrap();
    let state = format!("{{\"format\":1,\"role\":\"{role}\",\"term\":1,\"terms\":[{{\"term\":1,\"first_epoch\":0}}]}}");
    std::fs::write(dir.join("replication_state"), state).unwrap();
}

#[test]
fn a_replica_of_version_1_0_0_gets_one_copy_and_goes_on_without_another_from_then_on() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = replica(second.path(), 0, &none());
    let mut engine = Engine::start(first.path(), settings(server.address().port(), &[]));
    let before = write(&mut engine, "before", 5);
    engine.wait_propagated(before);
    engine.shutdown();
    drop(server);
    as_version_1_0_0(first.path(), "primary");
    as_version_1_0_0(second.path(), "replica");

    let port = free_port();
    let mut engine = Engine::start(first.path(), settings(port, &[]));
    let server = replica(second.path(), port, &none());
    let after = write(&mut engine, "after", 5);
    engine.wait_propagated(after);
    drop(server);
    // A base sync brings files under rotated names; a catch-up goes on in those that are there.
    let names = || {
        let entries = std::fs::read_dir(second.path()).unwrap().map(|entry| entry.unwrap().file_name());
        entries.map(|name| name.into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    let copied = names();
    assert!(!copied.contains("replication_state") && copied.contains("limestone-history.json"), "{copied:?}");
    let server = replica(second.path(), port, &none());
    let last = write(&mut engine, "last", 5);
    engine.wait_propagated(last);
    engine.shutdown();
    drop(server);
    assert!(names().is_superset(&copied), "{:?} after {copied:?}", names());
    assert_eq!(content(first.path()), content(second.path()));
}

#[test]
fn a_replica_that_lacks_only_epochs_in_which_nothing_was_written_takes_over() {
    for is_killed in [false, true] {
        let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let port = free_port();
        let server = replica(standby.path(), port, &none());
        let mut engine = Engine::start(primary.path(), settings(port, &[]));
        let written = engine.write(&["a", "b"]);
        (0..40).for_each(|_| engine.next_epoch());
        engine.wait_propagated(Epoch(engine.epoch - 1));
        let image = tempfile::tempdir().unwrap();
        if is_killed {
            copy(primary.path(), image.path());
        }
        engine.shutdown();
        let primary = if is_killed { image } else { primary };
        let engine = Engine::start(primary.path(), settings(port, &[]));
        engine.wait_state(LinkState::Streaming);
        assert!(engine.epoch > written.0);
        engine.shutdown();
        drop(server);
        let engine = unlocked(|| Datastore::open(Settings::new(standby.path())));
        engine.ready().unwrap();
        assert_eq!(engine.snapshot().unwrap().len(), 2, "killed: {is_killed}");
        engine.shutdown();
    }
}

/// Copies the files of a directory, as a power cut would leave them.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|it| it.file_type().unwrap().is_file()) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

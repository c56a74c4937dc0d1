// SPDX-License-Identifier: Apache-2.0
//! Replicas that come and go while the engine runs, by its calls and by the program.

use super::pair::{all_settings, content, free_port, replica, settings, Engine, PATIENCE};
use super::several::{is_propagated_soon, row, wait_row};
use super::streaming::none;
use limestone_core::error::Error;
use limestone_core::replication::status::LinkState;
use limestone_core::types::Epoch;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Runs `tgreplica replicas`: its exit code, stdout and stderr.
fn tell(dir: &Path, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tgreplica"));
    let output = command.arg("replicas").arg(dir).args(words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn one_that_is_added_under_load_catches_up_counts_and_makes_the_first_one_dispensable() {
    let [primary, a, b] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (first, second) = (replica(a.path(), 0, &none()), replica(b.path(), 0, &none()));
    let mut engine = Engine::start(primary.path(), settings(first.address().port(), &[]));
    for n in 0..50 {
        engine.write(&[&n.to_string(), "same"]);
    }
    engine.engine.add_replica(&format!("b=tcp://{}", second.address())).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !engine.status().replicas.iter().any(|row| row.name == "b" && row.state == LinkState::Streaming) {
        assert!(Instant::now() < deadline, "{:?}", engine.status());
        let epoch = engine.write(&["meanwhile"]);
        engine.wait_propagated(epoch);
    }
    assert_eq!(engine.status().quorum, Some(1));
    // With the former one gone, only the new one can have it.
    engine.engine.remove_replica(&first.address().to_string()).unwrap();
    drop(first);
    let last = engine.write(&["last"]);
    engine.wait_propagated(last);
    assert_eq!(engine.status().replicas, [], "one replica is all of the status");
    engine.shutdown();
    drop(second);
    assert_eq!(content(primary.path()), content(b.path()));
    assert!(!content(a.path()).contains_key("last"), "a removed replica gets nothing more");
}

#[test]
fn one_that_is_added_when_the_log_was_compacted_gets_a_base_sync() {
    let [primary, a, b] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (first, second) = (replica(a.path(), 0, &none()), replica(b.path(), 0, &none()));
    let mut engine = Engine::start(primary.path(), settings(first.address().port(), &[]));
    let deadline = Instant::now() + PATIENCE;
    while engine.store.compacted_epoch() == Epoch(0) {
        assert!(Instant::now() < deadline, "nothing is compacted");
        let epoch = engine.write(&["old", "same"]);
        engine.wait_propagated(epoch);
        engine.compact();
    }
    engine.engine.add_replica(&format!("b=tcp://{}", second.address())).unwrap();
    let last = engine.write(&["last"]);
    wait_row(&engine, "b", last);
    engine.shutdown();
    drop((first, second));
    assert_eq!(content(primary.path()), content(b.path()));
}

#[test]
fn the_log_that_is_kept_for_a_dead_one_goes_when_that_is_removed() {
    let [primary, a, b] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (first, second) = (replica(a.path(), 0, &none()), replica(b.path(), 0, &none()));
    let list = format!("a=tcp://{},b=tcp://{}", first.address(), second.address());
    let mut engine = Engine::start(primary.path(), all_settings(&[("REPLICAS", &list), ("QUORUM", "1")]));
    let before = engine.write(&["before"]);
    ["a", "b"].iter().for_each(|name| wait_row(&engine, name, before));
    // Looked at once a second.
    engine.wait_status(|_| engine.store.retained_epoch().is_some_and(|epoch| epoch >= before));
    drop(second);
    let wait_compacted = |engine: &mut Engine, epoch: Epoch| {
        let deadline = Instant::now() + PATIENCE;
        while engine.store.compacted_epoch() < epoch {
            assert!(Instant::now() < deadline, "compacted up to {} only", engine.store.compacted_epoch());
            let more = engine.write(&["more"]);
            engine.wait_propagated(more);
            engine.compact();
        }
    };
    let mut later = before;
    for _ in 0..20 {
        later = engine.write(&["later"]);
        engine.wait_propagated(later);
    }
    engine.wait_status(|status| row(status, "b").state == LinkState::Connecting);
    engine.compact();
    assert!(engine.store.compacted_epoch() < later, "the log is kept for the one that is away");
    engine.engine.remove_replica("b").unwrap();
    wait_compacted(&mut engine, later);
    engine.shutdown();
    drop(first);
    assert_eq!(content(primary.path()), content(a.path()));
}

#[test]
fn what_would_make_the_quorum_impossible_or_cannot_be_told_apart_is_refused_and_changes_nothing() {
    let [primary, a, b] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (first, second) = (replica(a.path(), 0, &none()), replica(b.path(), 0, &none()));
    let list = format!("a=tcp://{},b=tcp://{}", first.address(), second.address());
    let mut engine = Engine::start(primary.path(), all_settings(&[("REPLICAS", &list), ("QUORUM", "2")]));
    let refused = engine.engine.remove_replica("a").unwrap_err();
    assert!(matches!(&refused, Error::WrongState(text) if text.contains("the quorum is 2")), "{refused}");
    for (replica, why) in [
        ("a=tcp://127.0.0.1:1", "the name \"a\""),
        (&format!("c=tcp://{}", first.address()), "in common"),
        ("c=127.0.0.1:1", "tcp://<host>:<port>"),
        ("", "tcp://<host>:<port>"),
    ] {
        let refused = engine.engine.add_replica(replica).unwrap_err();
        assert!(matches!(&refused, Error::InvalidArgument(text) if text.contains(why)), "{replica}: {refused}");
    }
    let unknown = engine.engine.remove_replica("c").unwrap_err().to_string();
    assert!(unknown.contains("those are known: a, b"), "{unknown}");
    let epoch = engine.write(&["k"]);
    engine.wait_propagated(epoch);
    // A third one that is never there does not count, and does not hold the others up.
    engine.engine.add_replica(&format!("c=tcp://127.0.0.1:{}", free_port())).unwrap();
    engine.engine.remove_replica("b").unwrap();
    let alone = engine.write(&["with one of two"]);
    wait_row(&engine, "a", alone);
    assert!(!is_propagated_soon(&engine, alone), "{:?}", engine.status());
    engine.engine.add_replica(&format!("b=tcp://{}", second.address())).unwrap();
    engine.wait_propagated(alone);
    engine.engine.shutdown();
    let ended = engine.engine.add_replica("d=tcp://127.0.0.1:1").unwrap_err().to_string();
    assert!(ended.contains("it ends"), "{ended}");
}

#[test]
fn an_operator_does_it_with_the_program_and_hears_why_it_is_refused() {
    let [primary, a, b] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    assert_eq!(tell(primary.path(), &[]).0, 6, "nobody serves it");
    let (first, second) = (replica(a.path(), 0, &none()), replica(b.path(), 0, &none()));
    let list = format!("a=tcp://{}", first.address());
    let mut engine = Engine::start(primary.path(), all_settings(&[("REPLICAS", &list)]));
    let (exit, shown, _) = tell(primary.path(), &["add", &format!("b=tcp://{}", second.address())]);
    assert!(exit == 0 && shown.contains("1 of 2 must have an epoch"), "{exit}: {shown}");
    let last = engine.write(&["k"]);
    ["a", "b"].iter().for_each(|name| wait_row(&engine, name, last));
    let (exit, shown, _) = tell(primary.path(), &["--json", "list"]);
    let document: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((exit, document["quorum"].as_u64()), (0, Some(1)));
    assert_eq!(document["replicas"][1]["addresses"], format!("tcp://{}", second.address()));
    assert_eq!(document["replicas"][1]["propagated_epoch"], last.0, "{document}");
    let (exit, shown, _) = tell(primary.path(), &["remove", "a"]);
    assert!(exit == 0 && shown.contains("1 of 1") && !shown.contains("a="), "{exit}: {shown}");
    let (exit, _, error) = tell(primary.path(), &["remove", "b"]);
    assert!(exit == 1 && error.contains("add another one first"), "{exit}: {error}");
    assert_eq!(tell(primary.path(), &["exchange", "b"]).0, 1);
    let mut promote = Command::new(env!("CARGO_BIN_EXE_tgreplica"));
    let output = promote.args(["promote", "--force"]).arg(primary.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    engine.shutdown();
}

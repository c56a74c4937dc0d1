// SPDX-License-Identifier: Apache-2.0
//! Streaming, catch-up, base sync and takeover.

use super::pair::{content, free_port, replica, settings, write_before_replication, Engine, PATIENCE};
use limestone_core::datastore::SafeSnapshot;
use limestone_core::replication::native::replica::Server;
use limestone_core::replication::secret::Secret;
use limestone_core::replication::status::{LinkState, Status};
use limestone_core::types::WriteVersion;
use std::path::Path;
use std::time::{Duration, Instant};

/// No secret: both sides are on this machine.
pub fn none() -> Secret {
    Secret::default()
}

fn assert_same(primary: &Path, replica: &Path) {
    let (expected, found) = (content(primary), content(replica));
    assert!(expected == found, "the primary has {} keys, the replica {}", expected.len(), found.len());
}

#[test]
fn what_is_written_is_propagated_and_the_replica_recovers_to_the_same_state() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = replica(standby.path(), 0, &none());
    let mut engine = Engine::start(primary.path(), settings(server.address().port(), &[]));
    for n in 0..50 {
        let epoch = engine.write(&["a", "b", &n.to_string()]);
        if n % 10 == 0 {
            engine.wait_propagated(epoch);
        }
    }
    let last = engine.write(&["last"]);
    engine.wait_propagated(last);
    let status = engine.status();
    assert_eq!((status.state, status.lag.bytes), (LinkState::Streaming, Some(0)), "{status:?}");
    engine.shutdown();
    drop(server);
    assert_same(primary.path(), standby.path());
}

#[test]
fn epochs_without_writes_are_propagated_in_order_without_a_word() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = replica(standby.path(), 0, &none());
    let mut engine = Engine::start(primary.path(), settings(server.address().port(), &[]));
    engine.write(&["a"]);
    let written = engine.write(&["b"]);
    engine.wait_propagated(written);
    // It may be propagated by a catch-up that goes on.
    engine.wait_state(LinkState::Streaming);
    for _ in 0..100 {
        engine.next_epoch();
        assert_eq!(engine.store.propagated_epoch(), engine.store.last_epoch());
    }
    assert_eq!(server.status().propagated_epoch, Some(written.0), "the replica was not told");
    engine.shutdown();
}

#[test]
fn a_replica_that_was_away_catches_up_from_the_log() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let mut engine = Engine::start(primary.path(), settings(port, &[("LANES", "3")]));
    for round in 0..3 {
        for n in 0..20 {
            engine.write(&[&format!("{round}/{n}"), "same"]);
            if n == 10 {
                engine.store.rotate().unwrap();
            }
        }
        let server = replica(standby.path(), port, &none());
        engine.wait_propagated(engine.store.last_epoch());
        let epoch = engine.write(&["live"]);
        engine.wait_propagated(epoch);
        drop(server);
    }
    engine.shutdown();
    assert_same(primary.path(), standby.path());
}

#[test]
fn a_restarted_primary_goes_on_with_its_replica() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = replica(standby.path(), 0, &none());
    let port = server.address().port();
    for round in 0..4 {
        let mut engine = Engine::start(primary.path(), settings(port, &[]));
        // What was not stored when the former one ended is not on the replica either.
        for n in 0..10 {
            engine.write(&[&format!("{round}/{n}")]);
        }
        engine.channels[0].begin_session().unwrap();
        engine.channels[0].end_session().unwrap();
        engine.shutdown();
    }
    let mut engine = Engine::start(primary.path(), settings(port, &[]));
    let last = engine.write(&["last"]);
    engine.wait_propagated(last);
    engine.shutdown();
    drop(server);
    assert_same(primary.path(), standby.path());
}

#[test]
fn an_engine_takes_over_on_the_replicas_directory_and_the_old_primary_is_fenced() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = replica(second.path(), 0, &none());
    let mut engine = Engine::start(first.path(), settings(server.address().port(), &[]));
    for n in 0..10 {
        engine.write(&[&n.to_string()]);
    }
    let propagated = engine.write(&["last"]);
    engine.wait_propagated(propagated);
    drop(server);
    // Written without the replica, and lost with the primary.
    engine.write(&["too late"]);
    engine.shutdown();

    let mut taken_over = Engine::start(second.path(), settings(free_port(), &[("MODE", "async")]));
    assert!(taken_over.epoch > propagated.0);
    assert_eq!(taken_over.status().term, Some(2));
    taken_over.write(&["after the takeover"]);
    taken_over.shutdown();
    let found = content(second.path());
    assert_eq!(found.len(), 12, "{found:?}");
    assert!(found.contains_key("last") && found.contains_key("after the takeover"));

    // The replica's directory serves again, but not the primary that it has replaced.
    let server = replica(second.path(), 0, &none());
    let old = Engine::recovered(first.path(), settings(server.address().port(), &[]));
    let status = old.wait_state(LinkState::Refused);
    assert!(status.last_error.unwrap().contains("fenced"));
    old.shutdown();
}

#[test]
fn blobs_are_there_before_the_epoch_is_propagated() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = replica(standby.path(), 0, &none());
    let mut engine = Engine::start(primary.path(), settings(server.address().port(), &[]));
    let pool = engine.store.blob_pool();
    for len in [0, 1, 256 << 10, (1 << 20) + 7] {
        let bytes: Vec<u8> = (0..len).map(|n| (n * 7 % 251) as u8).collect();
        let blob = pool.register_data(&bytes).unwrap();
        let epoch = engine.write_with_blobs(&["k"], &[blob]);
        engine.wait_propagated(epoch);
        let (path, _) = engine.store.blobs().file(blob);
        let name = path.strip_prefix(primary.path()).unwrap();
        assert!(std::fs::read(standby.path().join(name)).unwrap() == bytes, "{} bytes", len);
    }
    engine.shutdown();
}

#[test]
fn an_empty_replica_gets_a_base_sync_when_the_log_does_not_reach_back() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = replica(standby.path(), 0, &none());
    write_before_replication(primary.path());
    let mut engine = Engine::start(primary.path(), settings(server.address().port(), &[]));
    for n in 0..20 {
        engine.write(&[&n.to_string()]);
    }
    engine.wait_propagated(engine.store.last_epoch());
    let epoch = engine.write(&["live"]);
    engine.wait_propagated(epoch);
    engine.shutdown();
    drop(server);
    assert_eq!(content(standby.path()).get("early").map(String::as_str), Some("0"));
    assert_same(primary.path(), standby.path());
}

#[test]
fn switches_of_the_boundary_and_the_safe_snapshot_reach_the_replica_and_stay_there() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let mut engine = Engine::start(primary.path(), settings(port, &[]));
    let version = |major| WriteVersion { major, minor: 1 };
    // Before there is a replica.
    engine.store.switch_available_boundary_version(version(3)).unwrap();
    engine.store.switch_safe_snapshot(SafeSnapshot { version: version(4), inclusive: true });
    let server = replica(standby.path(), port, &none());
    let shows = |status: Status, boundary, snapshot| {
        (status.boundary, status.safe_snapshot) == (Some(version(boundary)), Some(version(snapshot)))
    };
    let wait = |server: &Server, boundary, snapshot| {
        let deadline = Instant::now() + PATIENCE;
        while !shows(server.status(), boundary, snapshot) {
            assert!(Instant::now() < deadline, "{:?}", server.status());
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    wait(&server, 3, 4);
    // While it streams.
    let epoch = engine.write(&["a"]);
    engine.wait_propagated(epoch);
    engine.store.switch_available_boundary_version(version(5)).unwrap();
    engine.store.switch_safe_snapshot(SafeSnapshot { version: version(6), inclusive: true });
    wait(&server, 5, 6);
    assert!(shows(engine.status(), 5, 6), "{:?}", engine.status());
    engine.store.switch_available_boundary_version(version(2)).unwrap_err();
    engine.shutdown();
    drop(server);
    let server = replica(standby.path(), port, &none());
    assert!(shows(server.status(), 5, 6), "after a restart of the replica: {:?}", server.status());
}

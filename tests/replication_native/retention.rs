// SPDX-License-Identifier: Apache-2.0
//! What the primary keeps for a replica that is behind, and what becomes of one for which it was not enough.

use super::pair::{all_settings, content, free_port, replica, settings, Engine, PATIENCE};
use super::relay::{Deed, Relay};
use super::sealed;
use super::several::{is_propagated_soon, row};
use super::streaming::none;
use limestone_core::datastore::Outcome;
use limestone_core::replication::native::protocol::frame::FrameKind;
use limestone_core::replication::status::LinkState;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::wal::names;
use std::path::Path;
use std::time::{Duration, Instant};

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A base sync brings the primary's compacted file; a catch-up sends sessions only.
fn has_compacted_file(dir: &Path) -> bool {
    dir.join(names::COMPACTED).exists()
}

#[test]
fn log_that_a_replica_lacks_is_not_compacted_so_that_it_can_catch_up() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let mut engine = Engine::start(primary.path(), settings(port, &[]));
    let server = replica(standby.path(), port, &none());
    engine.write(&["a", "b"]);
    let had = engine.write(&["a", "c"]);
    engine.wait_propagated(had);
    wait_for("what is beyond the replica's epoch is retained", || {
        engine.store.retained_epoch().is_some_and(|epoch| epoch >= had)
    });
    drop(server);
    // Files are compacted as a whole.
    engine.store.rotate().unwrap();
    let lacks = engine.write(&["a", "d"]);
    assert!(matches!(engine.compact(), Outcome::Done));
    let compacted = engine.store.compacted_epoch();
    assert!((Epoch(1)..lacks).contains(&compacted), "epoch {compacted} of {lacks}");

    let server = replica(standby.path(), port, &none());
    engine.wait_propagated(lacks);
    engine.shutdown();
    drop(server);
    assert!(!has_compacted_file(standby.path()), "it was a base sync");
    assert_eq!(content(primary.path()), content(standby.path()));
}

#[test]
fn the_first_compaction_beside_a_replica_waits_for_it_and_is_done() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let mut engine = Engine::start(primary.path(), settings(port, &[]));
    let _server = replica(standby.path(), port, &none());
    let had = engine.write(&["a", "b"]);
    engine.wait_propagated(had);
    wait_for("what is beyond the replica's epoch is retained", || engine.store.retained_epoch().is_some());
    engine.write(&["a", "c"]);
    assert_eq!(engine.compact(), Outcome::Done);
    // On a slow machine the rest comes a moment later.
    wait_for("the compaction is done", || engine.store.held_back_compaction().is_none());
    assert!(engine.store.compacted_epoch() > had);
    engine.shutdown();
}

#[test]
fn a_compaction_that_a_lost_replica_holds_back_is_kept_and_done_when_it_is_back() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let mut engine = Engine::start(primary.path(), settings(port, &[]));
    let server = replica(standby.path(), port, &none());
    let had = engine.write(&["a", "b"]);
    engine.wait_propagated(had);
    wait_for("what the replica has is not retained", || engine.store.retained_epoch() >= Some(had));
    assert_eq!(engine.compact(), Outcome::Done);
    let before = engine.store.compacted_epoch();
    drop(server);
    let lacks = engine.write(&["a", "d"]);

    std::fs::write(primary.path().join(names::CONTROL_DIR).join(names::START_COMPACTION), "").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while engine.status().compaction.is_none() {
        assert!(Instant::now() < deadline, "the status does not say why nothing is compacted");
        engine.next_epoch();
        std::thread::sleep(Duration::from_millis(5));
    }
    let said = engine.status().compaction.unwrap();
    let expected = format!("held back by replica 127.0.0.1:{port} at epoch ");
    assert!(said.starts_with(&expected) && said.ends_with(&format!("done when epoch {lacks} is there")), "{said}");
    assert!(engine.store.compacted_epoch() < lacks, "{before}");

    let _server = replica(standby.path(), port, &none());
    let deadline = Instant::now() + PATIENCE;
    while engine.store.compacted_epoch() < lacks || engine.status().compaction.is_some() {
        assert!(Instant::now() < deadline, "the request was not kept: {:?}", engine.status());
        engine.next_epoch();
        std::thread::sleep(Duration::from_millis(5));
    }
    engine.shutdown();
    assert_eq!(content(primary.path()).len(), 3);
}

/// An engine that has compacted what its replica lacks, which is away, and up to where that has everything.
fn outrun(primary: &Path, standby: &Path, port: u16) -> (Engine, Epoch) {
    let mut engine = Engine::start(primary, settings(port, &[("RETAIN_MB", "1")]));
    let server = replica(standby, port, &none());
    let had = engine.write(&["a", "b"]);
    engine.wait_propagated(had);
    wait_for("the replica's epoch is retained", || engine.store.retained_epoch().is_some());
    drop(server);
    let lacks = engine.write(&["a", "d"]);
    let channel = &engine.channels[0];
    channel.begin_session().unwrap();
    let version = WriteVersion { major: engine.epoch, minor: 1 };
    channel.add_entry(StorageId(1), b"large", &vec![b'v'; 2 << 20], version, &[]).unwrap();
    channel.end_session().unwrap();
    engine.next_epoch();
    wait_for("too much log is not retained", || engine.store.retained_epoch().is_none());
    assert!(matches!(engine.compact(), Outcome::Done));
    assert!(engine.store.compacted_epoch() >= lacks);
    (engine, had)
}

#[test]
fn more_log_than_the_setting_allows_is_compacted_and_the_replica_gets_a_base_sync() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let (mut engine, _) = outrun(primary.path(), standby.path(), port);
    let server = replica(standby.path(), port, &none());
    let last = engine.write(&["e"]);
    engine.wait_propagated(last);
    engine.shutdown();
    drop(server);
    assert!(has_compacted_file(standby.path()), "it was a catch-up");
    assert_eq!(content(primary.path()), content(standby.path()));
}

#[test]
fn what_a_replica_had_before_a_base_sync_does_not_count() {
    let (_root, primary, standby) = sealed::places();
    let (engine, had) = outrun(&primary, &standby, free_port());
    engine.shutdown();
    // It begins, and no file gets over.
    let server = sealed::replica(&standby, 3);
    let relay = Relay::start(server.address(), FrameKind::Offer, 0, Deed::Drop);
    let list = format!("a=tcp://{},b=tcp://127.0.0.1:{}", relay.address, free_port());
    let secret = sealed::secret_file(&primary);
    let engine = Engine::start(
        &primary,
        all_settings(&[("REPLICAS", list.as_str()), ("QUORUM", "1"), ("SECRET_FILE", secret.as_str())]),
    );
    let status = engine.wait_status(|status| row(status, "a").state == LinkState::BaseSync);
    assert!(row(&status, "a").propagated_epoch < Some(had.0), "{status:?}");
    assert!(!is_propagated_soon(&engine, had), "{:?}", engine.status());
    engine.shutdown();
}

#[test]
fn a_blob_that_was_collected_while_the_replica_was_away_holds_nothing_up() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let mut engine = Engine::start(primary.path(), settings(port, &[]));
    let server = replica(standby.path(), port, &none());
    let had = engine.write(&["a"]);
    engine.wait_propagated(had);
    drop(server);
    let pool = engine.store.blob_pool();
    let (replaced, live) = (pool.register_data(b"replaced").unwrap(), pool.register_data(b"live").unwrap());
    engine.write_with_blobs(&["k"], &[replaced]);
    engine.write_with_blobs(&["l"], &[live]);
    engine.write(&["k"]);
    pool.release();
    let file = |dir: &Path, id| limestone_core::blob::paths::file(&dir.join(names::BLOB_DIR), id);
    assert!(file(primary.path(), replaced).exists());
    engine.shutdown();
    // A start deletes what no live entry refers to.
    let mut engine = Engine::start(primary.path(), settings(port, &[]));
    engine.store.blobs().wait_for_collection();
    assert!(!file(primary.path(), replaced).exists());

    let server = replica(standby.path(), port, &none());
    let last = engine.write(&["m"]);
    engine.wait_propagated(last);
    engine.shutdown();
    drop(server);
    assert_eq!(std::fs::read(file(standby.path(), live)).unwrap(), b"live");
    assert!(!file(standby.path(), replaced).exists());
    assert_eq!(content(primary.path()), content(standby.path()));
}

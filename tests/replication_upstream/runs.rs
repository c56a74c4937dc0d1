// SPDX-License-Identifier: Apache-2.0
//! Several runs of either side: what one has stored and not sent, the next one sends.

use crate::commits;
use crate::engine::{write_some, Engine};
use crate::engine_run::quick_dir;
use crate::golden_data::Row;
use crate::peer::DEADLINE;
use crate::primary::{end_alike, is_end, recovered, standby, SHORT};
use crate::stand_in::{Answer, StandIn};
use limestone_core::datastore::{Channel, Datastore, Settings};
use limestone_core::engine;
use limestone_core::replication::native::replica as native;
use limestone_core::replication::net::listener;
use limestone_core::replication::settings::{Endpoint, ReplicationSettings};
use limestone_core::replication::upstream::primary::{Phase, CONFIRMED_NAME};
use limestone_core::types::{BlobId, Durability, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::RealFs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[test]
fn what_was_stored_and_not_propagated_in_an_earlier_run_is_sent_before_anything_later_is_propagated() {
    let (near, far) = (quick_dir(), quick_dir());
    let mut epoch = 1;
    for life in 0..12 {
        let mut replica = standby(far.path(), None);
        let engine = Engine::start(near.path(), replica.address(), SHORT, 1);
        write_some(&engine, epoch..=epoch + 3);
        engine.switch(epoch + 4);
        engine.wait_propagated(epoch + 3);
        // Whatever was propagated is there, also what earlier lives had stored only.
        replica.stop();
        drop(replica);
        assert_eq!(recovered(far.path()), recovered_copy(near.path()), "life {life}");
        write_some(&engine, epoch + 4..=epoch + 6);
        engine.switch(epoch + 7);
        assert!(engine.store.durability(Epoch(epoch + 6)).stored);
        assert!(!engine.store.durability(Epoch(epoch + 6)).propagated);
        engine.primary.shutdown(Duration::ZERO);
        engine.store.shutdown();
        epoch += 8;
    }
}

/// They left no trace on the disk: the next run begins in the first of them.
#[test]
fn epochs_without_writes_that_were_propagated_come_again_with_writes() {
    let (near, far) = (quick_dir(), quick_dir());
    let mut replica = standby(far.path(), None);
    let address = replica.address();
    let engine = Engine::start(near.path(), address, SHORT, 1);
    write_some(&engine, 1..=1);
    engine.switch(9);
    engine.wait_propagated(8);
    engine.shutdown();
    drop(engine);
    replica.stop();
    drop(replica);
    let engine = Engine::start(near.path(), address, SHORT, 1);
    write_some(&engine, 2..=3);
    engine.switch(4);
    engine.primary.shutdown(Duration::ZERO);
    engine.store.shutdown();
    drop(engine);
    replica = standby(far.path(), Some(address));
    let engine = Engine::start(near.path(), address, SHORT, 1);
    write_some(&engine, 5..=5);
    engine.switch(6);
    engine.wait_propagated(5);
    engine.shutdown();
    end_alike(replica, [near.path(), far.path()], 4);
}

/// What the file says may be behind what a living replica has recorded: it is never asked for an epoch below that.
#[test]
fn a_replica_that_has_more_than_was_noted_is_brought_up_to_date() {
    let (near, far) = (quick_dir(), quick_dir());
    let replica = standby(far.path(), None);
    let engine = Engine::start(near.path(), replica.address(), SHORT, 1);
    write_some(&engine, 1..=5);
    engine.switch(6);
    engine.wait_propagated(5);
    engine.shutdown();
    drop(engine);
    std::fs::write(near.path().join("replication_confirmed"), r#"{"format":1,"epoch":2}"#).unwrap();
    let engine = Engine::start(near.path(), replica.address(), SHORT, 1);
    write_some(&engine, 7..=8);
    engine.switch(9);
    engine.wait_propagated(8);
    engine.shutdown();
}

/// The rows of a directory that an engine is using, from a copy.
fn recovered_copy(dir: &Path) -> Vec<Row> {
    recovered(copy(dir).path())
}

/// A copy of the files of a directory that an engine is using.
fn copy(dir: &Path) -> TempDir {
    let copy = quick_dir();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let is_being_replaced = entry.path().extension().is_some_and(|extension| extension == "tmp");
        if entry.file_type().unwrap().is_file() && !is_being_replaced {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    copy
}

#[test]
fn nothing_is_propagated_when_the_log_has_not_all_that_the_replica_lacks() {
    let dir = quick_dir();
    let engine = Engine::start(dir.path(), StandIn::start().address, DEADLINE, 1);
    write_some(&engine, 1..=2);
    engine.switch(3);
    engine.wait_propagated(2);
    engine.shutdown();
    // As after a restore of an older state: the replica has more than this directory.
    let file = dir.path().join(CONFIRMED_NAME);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\"format\":1,\"epoch\":2,\"asked\":2}\n");
    std::fs::write(&file, "{\"format\":1,\"epoch\":9}\n").unwrap();
    // Also when the directory has passed that epoch again.
    for epoch in [11, 13] {
        let engine = Engine::start(dir.path(), StandIn::start().address, SHORT, 1);
        write_some(&engine, epoch..=epoch);
        engine.switch(epoch + 1);
        assert!(!engine.store.wait_durable(Epoch(epoch), Durability::Propagated, Some(SHORT)).unwrap());
        let status = engine.primary.status();
        assert_eq!(status.phase, Phase::GivenUp);
        assert!(status.last_error.unwrap().contains("set back"), "the reason is told");
        engine.shutdown();
    }
}

#[test]
fn a_restored_directory_goes_on_with_no_replica_of_its_past() {
    let (dir, saved) = (quick_dir(), quick_dir());
    let replica = StandIn::start();
    let engine = Engine::start(dir.path(), replica.address, DEADLINE, 1);
    write_some(&engine, 1..=3);
    engine.switch(4);
    engine.wait_propagated(3);
    let backup = engine.store.begin_detailed_backup(DEADLINE).unwrap();
    for file in backup.files() {
        std::fs::copy(&file.source, saved.path().join(&file.destination)).unwrap();
    }
    drop(backup);
    engine.shutdown();
    drop(engine);
    let store = Datastore::open(Settings::new(dir.path())).unwrap();
    store.restore(saved.path(), true).unwrap();
    store.shutdown();
    drop(store);
    for epoch in [11, 13] {
        let engine = Engine::start(dir.path(), replica.address, SHORT, 1);
        write_some(&engine, epoch..=epoch);
        engine.switch(epoch + 1);
        assert!(!engine.store.wait_durable(Epoch(epoch), Durability::Propagated, Some(SHORT)).unwrap());
        assert_eq!(engine.primary.status().phase, Phase::GivenUp);
        engine.shutdown();
    }
    // A person has copied the directory.
    std::fs::remove_file(dir.path().join(CONFIRMED_NAME)).unwrap();
    let engine = Engine::start(dir.path(), replica.address, DEADLINE, 1);
    write_some(&engine, 21..=21);
    engine.switch(22);
    engine.wait_propagated(21);
    engine.shutdown();
}

/// What the file says up to which everything is confirmed.
fn noted(dir: &Path) -> u64 {
    let text = std::fs::read_to_string(dir.join(CONFIRMED_NAME)).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["epoch"].as_u64().unwrap()
}

/// A replica that is silent after so many sessions.
fn silent_after(sessions: usize) -> StandIn {
    let ends = AtomicUsize::new(0);
    StandIn::with(move |_, message| match is_end(message) && ends.fetch_add(1, SeqCst) >= sessions {
        true => Answer::Silence,
        false => Answer::Usual,
    })
}

/// Waits until the replica has what is there up to `epoch`; then what a killed process leaves.
fn life_up_to(epoch: u64, dir: &Path, replica: &StandIn) -> TempDir {
    let begin = Instant::now();
    let engine = Engine::start(dir, replica.address, DEADLINE, 2);
    while noted(dir) < epoch {
        assert!(begin.elapsed() < DEADLINE, "the life ends with epoch {}, before {epoch}", noted(dir));
        std::thread::sleep(Duration::from_millis(5));
    }
    end_as_killed(&engine, dir)
}

/// A copy of the directory, made while the replica is silent.
fn end_as_killed(engine: &Engine, dir: &Path) -> TempDir {
    let image = copy(dir);
    engine.primary.shutdown(Duration::ZERO);
    engine.store.shutdown();
    image
}

/// A directory with epochs of a session each, of which the replica has the first.
fn with_sessions(sessions: u64) -> TempDir {
    let (dir, far) = (quick_dir(), quick_dir());
    let mut replica = standby(far.path(), None);
    let engine = Engine::start(dir.path(), replica.address(), SHORT, 1);
    write_some(&engine, 1..=1);
    engine.switch(2);
    engine.wait_propagated(1);
    replica.stop();
    write_some(&engine, 2..=sessions);
    engine.switch(sessions + 1);
    engine.shutdown();
    assert_eq!(noted(dir.path()), 1);
    dir
}

#[test]
fn lives_that_end_while_they_send_what_is_missing_get_on_all_the_same() {
    const SESSIONS: u64 = 500;
    const SESSIONS_EACH: usize = 200;
    let mut dir = with_sessions(SESSIONS);
    for _ in 0..=SESSIONS / SESSIONS_EACH as u64 {
        let wanted = (noted(dir.path()) + SESSIONS_EACH as u64 / 2).min(SESSIONS);
        dir = life_up_to(wanted, dir.path(), &silent_after(SESSIONS_EACH));
    }
    assert_eq!(noted(dir.path()), SESSIONS);
}

/// The replica may have all that was stored when the file was found; what is stored later it cannot have.
#[test]
fn lives_that_do_not_know_what_was_asked_for_do_not_ask_for_ever_more_at_once() {
    const SESSIONS: u64 = 100;
    let mut dir = with_sessions(SESSIONS);
    std::fs::write(dir.path().join(CONFIRMED_NAME), r#"{"format":1,"epoch":1}"#).unwrap();
    for life in 1..=2 {
        let engine = Engine::start(dir.path(), silent_after(0).address, DEADLINE, 2);
        write_some(&engine, life * SESSIONS + 1..=(life + 1) * SESSIONS);
        engine.switch((life + 1) * SESSIONS + 1);
        dir = end_as_killed(&engine, dir.path());
    }
    assert_eq!(noted(dir.path()), 1);
    dir = life_up_to(SESSIONS, dir.path(), &silent_after(2 * SESSIONS as usize));
    assert!(noted(dir.path()) < 3 * SESSIONS, "all at once");
}

/// An engine that never waits for the replica at `address`, with one channel, before its start.
fn open(dir: &Path, address: SocketAddr) -> (engine::Engine, Arc<Channel>) {
    open_with(dir, address, "upstream")
}

/// The same with this protocol.
fn open_with(dir: &Path, address: SocketAddr, protocol: &str) -> (engine::Engine, Arc<Channel>) {
    let variables = [("ENDPOINT", format!("tcp://{address}")), ("PROTOCOL", protocol.into()), ("MODE", "async".into())];
    let variables = variables.map(|(name, value)| (format!("TSURUGI_REPLICATION_{name}").into(), value.into()));
    let replication = ReplicationSettings::parse(variables).unwrap();
    let engine = engine::Engine::open(Settings::new(dir).commit(commits::as_told()), replication).unwrap();
    let channel = engine.create_channel().unwrap();
    (engine, channel)
}

/// Writes the one key with these BLOBs, and ends the epoch.
fn put((engine, channel): &(engine::Engine, Arc<Channel>), epoch: u64, blobs: &[BlobId]) {
    engine.store().switch_epoch(Epoch(epoch)).unwrap();
    channel.begin_session().unwrap();
    channel.add_entry(StorageId(1), b"k", b"v", WriteVersion { major: epoch, minor: 0 }, blobs).unwrap();
    channel.end_session().unwrap();
    engine.store().switch_epoch(Epoch(epoch + 1)).unwrap();
}

#[test]
fn a_blob_that_only_sessions_refer_to_which_the_replica_lacks_outlives_a_start() {
    let (near, far) = (quick_dir(), quick_dir());
    let mut replica = standby(far.path(), None);
    let address = replica.address();
    let propagated = |(engine, _): &(engine::Engine, Arc<Channel>), epoch| {
        let reached = engine.store().wait_durable(Epoch(epoch), Durability::Propagated, Some(DEADLINE));
        assert!(reached.unwrap(), "{:?}", engine.status());
    };
    let running = open(near.path(), address);
    running.0.ready().unwrap();
    put(&running, 1, &[]);
    propagated(&running, 1);
    replica.stop();
    drop(replica);
    let pool = running.0.store().blob_pool();
    let blob = pool.register_data(b"replaced").unwrap();
    put(&running, 3, &[blob]);
    put(&running, 5, &[]);
    pool.release();
    running.0.shutdown();
    drop(running);

    // A start to which nobody can tell what the replica has deletes nothing either.
    let file = near.path().join(CONFIRMED_NAME);
    let confirmed = std::fs::read(&file).unwrap();
    std::fs::write(&file, "torn").unwrap();
    let refused = open(near.path(), address);
    assert!(refused.0.ready().unwrap_err().to_string().contains(CONFIRMED_NAME));
    refused.0.store().blobs().wait_for_collection();
    refused.0.shutdown();
    drop(refused);
    std::fs::write(&file, confirmed).unwrap();

    let running = open(near.path(), address);
    running.0.ready().unwrap();
    running.0.store().blobs().wait_for_collection();
    let replica = standby(far.path(), Some(address));
    put(&running, 8, &[]);
    propagated(&running, 8);
    let arrived = limestone_core::blob::paths::file(&far.path().join("blob"), blob);
    assert_eq!(std::fs::read(arrived).unwrap(), b"replaced");
    running.0.shutdown();
    drop((running, replica));
}

#[test]
fn a_replica_that_was_restarted_gets_what_it_missed() {
    let (near, far) = (quick_dir(), quick_dir());
    let mut replica = standby(far.path(), None);
    let address = replica.address();
    let mut engine = Engine::start(near.path(), address, DEADLINE, 2);
    let mut epoch = 0;
    for life in 0..3 {
        for _ in 0..5 {
            epoch += 1;
            engine.switch(epoch);
            engine.write(0, &format!("a{epoch}"), epoch);
            engine.write(1, &format!("b{epoch}"), epoch);
        }
        engine.switch(epoch + 1);
        engine.wait_propagated(epoch);
        replica.stop();
        drop(replica);
        // Away: sessions pile up, and a channel is made.
        engine.write(0, &format!("away{life}"), epoch + 1);
        engine.create_channel();
        engine.write(engine.channels.len() - 1, &format!("new{life}"), epoch + 1);
        epoch += 1;
        replica = standby(far.path(), Some(address));
    }
    engine.switch(epoch + 1);
    engine.wait_propagated(epoch);
    engine.shutdown();
    end_alike(replica, [near.path(), far.path()], 36);
}

#[test]
fn a_restarted_primary_goes_on_with_the_same_replica_process() {
    let (near, far) = (quick_dir(), quick_dir());
    let replica = standby(far.path(), None);
    for life in 0..3u64 {
        let engine = Engine::start(near.path(), replica.address(), DEADLINE, 2);
        let first = engine.store.last_epoch().0 + 1;
        engine.switch(first);
        engine.write(0, &format!("k{life}"), first);
        engine.switch(first + 1);
        engine.wait_propagated(first);
        // Of an epoch that is not complete: gone on both sides.
        engine.write(1, &format!("lost{life}"), first + 1);
        engine.shutdown();
    }
    end_alike(replica, [near.path(), far.path()], 3);
}

#[test]
fn what_a_replica_of_the_native_protocol_lacked_is_sent_when_both_sides_change_to_this_one() {
    let (near, far) = (quick_dir(), quick_dir());
    let noted = || std::fs::read_to_string(near.path().join(CONFIRMED_NAME)).unwrap();
    let wait = |(engine, _): &(engine::Engine, Arc<Channel>), epoch| {
        let reached = engine.store().wait_durable(Epoch(epoch), Durability::Propagated, Some(DEADLINE));
        assert!(reached.unwrap(), "{:?}", engine.status());
    };
    let (listener, address) = native_listener();
    let options = native::Options { commit: commits::as_told(), ..native::Options::default() };
    let replica = native::open(Arc::new(RealFs), far.path(), options).unwrap().serve(listener).unwrap();
    let running = open_with(near.path(), address, "native");
    running.0.ready().unwrap();
    put(&running, 1, &[]);
    wait(&running, 1);
    assert_eq!(noted(), "{\"format\":1,\"epoch\":0}\n", "what a killed process leaves is not ahead of the truth");
    drop(replica);
    put(&running, 3, &[]);
    running.0.shutdown();
    drop(running);
    assert_eq!(noted(), "{\"format\":1,\"epoch\":1}\n");

    let replica = standby(far.path(), Some(address));
    let running = open(near.path(), address);
    running.0.ready().unwrap();
    running.0.store().switch_epoch(Epoch(6)).unwrap();
    wait(&running, 5);
    running.0.shutdown();
    drop(running);
    end_alike(replica, [near.path(), far.path()], 1);
}

/// A port of this machine for a replica of the native protocol.
fn native_listener() -> (std::net::TcpListener, SocketAddr) {
    let deadline = std::time::Instant::now() + DEADLINE;
    loop {
        let port = crate::ports::free_port();
        match listener::listen(&Endpoint { host: "127.0.0.1".to_owned(), port }) {
            Ok(listener) => return (listener, SocketAddr::from(([127, 0, 0, 1], port))),
            Err(e) => assert!(std::time::Instant::now() < deadline, "{e}"),
        }
    }
}

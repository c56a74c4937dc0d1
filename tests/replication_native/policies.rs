// SPDX-License-Identifier: Apache-2.0
//! What callers wait for: strict, degrade, async; and how a shutdown ends.

use super::pair::{free_port, replica, settings, ways_to_commit, Engine, PATIENCE};
use super::streaming::none;
use limestone_core::datastore::{Commit, EpochEvent};
use limestone_core::replication::policy::degraded_intervals;
use limestone_core::replication::status::LinkState;
use limestone_core::replication::status_socket;
use limestone_core::types::{Durability, Epoch};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Long enough for a replica that is there on a busy machine.
const DEGRADE: &str = "degrade 3000";

#[test]
fn strict_notifies_nothing_without_the_replica_and_everything_with_it() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let mut engine = Engine::start(primary.path(), settings(port, &[]));
    let epoch = engine.write(&["a"]);
    engine.wait_durable(epoch, Durability::Stored);
    let wait = Some(Duration::from_millis(200));
    assert!(!engine.store.wait_durable(epoch, Durability::Propagated, wait).unwrap());
    assert_eq!(engine.store.notified_epoch(), Epoch(0));
    let _server = replica(standby.path(), port, &none());
    engine.wait_propagated(epoch);
    engine.wait_notified(epoch);
    assert!(!engine.store.durability(epoch).degraded);
    engine.shutdown();
}

#[test]
fn degrade_notifies_after_its_time_and_waits_again_when_the_replica_has_caught_up() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let mut engine = Engine::start(primary.path(), settings(port, &[("MODE", DEGRADE)]));
    let epoch = engine.write(&["a"]);
    let begun = Instant::now();
    let status = engine.wait_status(|status| status.degraded_since.is_some());
    assert!(begun.elapsed() >= Duration::from_millis(50), "{status:?}");
    assert!(status.lag.ms > Some(0), "{status:?}");
    let unknown = (status.propagated_epoch, status.lag.epochs, status.lag.bytes);
    assert_eq!(unknown, (None, None, None), "no replica has said anything");
    engine.wait_notified(epoch);
    assert!(engine.store.durability(epoch).degraded);

    let server = replica(standby.path(), port, &none());
    engine.wait_status(|status| status.degraded_since.is_none());
    let later = engine.write(&["b"]);
    engine.wait_propagated(later);
    assert!(!engine.store.durability(later).degraded);
    assert!(engine.store.durability(epoch).degraded, "it was notified before the replica had it");
    let intervals = degraded_intervals::load(engine.store.vfs(), primary.path()).unwrap();
    assert_eq!(intervals.len(), 1, "{intervals:?}");
    assert!(
        degraded_intervals::holds(&intervals, epoch) && !degraded_intervals::holds(&intervals, later),
        "{intervals:?}"
    );
    engine.shutdown();
    drop(server);
}

#[test]
fn a_restarted_engine_knows_which_epochs_were_degraded_in_earlier_runs() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let server = replica(standby.path(), port, &none());
    let mut engine = Engine::start(primary.path(), settings(port, &[("MODE", DEGRADE)]));
    let before = engine.write(&["a"]);
    engine.wait_propagated(before);
    drop(server);
    let lost = engine.write(&["b"]);
    engine.wait_status(|status| status.degraded_since.is_some());
    engine.wait_notified(lost);
    assert!(engine.store.durability(lost).degraded);
    // As after a kill: the end of the interval is not in the file.
    let file = primary.path().join(degraded_intervals::NAME);
    let unended = std::fs::read(&file).unwrap();
    engine.shutdown();
    std::fs::write(&file, unended).unwrap();

    for _ in 0..2 {
        let mut engine = Engine::start(primary.path(), settings(port, &[("MODE", "degrade 60000")]));
        let found = engine.store.durability(lost);
        assert!(found.stored && found.degraded, "{found:?}");
        assert!(!engine.store.durability(before).degraded);
        let server = replica(standby.path(), port, &none());
        engine.wait_status(|status| status.degraded_since.is_none());
        let after = engine.write(&["c"]);
        engine.wait_propagated(after);
        let found = (engine.store.durability(after).degraded, engine.store.durability(lost).degraded);
        assert_eq!(found, (false, true), "epochs {after} and {lost}");
        engine.shutdown();
        drop(server);
    }
}

#[test]
fn async_notifies_what_is_stored_and_the_replica_follows() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let mut engine = Engine::start(primary.path(), settings(port, &[("MODE", "async")]));
    let epoch = engine.write(&["a"]);
    engine.wait_notified(epoch);
    let _server = replica(standby.path(), port, &none());
    engine.wait_propagated(epoch);
    assert!(!engine.store.durability(epoch).degraded);
    engine.shutdown();
}

#[test]
fn a_shutdown_lets_a_connected_replica_confirm_what_is_stored() {
    for mode in ["strict", "async"] {
        let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let server = replica(standby.path(), 0, &none());
        let mut engine = Engine::start(primary.path(), settings(server.address().port(), &[("MODE", mode)]));
        engine.wait_state(LinkState::Streaming);
        let mut last = Epoch(0);
        for n in 0..200 {
            last = engine.write(&[&n.to_string()]);
        }
        engine.shutdown();
        assert!(server.status().propagated_epoch >= Some(last.0), "{mode}: {:?}", server.status());
    }
}

#[test]
fn a_shutdown_without_a_replica_ends_soon() {
    let primary = tempfile::tempdir().unwrap();
    let mut engine = Engine::start(primary.path(), settings(free_port(), &[("TIMEOUT_MS", "1000")]));
    engine.write(&["a"]);
    let begun = Instant::now();
    engine.shutdown();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_callback_on_a_thread_of_replication_may_shut_down() {
    // With a commit journal it is the thread that commits.
    ways_to_commit().into_iter().for_each(|(commit, thread)| a_callback_on_this_thread_may_shut_down(commit, thread));
}

fn a_callback_on_this_thread_may_shut_down(commit: Commit, thread: &'static str) {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = replica(standby.path(), 0, &none());
    let settings = settings(server.address().port(), &[("TIMEOUT_MS", "1000")]);
    let mut engine = Engine::start_with(primary.path(), settings, commit);
    let (sender, receiver) = std::sync::mpsc::channel();
    let weak = Arc::downgrade(&engine.engine);
    engine.store.set_notify_callback(Some(std::sync::Arc::new(move |epoch| {
        // The engine's own thread may also be the one that reports.
        let Some(engine) = weak.upgrade().filter(|_| std::thread::current().name() == Some(thread)) else { return };
        engine.shutdown();
        let _ = sender.send(epoch);
    })));
    engine.wait_state(LinkState::Streaming);
    let deadline = Instant::now() + PATIENCE;
    while receiver.try_recv().is_err() {
        assert!(Instant::now() < deadline, "the shutdown inside the callback did not end");
        if engine.store.switched_epoch().0 == engine.epoch {
            // Fails when the shutdown comes first.
            let channel = &engine.channels[0];
            let _ = channel.begin_session().and_then(|_| channel.end_session());
            engine.epoch += 1;
            let _ = engine.store.switch_epoch(Epoch(engine.epoch));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_shutdown_on_a_thread_that_hears_from_the_replica_does_not_wait_for_what_it_should_hear_itself() {
    for (commit, thread) in ways_to_commit() {
        a_shutdown_on_this_thread_does_not_wait_for_what_it_should_hear_itself(commit, thread);
    }
}

fn a_shutdown_on_this_thread_does_not_wait_for_what_it_should_hear_itself(commit: Commit, hears: &'static str) {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let _server = replica(standby.path(), port, &none());
    let mut engine = Engine::start_with(primary.path(), settings(port, &[("TIMEOUT_MS", "60000")]), commit);
    let before = engine.write(&["a"]);
    engine.wait_propagated(before);
    let (done, is_done) = std::sync::mpsc::channel();
    let (weak, channel) = (Arc::downgrade(&engine.engine), engine.channels[0].clone());
    engine.store.set_persistent_callback(Some(Arc::new(move |event: EpochEvent| {
        if std::thread::current().name() != Some(hears) || event.state != Durability::Propagated {
            return;
        }
        // The replica will confirm this to the present thread only.
        channel.begin_session().unwrap();
        channel.end_session().unwrap();
        let engine = weak.upgrade().unwrap();
        let store = engine.store();
        let ended = store.switched_epoch();
        store.switch_epoch(Epoch(ended.0 + 1)).unwrap();
        // With a commit journal it would be stored by the present thread as well.
        while commit == Commit::Direct && store.last_epoch() < ended {
            std::thread::yield_now();
        }
        engine.shutdown();
        let _ = done.send(());
    })));
    // Until a confirmation is told on the thread that hears it, and not on one that is telling something else.
    let deadline = Instant::now() + Duration::from_secs(30);
    while is_done.recv_timeout(Duration::from_millis(50)).is_err() {
        assert!(Instant::now() < deadline, "the shutdown waits for the confirmation");
        let epoch = engine.epoch;
        engine.epoch += 1;
        let _ = engine.channels[1].begin_session().and_then(|_| engine.channels[1].end_session());
        let _ = engine.store.switch_epoch(Epoch(epoch + 1));
    }
}

#[test]
fn an_engine_that_was_shut_down_replicates_and_tells_its_status_again_after_the_next_start() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = replica(standby.path(), 0, &none());
    let mut engine = Engine::start(primary.path(), settings(server.address().port(), &[]));
    for round in 0..3 {
        let epoch = engine.write(&[["a", "b", "c"][round], "every"]);
        engine.wait_propagated(epoch);
        assert_eq!(status_socket::ask(primary.path()).unwrap().unwrap().status.state, LinkState::Streaming);
        engine.engine.shutdown();
        assert!(status_socket::ask(primary.path()).unwrap().is_none(), "nobody serves the directory");
        assert_eq!(engine.status().state, LinkState::Stopped);
        engine.watch.begins_again();
        let report = engine.engine.ready().unwrap();
        assert!(report.durable_epoch >= epoch, "{report:?}");
        engine.epoch = report.last_epoch.0 + 1;
        engine.store.switch_epoch(Epoch(engine.epoch)).unwrap();
    }
    engine.shutdown();
    drop(server);
    let found = super::pair::content(standby.path());
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b", "c", "every"]);
    assert_eq!(found, super::pair::content(primary.path()));
}

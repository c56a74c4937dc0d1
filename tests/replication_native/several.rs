// SPDX-License-Identifier: Apache-2.0
//! A primary with several replicas: how many have an epoch before it is propagated, and what one of them that hangs,
//! dies or comes late means for the others.

use super::pair::{all_settings, content, free_port, replica, settings, Engine, PATIENCE};
use super::streaming::none;
use limestone_core::replication::replica_store::directory_id;
use limestone_core::replication::settings::ReplicationSettings;
use limestone_core::replication::status::{LinkState, ReplicaRow, Status};
use limestone_core::types::{Durability, Epoch};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Replicas `a`, `b` and so on at these ports.
fn several(ports: &[u16], quorum: usize) -> ReplicationSettings {
    let one = |(name, port): (char, &u16)| format!("{name}=tcp://127.0.0.1:{port}");
    let list: Vec<String> = ('a'..).zip(ports).map(one).collect();
    all_settings(&[("REPLICAS", &list.join(",")), ("QUORUM", &quorum.to_string())])
}

pub fn row<'a>(status: &'a Status, name: &str) -> &'a ReplicaRow {
    status.replicas.iter().find(|row| row.name == name).unwrap()
}

fn wait_all_streaming(engine: &Engine) {
    engine.wait_status(|status| status.replicas.iter().all(|row| row.state == LinkState::Streaming));
}

/// Waits until the replica has the epoch.
pub fn wait_row(engine: &Engine, name: &str, epoch: Epoch) {
    engine.wait_status(|status| row(status, name).propagated_epoch >= Some(epoch.0));
}

pub fn is_propagated_soon(engine: &Engine, epoch: Epoch) -> bool {
    engine.store.wait_durable(epoch, Durability::Propagated, Some(Duration::from_millis(300))).unwrap()
}

/// A replica that can be stopped: a process.
struct Process(Child);

impl Process {
    fn start(dir: &Path, port: u16) -> Process {
        let listen = format!("tcp://127.0.0.1:{port}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tgreplica"));
        command.args(["--listen", &listen]).arg(dir).stdout(Stdio::null()).stderr(Stdio::null());
        Process(command.spawn().unwrap())
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: the process is this one's child and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.0.id() as libc::pid_t, signal) }, 0);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn one_of_two_is_enough_while_the_other_is_stopped_and_that_one_catches_up_then() {
    let [primary, a, b] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (port, server) = (free_port(), replica(b.path(), 0, &none()));
    let process = Process::start(a.path(), port);
    let list = format!("a=tcp://127.0.0.1:{port},b=tcp://127.0.0.1:{}", server.address().port());
    let one = [("REPLICAS", list.as_str()), ("QUORUM", "1"), ("TIMEOUT_MS", "60000")];
    let mut engine = Engine::start(primary.path(), all_settings(&one));
    wait_all_streaming(&engine);
    let before = engine.write(&["before"]);
    wait_row(&engine, "a", before);
    process.signal(libc::SIGSTOP);
    let begun = Instant::now();
    let mut last = before;
    for n in 0..100 {
        last = engine.write(&[&n.to_string()]);
        engine.wait_propagated(last);
    }
    // The time-out of a minute would have to pass before the one that hangs is noticed.
    assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
    let status = engine.status();
    assert!(row(&status, "a").propagated_epoch < Some(last.0) && status.propagated_epoch >= Some(last.0), "{status:?}");
    assert_eq!((status.state, status.quorum), (LinkState::Streaming, Some(1)), "{status:?}");
    process.signal(libc::SIGCONT);
    wait_row(&engine, "a", last);
    engine.shutdown();
    drop((process, server));
    let expected = content(primary.path());
    assert_eq!(expected.len(), 101);
    assert!(expected == content(a.path()) && expected == content(b.path()));
}

#[test]
fn with_two_of_two_nothing_is_propagated_while_one_is_away_and_everything_when_it_is_back() {
    let [primary, a, b] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (first, second) = (replica(a.path(), 0, &none()), replica(b.path(), 0, &none()));
    let ports = [first.address().port(), second.address().port()];
    let mut engine = Engine::start(primary.path(), several(&ports, 2));
    wait_all_streaming(&engine);
    let with_both = engine.write(&["both"]);
    engine.wait_propagated(with_both);
    drop(second);
    let with_one = engine.write(&["one"]);
    wait_row(&engine, "a", with_one);
    assert!(!is_propagated_soon(&engine, with_one));
    assert_eq!(engine.store.notified_epoch(), with_both, "strict speaks of both");
    let status = engine.status();
    assert_eq!(row(&status, "b").propagated_epoch, Some(with_both.0), "{status:?}");
    let second = replica(b.path(), ports[1], &none());
    engine.wait_propagated(with_one);
    engine.shutdown();
    drop((first, second));
    let expected = content(primary.path());
    assert!(expected == content(a.path()) && expected == content(b.path()));
}

#[test]
fn two_of_three_go_on_without_any_one_of_them() {
    let [primary, a, b, c] = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let dirs = [&a, &b, &c];
    let mut servers: Vec<_> = dirs.iter().map(|dir| Some(replica(dir.path(), 0, &none()))).collect();
    let ports: Vec<u16> = servers.iter().flatten().map(|server| server.address().port()).collect();
    let mut engine = Engine::start(primary.path(), several(&ports, 2));
    wait_all_streaming(&engine);
    for away in 0..3 {
        drop(servers[away].take());
        for n in 0..5 {
            let epoch = engine.write(&[&format!("{away}-{n}")]);
            engine.wait_propagated(epoch);
        }
        servers[away] = Some(replica(dirs[away].path(), ports[away], &none()));
        wait_all_streaming(&engine);
    }
    let last = engine.write(&["last"]);
    ["a", "b", "c"].iter().for_each(|name| wait_row(&engine, name, last));
    engine.shutdown();
    drop(servers);
    let expected = content(primary.path());
    assert!(expected.len() == 16 && dirs.iter().all(|dir| content(dir.path()) == expected));
}

#[test]
fn one_gets_a_base_sync_while_the_other_streams() {
    let [primary, a, b] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (first, port) = (replica(a.path(), 0, &none()), free_port());
    let mut engine = Engine::start(primary.path(), several(&[first.address().port(), port], 1));
    for n in 0..50 {
        engine.write(&[&n.to_string(), "same"]);
    }
    engine.wait_propagated(engine.store.last_epoch());
    // Compacted up to what the one that is there has: the other one never told what it needs.
    let deadline = Instant::now() + PATIENCE;
    while engine.store.compacted_epoch() == Epoch(0) {
        assert!(Instant::now() < deadline, "nothing is compacted");
        engine.compact();
        let epoch = engine.write(&["more"]);
        engine.wait_propagated(epoch);
    }
    let second = replica(b.path(), port, &none());
    let deadline = Instant::now() + PATIENCE;
    while row(&engine.status(), "b").state != LinkState::Streaming {
        assert!(Instant::now() < deadline, "{:?}", engine.status());
        let epoch = engine.write(&["meanwhile"]);
        engine.wait_propagated(epoch);
        assert_eq!(row(&engine.status(), "a").state, LinkState::Streaming);
    }
    let last = engine.write(&["last"]);
    ["a", "b"].iter().for_each(|name| wait_row(&engine, name, last));
    engine.shutdown();
    drop((first, second));
    let expected = content(primary.path());
    assert!(expected == content(a.path()) && expected == content(b.path()));
}

#[test]
fn a_directory_and_its_copy_count_as_one_replica() {
    let [primary, a, b] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    for dir in [&a, &b] {
        drop(replica(dir.path(), 0, &none()));
        std::fs::write(dir.path().join(directory_id::NAME), "00000000000000a5\n").unwrap();
    }
    let (first, second) = (replica(a.path(), 0, &none()), replica(b.path(), 0, &none()));
    let ports = [first.address().port(), second.address().port()];
    let mut engine = Engine::start(primary.path(), several(&ports, 2));
    wait_all_streaming(&engine);
    let epoch = engine.write(&["k"]);
    engine.wait_status(|status| status.replicas.iter().any(|row| row.propagated_epoch >= Some(epoch.0)));
    assert!(!is_propagated_soon(&engine, epoch), "{:?}", engine.status());
    let says = |row: &ReplicaRow| row.last_error.as_ref().is_some_and(|error| error.contains(directory_id::NAME));
    engine.wait_status(|status| status.replicas.iter().filter(|row| says(row)).count() == 1);
    // With a number of its own it is another one.
    drop(second);
    std::fs::remove_file(b.path().join(directory_id::NAME)).unwrap();
    let _second = replica(b.path(), ports[1], &none());
    engine.wait_propagated(epoch);
    engine.shutdown();
}

#[test]
fn a_later_term_that_any_of_them_has_seen_fences_the_primary() {
    let [primary, a, b] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (first, second) = (replica(a.path(), 0, &none()), replica(b.path(), 0, &none()));
    let ports = [first.address().port(), second.address().port()];
    let mut engine = Engine::start(primary.path(), several(&ports, 1));
    wait_all_streaming(&engine);
    let epoch = engine.write(&["k"]);
    ["a", "b"].iter().for_each(|name| wait_row(&engine, name, epoch));
    drop(second);
    // An engine takes over there and gives the place back.
    let mut taken_over = Engine::start(b.path(), settings(free_port(), &[("MODE", "async")]));
    taken_over.write(&["after the takeover"]);
    taken_over.shutdown();
    let _second = replica(b.path(), ports[1], &none());
    let status = engine.wait_status(|status| status.replicas.iter().all(|row| row.state == LinkState::Refused));
    assert!(row(&status, "b").last_error.as_ref().unwrap().contains("fenced"), "{status:?}");
    assert!(row(&status, "a").last_error.as_ref().unwrap().contains("replaced"), "{status:?}");
    assert!(engine.channels[0].begin_session().and_then(|_| engine.channels[0].end_session()).is_err());
    engine.shutdown();
}

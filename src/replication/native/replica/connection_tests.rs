// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::replication::native::protocol::frame::FrameReader;
use crate::replication::native::replica::Options;
use crate::replication::net::dial;
use crate::vfs::SimFs;
use crate::wal::history::{History, Run, RunId};
use crate::wal::history_file::{DirectoryHistory, Place};
use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// A session of a primary to which nothing can be said any more.
fn session(node: &Node, id: u8) -> Arc<Session> {
    session_heard_by(node, id).0
}

/// A session and the primary's end of its control connection.
fn session_heard_by(node: &Node, id: u8) -> (Arc<Session>, TcpStream) {
    let run = Run { id: RunId(1), term: 1, first_epoch: 0 };
    let primary = PrimaryIdentity {
        uuid: "u".to_owned(),
        term: 1,
        history: History::new(vec![run], false).unwrap(),
        stored: Epoch(0),
        oldest_shippable: Epoch(0),
        lanes: 1,
        max_channels: 1,
        capabilities: 0,
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = dial::connect(listener.local_addr().unwrap(), Duration::from_secs(20)).unwrap();
    let (_, write) = link.split(Deadline::Each(Duration::from_secs(20)));
    let machine = ReplicaSession::new([id; 16], &primary, (Outcome::Stream, Epoch(0)), node.timeout_ms(), node.now());
    let session = Session::new(machine, node.store().unwrap(), primary, Outgoing::new(write), node.now());
    (Arc::new(session), listener.accept().unwrap().0)
}

#[test]
fn the_durable_epoch_that_a_replica_tells_never_falls_whoever_tells_it() {
    const EPOCHS: u64 = 3000;
    let node = Node::new(Arc::new(SimFs::new()), Path::new("/replica"), Options::default()).unwrap();
    let (session, heard) = session_heard_by(&node, 1);
    let stored = Message::Heartbeat { switched: Epoch(EPOCHS), stored: Epoch(EPOCHS), written: None };
    session.machine.lock().on_control(stored, 0).unwrap();
    let is_alive = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // So fast that a heartbeat is always due.
            for now in (0..).step_by(node.timeout_ms() as usize).take_while(|_| is_alive.load(SeqCst)) {
                session.machine.lock().heard(now);
                session.tick(now).unwrap();
            }
        });
        scope.spawn(|| {
            for epoch in (1..=EPOCHS).map(Epoch) {
                session.machine.lock().lane_synced(0, epoch, 0).unwrap();
                session.recorded(epoch, 0).unwrap();
            }
            is_alive.store(false, SeqCst);
        });
        let mut frames = FrameReader::new(BufReader::new(heard));
        let (mut last, deadline) = (Epoch(0), Instant::now() + Duration::from_secs(60));
        while last < Epoch(EPOCHS) {
            assert!(Instant::now() < deadline, "{last} was told last");
            let told = match Message::decode(frames.next(PAYLOAD_BYTES_MAX).unwrap().unwrap()).unwrap() {
                Message::Durable { epoch } => epoch,
                Message::Alive(alive) => alive.durable,
                other => panic!("{other:?}"),
            };
            assert!(told >= last, "{told} after {last}");
            last = told;
        }
        // What else was told finds its way out.
        std::thread::spawn(move || std::io::copy(frames.get_mut(), &mut std::io::sink()));
    });
}

#[test]
fn one_that_was_empty_counts_before_it_confirms_the_last_epoch_with_writes() {
    let fs = SimFs::new();
    let node = Node::new(Arc::new(fs.clone()), Path::new("/replica"), Options::default()).unwrap();
    let (session, _heard) = session_heard_by(&node, 1);
    let stored = Epoch(9);
    let primary = PrimaryIdentity { stored, ..session.primary.clone() };
    let standing = node.standing(&session.store);
    node.adopt(&session.store, &standing, &primary, Outcome::CatchUp).unwrap();
    let told = Message::Heartbeat { switched: stored, stored, written: Some(Epoch(7)) };
    session.machine.lock().on_control(told, 0).unwrap();
    for (epoch, counts) in [(6, false), (7, true)].map(|(epoch, counts)| (Epoch(epoch), counts)) {
        session.machine.lock().lane_synced(0, epoch, 0).unwrap();
        assert!(record_one(&node, &session, epoch));
        let saved = DirectoryHistory::load(Place { vfs: &fs, location: Path::new("/replica"), instance: "u" });
        assert_eq!(saved.unwrap().unwrap().claim(epoch).counts(), counts, "{epoch}");
    }
}

#[test]
fn a_session_that_began_while_the_former_one_ended_outlives_it() {
    let node = Arc::new(Node::new(Arc::new(SimFs::new()), Path::new("/replica"), Options::default()).unwrap());
    let (former, next) = (session(&node, 1), session(&node, 2));
    node.set_session(Some(former.clone()));
    // The primary comes back before the end of its former link was seen.
    former.end(End::Told(Reason::new(Code::REPLACED, "by the next")));
    former.wait();
    node.set_session(Some(next.clone()));
    node.board.connected("next".to_owned(), LinkState::Streaming, Epoch(0), Epoch(0));
    finish(&node, &former, End::Lost("the end is seen".to_owned()));
    assert!(node.session().is_some_and(|session| Arc::ptr_eq(&session, &next)));
    assert!(next.ended().is_none());
    assert_eq!(node.status().state, LinkState::Streaming);
    finish(&node, &next, End::Bye);
    assert!(node.session().is_none());
    assert_eq!(node.status().state, LinkState::Connecting);
}

// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::replication::native::replica::Options;
use crate::replication::net::dial;
use crate::vfs::SimFs;
use crate::wal::history::{History, Run, RunId};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

/// A session of a primary to which nothing can be said any more.
fn session(node: &Node, id: u8) -> Arc<Session> {
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
    Arc::new(Session::new(machine, node.store().unwrap(), primary, Outgoing::new(write), node.now()))
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

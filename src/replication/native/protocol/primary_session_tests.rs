// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::replication::native::protocol::lane_order::lane_of;
use crate::replication::native::protocol::message::Outcome;
use crate::wal::history::History;

const TIMEOUT: Millis = 1000;

fn session(stored: u64, durable: u64) -> PrimarySession {
    let replica = ReplicaIdentity {
        uuid: "uuid".to_owned(),
        term: 1,
        history: History::default(),
        durable: Epoch(durable),
        outcome: Outcome::CatchUp,
        max_channels: 1,
        directory: 7,
    };
    PrimarySession::new(Epoch(stored), &replica, TIMEOUT, 0)
}

fn alive(durable: u64, received: u64, synced: u64) -> Message {
    Message::Alive(Alive { durable: Epoch(durable), received, synced })
}

fn durable(epoch: u64) -> Message {
    Message::Durable { epoch: Epoch(epoch) }
}

#[test]
fn during_catch_up_only_what_was_delivered_and_is_stored_is_committed() {
    let mut session = session(20, 10);
    session.stored(Epoch(20), Some(Epoch(18)));
    assert_eq!(session.take_commit(0), None, "nothing was delivered");
    session.delivered(Epoch(15));
    assert_eq!(session.take_commit(0), Some(Epoch(15)));
    assert_eq!(session.take_commit(0), None);
    session.delivered(Epoch(20));
    assert_eq!(session.take_commit(0), Some(Epoch(18)), "no record would keep 19 and 20 through a crash");
    session.delivered(Epoch(25));
    assert_eq!(session.take_commit(0), None, "25 is not stored");
    assert_eq!(session.on_control(durable(18), 0), Ok(PrimaryEvent::Confirmed(Epoch(18))));
    assert_eq!(session.propagated(), Epoch(18));
    session.go_live();
    assert_eq!(session.propagated(), Epoch(20), "nothing was written in 19 and 20");
}

#[test]
fn live_an_epoch_is_committed_when_it_is_stored_and_had_writes() {
    let mut session = session(10, 10);
    session.go_live();
    session.stored(Epoch(11), None);
    assert_eq!(session.take_commit(0), None, "nothing was written");
    assert_eq!(session.propagated(), Epoch(11), "the replica lacks nothing");
    session.stored(Epoch(13), Some(Epoch(12)));
    assert_eq!(session.propagated(), Epoch(11));
    assert_eq!(session.take_commit(0), Some(Epoch(12)));
    session.stored(Epoch(15), Some(Epoch(15)));
    assert_eq!(session.take_commit(0), Some(Epoch(15)), "several epochs are in flight");
    session.on_control(durable(12), 0).unwrap();
    assert_eq!(session.propagated(), Epoch(12));
    session.stored(Epoch(17), None);
    session.on_control(durable(15), 0).unwrap();
    assert_eq!(session.propagated(), Epoch(17), "the epochs without writes behind it as well");
}

#[test]
fn before_the_session_is_live_an_epoch_without_writes_is_not_taken_for_propagated() {
    let mut session = session(20, 10);
    assert_eq!(session.propagated(), Epoch(10));
    session.stored(Epoch(21), None);
    assert_eq!(session.propagated(), Epoch(10));
}

#[test]
fn a_confirmation_that_cannot_be_ends_the_session() {
    let mut session = session(10, 10);
    session.go_live();
    session.stored(Epoch(12), Some(Epoch(12)));
    assert_eq!(session.on_control(durable(12), 0).unwrap_err().code, Code::PROTOCOL, "not committed");
    session.take_commit(0);
    assert_eq!(session.on_control(durable(10), 0).unwrap_err().code, Code::PROTOCOL, "known already");
    assert_eq!(session.on_control(durable(13), 0).unwrap_err().code, Code::PROTOCOL, "never committed");
    assert_eq!(session.on_control(durable(12), 0), Ok(PrimaryEvent::Confirmed(Epoch(12))));
    assert_eq!(session.on_control(alive(11, 0, 0), 0).unwrap_err().code, Code::PROTOCOL);
    assert_eq!(session.on_control(alive(12, 0, 0), 0), Ok(PrimaryEvent::Alive));
    assert_eq!(session.on_control(Message::Bye, 0), Ok(PrimaryEvent::Ended));
    assert_eq!(session.on_control(Message::Staged, 0).unwrap_err().code, Code::PROTOCOL);
    let reason = Reason::new(Code::DISK, "full");
    assert_eq!(session.on_control(Message::Error(reason.clone()), 0), Err(reason));
}

#[test]
fn a_replica_whose_epoch_does_not_move_is_stalled_although_it_says_that_it_is_alive() {
    let mut session = session(10, 10);
    session.go_live();
    session.stored(Epoch(12), Some(Epoch(12)));
    session.take_commit(100);
    session.on_control(alive(10, 0, 0), 1100).unwrap();
    assert!(session.tick(1100).is_ok());
    let reason = session.tick(1101).unwrap_err();
    assert_eq!(
        reason.to_string(),
        "timeout (14): the replica has taken nothing more for 1001 ms: it stays at epoch 10, committed is 12"
    );
    session.on_control(durable(12), 1101).unwrap();
    session.on_control(alive(12, 0, 0), 3000).unwrap();
    assert!(session.tick(4000).is_ok(), "it owes nothing");
}

#[test]
fn a_replica_that_reports_more_bytes_is_not_stalled_however_long_its_epoch_takes() {
    let mut session = session(10, 10);
    session.go_live();
    session.stored(Epoch(12), Some(Epoch(12)));
    session.take_commit(0);
    assert!(!session.has_progressed());
    for step in 1..20 {
        session.on_control(alive(10, 100 * step, 0), 900 * step).unwrap();
        assert!(session.tick(900 * step).is_ok(), "received");
    }
    for step in 20..40 {
        session.on_control(alive(10, 1900, step), 900 * step).unwrap();
        assert!(session.tick(900 * step).is_ok(), "synced");
    }
    assert!(session.has_progressed());
    session.on_control(alive(10, 1900, 39), 36_000).unwrap();
    assert!(session.tick(36_101).is_err(), "nothing more");
    assert_eq!(session.on_control(alive(10, 1899, 39), 36_101).unwrap_err().code, Code::PROTOCOL, "it fell");
}

#[test]
fn what_a_base_sync_offers_is_to_be_taken_in_time() {
    let mut session = session(10, 10);
    session.on_control(alive(10, 0, 0), 2000).unwrap();
    assert!(session.tick(2000).is_ok(), "nothing is expected");
    session.expect(2000);
    session.on_control(alive(10, 5, 0), 2900).unwrap();
    session.on_control(alive(10, 5, 0), 3800).unwrap();
    assert!(session.tick(3900).is_ok());
    assert!(session.tick(3901).is_err());
    session.expect_nothing();
    assert!(session.tick(3901).is_ok());
}

#[test]
fn an_epoch_is_announced_once_before_its_commit() {
    let mut session = session(10, 10);
    assert_eq!(session.announce(0), None, "the Identity said it");
    session.stored(Epoch(12), Some(Epoch(12)));
    let heartbeat = Message::Heartbeat { switched: Epoch(12), stored: Epoch(12), written: Some(Epoch(12)) };
    assert_eq!(session.announce(100), Some(heartbeat));
    assert_eq!(session.announce(100), None);
    assert_eq!(session.tick(349), Ok(None), "it was a heartbeat as well");
}

#[test]
fn a_silent_replica_is_lost_and_heartbeats_show_growing_epochs() {
    let mut session = session(10, 10);
    session.switched(Epoch(12));
    session.stored(Epoch(10), Some(Epoch(10)));
    assert_eq!(session.tick(249), Ok(None));
    let heartbeat = Message::Heartbeat { switched: Epoch(12), stored: Epoch(10), written: Some(Epoch(10)) };
    assert_eq!(session.tick(250), Ok(Some(heartbeat)));
    assert!(session.tick(1000).is_ok());
    assert_eq!(session.tick(1001).unwrap_err().code, Code::TIMEOUT);
}

#[test]
fn every_channel_has_its_lane() {
    assert_eq!((0..6).map(|channel| lane_of(channel, 3)).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn the_replica_is_told_what_the_engine_was_told_of_epochs_with_writes_once_in_an_interval() {
    let mut session = session(10, 10);
    let report = |epoch| Some(Message::Reported { epoch: Epoch(epoch) });
    session.stored(Epoch(12), Some(Epoch(11)));
    assert_eq!(session.take_report(Epoch(12), 0), None, "it was not told that 11 is stored");
    session.announce(0).unwrap();
    assert_eq!(session.take_report(Epoch(10), 0), None, "11 is stored only");
    assert_eq!(session.take_report(Epoch(12), 0), report(11), "nothing was written in 12");
    assert_eq!(session.take_report(Epoch(12), TIMEOUT), None, "nothing new");
    for epoch in [13, 15, 17] {
        session.stored(Epoch(epoch), Some(Epoch(epoch)));
    }
    session.announce(1).unwrap();
    assert_eq!(session.take_report(Epoch(14), heartbeat_interval(TIMEOUT) - 1), None, "too soon");
    assert_eq!(session.take_report(Epoch(16), heartbeat_interval(TIMEOUT)), report(15), "16 has nothing, 17 waits");
    assert_eq!(session.take_report(Epoch(17), 3 * TIMEOUT), report(17));
}

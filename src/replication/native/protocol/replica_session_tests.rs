// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::replication::native::protocol::lane_order::LaneStep;
use crate::replication::native::protocol::message::Log;
use crate::wal::history::History;

const TIMEOUT: Millis = 1000;

fn session(lanes: u32) -> ReplicaSession {
    let mut session = session_after(Outcome::CatchUp, lanes);
    // What the tests commit is stored.
    session.stored = Epoch(1 << 20);
    session.switched = session.stored;
    session
}

fn session_after(outcome: Outcome, lanes: u32) -> ReplicaSession {
    let primary = PrimaryIdentity {
        uuid: "uuid".to_owned(),
        term: 1,
        history: History::default(),
        stored: Epoch(10),
        oldest_shippable: Epoch(1),
        lanes,
        max_channels: 4,
        capabilities: 0,
    };
    ReplicaSession::new([1; 16], &primary, (outcome, Epoch(10)), TIMEOUT, 0)
}

fn lane() -> LaneOrder {
    let mut order = session(2).attach([1; 16], ConnectionKind::Lane(1)).unwrap().unwrap();
    order.on_message(Message::Channel { channel: 3 }).unwrap();
    order
}

fn log(epoch: u64, channel: u32, first: bool, last: bool) -> Message {
    Message::Log(Log { epoch: Epoch(epoch), channel, first, last, bytes: vec![2] })
}

fn commit(epoch: u64, blob_seq: u64) -> Message {
    Message::Commit { epoch: Epoch(epoch), blob_seq }
}

#[test]
fn a_lane_takes_whole_sessions_and_commits_between_them() {
    let mut lane = lane();
    assert!(matches!(lane.on_message(log(11, 3, true, false)), Ok(LaneStep::Append(_))));
    assert!(matches!(lane.on_message(log(11, 3, false, false)), Ok(LaneStep::Append(_))));
    assert!(matches!(lane.on_message(log(11, 3, false, true)), Ok(LaneStep::Append(_))));
    assert!(matches!(lane.on_message(log(12, 3, true, true)), Ok(LaneStep::Append(_))), "ahead of the COMMIT");
    assert_eq!(lane.on_message(commit(11, 5)), Ok(LaneStep::Commit { epoch: Epoch(11), blob_seq: 5 }));
    assert!(lane.on_message(log(12, 3, true, true)).is_ok(), "a second session of an epoch");
    assert_eq!(lane.on_message(Message::ChannelEnd { channel: 3 }), Ok(LaneStep::Noted));
    assert!(lane.on_message(log(13, 3, true, true)).is_err(), "the channel ended");
}

#[test]
fn every_break_of_the_order_of_a_lane_is_named() {
    let inside = |lane: &mut LaneOrder| drop(lane.on_message(log(11, 3, true, false)).unwrap());
    let committed = |lane: &mut LaneOrder| drop(lane.on_message(commit(12, 5)).unwrap());
    let nothing = |_: &mut LaneOrder| ();
    type Before = fn(&mut LaneOrder);
    let cases: [(Before, Message, &str); 18] = [
        (nothing, log(10, 3, true, true), "after COMMIT of epoch 10"),
        (nothing, log(11, 2, true, true), "not announced"),
        (nothing, log(11, 3, false, true), "never began"),
        (nothing, commit(10, 0), "after epoch 10"),
        (nothing, Message::Channel { channel: 3 }, "announced twice"),
        (nothing, Message::Channel { channel: 4 }, "4 were agreed"),
        (nothing, Message::Channel { channel: 2 }, "it belongs on lane 0"),
        (nothing, Message::ChannelEnd { channel: 2 }, "not announced"),
        (nothing, Message::Bye, "a Bye message on a lane"),
        (nothing, Message::Durable { epoch: Epoch(11) }, "a Durable message on a lane"),
        (inside, commit(11, 0), "inside a session"),
        (inside, Message::Channel { channel: 1 }, "inside a session"),
        (inside, log(11, 3, true, false), "inside a session"),
        (inside, log(12, 3, false, false), "inside a session"),
        (inside, log(11, 2, false, false), "inside a session"),
        (committed, log(12, 3, true, true), "after COMMIT of epoch 12"),
        (committed, commit(12, 5), "after epoch 12"),
        (committed, commit(13, 4), "after epoch 12"),
    ];
    for (before, message, expected) in cases {
        let mut lane = lane();
        before(&mut lane);
        let shown = format!("{message:?}");
        let reason = lane.on_message(message).unwrap_err();
        assert!(reason.text.contains(expected), "{shown}: {reason}");
        let code = if expected.contains("agreed") { Code::LIMIT } else { Code::PROTOCOL };
        assert_eq!(reason.code, code, "{shown}");
    }
    let empty = Log { epoch: Epoch(11), channel: 3, first: true, last: false, bytes: Vec::new() };
    assert!(lane().on_message(Message::Log(empty)).unwrap_err().text.contains("an empty piece"));
}

#[test]
fn an_epoch_is_recorded_when_every_lane_has_it() {
    let mut session = session(2);
    assert_eq!(session.lane_synced(0, Epoch(11), 0).unwrap(), None);
    assert_eq!(session.lane_synced(0, Epoch(12), 0).unwrap(), None);
    assert_eq!(session.lane_synced(1, Epoch(11), 0).unwrap(), Some(ReplicaAction::Record(Epoch(11))));
    assert_eq!(session.lane_synced(1, Epoch(12), 0).unwrap(), None, "one record at a time");
    assert_eq!(session.durable(), Epoch(10), "not before the record is synced");
    let durable = Message::Durable { epoch: Epoch(11) };
    let expected = vec![ReplicaAction::Send(durable), ReplicaAction::Record(Epoch(12))];
    assert_eq!(session.recorded(Epoch(11), 5), expected);
    assert_eq!(session.durable(), Epoch(11));
    assert_eq!(session.lane_synced(7, Epoch(11), 0).unwrap(), None, "a lane that is not there");
}

#[test]
fn an_epoch_waits_for_its_blobs_and_not_for_those_of_later_epochs() {
    let mut session = session(1);
    assert_eq!(session.lane_synced(0, Epoch(11), 2).unwrap(), None);
    assert_eq!(session.lane_synced(0, Epoch(12), 3).unwrap(), None);
    assert_eq!(session.blobs_synced(1), None);
    assert_eq!(session.blobs_synced(2), Some(ReplicaAction::Record(Epoch(11))));
    assert_eq!(session.blobs_synced(3), None);
    assert_eq!(session.recorded(Epoch(11), 0).last(), Some(&ReplicaAction::Record(Epoch(12))));
}

#[test]
fn epochs_that_have_arrived_together_are_recorded_once() {
    let mut session = session(1);
    assert_eq!(session.lane_synced(0, Epoch(11), 0).unwrap(), Some(ReplicaAction::Record(Epoch(11))));
    for epoch in 12..20 {
        assert_eq!(session.lane_synced(0, Epoch(epoch), 0).unwrap(), None);
    }
    assert_eq!(session.recorded(Epoch(11), 0).last(), Some(&ReplicaAction::Record(Epoch(19))));
}

#[test]
fn epochs_without_end_take_bounded_memory_and_the_last_one_is_not_lost() {
    let mut session = session(1);
    let last = 11 + 10 * WAITING_MAX as u64;
    for epoch in 11..=last {
        session.lane_synced(0, Epoch(epoch), epoch).unwrap();
    }
    assert_eq!(session.waiting.len(), WAITING_MAX);
    assert_eq!(session.blobs_synced(11), Some(ReplicaAction::Record(Epoch(11))));
    session.recorded(Epoch(11), 0);
    assert_eq!(session.blobs_synced(last), Some(ReplicaAction::Record(Epoch(last))));
}

#[test]
fn a_connection_belongs_to_the_session_once() {
    let mut session = session(2);
    let code = |result: Result<Option<LaneOrder>, Reason>| result.map(|order| order.is_some()).map_err(|r| r.code);
    assert_eq!(code(session.attach([2; 16], ConnectionKind::Lane(0))), Err(Code::UNKNOWN_SESSION));
    assert_eq!(code(session.attach([1; 16], ConnectionKind::Lane(0))), Ok(true));
    assert_eq!(code(session.attach([1; 16], ConnectionKind::Lane(0))), Err(Code::PROTOCOL));
    assert_eq!(code(session.attach([1; 16], ConnectionKind::Lane(2))), Err(Code::LIMIT));
    assert_eq!(code(session.attach([1; 16], ConnectionKind::Control)), Err(Code::PROTOCOL));
    assert_eq!(code(session.attach([1; 16], ConnectionKind::Blob)), Ok(false));
    assert_eq!(code(session.attach([1; 16], ConnectionKind::Blob)), Err(Code::PROTOCOL));
}

#[test]
fn only_the_connections_that_the_outcome_allows_belong_to_the_session() {
    let sends_log = [ConnectionKind::Lane(0), ConnectionKind::Blob];
    for (outcome, base) in [(Outcome::Stream, false), (Outcome::CatchUp, false), (Outcome::BaseSync, true)] {
        let mut session = session_after(outcome, 1);
        for kind in sends_log {
            assert_eq!(session.attach([1; 16], kind).is_err(), base, "{kind} after {outcome:?}");
        }
        let attached = session.attach([1; 16], ConnectionKind::Base);
        assert_eq!(attached.as_ref().err().map(|reason| reason.code), (!base).then_some(Code::PROTOCOL), "{outcome:?}");
        assert!(session.attach([1; 16], ConnectionKind::Base).is_err(), "not twice");
    }
}

#[test]
fn an_epoch_is_recorded_only_when_the_primary_has_said_that_it_is_stored() {
    let heartbeat = |stored| {
        let (switched, stored) = (Epoch(stored), Epoch(stored));
        Message::Heartbeat { switched, stored, written: None }
    };
    let mut session = session_after(Outcome::Stream, 1);
    assert_eq!(session.lane_synced(0, Epoch(11), 0), Ok(None), "the COMMIT came first");
    assert!(session.tick(100).is_ok());
    assert_eq!(session.on_control(heartbeat(11), 900), Ok(Some(ReplicaAction::Record(Epoch(11)))));
    session.recorded(Epoch(11), 900);
    assert_eq!(session.lane_synced(0, Epoch(1 << 40), 0), Ok(None));
    for now in [1000, 1500, 2000] {
        session.on_control(heartbeat(12), now).unwrap();
        assert!(session.tick(now).is_ok());
    }
    let reason = session.tick(2001).unwrap_err();
    assert_eq!(
        reason.to_string(),
        "protocol violation (9): COMMIT of epoch 1099511627776, but the primary has stored 12 only"
    );
    assert_eq!(session.durable(), Epoch(11));
}

#[test]
fn commits_of_different_lanes_must_not_contradict_each_other() {
    for (epoch, blob_seq, fits) in [(11, 5, true), (11, 4, false), (11, 6, false), (12, 5, true), (12, 4, false)] {
        let mut session = session(2);
        session.lane_synced(0, Epoch(11), 5).unwrap();
        assert_eq!(session.lane_synced(1, Epoch(epoch), blob_seq).is_ok(), fits, "epoch {epoch}, BLOB {blob_seq}");
    }
}

#[test]
fn a_silent_primary_is_lost_and_a_silent_replica_says_that_it_is_alive() {
    let mut session = session(1);
    assert_eq!(session.tick(249), Ok(None));
    session.progress(7, 5);
    let alive = ReplicaAction::Send(Message::Alive(Alive { durable: Epoch(10), received: 7, synced: 5 }));
    assert_eq!(session.tick(250), Ok(Some(alive)));
    assert_eq!(session.tick(251), Ok(None));
    session.heard(900);
    assert!(session.tick(1900).is_ok());
    assert_eq!(session.tick(1901).unwrap_err().code, Code::TIMEOUT);
}

#[test]
fn the_epochs_of_a_primary_never_go_back() {
    let beat = |switched, stored, written| Message::Heartbeat {
        switched: Epoch(switched),
        stored: Epoch(stored),
        written: u64::checked_sub(written, 1).map(Epoch),
    };
    let heartbeat = |switched, stored| beat(switched, stored, 0);
    let mut session = session_after(Outcome::Stream, 1);
    assert_eq!(session.on_control(beat(12, 11, 8), 1), Ok(None));
    assert_eq!(session.on_control(heartbeat(12, 11), 1), Ok(None));
    assert_eq!(session.primary_epochs(), (Epoch(12), Epoch(11), Some(Epoch(7))), "what is known stays known");
    let no_room = heartbeat(u64::MAX, 11);
    for wrong in [heartbeat(11, 11), heartbeat(12, 10), heartbeat(13, 14), beat(12, 11, 13), no_room] {
        assert_eq!(session.on_control(wrong, 1).unwrap_err().code, Code::PROTOCOL);
    }
    assert_eq!(session.on_control(Message::Bye, 1), Ok(Some(ReplicaAction::Ended)));
    assert_eq!(session.on_control(commit(12, 0), 1).unwrap_err().code, Code::PROTOCOL);
    let version = WriteVersion { major: 1, minor: 2 };
    let boundary = session.on_control(Message::Boundary { version }, 1);
    assert_eq!(boundary, Ok(Some(ReplicaAction::Boundary(version))));
}

#[test]
fn a_digest_is_asked_for_only_of_a_primary_that_knows_it_and_nothing_is_told_that_was_not_asked_for() {
    let work = |number| Message::Digest(DigestMessage::Work { number, read: 1 });
    let mut session = session_after(Outcome::CatchUp, 1);
    assert_eq!(session.on_control(work(1), 0).unwrap_err().code, Code::PROTOCOL);
    assert_eq!((session.ask(), session.ask()), (Ok(1), Ok(2)));
    for number in [1, 2] {
        let told = DigestMessage::Work { number, read: 1 };
        assert_eq!(session.on_control(work(number), 0), Ok(Some(ReplicaAction::Digest(told))));
    }
    let of_a_replica = Message::Digest(DigestMessage::End { number: 1 });
    for wrong in [work(0), work(3), of_a_replica] {
        assert_eq!(session.on_control(wrong, 0).unwrap_err().code, Code::PROTOCOL);
    }
    let mut older = session_after(Outcome::CatchUp, 1).in_version(VERSION_DIGESTS - 1);
    assert!(older.ask().unwrap_err().contains("version 4"));
    assert!(session_after(Outcome::BaseSync, 1).ask().unwrap_err().contains("base sync"));
}

#[test]
fn a_report_is_of_what_is_stored_and_does_not_fall() {
    let mut session = session_after(Outcome::CatchUp, 1);
    let report = |epoch| Message::Reported { epoch: Epoch(epoch) };
    assert_eq!(session.on_control(report(9), 0), Ok(None));
    assert_eq!(session.on_control(report(10), 0), Ok(None));
    assert_eq!(session.told().reported, Epoch(10));
    for (epoch, text) in [(9, "reported 9 after 10"), (11, "stored 10")] {
        let reason = session.on_control(report(epoch), 0).unwrap_err();
        assert!(reason.code == Code::PROTOCOL && reason.text.contains(text), "{reason}");
    }
}

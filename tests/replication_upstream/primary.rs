// SPDX-License-Identifier: Apache-2.0
//! The primary's role over real sockets: the captured conversations, and what a replica must not do to the engine.

use crate::commits;
use crate::engine::{write_some, Engine};
use crate::engine_run::quick_dir;
use crate::golden::{cases, Case};
use crate::golden_data::Row;
use crate::peer::DEADLINE;
use crate::stand_in::{Answer, StandIn};
use limestone_core::datastore::Settings;
use limestone_core::engine;
use limestone_core::replication::policy::degraded_intervals;
use limestone_core::replication::replica_store::StandbyStore;
use limestone_core::replication::settings::{Mode, ReplicationSettings};
use limestone_core::replication::status::{LinkState, Status};
use limestone_core::replication::upstream::primary::Phase;
use limestone_core::replication::upstream::protocol::codec::{flag, Message};
use limestone_core::replication::upstream::protocol::reader::{Budget, Reader};
use limestone_core::replication::upstream::replica::{Options, Replica};
use limestone_core::types::{Durability, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::RealFs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Short, where a test waits for it to pass.
pub const SHORT: Duration = Duration::from_millis(300);

const VERSION: WriteVersion = WriteVersion { major: 1, minor: 0 };

pub fn is_end(message: &Message) -> bool {
    matches!(message, Message::LogEntry { flags, .. } if flags & flag::END != 0)
}

/// A captured stream, in which the end of a session carries the epoch of its session: in one mode the original sends
/// there the epoch of the session before.
fn corrected(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut session) = (Vec::new(), Epoch(0));
    let mut reader = Reader::new(bytes, Budget::default());
    while let Some(mut message) = reader.next_whole().unwrap() {
        match &mut message {
            Message::LogEntry { epoch, flags, .. } if *flags & flag::BEGIN != 0 => session = *epoch,
            Message::LogEntry { epoch, flags, .. } if *flags & flag::END != 0 => *epoch = session,
            _ => {}
        }
        message.encode(&mut out);
    }
    out
}

/// Whether the capture shows a primary of the original that a correct one can repeat.
fn is_repeatable(case: &Case) -> bool {
    let calls = case.json["api_calls"].as_array();
    case.json["producer"]["m2r"] == "upstream master (public API driver)"
        && case.json["producer"]["r2m"] == "upstream tgreplica"
        && case.json["master_env"].get("REPLICATION_RDMA_SLOTS").is_none()
        && calls.is_some_and(|calls| calls.iter().all(|call| call.get("master").is_none()))
}

#[test]
fn every_captured_sequence_of_calls_gives_the_captured_bytes() {
    let cases: Vec<Case> = cases().into_iter().filter(is_repeatable).collect();
    assert!(cases.len() >= 12, "only {} cases", cases.len());
    for (case, switches) in cases.iter().flat_map(|case| [(case, false), (case, true)]) {
        let (dir, replica) = (quick_dir(), StandIn::start());
        let mut engine = Engine::open_with(dir.path(), replica.address, DEADLINE, Mode::Strict, switches);
        for call in case.json["api_calls"].as_array().unwrap() {
            engine.call(call);
        }
        let found = replica.all(case.connections());
        let mut expected: Vec<_> = (0..case.connections()).map(|conn| corrected(&case.stream(conn, "m2r"))).collect();
        // The original connects its log channels first, against its own description; some replicas of it then abort.
        expected.sort_by_key(|stream| stream.first() != Some(&1));
        assert_eq!(found, expected, "{}", case.name);
    }
}

#[test]
fn a_group_commit_follows_the_acknowledgement_of_its_sessions() {
    let allowed = Arc::new(AtomicBool::new(false));
    let end_came = Arc::new(AtomicBool::new(false));
    let (gate, seen) = (allowed.clone(), end_came.clone());
    let replica = StandIn::with(move |_, message| {
        if is_end(message) {
            seen.store(true, SeqCst);
            while !gate.load(SeqCst) {
                std::thread::yield_now();
            }
        }
        assert!(gate.load(SeqCst) || !matches!(message, Message::GroupCommit { .. }), "GROUP_COMMIT came too early");
        Answer::Usual
    });
    let dir = quick_dir();
    let engine = Engine::start(dir.path(), replica.address, DEADLINE, 1);
    engine.switch(1);
    engine.write(0, "k", 1);
    engine.switch(2);
    replica.wait("the session", |all| all.iter().any(|(bytes, _)| bytes.ends_with(&[6])));
    let passed = engine.store.wait_durable(Epoch(1), Durability::Propagated, Some(Duration::from_millis(50)));
    assert!(!passed.unwrap(), "propagated before the replica confirmed anything");
    assert!(engine.store.durability(Epoch(1)).stored);
    allowed.store(true, SeqCst);
    engine.wait_propagated(1);
    engine.shutdown();
    let control = replica.all(2).swap_remove(0);
    assert_eq!(control[22..], [3, 0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn epochs_without_writes_are_propagated_without_traffic() {
    let (dir, replica) = (quick_dir(), StandIn::start());
    let engine = Engine::start(dir.path(), replica.address, DEADLINE, 1);
    for epoch in 1..=5 {
        engine.switch(epoch);
    }
    engine.wait_propagated(4);
    engine.shutdown();
    assert_eq!(replica.all(2).iter().map(Vec::len).collect::<Vec<_>>(), [22, 14]);
}

#[test]
fn a_start_on_existing_data_sends_nothing_of_it() {
    let dir = quick_dir();
    for life in 0..2u64 {
        let replica = StandIn::start();
        let engine = Engine::start(dir.path(), replica.address, DEADLINE, 1);
        let first = engine.store.last_epoch().0 + 1;
        engine.switch(first);
        engine.write(0, &format!("{life}"), first);
        engine.switch(first + 1);
        engine.wait_propagated(first);
        engine.shutdown();
        let streams = replica.all(2);
        assert_eq!(streams[0][22..], [&[3][..], &first.to_be_bytes()].concat(), "one GROUP_COMMIT");
        assert_eq!(streams[1].len(), 14 + 14 + 53 + 14, "one session with one entry");
    }
}

/// An address that takes connections and is silent, one that refuses, and a list in which the right one is the last.
#[test]
fn an_address_that_is_silent_or_refuses_does_not_hide_the_replica() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing = StandIn::with(|_, _| Answer::Bytes([&[0x22, 1, 0, 10][..], &[0, 0, 0, 0]].concat()));
    let (near, far) = (quick_dir(), quick_dir());
    let replica = standby(far.path(), None);
    let list = [silent.local_addr().unwrap(), refusing.address, replica.address()];
    let engine = Engine::start_at(near.path(), &list, SHORT, 1);
    write_some(&engine, 1..=3);
    engine.switch(4);
    engine.wait_propagated(3);
    engine.shutdown();
}

#[test]
fn a_session_that_takes_longer_to_send_than_the_time_out_arrives() {
    let (dir, replica) = (quick_dir(), StandIn::slow());
    let engine = Engine::start(dir.path(), replica.address, Duration::from_millis(800), 1);
    engine.switch(1);
    let channel = &engine.channels[0];
    channel.begin_session().unwrap();
    // Takes more than three seconds.
    channel.add_entry(StorageId(1), b"large", &vec![b'v'; 1 << 20], VERSION, &[]).unwrap();
    channel.end_session().unwrap();
    engine.switch(2);
    engine.wait_propagated(1);
    assert!(engine.primary.status().last_error.is_none(), "{:?}", engine.primary.status());
    engine.shutdown();
}

#[test]
fn a_session_before_the_first_epoch_carries_the_epoch_that_was_recovered() {
    let (near, far) = (quick_dir(), quick_dir());
    let replica = standby(far.path(), None);
    for life in 0..2 {
        let engine = Engine::start(near.path(), replica.address(), DEADLINE, 1);
        let recovered = engine.store.last_epoch();
        assert_eq!(engine.channels[0].begin_session().unwrap(), recovered);
        engine.channels[0].add_entry(StorageId(1), format!("{life}").as_bytes(), b"v", VERSION, &[]).unwrap();
        engine.channels[0].end_session().unwrap();
        engine.switch(recovered.0 + 1);
        engine.write(0, &format!("next {life}"), recovered.0 + 1);
        engine.switch(recovered.0 + 2);
        engine.wait_propagated(recovered.0 + 1);
        engine.shutdown();
    }
    end_alike(replica, [near.path(), far.path()], 4);
}

/// Whatever the replica does, the engine goes on, nothing more is propagated, and the shutdown ends in time.
fn engine_survives(what: &str, script: impl Fn(usize, &Message) -> Answer + Send + Sync + 'static) {
    let (dir, replica) = (quick_dir(), StandIn::with(script));
    let begin = Instant::now();
    let engine = Engine::start(dir.path(), replica.address, SHORT, 1);
    for epoch in 1..=4 {
        engine.switch(epoch);
        engine.write(0, &format!("k{epoch}"), epoch);
    }
    engine.switch(5);
    assert!(engine.store.durability(Epoch(4)).stored, "{what}");
    let deadline = Instant::now() + DEADLINE;
    while engine.primary.status().phase != Phase::Lost {
        assert!(Instant::now() < deadline, "{what}: {:?}", engine.primary.status());
        std::thread::yield_now();
    }
    assert!(!engine.store.durability(Epoch(4)).propagated, "{what}");
    engine.shutdown();
    assert!(begin.elapsed() < DEADLINE, "{what}");
    assert_eq!(crate::engine_run::start(dir.path(), 1).unwrap().rows.len(), 4, "{what}");
}

#[test]
fn whatever_the_replica_answers_the_engine_goes_on() {
    let error = [0x22, 1, 0, 99, 0, 0, 0, 1, b'x'];
    let other = [0x31, 0, 0, 0, 0, 0, 0, 0, 0];
    let answers = [
        Answer::Silence,
        Answer::Close,
        Answer::Bytes(error.into()),
        Answer::Bytes(other.into()),
        Answer::Bytes([9].into()),
    ];
    type Pick = fn(&Message) -> bool;
    let points: [(&str, Pick); 4] = [
        ("SESSION_END", is_end),
        ("GROUP_COMMIT", |message| matches!(message, Message::GroupCommit { epoch } if epoch.0 > 1)),
        ("LOG_CHANNEL_CREATE", |message| matches!(message, Message::LogChannelCreate { .. })),
        ("SESSION_BEGIN", |message| matches!(message, Message::SessionBegin { .. })),
    ];
    std::thread::scope(|scope| {
        for (point, pick) in points {
            let answers = &answers;
            scope.spawn(move || {
                for answer in answers.clone() {
                    let what = format!("{answer:?} to {point}");
                    engine_survives(&what, move |_, message| match pick(message) {
                        true => answer.clone(),
                        false => Answer::Usual,
                    });
                }
            });
        }
    });
}

#[test]
fn an_engine_starts_although_nobody_listens() {
    let closed = SocketAddr::from(([127, 0, 0, 1], crate::ports::free_port()));
    let dir = quick_dir();
    let engine = Engine::start(dir.path(), closed, SHORT, 2);
    engine.switch(1);
    engine.write(1, "k", 1);
    engine.switch(2);
    assert!(engine.store.durability(Epoch(1)).stored && !engine.store.durability(Epoch(1)).propagated);
    engine.shutdown();
}

#[test]
fn callers_are_told_of_stored_epochs_when_the_replica_stays_away_in_degrade_mode() {
    let closed = SocketAddr::from(([127, 0, 0, 1], crate::ports::free_port()));
    let dir = quick_dir();
    let mut engine = Engine::open(dir.path(), closed, SHORT, Mode::Degrade(Duration::from_millis(50)));
    engine.create_channel();
    engine.ready();
    engine.switch(1);
    engine.write(0, "k", 1);
    engine.switch(2);
    let deadline = Instant::now() + DEADLINE;
    while engine.store.notified_epoch() < Epoch(1) {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert!(engine.store.durability(Epoch(1)).degraded);
    engine.shutdown();
}

#[test]
fn intervals_without_the_replica_are_recorded_and_the_status_tells_of_the_link() {
    let (near, far) = (quick_dir(), quick_dir());
    let closed = SocketAddr::from(([127, 0, 0, 1], crate::ports::free_port()));
    let variables = [("ENDPOINT", format!("tcp://{closed}")), ("PROTOCOL", "upstream".to_owned())];
    let variables = variables.into_iter().chain([("MODE", "degrade 100".to_owned())]);
    let variables = variables.map(|(name, value)| (format!("TSURUGI_REPLICATION_{name}").into(), value.into()));
    let replication = ReplicationSettings::parse(variables).unwrap();
    let engine = engine::Engine::open(Settings::new(near.path()).commit(commits::as_told()), replication).unwrap();
    let store = engine.store();
    let channel = engine.create_channel().unwrap();
    engine.ready().unwrap();
    let wait_for = |wanted: &dyn Fn(&Status) -> bool| {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = engine.status();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    store.switch_epoch(Epoch(1)).unwrap();
    channel.begin_session().unwrap();
    channel.add_entry(StorageId(1), b"k", b"v", VERSION, &[]).unwrap();
    channel.end_session().unwrap();
    store.switch_epoch(Epoch(2)).unwrap();
    let lost = wait_for(&|status| status.degraded_since.is_some());
    assert_eq!((lost.state, lost.peer), (LinkState::Connecting, None));
    let going_on = degraded_intervals::load(store.vfs(), near.path()).unwrap();
    assert!(matches!(&going_on[..], [one] if one.first_epoch == 1 && one.last_epoch.is_none()), "{going_on:?}");
    assert!(going_on[0].reason.contains("refused"), "{going_on:?}");

    let mut replica = standby(far.path(), Some(closed));
    let back = wait_for(&|status| status.degraded_since.is_none());
    assert_eq!((back.state, back.peer), (LinkState::Streaming, Some(closed.to_string())));
    let over = degraded_intervals::load(store.vfs(), near.path()).unwrap();
    assert!(matches!(&over[..], [one] if one.last_epoch == Some(1) && one.duration_ms.is_some()), "{over:?}");
    engine.shutdown();
    replica.stop();
}

#[test]
fn a_living_replica_of_the_original_is_never_sent_a_channel_id_that_it_knows() {
    let taken = Arc::new(AtomicBool::new(false));
    let script_taken = taken.clone();
    let replica = StandIn::with(move |_, message| match message {
        Message::SessionBegin { .. } if script_taken.swap(true, SeqCst) => {
            Answer::Bytes([&[0x22, 1, 0, 10][..], &[0, 0, 0, 0]].concat())
        }
        Message::GroupCommit { .. } => Answer::Close,
        _ => Answer::Usual,
    });
    let dir = quick_dir();
    let engine = Engine::start(dir.path(), replica.address, SHORT, 1);
    engine.switch(1);
    engine.write(0, "k", 1);
    engine.switch(2);
    // Two channels, one of them log, and at least two attempts to come back.
    let all = replica.wait("attempts to connect again", |all| all.len() >= 4);
    let creations = all.iter().filter(|bytes| bytes.first() == Some(&0x10)).count();
    assert_eq!(creations, 1);
    engine.shutdown();
}

/// A replica of this project on `dir`, at `address` if it is given.
pub fn standby(dir: &Path, address: Option<SocketAddr>) -> Replica {
    let deadline = Instant::now() + DEADLINE;
    let listener = loop {
        let address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], crate::ports::free_port())));
        match TcpListener::bind(address) {
            Ok(listener) => break listener,
            Err(e) => assert!(Instant::now() < deadline, "{e}"),
        }
    };
    let store = StandbyStore::open_with(Arc::new(RealFs), dir, commits::as_told()).unwrap();
    Replica::start(listener, Arc::new(store), Options::default()).unwrap()
}

pub fn recovered(dir: &Path) -> Vec<Row> {
    crate::engine_run::start(dir, 1).unwrap().rows
}

/// The replica ends, after which the directories of both sides have so many rows, and the same.
pub fn end_alike(mut replica: Replica, [near, far]: [&Path; 2], rows: usize) {
    replica.stop();
    drop(replica);
    let found = recovered(near);
    assert_eq!(found.len(), rows);
    assert_eq!(recovered(far), found);
}

#[test]
fn both_sides_have_the_same_after_a_clean_end() {
    let (near, far) = (quick_dir(), quick_dir());
    let replica = standby(far.path(), None);
    let engine = Engine::start(near.path(), replica.address(), DEADLINE, 3);
    for epoch in 1..=20 {
        engine.switch(epoch);
        for channel in 0..3 {
            engine.write(channel, &format!("{channel}-{epoch}"), epoch);
        }
    }
    engine.switch(21);
    engine.wait_propagated(20);
    engine.shutdown();
    end_alike(replica, [near.path(), far.path()], 60);
}

#[test]
fn sessions_and_entries_of_any_size_and_blobs_arrive_as_they_are() {
    let (near, far) = (quick_dir(), quick_dir());
    let mut replica = standby(far.path(), None);
    let engine = Engine::start(near.path(), replica.address(), DEADLINE, 1);
    engine.switch(1);
    let pool = engine.store.blob_pool();
    let blobs = [vec![], vec![7; 1_000_000]].map(|data| pool.register_data(&data).unwrap());
    let channel = &engine.channels[0];
    channel.begin_session().unwrap();
    for i in 0..2000u32 {
        channel.add_entry(StorageId(1), &i.to_be_bytes(), &vec![b'x'; i as usize], VERSION, &[]).unwrap();
    }
    channel.add_entry(StorageId(1), b"huge", &vec![b'y'; 3 << 20], VERSION, &[]).unwrap();
    channel.add_entry(StorageId(1), b"blobs", b"", VERSION, &blobs).unwrap();
    channel.end_session().unwrap();
    engine.switch(2);
    engine.wait_propagated(1);
    pool.release();
    for (id, len) in blobs.iter().zip([0, 1_000_000]) {
        let (path, _) = engine.store.blobs().file(*id);
        let copy = far.path().join(path.strip_prefix(near.path()).unwrap());
        assert_eq!(std::fs::read(copy).unwrap(), vec![7; len]);
    }
    engine.shutdown();
    replica.stop();
    drop(replica);
    assert_eq!(recovered(far.path()).len(), 2002);
    assert!(recovered(far.path()) == recovered(near.path()), "the rows differ");
}

// SPDX-License-Identifier: Apache-2.0
//! What a replica makes of sessions, lost links, kills and strangers.

use crate::primary::{blob, connect, history, identity, Primary, UUID};
use crate::program::{status, status_when, take_over, Replica};
use limestone_core::replication::native::protocol::message::{Code, ConnectionKind, Message, Outcome};
use limestone_core::types::Epoch;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn rows(rows: &[(&str, &str)]) -> BTreeMap<String, String> {
    rows.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_is_there_after_a_takeover_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start(dir.path());
    let mut primary = Primary::connect(replica.address, 0, 2).unwrap();
    assert_eq!((primary.replica.outcome, primary.replica.durable), (Outcome::CatchUp, Epoch(0)));
    assert_eq!(primary.replica.uuid, "");
    primary.session(0, 1, "a", "1");
    primary.session(1, 1, "b", "1");
    primary.commit(1, 0);
    primary.durable(1);
    // Several epochs in flight, a large session in pieces, one beyond the last COMMIT, one unended.
    primary.session(1, 3, "c", "3");
    primary.pieces(0, 2, ("d", &"x".repeat(3000)), &[], 700, usize::MAX);
    primary.commit(2, 0);
    primary.commit(3, 0);
    primary.session(0, 4, "a", "4");
    primary.pieces(1, 4, ("b", &"y".repeat(3000)), &[], 700, 2);
    primary.durable(3);
    replica.kill();
    assert_eq!(status(dir.path()).0, 6, "nobody serves it");

    let replica = Replica::start(dir.path());
    let mut primary = Primary::connect(replica.address, 3, 1).unwrap();
    assert_eq!((primary.replica.outcome, primary.replica.durable), (Outcome::Stream, Epoch(3)));
    assert_eq!((primary.replica.uuid.as_str(), primary.replica.term), (UUID, 1));
    // The same epoch with other content.
    primary.session(0, 4, "e", "4");
    primary.commit(4, 0);
    primary.durable(4);
    primary.session(0, 5, "f", "5");
    let document = status_when(dir.path(), |status| status["lag"]["bytes"] != 0);
    assert_eq!((document["role"].as_str(), document["state"].as_str()), (Some("replica"), Some("streaming")));
    assert_eq!(document["propagated_epoch"], 4);
    let log = replica.stop();
    assert!(log.contains("tgreplica ends, durable epoch 4"), "{log}");
    assert_eq!(primary.error().unwrap().code, Code::SHUTDOWN);
    let (found, last) = take_over(dir.path());
    let long = "x".repeat(3000);
    assert_eq!(found, rows(&[("a", "1"), ("b", "1"), ("c", "3"), ("d", &long), ("e", "4")]));
    assert!(last >= 4, "epochs go on above the old ones");
}

#[test]
fn a_lost_link_leaves_only_what_is_durable_and_the_primary_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start(dir.path());
    for round in 1..=5 {
        let mut primary = Primary::connect(replica.address, round - 1, 2).unwrap();
        assert_eq!(primary.replica.durable, Epoch(round - 1));
        primary.session(0, round, &format!("kept{round}"), "x");
        primary.commit(round, 0);
        primary.durable(round);
        primary.session(1, round + 1, &format!("lost{round}"), "x");
        // Any connection of a session ends it.
        let lane = primary.lanes.pop();
        drop(lane);
        assert!(primary.error().is_none(), "the link is closed");
        status_when(dir.path(), |status| status["state"] == "connecting");
    }
    replica.stop();
    let kept: Vec<String> = (1..=5).map(|round| format!("kept{round}")).collect();
    assert_eq!(take_over(dir.path()).0.into_keys().collect::<Vec<_>>(), kept);
}

#[test]
fn an_epoch_waits_for_its_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start(dir.path());
    let mut primary = Primary::connect(replica.address, 0, 1).unwrap();
    let mut blobs = primary.blob_connection();
    primary.pieces(0, 1, ("k", "v"), &[107], 1 << 18, usize::MAX);
    primary.commit(1, 1);
    status_when(dir.path(), |status| status["lag"]["bytes"] != 0);
    assert_eq!(status(dir.path()).1["propagated_epoch"], 0);
    blobs.send(&blob(1, 107, b"content"));
    primary.durable(1);
    replica.stop();
    take_over(dir.path());
    let path = dir.path().join("blob/dir_07/000000000000006b.blob");
    assert_eq!(std::fs::read(path).unwrap(), b"content");
}

#[test]
fn a_primary_of_another_instance_or_history_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start(dir.path());
    // Whoever is refused is told first, so that this may be noted after the end of the session.
    let is_over = |status: &serde_json::Value| status["state"] == "connecting" || status["state"] == "refused";
    let mut primary = Primary::connect(replica.address, 0, 1).unwrap();
    primary.session(0, 5, "k", "v");
    primary.commit(5, 0);
    primary.durable(5);
    let second = Primary::connect(replica.address, 9, 1).err().unwrap();
    assert_eq!(second.code, Code::BUSY, "one primary at a time");
    primary.control.send(&Message::Bye);
    assert!(primary.error().is_none());
    status_when(dir.path(), is_over);
    let refused = |change: &dyn Fn(&mut limestone_core::replication::native::protocol::message::PrimaryIdentity)| {
        let mut identity = identity(9, 1);
        change(&mut identity);
        Primary::connect_as(replica.address, identity, &[]).err().expect("refused").code
    };
    assert_eq!(refused(&|it| it.uuid = "00000000-0000-4000-8000-000000000002".to_owned()), Code::WRONG_IDENTITY);
    assert_eq!(refused(&|it| it.stored = Epoch(4)), Code::DIVERGED);
    let later = |first_epoch| history(&[(1, 1, 0), (2, 2, first_epoch)]);
    assert_eq!(refused(&|it| (it.term, it.history) = (2, later(5))), Code::DIVERGED);
    assert_eq!(refused(&|it| it.history = history(&[(9, 1, 0)])), Code::DIVERGED, "the same numbers, another run");
    let tells = |status: &serde_json::Value| status["last_error"].as_str().is_some_and(|e| e.contains("diverged"));
    let document = status_when(dir.path(), tells);
    assert_eq!(document["state"], "refused", "{document}");
    // A takeover behind what this replica has is its own history; from then on the old primary is fenced.
    let mut identity = identity(9, 1);
    (identity.term, identity.history) = (2, later(6));
    let new = Primary::connect_as(replica.address, identity, &[]).unwrap();
    assert_eq!(refused(&|_| ()), Code::FENCED, "also while the new primary is connected");
    drop(new);
    status_when(dir.path(), is_over);
    assert_eq!(refused(&|_| ()), Code::FENCED);
    replica.stop();
}

#[test]
fn without_the_secret_nobody_learns_or_changes_anything() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().with_extension("secret");
    std::fs::write(&secret, "a secret of both sides\n").unwrap();
    let file = secret.to_str().unwrap();
    let mode = |mode| std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    let open = crate::program::run(
        &[dir.path().to_str().unwrap(), "--listen", "tcp://127.0.0.1:0", "--secret-file", file],
        &[],
    );
    assert_eq!(open.exit, 1);
    assert!(open.stderr.contains("chmod 600"), "{}", open.stderr);
    mode(0o600);
    let replica = Replica::start_with(dir.path(), &["--secret-file", file], &[]);
    for wrong in [&b"another secret of it"[..], b""] {
        let refused = Primary::connect_as(replica.address, identity(0, 1), wrong).err().unwrap();
        assert_eq!(refused.code, Code::BAD_SECRET);
    }
    drop(Primary::connect_as(replica.address, identity(0, 1), b"a secret of both sides").unwrap());
    replica.stop();
    std::fs::remove_file(secret).unwrap();
}

#[test]
fn garbage_and_silence_end_a_connection_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start_with(dir.path(), &[], &[("TSURUGI_REPLICATION_TIMEOUT_MS", "1000")]);
    let garbage: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", &[0; 100], b"\x89TSGRP\r\n\xff\xff\xff\xff", b"\x89TS"];
    for bytes in garbage {
        let mut stream = TcpStream::connect(replica.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(bytes).unwrap();
        // Refused or closed, at the latest at the end of the time for a handshake.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let stranger = connect(replica.address, ConnectionKind::Lane(0), [9; 16], &[], None).err().unwrap();
    assert_eq!(stranger.code, Code::UNKNOWN_SESSION);
    let mut primary = Primary::connect(replica.address, 0, 1).unwrap();
    primary.session(0, 1, "k", "v");
    primary.commit(1, 0);
    primary.durable(1);
    // A session that breaks the protocol is told so.
    primary.lanes[0].send(&Message::Commit { epoch: Epoch(1), blob_seq: 0 });
    assert_eq!(primary.error().unwrap().code, Code::PROTOCOL);
    // A primary that falls silent is lost.
    let mut primary = loop {
        match Primary::connect(replica.address, 1, 1) {
            Ok(primary) => break primary,
            Err(reason) => assert_eq!(reason.code, Code::BUSY),
        }
    };
    assert!(primary.error().is_none());
    let document = status_when(dir.path(), |status| status["state"] == "connecting");
    assert!(document["last_error"].as_str().unwrap().contains("nothing was heard"), "{document}");
    replica.stop();
    assert_eq!(take_over(dir.path()).0, rows(&[("k", "v")]));
}

#[test]
fn with_once_it_ends_with_the_first_session() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start_with(dir.path(), &["--once"], &[]);
    let mut primary = Primary::connect(replica.address, 0, 1).unwrap();
    primary.control.send(&Message::Bye);
    assert_eq!(replica.wait().0, Some(0));
    let replica = Replica::start_with(dir.path(), &["--once"], &[]);
    drop(Primary::connect(replica.address, 0, 1).unwrap());
    assert_eq!(replica.wait().0, Some(5));
}

#[test]
fn bye_counts_although_the_data_connections_are_closed_before_it_is_read() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::start_with(dir.path(), &["--once"], &[]);
        let mut primary = Primary::connect(replica.address, 0, 4).unwrap();
        primary.lanes.clear();
        std::thread::sleep(Duration::from_millis(20));
        primary.control.send(&Message::Bye);
        assert_eq!(replica.wait().0, Some(0));
    }
}

#[test]
fn an_epoch_that_the_primary_never_announces_is_not_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start_with(dir.path(), &[], &[("TSURUGI_REPLICATION_TIMEOUT_MS", "1000")]);
    let mut primary = Primary::connect(replica.address, 3, 1).unwrap();
    primary.session(0, 1 << 40, "k", "v");
    primary.lanes[0].send(&Message::Commit { epoch: Epoch(1 << 40), blob_seq: 0 });
    let reason = loop {
        match primary.control.receive().expect("the reason is told") {
            Message::Error(reason) => break reason,
            Message::Alive(alive) => {
                assert_eq!(alive.durable, Epoch(0));
                primary.heartbeat(3, None);
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason.code, Code::PROTOCOL);
    assert!(reason.text.contains("has stored 3 only"), "{reason}");
    replica.stop();
}

#[test]
fn a_thousand_strangers_do_not_fill_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start(dir.path());
    for number in 0..1000 {
        match number % 3 {
            0 => drop(connect(replica.address, ConnectionKind::Lane(0), [9; 16], &[], None)),
            1 => drop(connect(replica.address, ConnectionKind::Blob, [9; 16], &[], None)),
            _ => drop(TcpStream::connect(replica.address).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n")),
        }
    }
    let log = replica.stop();
    assert!(log.lines().count() < 50, "{} lines: {log}", log.lines().count());
}

// SPDX-License-Identifier: Apache-2.0
//! `tgreplica compare` of a replica with its primary, which is asked over their connection.

use crate::authority::{Authority, Wanted};
use crate::compare::{compare, find_value, flip, text};
use crate::pair::{Engine, Pair};
use crate::primary::{connect_in_version, identity, Primary};
use crate::program::{command, run, status_when, Replica, Run, DEADLINE};
use limestone_core::replication::native::protocol::message::{DigestMessage, DigestPiece, Message};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Compares, expects that it cannot be told, and gives the reason.
fn refused(dir: &Path) -> String {
    let begun = Instant::now();
    let (exit, found) = compare(&[text(dir)]);
    assert!(exit == 2 && begun.elapsed() < DEADLINE, "{found} after {:?}", begun.elapsed());
    found["error"].as_str().unwrap().to_owned()
}

fn begin(args: &[&str]) -> Child {
    let mut command = command(&[&["compare", "--json"], args].concat(), &[]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of a run; its exit code and what it printed.
fn wait(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_replica_is_compared_with_its_primary_while_both_run_and_a_flipped_bit_is_named() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "a secret of more than sixteen bytes").unwrap();
    let sealed = [("TSURUGI_REPLICATION_SECRET_FILE", text(secret.path()))];
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let replica = Replica::start_with(dirs[1].path(), &[], &sealed);
    let engine = Engine::start(dirs[0].path(), replica.address, &sealed);
    let mut pair = Pair { dirs, replica, engine };
    // So many ranges that the answer takes several pieces.
    pair.engine.write_keys((0..100_000).map(|n| format!("{n:0250}")));
    pair.engine.write(20, 50);
    pair.engine.propagated();
    let replica = pair.dirs[1].path().to_owned();
    let (stop, engine) = (AtomicBool::new(false), &mut pair.engine);
    let runs: Vec<Run> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                engine.write(1, 50);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let runs = (0..3).map(|_| run(&["compare", "--json", text(&replica)], &[])).collect();
        stop.store(true, SeqCst);
        runs
    });
    for Run { exit, stdout, stderr } in runs {
        assert_eq!(exit, 0, "{stdout}{stderr}");
        let found: Value = serde_json::from_str(&stdout).unwrap();
        assert!(found["same"] == true && found["entries"][0].as_u64() >= Some(100_045), "{found}");
        assert_eq!(found["entries"][0], found["entries"][1]);
        let primary = found["directories"][0].as_str().unwrap();
        assert_eq!(primary, format!("{} of the primary", pair.paths()[0]));
    }
    pair.engine.propagated();
    let (path, at) = find_value(&replica, b"5.1", &[b'v'; 50]);
    flip(&path, at);
    let (exit, found) = compare(&["--blobs", text(&replica)]);
    assert_eq!((exit, &found["same"]), (1, &Value::Bool(false)), "{found}");
    assert_eq!(found["differences"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!(found["differences"][0]["storage"], 1);
    // The session went on all the time.
    pair.engine.write(2, 50);
    pair.engine.propagated();
    pair.stop();
}

#[test]
fn the_question_goes_over_tls_as_well() {
    let (root, ca) = (tempfile::tempdir().unwrap(), Authority::new("the CA"));
    ca.equip(&root.path().join("tls"), Wanted { names: &["127.0.0.1"], serial: 1, ends_in_days: 10 });
    let path = |name: &str| root.path().join("tls").join(name).to_str().unwrap().to_owned();
    let (cert, key, authorities) = (path("cert.pem"), path("key.pem"), path("ca.pem"));
    let tls = [
        ("TSURUGI_REPLICATION_TLS_CERT", cert.as_str()),
        ("TSURUGI_REPLICATION_TLS_KEY", key.as_str()),
        ("TSURUGI_REPLICATION_TLS_CA", authorities.as_str()),
    ];
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let replica = Replica::start_with(dirs[1].path(), &[], &tls);
    let engine = Engine::start(dirs[0].path(), replica.address, &tls);
    let mut pair = Pair { dirs, replica, engine };
    pair.engine.write(10, 50);
    pair.engine.propagated();
    let (exit, found) = compare(&[pair.paths()[1]]);
    assert_eq!(exit, 0, "{found}");
    pair.stop();
}

#[test]
fn a_primary_that_is_too_old_or_away_is_named_at_once() {
    let pair = Pair::start(&[]);
    pair.engine.propagated();
    let error = refused(pair.dirs[0].path());
    assert!(error.contains("an engine serves"), "{error}");
    let dirs = pair.stop();
    let error = refused(dirs[1].path());
    assert!(error.contains("no tgreplica serves"), "{error}");

    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start(dir.path());
    let mut primary = Primary::connect(replica.address, 5, 1).unwrap();
    primary.session(0, 5, "k", "v");
    primary.commit(5, 0);
    primary.durable(5);
    drop(primary);
    status_when(dir.path(), |status| status["state"] == "connecting");
    let error = refused(dir.path());
    assert!(error.contains("no primary is connected"), "{error}");
    for version in [3, 4] {
        status_when(dir.path(), |status| status["state"] == "connecting");
        let mut older = connect_in_version(replica.address, version, &identity(5, 1));
        let error = refused(dir.path());
        let expected = format!("the primary speaks version {version} of the protocol");
        assert!(error.contains(&expected) && error.contains("update it"), "{error}");
        // It was told nothing that it does not know.
        older.send(&Message::Bye);
        while let Some(message) = older.receive() {
            assert!(matches!(message, Message::Alive(_)), "{message:?}");
        }
    }
    replica.stop();
}

#[test]
fn a_primary_that_says_nothing_something_else_or_goes_away_ends_the_question() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start_with(dir.path(), &[], &[("TSURUGI_REPLICATION_TIMEOUT_MS", "2000")]);
    let mut primary = Primary::connect(replica.address, 5, 1).unwrap();
    primary.session(0, 5, "k", "v");
    primary.commit(5, 0);
    primary.durable(5);
    let (mut child, mut asked) = (begin(&[text(dir.path())]), Vec::new());
    // It is there, and does not answer.
    while child.try_wait().unwrap().is_none() {
        match primary.control.receive().expect("the session goes on") {
            Message::Digest(message) => asked.push(message),
            Message::Alive(_) => primary.heartbeat(5, Some(5)),
            other => panic!("{other:?}"),
        }
    }
    let (exit, printed) = wait(child);
    assert!(exit == 2 && printed.contains("does not get on"), "{printed}");
    let DigestMessage::Want { number: 1, wanted } = &asked[0] else { panic!("{asked:?}") };
    assert!(wanted.epoch.0 == 5 && !wanted.with_blobs, "{wanted:?}");
    // And hears that it is over.
    while asked.len() < 2 {
        match primary.control.receive().expect("the session goes on") {
            Message::Digest(message) => asked.push(message),
            Message::Alive(_) => primary.heartbeat(5, Some(5)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(asked[1], DigestMessage::End { number: 1 });
    // What belongs to an earlier question counts for nothing, what is no digest is none, and a word for the operator
    // comes through.
    let piece = |number, bytes: &[u8]| {
        let piece = DigestPiece { offset: 0, last: true, bytes: bytes.to_vec() };
        Message::Digest(DigestMessage::Piece { number, piece })
    };
    let failed = |number| Message::Digest(DigestMessage::Failed { number, text: "not\nnow".to_owned() });
    for (number, answers, expected) in [
        (2, vec![failed(1), piece(2, b"{}")], "no document of tgreplica digest"),
        (3, vec![piece(2, b"{}"), failed(3)], r"the primary: not\\nnow"),
    ] {
        let child = begin(&[text(dir.path())]);
        loop {
            match primary.control.receive().expect("the session goes on") {
                Message::Digest(DigestMessage::Want { number: found, .. }) if found == number => break,
                Message::Digest(_) => {}
                Message::Alive(_) => primary.heartbeat(5, Some(5)),
                other => panic!("{other:?}"),
            }
        }
        answers.iter().for_each(|answer| primary.control.send(answer));
        let (exit, printed) = wait(child);
        assert!(exit == 2 && printed.contains(expected), "{printed}");
    }
    // A number that was never asked for breaks the protocol, and who goes ends the question.
    let child = begin(&[text(dir.path())]);
    while !matches!(primary.control.receive(), Some(Message::Digest(DigestMessage::Want { .. }))) {}
    primary.control.send(&piece(9, b"{}"));
    let (exit, printed) = wait(child);
    assert!(exit == 2 && printed.contains("has ended meanwhile"), "{printed}");
    replica.stop();
}

#[test]
fn a_slow_question_holds_nobody_up_and_is_over_with_the_program_that_asked() {
    let mut pair = Pair::start(&[]);
    pair.engine.write(30, 1 << 20);
    pair.engine.propagated();
    let replica = pair.dirs[1].path().to_owned();
    let mut child = begin(&["--mib-per-second", "1", text(&replica)]);
    std::thread::sleep(Duration::from_millis(500));
    pair.engine.write(2, 50);
    pair.engine.propagated();
    assert!(child.try_wait().unwrap().is_none(), "it reads 60 MiB and more in a minute");
    // SAFETY: the process is a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
    assert_eq!(wait(child).0, 2);
    // The primary stops working on it, and on the next one when that is killed.
    let child = begin(&["--mib-per-second", "1", text(&replica)]);
    std::thread::sleep(Duration::from_millis(500));
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGKILL) }, 0);
    child.wait_with_output().unwrap();
    let deadline = Instant::now() + DEADLINE;
    while let (2, found) = compare(&[text(&replica)]) {
        assert!(Instant::now() < deadline, "{found}");
    }
    // A shutdown of the primary does not wait for it, and neither does the replica's.
    let child = begin(&["--mib-per-second", "1", text(&replica)]);
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    let dirs = pair.stop();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(wait(child).0, 2);
    drop(dirs);
}

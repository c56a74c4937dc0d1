// SPDX-License-Identifier: Apache-2.0
//! Peers that are not what they should be, and links that break.

use super::pair::{content, free_port, replica, settings, Engine, PATIENCE};
use super::streaming::none;
use limestone_core::replication::native::protocol::frame::{
    read_frame, FrameKind, HEADER_LEN, MAGIC, PAYLOAD_BYTES_MAX, PIECE_BYTES_MAX,
};
use limestone_core::replication::net::deadline::Deadline;
use limestone_core::replication::net::listener;
use limestone_core::replication::secret::Secret;
use limestone_core::replication::settings::Endpoint;
use limestone_core::replication::status::LinkState;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

#[test]
fn a_replica_with_another_secret_is_refused_and_nothing_is_sent() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = primary.path().with_extension("secret");
    std::fs::write(&file, "the secret of the primary").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let given = [("SECRET_FILE", file.to_str().unwrap())];
    let server = replica(standby.path(), 0, &Secret::new(b"another secret of the replica").unwrap());
    let port = server.address().port();
    let mut engine = Engine::start(primary.path(), settings(port, &given));
    let epoch = engine.write(&["a"]);
    let status = engine.wait_state(LinkState::Refused);
    assert!(status.last_error.unwrap().contains("secret"));
    drop(server);
    let _server = replica(standby.path(), port, &Secret::new(b"the secret of the primary").unwrap());
    engine.wait_propagated(epoch);
    engine.shutdown();
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn the_replica_of_another_primary_is_refused() {
    let (first, second, standby) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = replica(standby.path(), 0, &none());
    let port = server.address().port();
    let mut engine = Engine::start(first.path(), settings(port, &[]));
    let epoch = engine.write(&["a"]);
    engine.wait_propagated(epoch);
    engine.shutdown();
    let mut other = Engine::start(second.path(), settings(port, &[]));
    other.write(&["b"]);
    let status = other.wait_state(LinkState::Refused);
    assert!(status.last_error.unwrap().contains("identity"));
    other.shutdown();
}

#[test]
fn a_peer_that_says_nothing_or_nonsense_holds_nobody_up() {
    let primary = tempfile::tempdir().unwrap();
    let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port: 0 };
    let listener = listener::listen(&endpoint).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut engine = Engine::start(primary.path(), settings(port, &[("TIMEOUT_MS", "300")]));
    let silent = listener::accept(&listener, Duration::from_secs(20)).unwrap().unwrap();
    for n in 0..20 {
        engine.write(&[&n.to_string()]);
    }
    // The silent one is given up, and the next attempt meets one that talks nonsense.
    let stream = listener::accept(&listener, Duration::from_secs(20)).unwrap().unwrap();
    let (_read, mut stream) = stream.split(Deadline::after(Duration::from_secs(20)));
    stream.write_all(&[0xff; 4096]).unwrap();
    let status = engine.wait_status(|status| status.last_error.as_ref().is_some_and(|e| e.contains("frame")));
    assert_eq!(status.state, LinkState::Refused, "{status:?}");
    drop((silent, stream, listener));
    let begun = Instant::now();
    engine.shutdown();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// A listener on loopback and its address as it stands in a setting.
fn listen() -> (std::net::TcpListener, String) {
    let listener = listener::listen(&Endpoint { host: "127.0.0.1".to_owned(), port: 0 }).unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    (listener, address)
}

/// The header of a Log frame as large as one may be, and nothing of its content.
fn large_log_frame() -> Vec<u8> {
    let mut bytes = (PIECE_BYTES_MAX as u32 + 1).to_le_bytes().to_vec();
    bytes.push(FrameKind::Log as u8);
    bytes.resize(HEADER_LEN, 0);
    bytes
}

#[test]
fn an_address_that_is_no_replica_does_not_hide_the_one_behind_it() {
    let (primary, other, strange, standby) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    // One is silent, one sends a byte now and then, one belongs to another primary.
    let (_silent, silent) = listen();
    let (drips, dripping) = listen();
    let strangers = replica(strange.path(), 0, &none());
    let mut its_primary = Engine::start(other.path(), settings(strangers.address().port(), &[]));
    let epoch = its_primary.write(&["x"]);
    its_primary.wait_propagated(epoch);
    its_primary.shutdown();
    let server = replica(standby.path(), 0, &none());
    let (given_up, is_given_up) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = drips.accept() {
            let given_up = given_up.clone();
            std::thread::spawn(move || {
                // The header of a Challenge, for ever.
                while stream.write_all(&[66]).is_ok() {
                    std::thread::sleep(Duration::from_millis(50));
                }
                let _ = given_up.send(());
            });
        }
    });
    let list = format!("{silent},{dripping},tcp://{},tcp://{}", strangers.address(), server.address());
    let mut engine = Engine::start(primary.path(), settings(0, &[("ENDPOINT", &list), ("TIMEOUT_MS", "800")]));
    let epoch = engine.write(&["a"]);
    engine.wait_propagated(epoch);
    assert_eq!(engine.status().peer, Some(server.address().to_string()));
    is_given_up.recv_timeout(PATIENCE).expect("the connection with the wrong one is closed");
    engine.wait_state(LinkState::Streaming);
    engine.shutdown();
}

#[test]
fn who_has_proved_nothing_gets_no_room_for_a_large_message() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = replica(standby.path(), 0, &none());
    let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
    stream.write_all(&[&MAGIC[..], &large_log_frame()].concat()).unwrap();
    let answer = read_frame(&mut stream, PAYLOAD_BYTES_MAX).unwrap().unwrap();
    let text = String::from_utf8_lossy(&answer.payload[2..]).into_owned();
    assert!(answer.kind == FrameKind::Refused && text.contains("expected 1 to 514"), "{text}");

    let (peer, address) = listen();
    let engine = Engine::start(primary.path(), settings(0, &[("ENDPOINT", &address)]));
    let connection = listener::accept(&peer, Duration::from_secs(20)).unwrap().unwrap();
    let (_read, mut write) = connection.split(Deadline::after(Duration::from_secs(20)));
    write.write_all(&large_log_frame()).unwrap();
    engine.wait_status(|status| status.last_error.as_ref().is_some_and(|e| e.contains("expected 1 to 514")));
    engine.shutdown();
}

#[test]
fn a_replica_that_restarts_at_any_time_has_everything_that_was_propagated() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let mut engine = Engine::start(primary.path(), settings(port, &[]));
    let mut server = Some(replica(standby.path(), port, &none()));
    for n in 0..120 {
        engine.write(&[&n.to_string(), "same"]);
        if n % 17 == 16 {
            drop(server.take());
            server = Some(replica(standby.path(), port, &none()));
        }
    }
    engine.wait_propagated(engine.store.last_epoch());
    engine.shutdown();
    drop(server);
    let (expected, found) = (content(primary.path()), content(standby.path()));
    assert_eq!(expected, found);
}

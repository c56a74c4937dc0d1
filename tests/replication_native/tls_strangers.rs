// SPDX-License-Identifier: Apache-2.0
//! Who comes to a side that speaks over TLS and is not the other side: without a certificate, with another program,
//! between the two, or without ever finishing what it begins.

use super::pair::{content, free_port, options, replica_with, Engine, PATIENCE};
use super::tls::{Place, HOST};
use limestone_core::replication::native::protocol::frame::MAGIC;
use limestone_core::replication::native::replica::{Options, Server};
use limestone_core::replication::net::deadline::{is_timeout, Deadline};
use limestone_core::replication::net::tls::Certificates;
use limestone_core::replication::net::{dial, listener};
use limestone_core::replication::secret::Secret;
use limestone_core::replication::settings::Endpoint;
use limestone_core::replication::status::LinkState;
use limestone_core::types::Durability;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn who_ends_the_connection_in_the_middle_hears_nothing() {
    let (place, other) = (Place::new(), Place::new());
    // He has certificates for the same name, of a CA of his own.
    let his = Certificates::open(other.files("replica")).unwrap();
    let listener = listener::listen(&Endpoint { host: HOST.to_owned(), port: 0 }).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (server, _) = place.replica(place.files("replica"), &Secret::default());
    let mut engine = place.engine(port, &[]);
    engine.write(&["a"]);
    let near = listener::accept(&listener, PATIENCE).unwrap().unwrap();
    let heard = his.accept(near, Deadline::after(PATIENCE));
    let heard = heard.unwrap_err().to_string();
    assert!(heard.contains("refuses"), "{heard}");
    let far = dial::connect(server.address(), PATIENCE).unwrap();
    let said = his.connect(far, HOST, Deadline::after(PATIENCE));
    let said = said.unwrap_err().to_string();
    assert!(said.contains("invalid peer certificate"), "{said}");
    engine.wait_state(LinkState::Refused);
    engine.shutdown();
}

/// A program of openssl whose output is read; `None` where there is none.
fn openssl(arguments: &[&str]) -> Option<Child> {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match command.spawn() {
        Ok(child) => Some(child),
        Err(e) => {
            // What a test that succeeds prints is not shown.
            let line = format!("NOT RUN: openssl cannot be started: {e}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            None
        }
    }
}

/// What `openssl s_client` says that connects to the replica with these arguments, as somebody who sends the magic.
fn client(place: &Place, server: &Server, arguments: &[&str]) -> Option<String> {
    let (address, ca) = (server.address().to_string(), place.files("primary").authorities);
    let common = ["s_client", "-connect", &address, "-verify_return_error", "-CAfile", ca.to_str().unwrap()];
    let mut client = openssl(&[&common[..], &["-verify_ip", HOST], arguments].concat())?;
    // Whoever was refused does not read it.
    let _ = client.stdin.take().unwrap().write_all(&MAGIC);
    let output = client.wait_with_output().unwrap();
    Some(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn openssl_as_a_client_comes_to_the_same_verdicts() {
    let place = Place::new();
    let (server, _) = place.replica(place.files("replica"), &Secret::default());
    let files = place.files("primary");
    let (certificate, key) = (files.certificate.to_str().unwrap(), files.key.to_str().unwrap());
    let with = ["-cert", certificate, "-key", key];
    let Some(accepted) = client(&place, &server, &with) else { return };
    assert!(accepted.contains("TLSv1.3") && accepted.contains("Verify return code: 0 (ok)"), "{accepted}");
    assert!(!accepted.contains("alert"), "{accepted}");
    let without = client(&place, &server, &["-ign_eof"]).unwrap();
    assert!(without.contains("certificate required"), "{without}");
    let older = client(&place, &server, &[&with[..], &["-tls1_2"]].concat()).unwrap();
    assert!(older.contains("protocol version") && older.contains("Cipher is (NONE)"), "{older}");
}

/// Ends the program whatever becomes of the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `openssl s_server` with these arguments hears as the replica, and why the engine cannot work with it.
fn served(place: &Place, arguments: &[&str]) -> Option<(Vec<u8>, String)> {
    let port = free_port();
    let (files, address) = (place.files("replica"), format!("{HOST}:{port}"));
    let [certificate, key, ca] =
        [&files.certificate, &files.key, &files.authorities].map(|path| path.to_str().unwrap());
    let common = ["s_server", "-quiet", "-accept", &address, "-cert", certificate, "-key", key, "-CAfile", ca];
    let common = [&common[..], &["-Verify", "1", "-verify_return_error"], arguments].concat();
    let mut server = Ending(openssl(&common)?);
    let mut output = server.0.stdout.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut heard = Vec::new();
        output.read_to_end(&mut heard).unwrap();
        heard
    });
    let engine = place.engine(port, &[]);
    let has_tried = |error: &String| !error.contains("cannot connect");
    let status = engine.wait_status(|status| status.last_error.as_ref().is_some_and(has_tried));
    engine.shutdown();
    drop(server);
    Some((reading.join().unwrap(), status.last_error.unwrap()))
}

#[test]
fn openssl_as_a_server_hears_what_a_replica_does_over_tls_1_3_only() {
    let place = Place::new();
    let Some((heard, error)) = served(&place, &[]) else { return };
    assert!(heard.starts_with(&MAGIC) && !error.contains("TLS"), "{error}: {heard:?}");
    let (heard, error) = served(&place, &["-tls1_2"]).unwrap();
    assert!(heard.is_empty() && error.contains("TLS"), "{error}: {heard:?}");
}

#[test]
fn a_peer_without_a_certificate_is_not_heard() {
    let place = Place::new();
    let (server, _) = place.replica(place.files("replica"), &Secret::default());
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls::pki_types::pem::PemObject::from_pem_file(place.files("primary").authorities).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let mut state = rustls::ClientConnection::new(Arc::new(config), HOST.try_into().unwrap()).unwrap();
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = rustls::Stream::new(&mut state, &mut socket);
    let answer = stream.write_all(&MAGIC).and_then(|()| stream.read(&mut [0]));
    assert!(answer.unwrap_err().to_string().contains("CertificateRequired"));
}

/// Passes on what comes, and changes the last byte of one piece that the primary sends, or the replica.
struct Meddler {
    address: SocketAddr,
    of_primary: Arc<AtomicBool>,
    of_replica: Arc<AtomicBool>,
}

impl Meddler {
    fn start(to: SocketAddr) -> Meddler {
        let listener = TcpListener::bind((HOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (of_primary, of_replica) = (Arc::new(AtomicBool::default()), Arc::new(AtomicBool::default()));
        let marks = (of_primary.clone(), of_replica.clone());
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let Ok(far) = TcpStream::connect(to) else { continue };
                pass(near.try_clone().unwrap(), far.try_clone().unwrap(), marks.0.clone());
                pass(far, near, marks.1.clone());
            }
        });
        Meddler { address, of_primary, of_replica }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, change: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(len @ 1..) = from.read(&mut piece) {
            if change.swap(false, SeqCst) {
                piece[len - 1] ^= 1;
            }
            if to.write_all(&piece[..len]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}

#[test]
fn what_is_changed_on_the_way_is_not_used() {
    let place = Place::new();
    let (server, _) = place.replica(place.files("replica"), &Secret::default());
    let meddler = Meddler::start(server.address());
    let mut engine = place.engine(meddler.address.port(), &[]);
    let first = engine.write(&["first"]);
    engine.wait_propagated(first);
    let told = |engine: &Engine| {
        let of_engine = engine.status().last_error.unwrap_or_default();
        [of_engine, server.status().last_error.unwrap_or_default()].join("; ")
    };
    for change in [&meddler.of_primary, &meddler.of_replica] {
        let deadline = Instant::now() + PATIENCE;
        change.store(true, SeqCst);
        while change.load(SeqCst) || !told(&engine).contains("TLS: cannot decrypt peer's message") {
            assert!(Instant::now() < deadline, "{}", told(&engine));
            let epoch = engine.write(&["same", "other"]);
            engine.store.wait_durable(epoch, Durability::Propagated, Some(Duration::from_millis(5))).unwrap();
        }
        let epoch = engine.write(&["last"]);
        engine.wait_propagated(epoch);
    }
    engine.shutdown();
    drop(server);
    assert_eq!(content(&place.data("primary")), content(&place.data("replica")));
}

/// Begins a TLS connection as far as somebody comes who has no certificate: all bytes of the first message.
fn first_message() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let mut state = rustls::ClientConnection::new(Arc::new(config), HOST.try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    state.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn who_does_not_finish_the_handshake_is_gone_after_the_time_out() {
    const TIMEOUT: Duration = Duration::from_millis(500);
    let place = Place::new();
    let tls = Some(Arc::new(Certificates::open(place.files("replica")).unwrap()));
    let server = replica_with(&place.data("replica"), 0, Options { tls, timeout: TIMEOUT, ..options() });
    let hello = first_message();
    for begins in [&hello[..], &hello[..20], &hello[..1]] {
        let mut socket = TcpStream::connect(server.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(begins).unwrap();
        let (mut dripping, rest) = (socket.try_clone().unwrap(), hello[begins.len()..].to_vec());
        let is_dripping = begins.len() == 1;
        let drip = std::thread::spawn(move || {
            for byte in rest.into_iter().filter(|_| is_dripping) {
                std::thread::sleep(TIMEOUT / 10);
                if dripping.write_all(&[byte]).is_err() {
                    break;
                }
            }
        });
        // What the replica says of itself comes, and then the end, of one kind or another.
        let end = io::copy(&mut socket, &mut io::sink());
        assert!(!end.is_err_and(|e| is_timeout(&e)), "the replica waits for ever");
        drip.join().unwrap();
    }
}

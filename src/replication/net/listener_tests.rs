// SPDX-License-Identifier: Apache-2.0
//! Strangers and the primary at one listener.

use super::*;
use crate::replication::net::deadline::Deadline;
use std::io::{Read, Write};
use std::net::TcpStream;

const LIMITS: Limits = Limits { known_max: 2, strangers_max: 3 };

/// Echoes one byte at a time to whoever sends a 1 first.
fn echo(connection: Connection, guest: &Guest) {
    let (mut read, mut write) = connection.split(Deadline::after(Duration::from_secs(30)));
    let mut byte = [0];
    if read.read_exact(&mut byte).is_err() || byte != [1] {
        return guest.turned_away("it does not say 1");
    }
    if let Err(reason) = guest.admit() {
        return guest.turned_away(reason);
    }
    while write.write_all(&byte).and_then(|()| read.read_exact(&mut byte)).is_ok() {}
}

fn start(limits: Limits) -> Listener {
    start_with(limits, |panic| panic!("{panic}"))
}

fn start_with(limits: Limits, panicked: impl FnOnce(&Error) + Send + 'static) -> Listener {
    let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port: 0 };
    Listener::start(listen(&endpoint).unwrap(), limits, echo, panicked).unwrap()
}

#[test]
fn whoever_listens_hears_that_the_thread_that_accepts_has_panicked_and_is_not_waited_for() {
    let (said, told) = std::sync::mpsc::channel();
    let mut listener = start_with(LIMITS, move |panic| said.send(panic.to_string()).unwrap());
    let known = connect(&listener);
    assert!(is_answered(&known, 1));
    listener.shared.panics.store(true, SeqCst);
    let panic = told.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(panic, "internal error: the thread that accepts connections panicked");
    assert!(is_answered(&known, 7), "who was accepted before is served on");
    listener.stop();
}

fn connect(listener: &Listener) -> TcpStream {
    let stream = TcpStream::connect(listener.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

fn is_answered(mut stream: &TcpStream, byte: u8) -> bool {
    let mut answer = [0];
    stream.write_all(&[byte]).and_then(|()| stream.read_exact(&mut answer)).is_ok() && answer == [byte]
}

#[test]
fn the_oldest_stranger_goes_when_another_comes_and_whoever_is_known_stays() {
    let listener = start(LIMITS);
    let known = connect(&listener);
    assert!(is_answered(&known, 1));
    let strangers: Vec<TcpStream> = std::iter::repeat_with(|| connect(&listener)).take(20).collect();
    let late = connect(&listener);
    assert!(is_answered(&late, 1));
    assert!(is_answered(&known, 7));
    assert_eq!((&strangers[0]).read(&mut [0]).unwrap(), 0, "the oldest stranger is sent away");
}

#[test]
fn more_known_ones_than_allowed_are_not_served() {
    let listener = start(LIMITS);
    let known = [connect(&listener), connect(&listener)];
    assert!(known.iter().all(|stream| is_answered(stream, 1)));
    assert!(!is_answered(&connect(&listener), 1));
    drop(known);
    // The places are free as soon as the ends were seen.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !is_answered(&connect(&listener), 1) {
        assert!(std::time::Instant::now() < deadline);
    }
}

#[test]
fn a_primary_gets_in_at_once_among_many_that_are_silent() {
    let listener = start(Limits { known_max: 4, strangers_max: 8 });
    let strangers: Vec<TcpStream> = std::iter::repeat_with(|| connect(&listener)).take(400).collect();
    let begun = std::time::Instant::now();
    assert!(is_answered(&connect(&listener), 1));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(listener.shared.guests.lock().open.len() <= 4 + 2 * 8);
    drop(strangers);
}

#[test]
fn stopping_ends_the_connections_and_their_threads() {
    let mut listener = start(LIMITS);
    let known = connect(&listener);
    assert!(is_answered(&known, 1));
    listener.stop();
    assert_eq!((&known).read(&mut [0]).unwrap(), 0);
    assert_eq!(Arc::strong_count(&listener.shared), 1);
}

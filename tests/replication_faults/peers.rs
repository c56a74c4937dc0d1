// SPDX-License-Identifier: Apache-2.0
//! Clients that are no primary, or not the one that is served.

use crate::nodes::{wait_until, Pair};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const MAGIC: [u8; 8] = *b"\x89TSGRP\r\n";

fn hostile_connections(pair: &Pair) -> Vec<TcpStream> {
    let shots: [Vec<u8>; 7] = [
        Vec::new(),
        MAGIC[..4].to_vec(),
        MAGIC.to_vec(),
        // A length that nobody can allocate.
        [&MAGIC[..], &[0xff; 40]].concat(),
        [&MAGIC[..], &[0; 21]].concat(),
        // Messages of the other protocol.
        vec![0x01, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![0x11, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
    ];
    let mut streams = Vec::new();
    for shot in shots.iter().cycle().take(70) {
        let mut stream = TcpStream::connect(pair.replica_address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The other side may have closed already.
        let _ = stream.write_all(shot);
        streams.push(stream);
    }
    streams
}

#[test]
fn hostile_clients_neither_stop_nor_fill_the_replica() {
    let pair = Pair::start("strict");
    pair.wait_for_propagated();
    let streams = hostile_connections(&pair);
    pair.wait_for_propagated();
    for mut stream in streams {
        let mut answer = Vec::new();
        // Closed by the replica, whatever it said first; never left open for ever.
        if let Err(e) = stream.read_to_end(&mut answer) {
            assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "not closed: {e}");
        }
        assert!(answer.len() < 2000, "{} bytes for nothing", answer.len());
    }
    pair.wait_for_propagated();
    pair.check();
}

#[test]
fn a_second_primary_does_not_disturb_the_first() {
    let pair = Pair::start("strict");
    pair.wait_for_propagated();
    let other = Pair::start("strict");
    other.wait_for_propagated();
    // The other primary now reaches the replica of the first one.
    let before = other.proxy.accepted();
    other.proxy.set_target(pair.replica_address());
    other.proxy.cut_all();
    wait_until("the other primary tries", || other.proxy.accepted() > before + 2);
    let propagated = other.journal().propagated;
    pair.wait_for_propagated();
    other.wait_for_stored();
    assert!(other.journal().propagated <= propagated + 5, "confirmed by a replica that has other data");
    pair.wait_for_propagated();
    pair.check();
    other.check();
}

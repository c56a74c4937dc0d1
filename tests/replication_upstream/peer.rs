// SPDX-License-Identifier: Apache-2.0
//! A primary by hand: sends what it is told and reads what comes back, with a deadline for every wait.

use limestone_core::replication::upstream::protocol::codec::{flag, Entry, Message};
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than anything that is waited for takes on a slow machine.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// One connection to a replica.
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    pub fn connect(address: SocketAddr) -> Peer {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { stream }
    }

    /// A log channel that has been acknowledged.
    pub fn log(address: SocketAddr, channel: u64) -> Peer {
        let mut peer = Peer::connect(address);
        peer.send(&Message::log_channel_create(channel));
        peer.expect_ack();
        peer
    }

    /// A control connection that has been acknowledged.
    pub fn control(address: SocketAddr) -> Peer {
        let mut peer = Peer::connect(address);
        peer.send(&Message::session_begin());
        assert_eq!(peer.receive(1)[0], 0x20);
        peer.receive(33);
        peer
    }

    pub fn send(&mut self, message: &Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.send_bytes(&bytes);
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Exactly this many bytes.
    pub fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    #[track_caller]
    pub fn expect_ack(&mut self) {
        assert_eq!(self.receive(2), [0x21, 0]);
    }

    /// What still comes until the replica closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => bytes,
            Err(e) => panic!("the replica neither answers nor closes: {e}"),
        }
    }

    #[track_caller]
    pub fn expect_closed(&mut self) {
        assert_eq!(self.rest(), b"", "closed without a reply");
    }

    /// Ends the connection and waits until the replica has taken note.
    pub fn end(mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self.rest();
    }

    pub fn begin(&mut self, epoch: u64) {
        self.send(&Message::LogEntry { epoch: Epoch(epoch), entries: vec![], flags: flag::BEGIN });
    }

    pub fn put(&mut self, epoch: u64, key: &str, value: &[u8]) {
        self.send(&Message::LogEntry { epoch: Epoch(epoch), entries: vec![entry(epoch, key, value)], flags: 0 });
    }

    /// Ends the session; the reply is left to the caller.
    pub fn send_end(&mut self, epoch: u64) {
        self.send(&Message::LogEntry { epoch: Epoch(epoch), entries: vec![], flags: flag::END | flag::FLUSH });
    }

    /// A whole session with one entry, acknowledged.
    pub fn session(&mut self, epoch: u64, key: &str) {
        self.begin(epoch);
        self.put(epoch, key, epoch.to_string().as_bytes());
        self.send_end(epoch);
        self.expect_ack();
    }

    pub fn commit(&mut self, epoch: u64) {
        self.send(&Message::GroupCommit { epoch: Epoch(epoch) });
        self.expect_ack();
    }
}

/// An upsert into storage 1.
pub fn entry(epoch: u64, key: &str, value: &[u8]) -> Entry {
    Entry {
        kind: 1,
        storage: StorageId(1),
        key: key.into(),
        value: value.to_vec(),
        version: WriteVersion { major: epoch, minor: 0 },
        blobs: vec![],
    }
}

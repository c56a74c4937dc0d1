// SPDX-License-Identifier: Apache-2.0
//! What must hold for any bytes that are read as a file of the data directory. One function per fuzz target; the same
//! functions replay the corpus in `tests/fuzz_corpus.rs`.
#![allow(dead_code)]

use limestone_core::replication::native::protocol::frame::{Frame, FrameKind, FrameReader, HEADER_LEN, TRAILER_LEN};
use limestone_core::replication::native::protocol::handshake::{PrimaryHandshake, ReplicaHandshake};
use limestone_core::replication::native::protocol::lane_order::LaneOrder;
use limestone_core::replication::native::protocol::message::{
    ConnectionKind, Message, Outcome, PrimaryIdentity, ReplicaIdentity,
};
use limestone_core::replication::native::protocol::primary_session::PrimarySession;
use limestone_core::replication::native::protocol::replica_session::ReplicaSession;
use limestone_core::replication::secret::Secret;
use limestone_core::replication::upstream::protocol::reader::{Budget, Reader};
use limestone_core::types::Epoch;
use limestone_core::wal::entry::{tag, Entry};
use limestone_core::wal::history::History;
use limestone_core::wal::scanner::{scan, Edit, Visitor};
use limestone_core::wal::{catalog, epoch_file, manifest};
use std::path::Path;

/// Bytes in front of the log file in an input of `scanner`: one of flags (1: older than end markers, 2: a rotated
/// file), then the durable epoch, little endian.
pub const SCANNER_HEADER: usize = 9;

/// Condenses the entries handed out, so that comparing two scans needs no memory.
#[derive(Debug, Default, PartialEq, Eq)]
struct Digest {
    entries: u64,
    payload: u64,
    sum: u64,
}

impl Visitor for Digest {
    fn entry(&mut self, offset: usize, entry: Entry<'_>) {
        self.entries += 1;
        self.sum = self.sum.wrapping_mul(31).wrapping_add(offset as u64);
        if let Entry::Put { key, value, blobs, .. } = entry {
            self.payload += (key.len() + value.len() + blobs.iter().count() * 8) as u64;
        }
    }
}

/// A log file: reading it again after the changes that a start makes finds the same entries and nothing to change,
/// also when the epochs seen have become durable.
pub fn scanner(input: &[u8]) {
    let Some((header, bytes)) = input.split_at_checked(SCANNER_HEADER) else {
        return;
    };
    let end_markers = header[0] & 1 == 0;
    let durable = Epoch(u64::from_le_bytes(header[1..].try_into().expect("eight bytes")));
    let path = Path::new(if header[0] & 2 == 0 { "pwal_0000" } else { "pwal_0000.00000000000001.0" });
    let mut first = Digest::default();
    let Ok(found) = scan(bytes, durable, end_markers, path, &mut first) else {
        return;
    };
    assert!(first.payload <= bytes.len() as u64, "more was handed out than the file holds");

    let mut after = bytes.to_vec();
    for edit in &found.edits {
        match *edit {
            Edit::Invalidate { offset } => {
                assert_eq!(after[offset], tag::BEGIN, "only a begin marker can be invalidated");
                after[offset] = tag::INVALIDATED;
            }
            Edit::Cut { offset } => after.truncate(offset),
            Edit::Confirm { .. } => panic!("a scan leaves it to the start what to confirm"),
            Edit::Void { .. } => panic!("only a repair makes an empty session of what never was one"),
        }
    }
    for durable in [durable, durable.max(found.max_epoch)] {
        let mut second = Digest::default();
        let again = scan(&after, durable, end_markers, path, &mut second).expect("a mended file is readable");
        assert_eq!(again.edits, [], "a mended file needs no change");
        assert_eq!(first, second, "the changes took entries away or brought some back");
    }
}

/// An epoch file: cutting it where it is torn changes nothing.
pub fn epoch_file(input: &[u8]) {
    let path = Path::new("epoch");
    let Ok(found) = epoch_file::parse(input, path) else {
        return;
    };
    if let Some(torn) = found.torn_at {
        let cut = epoch_file::parse(&input[..torn], path).expect("the whole records are readable");
        assert_eq!((cut.max, cut.torn_at), (found.max, None));
    }
}

/// A manifest: what is written for it is read back.
pub fn manifest(input: &[u8]) {
    let Ok(found) = manifest::parse(input) else { return };
    let migrated = found.migrated();
    assert!(migrated.is_supported());
    assert_eq!(manifest::parse(&migrated.encode()), Ok(migrated));
}

/// A catalog: what is written for it is read back.
pub fn catalog(input: &[u8]) {
    let Ok(found) = catalog::parse(input) else { return };
    assert_eq!(catalog::parse(&found.encode()), Ok(found));
}

/// A stream of the upstream protocol: what is read of it is written back byte by byte.
pub fn upstream_wire(input: &[u8]) {
    let mut reader = Reader::new(input, Budget::default());
    let mut left = input;
    let mut written = Vec::new();
    while let Ok(Some(message)) = reader.next_whole() {
        let rest: &[u8] = reader.input();
        let (read, _) = left.split_at(left.len() - rest.len());
        written.clear();
        message.encode(&mut written);
        assert_eq!(written, read, "{message:?}");
        left = rest;
    }
}

/// The largest payload that `native_wire` asks for; the bound of what may be allocated for a frame.
pub const NATIVE_PAYLOAD_MAX: u32 = 16 * 1024;

/// A stream of the native protocol: what is read of it is written back byte by byte, also when checksums are ignored,
/// and neither side's session logic trips over the messages.
pub fn native_wire(input: &[u8]) {
    let mut reader = FrameReader::new(input);
    let mut read = 0;
    while let Ok(Some(frame)) = reader.next(NATIVE_PAYLOAD_MAX) {
        let len = HEADER_LEN + frame.payload.len() + TRAILER_LEN;
        if let Ok(message) = Message::decode(frame) {
            let mut written = Vec::new();
            message.encode(&mut written);
            assert_eq!(written, input[read..read + len], "{message:?}");
        }
        read += len;
    }
    let mut peers = Peers::new();
    let mut rest = input;
    while let Some((frame, behind)) = unchecked_frame(rest) {
        let (kind, epoch, channel, payload) = (frame.kind, frame.epoch, frame.channel, frame.payload.clone());
        if let Ok(message) = Message::decode(frame) {
            let mut written = Vec::new();
            message.encode(&mut written);
            assert_eq!(written[4..HEADER_LEN], rest[4..HEADER_LEN], "{kind:?} {epoch} {channel}");
            assert_eq!(written[HEADER_LEN..written.len() - TRAILER_LEN], payload, "{message:?}");
            peers.take(message);
        }
        rest = behind;
    }
}

/// The frame at the start of `input`, whatever its checksum; the last one may be cut short.
fn unchecked_frame(input: &[u8]) -> Option<(Frame, &[u8])> {
    let (header, rest) = input.split_first_chunk::<HEADER_LEN>()?;
    let number = |at: usize, len: usize| header[at..at + len].iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte));
    let len = (number(0, 4) as usize).min(rest.len());
    let (payload, rest) = rest.split_at(len);
    let kind = FrameKind::from_code(header[4])?;
    let frame = Frame { kind, epoch: number(5, 8), channel: number(13, 4) as u32, payload: payload.to_vec() };
    Some((frame, rest.get(TRAILER_LEN..).unwrap_or_default()))
}

/// All that may receive a message of a peer.
struct Peers {
    primary_handshake: PrimaryHandshake,
    replica_handshake: ReplicaHandshake,
    primary: PrimarySession,
    replica: ReplicaSession,
    lane: LaneOrder,
}

impl Peers {
    fn new() -> Peers {
        let identity = PrimaryIdentity {
            uuid: String::new(),
            term: 1,
            history: History::default(),
            stored: Epoch(9),
            oldest_shippable: Epoch(1),
            lanes: 1,
            max_channels: 8,
            capabilities: 0,
        };
        let standing = ReplicaIdentity {
            uuid: String::new(),
            term: 1,
            history: History::default(),
            durable: Epoch(0),
            outcome: Outcome::CatchUp,
            max_channels: 8,
            directory: 0,
        };
        let (secret, kind) = (Secret::default(), ConnectionKind::Control);
        let (primary_handshake, _) =
            PrimaryHandshake::start(kind, [0; 16], [0; 32], secret.clone(), Some(identity.clone()));
        let mut replica = ReplicaSession::new([0; 16], &identity, (Outcome::CatchUp, Epoch(0)), 1000, 0);
        let lane = replica.attach([0; 16], ConnectionKind::Lane(0)).expect("a lane").expect("its order");
        let _ = replica.ask();
        Peers {
            primary_handshake,
            replica_handshake: ReplicaHandshake::new([0; 32], secret),
            primary: PrimarySession::new(Epoch(9), &standing, 1000, 0),
            replica,
            lane,
        }
    }

    fn take(&mut self, message: Message) {
        // Whatever they say, they say it without a panic; after an error nobody would ask them again.
        let _ = self.primary_handshake.on_message(message.clone());
        let _ = self.replica_handshake.on_message(message.clone());
        let _ = self.primary.on_control(message.clone(), 1);
        let _ = self.replica.on_control(message.clone(), 1);
        if let Message::Commit { epoch, blob_seq } = message {
            let _ = self.replica.lane_synced(0, epoch, blob_seq);
        }
        let _ = self.lane.on_message(message);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! A primary for tests: the connections of one session, message by message.

use crate::program::DEADLINE;
use limestone_core::replication::native::protocol::frame::{FrameReader, MAGIC, PAYLOAD_BYTES_MAX};
use limestone_core::replication::native::protocol::handshake::{PrimaryHandshake, PrimaryStep};
use limestone_core::replication::native::protocol::message::{
    BlobPiece, ConnectionKind, Hello, Log, Message, Outcome, PrimaryIdentity, Reason, ReplicaIdentity, SessionId,
    VERSION_USUAL,
};
use limestone_core::replication::native::protocol::proofs::Transcript;
use limestone_core::replication::native::protocol::seal::Seal;
use limestone_core::replication::secret::Secret;
use limestone_core::types::{BlobId, Epoch, StorageId, WriteVersion};
use limestone_core::wal::entry::{encode_end, encode_put, marker, tag};
use limestone_core::wal::history::{History, Run, RunId};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

pub const UUID: &str = "00000000-0000-4000-8000-000000000001";

/// One connection.
pub struct Connection {
    stream: TcpStream,
    frames: FrameReader<TcpStream>,
    seal: Option<Seal>,
}

/// Why there is no connection.
pub type Refused = Reason;

impl Connection {
    pub fn send(&mut self, message: &Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        if let Some(seal) = &mut self.seal {
            let mac = seal.mac(&[&bytes]);
            bytes.extend_from_slice(&mac);
        }
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next message; `None` when the replica has closed the connection.
    pub fn receive(&mut self) -> Option<Message> {
        match self.frames.next(PAYLOAD_BYTES_MAX) {
            Ok(frame) => frame.map(|frame| Message::decode(frame).unwrap()),
            Err(_) => None,
        }
    }
}

/// Runs by id, term and first epoch.
pub fn history(runs: &[(u128, u64, u64)]) -> History {
    let runs = runs.iter().map(|&(id, term, first_epoch)| Run { id: RunId(id), term, first_epoch });
    History::new(runs.collect(), false).unwrap()
}

/// What the primary says of itself.
pub fn identity(stored: u64, lanes: u32) -> PrimaryIdentity {
    PrimaryIdentity {
        uuid: UUID.to_owned(),
        term: 1,
        history: history(&[(1, 1, 0)]),
        stored: Epoch(stored),
        oldest_shippable: Epoch(0),
        lanes,
        max_channels: 100,
        capabilities: 0,
    }
}

pub fn connect(
    address: SocketAddr,
    kind: ConnectionKind,
    session_id: SessionId,
    secret: &[u8],
    identity: Option<PrimaryIdentity>,
) -> Result<(Connection, Option<ReplicaIdentity>), Refused> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&MAGIC).unwrap();
    let secret = if secret.is_empty() { Secret::default() } else { Secret::new(secret).unwrap() };
    let (mut handshake, hello) = PrimaryHandshake::start(kind, session_id, [3; 32], secret, identity);
    let frames = FrameReader::new(stream.try_clone().unwrap());
    let mut connection = Connection { stream, frames, seal: None };
    connection.send(&hello);
    loop {
        let message = connection.receive().expect("the handshake goes on");
        match handshake.on_message(message)? {
            PrimaryStep::Send(message) => {
                connection.send(&message);
                if let Some(seals) = handshake.seals() {
                    connection.seal = Some(seals.of_primary);
                    connection.frames.set_seal(Some(seals.of_replica));
                }
            }
            PrimaryStep::Accepted(replica) => return Ok((connection, replica)),
            PrimaryStep::Refused(reason) => return Err(reason),
        }
    }
}

/// A control connection without a secret, of a primary that speaks this version at the latest.
pub fn connect_in_version(address: SocketAddr, version: u16, identity: &PrimaryIdentity) -> Connection {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&MAGIC).unwrap();
    let frames = FrameReader::new(stream.try_clone().unwrap());
    let mut connection = Connection { stream, frames, seal: None };
    let hello = Hello {
        version_min: VERSION_USUAL,
        version_max: version,
        kind: ConnectionKind::Control,
        session_id: *uuid::Uuid::new_v4().as_bytes(),
        nonce: [3; 32],
    };
    connection.send(&Message::Hello(hello.clone()));
    let Some(Message::Challenge { version: spoken, nonce, .. }) = connection.receive() else { panic!("a challenge") };
    assert_eq!(spoken, version);
    let proof = Transcript::new(&hello, version, &nonce).primary_proof(&Secret::default(), Some(identity));
    connection.send(&Message::Identity { proof, primary: Some(identity.clone()) });
    assert!(matches!(connection.receive(), Some(Message::Answer { replica: Some(_) })));
    connection
}

/// A session with its lanes.
pub struct Primary {
    pub control: Connection,
    pub lanes: Vec<Connection>,
    pub replica: ReplicaIdentity,
    pub address: SocketAddr,
    pub session_id: SessionId,
    stored: u64,
}

impl Primary {
    pub fn connect(address: SocketAddr, stored: u64, lanes: u32) -> Result<Primary, Refused> {
        Primary::connect_as(address, identity(stored, lanes), &[])
    }

    pub fn connect_as(address: SocketAddr, identity: PrimaryIdentity, secret: &[u8]) -> Result<Primary, Refused> {
        let session_id = *uuid::Uuid::new_v4().as_bytes();
        let (lanes, stored) = (identity.lanes, identity.stored.0);
        let (control, replica) = connect(address, ConnectionKind::Control, session_id, secret, Some(identity))?;
        let replica = replica.expect("says who it is");
        let lanes = if replica.outcome == Outcome::BaseSync { 0 } else { lanes };
        let lanes = (0..lanes).map(|number| {
            let (mut lane, _) = connect(address, ConnectionKind::Lane(number), session_id, secret, None)?;
            lane.send(&Message::Channel { channel: number });
            Ok(lane)
        });
        let lanes = lanes.collect::<Result<_, Refused>>()?;
        Ok(Primary { control, lanes, replica, address, session_id, stored })
    }

    /// Sends a session with one entry, in pieces of at most `piece` bytes, and only `pieces` of them.
    pub fn pieces(&mut self, lane: usize, epoch: u64, entry: (&str, &str), blobs: &[u64], piece: usize, pieces: usize) {
        let bytes = session(epoch, entry.0, entry.1, blobs);
        let all: Vec<&[u8]> = bytes.chunks(piece).collect();
        for (at, bytes) in all.iter().enumerate().take(pieces) {
            let (first, last) = (at == 0, at + 1 == all.len());
            let log = Log { epoch: Epoch(epoch), channel: lane as u32, first, last, bytes: bytes.to_vec() };
            self.lanes[lane].send(&Message::Log(log));
        }
    }

    pub fn session(&mut self, lane: usize, epoch: u64, key: &str, value: &str) {
        self.pieces(lane, epoch, (key, value), &[], 1 << 18, usize::MAX);
    }

    pub fn commit(&mut self, epoch: u64, blob_seq: u64) {
        self.stored = self.stored.max(epoch);
        // What was announced before does not fall.
        self.heartbeat(self.stored, Some(epoch));
        for lane in &mut self.lanes {
            lane.send(&Message::Commit { epoch: Epoch(epoch), blob_seq });
        }
    }

    /// Tells of the epochs: what is stored, and which of them wrote last.
    pub fn heartbeat(&mut self, stored: u64, written: Option<u64>) {
        self.stored = self.stored.max(stored);
        let (stored, written) = (Epoch(stored), written.map(Epoch));
        self.control.send(&Message::Heartbeat { switched: stored, stored, written });
    }

    /// Waits until the replica has `epoch`, alive all the time.
    pub fn durable(&mut self, epoch: u64) {
        loop {
            let stored = Epoch(self.stored);
            match self.control.receive().expect("the session goes on") {
                Message::Durable { epoch: durable } if durable == Epoch(epoch) => return,
                Message::Durable { epoch: durable } => assert!(durable < Epoch(epoch), "{durable} was never sent"),
                Message::Alive(_) => self.heartbeat(stored.0, Some(self.stored)),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Why the replica ends the session.
    pub fn error(&mut self) -> Option<Reason> {
        loop {
            match self.control.receive()? {
                Message::Error(reason) => return Some(reason),
                Message::Alive(_) | Message::Durable { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn blob_connection(&self) -> Connection {
        connect(self.address, ConnectionKind::Blob, self.session_id, &[], None).unwrap().0
    }
}

/// The bytes of a session with one entry.
pub fn session(epoch: u64, key: &str, value: &str, blobs: &[u64]) -> Vec<u8> {
    let mut bytes = marker(tag::BEGIN, Epoch(epoch)).to_vec();
    let blobs: Vec<BlobId> = blobs.iter().map(|id| BlobId(*id)).collect();
    let version = WriteVersion { major: epoch, minor: 0 };
    encode_put(&mut bytes, StorageId(1), key.as_bytes(), value.as_bytes(), version, &blobs);
    encode_end(&mut bytes, Epoch(epoch));
    bytes
}

pub fn blob(seq: u64, id: u64, content: &[u8]) -> Message {
    Message::Blob(BlobPiece {
        seq,
        id: BlobId(id),
        size: content.len() as u64,
        offset: 0,
        last: true,
        crc: crc32fast::hash(content),
        bytes: content.to_vec(),
    })
}

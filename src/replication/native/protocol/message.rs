// SPDX-License-Identifier: Apache-2.0
//! The messages of the native protocol. How each fills a frame is in `encoding.rs`.

pub use super::digest_message::{DigestMessage, DigestPiece};
use super::frame::{FrameKind, NAME_BYTES_MAX};
pub use super::reason::{Code, Reason};
use crate::replication::secret::Proof;
use crate::types::{BlobId, Epoch, WriteVersion};
use crate::wal::history::History;
use std::fmt;

/// The version of the protocol that is spoken.
pub const VERSION: u16 = 5;
/// The first version in which a replica may ask what its primary has, see [`DigestMessage`].
pub const VERSION_DIGESTS: u16 = 5;
/// The oldest version that is spoken unless an older one is allowed: as this one, without digests and
/// [`Message::Reported`].
pub const VERSION_USUAL: u16 = 3;
/// The oldest version that can be allowed: as the one behind it, with frames that are never sealed. Version 1 compared
/// terms by their numbers, which proves nothing.
pub const VERSION_OLDEST: u16 = 2;
/// Most lanes of a session.
pub const LANES_MAX: u32 = 64;
/// Most log channels of a session.
pub const CHANNELS_MAX: u32 = 1 << 16;
/// Bytes of a session's name.
pub type SessionId = [u8; 16];
/// Bytes that are new in every handshake.
pub type Nonce = [u8; 32];

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnectionKind {
    /// Opens the session; acknowledgements and heartbeats.
    Control,
    /// Sessions of the channels pinned to the lane with this number.
    Lane(u32),
    /// BLOBs.
    Blob,
    /// A base sync.
    Base,
}

impl fmt::Display for ConnectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectionKind::Control => f.write_str("control"),
            ConnectionKind::Lane(lane) => write!(f, "lane {lane}"),
            ConnectionKind::Blob => f.write_str("blob"),
            ConnectionKind::Base => f.write_str("base"),
        }
    }
}

/// The first message of each connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The versions that the primary speaks.
    pub version_min: u16,
    pub version_max: u16,
    pub kind: ConnectionKind,
    /// The same on every connection of a session.
    pub session_id: SessionId,
    pub nonce: Nonce,
}

/// Who the primary is; on the control connection only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryIdentity {
    /// `instance_uuid` of the manifest.
    pub uuid: String,
    /// At least that of the last run.
    pub term: u64,
    /// Which run wrote which epochs.
    pub history: History,
    pub stored: Epoch,
    /// The oldest epoch of which all sessions are still in the log: a replica that has everything below it can catch
    /// up.
    pub oldest_shippable: Epoch,
    pub lanes: u32,
    /// Most log channels that the primary will announce.
    pub max_channels: u32,
    /// Bits; those that are not known here say nothing.
    pub capabilities: u64,
}

impl PrimaryIdentity {
    /// In `capabilities`: the primary was promoted, and others may have begun the same term.
    pub const TERM_UNKNOWN: u64 = 1;

    /// Whether others may have begun the primary's term as well: what the replica gets in this session does not count.
    pub fn is_unknown(&self) -> bool {
        self.capabilities & PrimaryIdentity::TERM_UNKNOWN != 0
    }
}

/// How a session goes on after the handshake of the control connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// The replica has all that is durable on the primary.
    Stream = 1,
    /// The primary sends what is missing from its log.
    CatchUp = 2,
    /// The log does not reach back far enough: the primary sends files.
    BaseSync = 3,
}

/// Who the replica is; on the control connection only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaIdentity {
    /// Empty when the replica has no data.
    pub uuid: String,
    /// The largest term that it has been told of.
    pub term: u64,
    /// Which run wrote which epochs, before it takes over that of the primary.
    pub history: History,
    pub durable: Epoch,
    pub outcome: Outcome,
    /// Most log channels that the replica takes.
    pub max_channels: u32,
    /// The identity of its directory; 0 for a replica that does not tell, as those of earlier programs.
    pub directory: u64,
}

/// A piece of a session: its bytes as they are on the primary's disk, from the begin to the end marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub epoch: Epoch,
    pub channel: u32,
    pub first: bool,
    pub last: bool,
    pub bytes: Vec<u8>,
}

/// A piece of a BLOB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobPiece {
    /// Counts the BLOBs of a session from 1, without gaps.
    pub seq: u64,
    pub id: BlobId,
    /// Bytes of the whole BLOB.
    pub size: u64,
    pub offset: u64,
    pub last: bool,
    /// CRC-32 of the whole BLOB in the last piece, else 0.
    pub crc: u32,
    pub bytes: Vec<u8>,
}

/// A file of a base sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Path relative to the data directory, components separated by `/`.
    pub name: String,
    pub size: u64,
    /// CRC-32 of the whole file.
    pub crc: u32,
}

/// What a replica says of itself now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive {
    pub durable: Epoch,
    /// Bytes of this session that came on its lane, BLOB and base connections.
    pub received: u64,
    /// How much of it has been synced; only that it grows has a meaning.
    pub synced: u64,
}

/// Every message of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Hello(Hello),
    Challenge {
        version: u16,
        nonce: Nonce,
        proof: Proof,
    },
    Identity {
        proof: Proof,
        primary: Option<PrimaryIdentity>,
    },
    Answer {
        replica: Option<ReplicaIdentity>,
    },
    Refused(Reason),
    Channel {
        channel: u32,
    },
    ChannelEnd {
        channel: u32,
    },
    Log(Log),
    Commit {
        epoch: Epoch,
        blob_seq: u64,
    },
    Sync,
    /// `written` is the last epoch up to `stored` that wrote anything, if the primary knows: a replica that has it
    /// lacks nothing.
    Heartbeat {
        switched: Epoch,
        stored: Epoch,
        written: Option<Epoch>,
    },
    /// The primary has told its engine that everything up to `epoch`, which wrote something, is as durable as it wants
    /// it to be: a replica that lacks it must not become a primary unless somebody decides so.
    Reported {
        epoch: Epoch,
    },
    Alive(Alive),
    Durable {
        epoch: Epoch,
    },
    Boundary {
        version: WriteVersion,
    },
    SafeSnapshot {
        version: WriteVersion,
    },
    Error(Reason),
    Bye,
    Blob(BlobPiece),
    Offer(Offer),
    Want {
        offset: u64,
    },
    Data {
        offset: u64,
        bytes: Vec<u8>,
    },
    FileEnd,
    Done {
        files: u64,
    },
    Staged,
    Digest(DigestMessage),
}

/// Whether a file of this name may be part of a base sync: relative, without `.` or `..`, of harmless characters.
pub fn is_base_name(name: &str) -> bool {
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.len() <= NAME_BYTES_MAX as usize
        && name.split('/').all(|part| !matches!(part, "" | "." | "..") && part.chars().all(harmless))
}

impl Message {
    /// The type of the frame that carries it.
    pub fn kind(&self) -> FrameKind {
        match self {
            Message::Hello(_) => FrameKind::Hello,
            Message::Challenge { .. } => FrameKind::Challenge,
            Message::Identity { .. } => FrameKind::Identity,
            Message::Answer { .. } => FrameKind::Answer,
            Message::Refused(_) => FrameKind::Refused,
            Message::Channel { .. } => FrameKind::Channel,
            Message::ChannelEnd { .. } => FrameKind::ChannelEnd,
            Message::Log(_) => FrameKind::Log,
            Message::Commit { .. } => FrameKind::Commit,
            Message::Sync => FrameKind::Sync,
            Message::Heartbeat { .. } => FrameKind::Heartbeat,
            Message::Reported { .. } => FrameKind::Reported,
            Message::Alive(_) => FrameKind::Alive,
            Message::Durable { .. } => FrameKind::Durable,
            Message::Boundary { .. } => FrameKind::Boundary,
            Message::SafeSnapshot { .. } => FrameKind::SafeSnapshot,
            Message::Error(_) => FrameKind::Error,
            Message::Bye => FrameKind::Bye,
            Message::Blob(_) => FrameKind::Blob,
            Message::Offer(_) => FrameKind::Offer,
            Message::Want { .. } => FrameKind::Want,
            Message::Data { .. } => FrameKind::Data,
            Message::FileEnd => FrameKind::FileEnd,
            Message::Done { .. } => FrameKind::Done,
            Message::Staged => FrameKind::Staged,
            Message::Digest(digest) => digest.kind(),
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The messages and their bytes: one type byte, then fields in big-endian order, no frame and no checksum. Pure:
//! values to bytes here, bytes to values in [`super::reader`].

use crate::types::{BlobId, Epoch, StorageId, WriteVersion};

/// The only version of the protocol that is spoken.
pub const VERSION: u64 = 2;
/// Log channel ids are below this.
pub const CHANNEL_IDS: u64 = 10_000;

/// First byte of a message.
pub mod kind {
    pub const SESSION_BEGIN: u8 = 0x01;
    pub const GROUP_COMMIT: u8 = 0x03;
    pub const BOUNDARY_SWITCH: u8 = 0x04;
    pub const LOG_CHANNEL_CREATE: u8 = 0x10;
    pub const LOG_ENTRY: u8 = 0x11;
    pub const SESSION_BEGIN_ACK: u8 = 0x20;
    pub const ACK: u8 = 0x21;
    pub const ERROR: u8 = 0x22;
    pub const RDMA_INIT: u8 = 0x30;
    pub const RDMA_INIT_ACK: u8 = 0x31;
}

/// Second byte of the messages that open a connection.
pub mod connection {
    pub const CONTROL: u8 = 0;
    pub const LOG: u8 = 1;
}

/// Second byte of a reply.
pub mod response {
    pub const POSITIVE: u8 = 0;
    pub const ERROR: u8 = 1;
}

/// Bits at the end of LOG_ENTRY.
pub mod flag {
    /// A session begins, before the entries of the message.
    pub const BEGIN: u8 = 0x01;
    /// The session ends, after the entries.
    pub const END: u8 = 0x02;
    /// The same as `END` for a receiver; a sender sets both.
    pub const FLUSH: u8 = 0x04;
}

/// Kinds of entries; they are the tags of the log file.
pub mod entry_kind {
    pub use crate::wal::entry::tag::{ADD_STORAGE, CLEAR_STORAGE, PUT, PUT_WITH_BLOBS, REMOVE, REMOVE_STORAGE};
}

/// Numbers of ERROR messages.
pub mod code {
    pub const UNEXPECTED_MESSAGE: u16 = 1;
    pub const CONTROL_TAKEN: u16 = 10;
    pub const UNSUPPORTED_VERSION: u16 = 13;
    pub const RDMA_ON_LOG: u16 = 100;
    pub const RDMA_FAILED: u16 = 101;
}

/// One message with all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Opens the control connection.
    SessionBegin { connection: u8, version: u64, configuration: Vec<u8>, epoch: Epoch },
    /// Everything of the epoch has been sent.
    GroupCommit { epoch: Epoch },
    /// Known by name; the original never sends it.
    BoundarySwitch { version: u16 },
    /// Opens a log connection.
    LogChannelCreate { connection: u8, channel: u64, secret: Vec<u8> },
    /// Entries of a session.
    LogEntry { epoch: Epoch, entries: Vec<Entry>, flags: u8 },
    /// The reply to SESSION_BEGIN.
    SessionBeginAck { secret: Vec<u8> },
    /// The reply to all else.
    Ack,
    /// A refusal.
    Error { code: u16, message: Vec<u8> },
    /// Asks for a transport that this project does not have.
    RdmaInit { slots: u32 },
    /// Its reply.
    RdmaInitAck { address: u64 },
}

/// One entry of a LOG_ENTRY message; every field is on the wire whatever the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: u8,
    pub storage: StorageId,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub version: WriteVersion,
    pub blobs: Vec<Blob>,
}

/// A BLOB with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    pub id: BlobId,
    pub data: Vec<u8>,
}

impl Message {
    /// SESSION_BEGIN as the original sends it.
    pub fn session_begin() -> Message {
        let connection = connection::CONTROL;
        Message::SessionBegin { connection, version: VERSION, configuration: Vec::new(), epoch: Epoch(0) }
    }

    /// LOG_CHANNEL_CREATE as the original sends it.
    pub fn log_channel_create(channel: u64) -> Message {
        Message::LogChannelCreate { connection: connection::LOG, channel, secret: Vec::new() }
    }

    /// Appends the bytes of the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::SessionBegin { connection, version, configuration, epoch } => {
                out.extend([kind::SESSION_BEGIN, *connection]);
                out.extend(version.to_be_bytes());
                put_string(out, configuration);
                out.extend(epoch.0.to_be_bytes());
            }
            Message::GroupCommit { epoch } => {
                out.push(kind::GROUP_COMMIT);
                out.extend(epoch.0.to_be_bytes());
            }
            Message::BoundarySwitch { version } => {
                out.push(kind::BOUNDARY_SWITCH);
                out.extend(version.to_be_bytes());
            }
            Message::LogChannelCreate { connection, channel, secret } => {
                out.extend([kind::LOG_CHANNEL_CREATE, *connection]);
                out.extend(channel.to_be_bytes());
                put_string(out, secret);
            }
            Message::LogEntry { epoch, entries, flags } => {
                put_log_head(out, *epoch, entries.len() as u32);
                for entry in entries {
                    let Entry { kind, storage, key, value, version, blobs } = entry;
                    put_entry_head(out, *kind, *storage, key, value, *version, blobs.len() as u32);
                    for blob in blobs {
                        put_blob_head(out, blob.id, blob.data.len() as u32);
                        out.extend(&blob.data);
                    }
                }
                out.push(*flags);
            }
            Message::SessionBeginAck { secret } => {
                out.extend([kind::SESSION_BEGIN_ACK, response::POSITIVE]);
                put_string(out, secret);
            }
            Message::Ack => out.extend([kind::ACK, response::POSITIVE]),
            Message::Error { code, message } => {
                out.extend([kind::ERROR, response::ERROR]);
                out.extend(code.to_be_bytes());
                put_string(out, message);
            }
            Message::RdmaInit { slots } => {
                out.push(kind::RDMA_INIT);
                out.extend(slots.to_be_bytes());
            }
            Message::RdmaInitAck { address } => {
                out.push(kind::RDMA_INIT_ACK);
                out.extend(address.to_be_bytes());
            }
        }
    }

    /// What a log line calls the message.
    pub fn name(&self) -> &'static str {
        match self {
            Message::SessionBegin { .. } => "SESSION_BEGIN",
            Message::GroupCommit { .. } => "GROUP_COMMIT",
            Message::BoundarySwitch { .. } => "GC_BOUNDARY_SWITCH",
            Message::LogChannelCreate { .. } => "LOG_CHANNEL_CREATE",
            Message::LogEntry { .. } => "LOG_ENTRY",
            Message::SessionBeginAck { .. } => "SESSION_BEGIN_ACK",
            Message::Ack => "COMMON_ACK",
            Message::Error { .. } => "COMMON_ERROR",
            Message::RdmaInit { .. } => "RDMA_INIT",
            Message::RdmaInitAck { .. } => "RDMA_INIT_ACK",
        }
    }
}

/// Appends what stands before the entries of a LOG_ENTRY message; the flags follow the entries.
pub fn put_log_head(out: &mut Vec<u8>, epoch: Epoch, entries: u32) {
    out.push(kind::LOG_ENTRY);
    out.extend(epoch.0.to_be_bytes());
    out.extend(entries.to_be_bytes());
}

/// Appends an entry up to its BLOBs. The lengths must fit 32 bits, as those of the log file do.
pub fn put_entry_head(
    out: &mut Vec<u8>,
    kind: u8,
    storage: StorageId,
    key: &[u8],
    value: &[u8],
    version: WriteVersion,
    blobs: u32,
) {
    out.reserve(37 + key.len() + value.len());
    out.push(kind);
    out.extend(storage.0.to_be_bytes());
    put_string(out, key);
    put_string(out, value);
    out.extend(version.major.to_be_bytes());
    out.extend(version.minor.to_be_bytes());
    out.extend(blobs.to_be_bytes());
}

/// Appends what stands before the content of a BLOB.
pub fn put_blob_head(out: &mut Vec<u8>, id: BlobId, len: u32) {
    out.extend(id.0.to_be_bytes());
    out.extend(len.to_be_bytes());
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

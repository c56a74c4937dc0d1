// SPDX-License-Identifier: Apache-2.0
//! Reads messages from any source of bytes. Counts and lengths from the wire are never trusted: memory grows with the
//! bytes that really came, entries and BLOBs are handed on one at a time, and what all connections of a process hold
//! at once is bounded by a [`Budget`].

use super::codec::{kind, response, Blob, Entry, Message};
use crate::types::{BlobId, Epoch, StorageId, WriteVersion};
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 16 << 10;
/// The strings that no log entry carries are short.
const NAME_BYTES_MAX: u32 = 64 << 10;
/// What the messages that are being read may hold together unless told otherwise: 1 GiB.
const BUDGET_BYTES: u64 = 1 << 30;

/// Why the stream cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection failed, or its deadline passed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// It ended inside a message.
    #[error("the connection ended inside a message of type {0:#04x}")]
    Ended(u8),
    /// No message starts with this byte, and none can be skipped.
    #[error("found a message of unknown type {0:#04x}")]
    UnknownType(u8),
    /// A reply contradicts itself.
    #[error("found response type {found} in a message of type {kind:#04x}, expected {expected}")]
    ResponseType { kind: u8, found: u8, expected: u8 },
    /// A marker of the log file in place of an entry.
    #[error("found entry type {0}, expected 1, 5, 7, 8, 9 or 10")]
    EntryType(u8),
    /// A string that no log entry carries is longer than any sensible one.
    #[error("found a string of {0} bytes, at most {NAME_BYTES_MAX} expected")]
    StringTooLong(u32),
    /// The messages of all connections hold as much as they may.
    #[error("the messages being received hold more than {0} bytes together")]
    OutOfBudget(u64),
}

/// How much the messages that are being read may hold together. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    held: AtomicU64,
    max: u64,
}

impl Budget {
    /// At most `max` bytes.
    pub fn new(max: u64) -> Budget {
        Budget(Arc::new(Shared { held: AtomicU64::new(0), max }))
    }
}

impl Default for Budget {
    fn default() -> Budget {
        Budget::new(BUDGET_BYTES)
    }
}

/// What one message has taken from the budget.
#[derive(Debug)]
struct Charge<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Charge<'_> {
    fn grow(&mut self, bytes: usize) -> Result<(), WireError> {
        let Shared { held, max } = &*self.budget.0;
        self.bytes += bytes as u64;
        if held.fetch_add(bytes as u64, Relaxed) + bytes as u64 > *max {
            return Err(WireError::OutOfBudget(*max));
        }
        Ok(())
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.budget.0.held.fetch_sub(self.bytes, Relaxed);
    }
}

/// Gets the entries of a LOG_ENTRY message in order; for each its BLOBs first.
pub trait EntrySink {
    /// Why it wants no more; [`WireError`] must fit in.
    type Error: From<WireError>;

    /// A BLOB of `size` bytes begins.
    fn blob(&mut self, id: BlobId, size: u32) -> Result<(), Self::Error>;
    /// The next bytes of that BLOB.
    fn blob_bytes(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
    /// All bytes of the BLOB have been given.
    fn blob_end(&mut self) -> Result<(), Self::Error>;
    /// The entry that the BLOBs belong to.
    fn entry(&mut self, entry: ReadEntry<'_>) -> Result<(), Self::Error>;
}

/// An entry as read.
#[derive(Clone, Copy, Debug)]
pub struct ReadEntry<'a> {
    pub kind: u8,
    pub storage: StorageId,
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub version: WriteVersion,
    pub blobs: &'a [BlobId],
}

/// The next message as far as it has been read.
#[derive(Debug)]
pub enum Incoming {
    /// A whole message, never a LOG_ENTRY.
    Message(Message),
    /// The beginning of a LOG_ENTRY: [`Reader::entries`] must follow.
    Log(LogHead),
}

/// What stands before the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHead {
    pub epoch: Epoch,
    pub entries: u32,
}

/// Reads messages from `input`, which should be buffered.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    budget: Budget,
    /// The type of the message being read.
    kind: u8,
}

impl<R: Read> Reader<R> {
    pub fn new(input: R, budget: Budget) -> Reader<R> {
        Reader { input, budget, kind: 0 }
    }

    /// The source of the bytes.
    pub fn input(&mut self) -> &mut R {
        &mut self.input
    }

    /// Gives it back.
    pub fn into_input(self) -> R {
        self.input
    }

    /// The next message; `None` when the connection ended between two.
    pub fn next_message(&mut self) -> Result<Option<Incoming>, WireError> {
        let mut first = [0];
        loop {
            match self.input.read(&mut first) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.kind = first[0];
        Ok(Some(Incoming::Message(match self.kind {
            kind::SESSION_BEGIN => Message::SessionBegin {
                connection: self.u8()?,
                version: self.u64()?,
                configuration: self.name()?,
                epoch: Epoch(self.u64()?),
            },
            kind::GROUP_COMMIT => Message::GroupCommit { epoch: Epoch(self.u64()?) },
            kind::BOUNDARY_SWITCH => Message::BoundarySwitch { version: u16::from_be_bytes(self.array()?) },
            kind::LOG_CHANNEL_CREATE => {
                Message::LogChannelCreate { connection: self.u8()?, channel: self.u64()?, secret: self.name()? }
            }
            kind::LOG_ENTRY => {
                return Ok(Some(Incoming::Log(LogHead { epoch: Epoch(self.u64()?), entries: self.u32()? })));
            }
            kind::SESSION_BEGIN_ACK => {
                self.response(response::POSITIVE)?;
                Message::SessionBeginAck { secret: self.name()? }
            }
            kind::ACK => {
                self.response(response::POSITIVE)?;
                Message::Ack
            }
            kind::ERROR => {
                self.response(response::ERROR)?;
                Message::Error { code: u16::from_be_bytes(self.array()?), message: self.name()? }
            }
            kind::RDMA_INIT => Message::RdmaInit { slots: self.u32()? },
            kind::RDMA_INIT_ACK => Message::RdmaInitAck { address: self.u64()? },
            unknown => return Err(WireError::UnknownType(unknown)),
        })))
    }

    /// The entries behind `head`, then the flags.
    pub fn entries<S: EntrySink>(&mut self, head: LogHead, sink: &mut S) -> Result<u8, S::Error> {
        let budget = self.budget.clone();
        let mut piece = Vec::new();
        for _ in 0..head.entries {
            let mut charge = Charge { budget: &budget, bytes: 0 };
            self.entry(sink, &mut piece, &mut charge)?;
        }
        Ok(self.u8()?)
    }

    fn entry<S: EntrySink>(
        &mut self,
        sink: &mut S,
        piece: &mut Vec<u8>,
        charge: &mut Charge<'_>,
    ) -> Result<(), S::Error> {
        let kind = self.u8()?;
        if matches!(kind, 0 | 2 | 3 | 4 | 6) {
            return Err(WireError::EntryType(kind).into());
        }
        let storage = StorageId(self.u64()?);
        let key = self.string(charge)?;
        let value = self.string(charge)?;
        let version = WriteVersion { major: self.u64()?, minor: self.u64()? };
        let mut blobs: Vec<BlobId> = Vec::new();
        for _ in 0..self.u32()? {
            let (id, size) = (BlobId(self.u64()?), self.u32()?);
            if blobs.len() == blobs.capacity() {
                charge.grow(size_of::<BlobId>() * blobs.len())?;
            }
            blobs.push(id);
            sink.blob(id, size)?;
            let mut left = size as usize;
            while left > 0 {
                piece.resize(left.min(PIECE_BYTES), 0);
                self.fill(piece)?;
                sink.blob_bytes(piece)?;
                left -= piece.len();
            }
            sink.blob_end()?;
        }
        sink.entry(ReadEntry { kind, storage, key: &key, value: &value, version, blobs: &blobs })
    }

    /// A key or a value. Only what exceeds one piece counts against the budget.
    fn string(&mut self, charge: &mut Charge<'_>) -> Result<Vec<u8>, WireError> {
        let len = self.u32()? as usize;
        let mut bytes = vec![0; len.min(PIECE_BYTES)];
        self.fill(&mut bytes)?;
        while bytes.len() < len {
            let more = (len - bytes.len()).min(bytes.len());
            charge.grow(more)?;
            let at = bytes.len();
            bytes.resize(at + more, 0);
            self.fill(&mut bytes[at..])?;
        }
        Ok(bytes)
    }

    fn name(&mut self) -> Result<Vec<u8>, WireError> {
        let len = self.u32()?;
        if len > NAME_BYTES_MAX {
            return Err(WireError::StringTooLong(len));
        }
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn response(&mut self, expected: u8) -> Result<(), WireError> {
        match self.u8()? {
            found if found == expected => Ok(()),
            found => Err(WireError::ResponseType { kind: self.kind, found, expected }),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), WireError> {
        self.input.read_exact(bytes).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => WireError::Ended(self.kind),
            _ => WireError::Io(e),
        })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// The next message with all its entries in memory: for tools and tests; a replica takes them one at a time.
    pub fn next_whole(&mut self) -> Result<Option<Message>, WireError> {
        let head = match self.next_message()? {
            None => return Ok(None),
            Some(Incoming::Message(message)) => return Ok(Some(message)),
            Some(Incoming::Log(head)) => head,
        };
        let mut collected = Collected::default();
        let flags = self.entries(head, &mut collected)?;
        Ok(Some(Message::LogEntry { epoch: head.epoch, entries: collected.entries, flags }))
    }
}

/// Keeps entries as they come.
#[derive(Default)]
struct Collected {
    entries: Vec<Entry>,
    blobs: Vec<Blob>,
}

impl EntrySink for Collected {
    type Error = WireError;

    fn blob(&mut self, id: BlobId, _size: u32) -> Result<(), WireError> {
        self.blobs.push(Blob { id, data: Vec::new() });
        Ok(())
    }

    fn blob_bytes(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        if let Some(blob) = self.blobs.last_mut() {
            blob.data.extend(bytes);
        }
        Ok(())
    }

    fn blob_end(&mut self) -> Result<(), WireError> {
        Ok(())
    }

    fn entry(&mut self, entry: ReadEntry<'_>) -> Result<(), WireError> {
        let ReadEntry { kind, storage, key, value, version, .. } = entry;
        let blobs = std::mem::take(&mut self.blobs);
        self.entries.push(Entry { kind, storage, key: key.to_vec(), value: value.to_vec(), version, blobs });
        Ok(())
    }
}

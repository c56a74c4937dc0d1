// SPDX-License-Identifier: Apache-2.0
//! A session of a log file as messages: one with the begin flag, one for each entry, one that ends and flushes; byte
//! for byte what the original sends.

use crate::blob::paths;
use crate::replication::upstream::protocol::codec::{self, entry_kind, flag, Message};
use crate::types::{BlobId, Epoch, StorageId, WriteVersion};
use crate::vfs::{Open, Vfs, VfsFile};
use crate::wal::entry::{self, Entry, Unreadable, MARKER_LEN};
use crate::wal::sessions::{Place, Step};
use std::io::{self, Write};
use std::path::Path;

/// Bytes that are read at a time; a larger entry takes more.
const PIECE_BYTES: usize = 256 << 10;

/// Where BLOBs are.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlobFiles<'a> {
    pub(super) vfs: &'a dyn Vfs,
    pub(super) root: &'a Path,
}

/// Why a session cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum EncodeError {
    /// The connection failed.
    #[error("{0}")]
    Send(io::Error),
    /// This side cannot read what it wrote.
    #[error("{0}")]
    Source(String),
}

/// The epoch of the session that begins at `start`.
pub(super) fn epoch_at(file: &dyn VfsFile, start: u64) -> Result<Epoch, EncodeError> {
    let mut marker = [0; MARKER_LEN];
    let read = file.read_at(start, &mut marker).map_err(|e| unreadable(start, &e.to_string()))?;
    match entry::decode(&marker[..read], 0) {
        Some(Ok((Entry::Begin(epoch) | Entry::Invalidated(epoch), _))) => Ok(epoch),
        _ => Err(unreadable(start, "a begin marker was expected")),
    }
}

/// Writes the session that begins at `start` of a log file in which whole sessions stand up to `end`; gives its length.
pub(super) fn send_session(
    file: &dyn VfsFile,
    start: u64,
    end: u64,
    blobs: BlobFiles<'_>,
    out: &mut impl Write,
) -> Result<u64, EncodeError> {
    let mut walk = Walk { file, at: start, end, bytes: Vec::new(), offset: 0 };
    let (mut message, mut place, mut epoch) = (Vec::new(), Place::default(), None);
    loop {
        message.clear();
        let at = walk.position();
        let (tag, entry, next) = walk.next()?;
        let mut done = false;
        match place.take(at as usize, entry, next as usize) {
            // A session that its writer has not synced yet may still have the mark of one that does not count.
            Ok(Step::Begin { session, unended: None }) => {
                epoch = Some(session.epoch);
                let begin = Message::LogEntry { epoch: session.epoch, entries: Vec::new(), flags: flag::BEGIN };
                begin.encode(&mut message);
            }
            Ok(Step::End { session, .. }) => {
                let flags = flag::END | flag::FLUSH;
                Message::LogEntry { epoch: session.epoch, entries: Vec::new(), flags }.encode(&mut message);
                done = true;
            }
            Ok(Step::Entry(entry)) => put_entry(&mut message, epoch.unwrap_or_default(), tag, entry, blobs, out)?,
            Ok(Step::Begin { .. } | Step::Mark { .. }) | Err(_) => {
                return Err(unreadable(at, &format!("found {entry:?}")));
            }
        }
        out.write_all(&message).map_err(EncodeError::Send)?;
        if done {
            out.flush().map_err(EncodeError::Send)?;
            return Ok(walk.position() - start);
        }
    }
}

fn put_entry(
    message: &mut Vec<u8>,
    epoch: Epoch,
    tag: u8,
    entry: Entry<'_>,
    blobs: BlobFiles<'_>,
    out: &mut impl Write,
) -> Result<(), EncodeError> {
    match entry {
        Entry::Put { storage, key, version, value, blobs: ids } => {
            put_head(message, epoch, tag, storage, key, value, version, ids.iter().count());
            for id in ids.iter() {
                send_blob(blobs, id, message, out)?;
            }
        }
        Entry::Remove { storage, key, version } => {
            put_head(message, epoch, tag, storage, key, &[], version, 0);
        }
        Entry::ClearStorage { storage, version } | Entry::AddStorage { storage, version } => {
            put_head(message, epoch, tag, storage, &[], &[], version, 0);
        }
        // Those are no entries of a session.
        Entry::Begin(_) | Entry::Invalidated(_) | Entry::End(_) | Entry::Durable(_) => return Ok(()),
    }
    message.push(0);
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn put_head(
    out: &mut Vec<u8>,
    epoch: Epoch,
    tag: u8,
    storage: StorageId,
    key: &[u8],
    value: &[u8],
    version: WriteVersion,
    blobs: usize,
) {
    debug_assert!(tag != entry_kind::PUT || blobs == 0);
    codec::put_log_head(out, epoch, 1);
    codec::put_entry_head(out, tag, storage, key, value, version, blobs as u32);
}

fn send_blob(blobs: BlobFiles<'_>, id: BlobId, message: &mut Vec<u8>, out: &mut impl Write) -> Result<(), EncodeError> {
    let path = paths::file(blobs.root, id);
    let failed = |e: io::Error| EncodeError::Source(format!("cannot read BLOB {id} from {}: {e}", path.display()));
    let file = blobs.vfs.open(&path, Open::Read).map_err(failed)?;
    let len = file.len().map_err(failed)?;
    let Ok(size) = u32::try_from(len) else {
        let message = format!("BLOB {id} has {len} bytes, the upstream protocol carries at most {}", u32::MAX);
        return Err(EncodeError::Source(message));
    };
    codec::put_blob_head(message, id, size);
    out.write_all(message).map_err(EncodeError::Send)?;
    message.clear();
    let mut piece = vec![0; PIECE_BYTES.min(size as usize)];
    let mut at = 0;
    while at < len {
        let wanted = (len - at).min(piece.len() as u64) as usize;
        let read = file.read_at(at, &mut piece[..wanted]).map_err(failed)?;
        if read == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        out.write_all(&piece[..read]).map_err(EncodeError::Send)?;
        at += read as u64;
    }
    Ok(())
}

fn unreadable(at: u64, what: &str) -> EncodeError {
    EncodeError::Source(format!("the session at offset {at} of a log file cannot be read back: {what}"))
}

/// Goes through the entries of a file in pieces.
struct Walk<'a> {
    file: &'a dyn VfsFile,
    /// Where `bytes` begins in the file.
    at: u64,
    end: u64,
    bytes: Vec<u8>,
    offset: usize,
}

impl Walk<'_> {
    fn position(&self) -> u64 {
        self.at + self.offset as u64
    }

    /// The next entry with its tag and the offset behind it.
    fn next(&mut self) -> Result<(u8, Entry<'_>, u64), EncodeError> {
        loop {
            match entry::decode(&self.bytes, self.offset) {
                Some(Ok((_, next))) => {
                    let begin = std::mem::replace(&mut self.offset, next);
                    // Decoded once more for the borrow checker: cheap, and only what points into `bytes` is built.
                    return match entry::decode(&self.bytes, begin) {
                        Some(Ok((entry, _))) => Ok((self.bytes[begin], entry, self.at + next as u64)),
                        _ => Err(unreadable(self.at, "an entry was expected")),
                    };
                }
                None | Some(Err(Unreadable::Short(_))) => self.read_more()?,
                Some(Err(Unreadable::Unknown(tag))) => {
                    return Err(unreadable(self.position(), &format!("found tag {tag:#04x}")));
                }
            }
        }
    }

    /// Drops what was handed out and reads on; an entry larger than a piece makes it grow.
    fn read_more(&mut self) -> Result<(), EncodeError> {
        self.bytes.drain(..self.offset);
        self.at += self.offset as u64;
        self.offset = 0;
        let have = self.bytes.len();
        let from = self.at + have as u64;
        let wanted = (self.end.saturating_sub(from)).min(PIECE_BYTES.max(have) as u64) as usize;
        self.bytes.resize(have + wanted, 0);
        let read = self.file.read_at(from, &mut self.bytes[have..]).map_err(|e| unreadable(from, &e.to_string()))?;
        self.bytes.truncate(have + read);
        match read {
            0 => Err(unreadable(self.at, "it ends without an end marker")),
            _ => Ok(()),
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Encoding and decoding of one entry (disk format §2). Integers are little endian; there is no padding and no
//! checksum.

use crate::types::{BlobId, Epoch, StorageId, WriteVersion};

/// First byte of every entry.
pub mod tag {
    pub const PUT: u8 = 0x01;
    pub const BEGIN: u8 = 0x02;
    pub const END: u8 = 0x03;
    pub const DURABLE: u8 = 0x04;
    pub const REMOVE: u8 = 0x05;
    pub const INVALIDATED: u8 = 0x06;
    pub const CLEAR_STORAGE: u8 = 0x07;
    pub const ADD_STORAGE: u8 = 0x08;
    pub const REMOVE_STORAGE: u8 = 0x09;
    pub const PUT_WITH_BLOBS: u8 = 0x0a;
}

/// Bytes of a begin, invalidated or durable-epoch marker.
pub const MARKER_LEN: usize = 9;
/// Bytes of an end marker.
pub const END_LEN: usize = 10;
/// The only value of the last byte of an end marker that is written: no checksum follows.
pub const END_PLAIN: u8 = 1;

/// One decoded entry; keys and values point into the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    Begin(Epoch),
    Invalidated(Epoch),
    End(Epoch),
    Durable(Epoch),
    Put {
        storage: StorageId,
        key: &'a [u8],
        version: WriteVersion,
        value: &'a [u8],
        blobs: BlobList<'a>,
    },
    Remove {
        storage: StorageId,
        key: &'a [u8],
        version: WriteVersion,
    },
    /// Clearing and removing a storage hide the same entries (§6.1).
    ClearStorage {
        storage: StorageId,
        version: WriteVersion,
    },
    AddStorage {
        storage: StorageId,
        version: WriteVersion,
    },
}

/// The BLOB ids of an entry, still encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobList<'a>(&'a [u8]);

impl<'a> BlobList<'a> {
    pub fn iter(self) -> impl Iterator<Item = BlobId> + 'a {
        self.0.as_chunks().0.iter().map(|&id| BlobId(u64::from_le_bytes(id)))
    }
}

/// Why no entry could be decoded; both carry the tag byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The file ends inside the entry.
    Short(u8),
    /// No entry starts with this byte.
    Unknown(u8),
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Hands out consecutive pieces of the bytes behind a tag.
struct Fields<'a> {
    rest: &'a [u8],
    tag: u8,
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Unreadable> {
        if len > self.rest.len() {
            return Err(Unreadable::Short(self.tag));
        }
        let (piece, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(piece)
    }

    fn u32(&mut self) -> Result<usize, Unreadable> {
        Ok(u32_at(self.take(4)?, 0) as usize)
    }

    fn u64(&mut self) -> Result<u64, Unreadable> {
        Ok(u64_at(self.take(8)?, 0))
    }

    fn storage(&mut self) -> Result<StorageId, Unreadable> {
        Ok(StorageId(self.u64()?))
    }

    fn version(&mut self) -> Result<WriteVersion, Unreadable> {
        Ok(WriteVersion { major: self.u64()?, minor: self.u64()? })
    }
}

/// Decodes the entry at `offset` and returns it with the offset behind it; `None` at the end of the bytes.
#[inline]
pub fn decode(bytes: &[u8], offset: usize) -> Option<Result<(Entry<'_>, usize), Unreadable>> {
    let (&tag, rest) = bytes.get(offset..)?.split_first()?;
    let mut fields = Fields { rest, tag };
    Some(fields.entry().map(|entry| (entry, bytes.len() - fields.rest.len())))
}

impl<'a> Fields<'a> {
    #[inline]
    fn entry(&mut self) -> Result<Entry<'a>, Unreadable> {
        Ok(match self.tag {
            tag::PUT | tag::PUT_WITH_BLOBS => {
                let (key_len, value_len) = (self.u32()?, self.u32()?);
                let storage = self.storage()?;
                let key = self.take(key_len)?;
                let version = self.version()?;
                let value = self.take(value_len)?;
                let blobs = match self.tag {
                    tag::PUT_WITH_BLOBS => {
                        let count = self.u32()?;
                        BlobList(self.take(count * 8)?)
                    }
                    _ => BlobList::default(),
                };
                Entry::Put { storage, key, version, value, blobs }
            }
            tag::REMOVE => {
                let key_len = self.u32()?;
                let storage = self.storage()?;
                let key = self.take(key_len)?;
                Entry::Remove { storage, key, version: self.version()? }
            }
            tag::CLEAR_STORAGE | tag::REMOVE_STORAGE => {
                Entry::ClearStorage { storage: self.storage()?, version: self.version()? }
            }
            tag::ADD_STORAGE => Entry::AddStorage { storage: self.storage()?, version: self.version()? },
            tag::BEGIN => Entry::Begin(Epoch(self.u64()?)),
            tag::INVALIDATED => Entry::Invalidated(Epoch(self.u64()?)),
            tag::DURABLE => Entry::Durable(Epoch(self.u64()?)),
            tag::END => {
                let epoch = Epoch(self.u64()?);
                // The checksum type is read and not looked at (§2.1).
                self.take(1)?;
                Entry::End(epoch)
            }
            unknown => return Err(Unreadable::Unknown(unknown)),
        })
    }
}

/// Storage id and write version.
const STORAGE_AND_VERSION_LEN: u64 = 8 + 16;

/// Follows entries whose bytes arrive in pieces. Memory is constant, whatever lengths they claim.
#[derive(Debug, Default)]
pub struct Pieces {
    /// The first bytes of an entry, up to where its lengths are known; or its number of BLOBs.
    head: [u8; END_LEN],
    have: usize,
    /// Bytes still to come before anything else is looked at.
    skip: u64,
    /// Behind those comes the number of BLOBs.
    count_follows: bool,
}

/// An entry of which the last byte has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Begin(Epoch),
    Invalidated(Epoch),
    /// With its last byte.
    End(Epoch, u8),
    Durable(Epoch),
    /// An entry of a session.
    Data,
}

impl Pieces {
    /// Takes bytes up to the end of an entry, or all of them when there is no end. The error is the tag that no entry
    /// has.
    pub fn feed(&mut self, bytes: &mut &[u8]) -> Result<Option<Seen>, u8> {
        loop {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() as u64);
                *bytes = &bytes[skipped as usize..];
                self.skip -= skipped;
                match (self.skip, self.count_follows) {
                    (0, false) => return Ok(Some(Seen::Data)),
                    (0, true) => {}
                    _ => return Ok(None),
                }
            }
            let Some(&next) = bytes.first() else {
                return Ok(None);
            };
            let needed = self.needed(if self.have > 0 { self.head[0] } else { next })?;
            let taken = (needed - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            *bytes = &bytes[taken..];
            if self.have == needed {
                self.have = 0;
                if let Some(seen) = self.complete() {
                    return Ok(Some(seen));
                }
            }
        }
    }

    /// Bytes to collect before anything is known.
    fn needed(&self, first: u8) -> Result<usize, u8> {
        Ok(match first {
            _ if self.count_follows => 4,
            tag::PUT | tag::PUT_WITH_BLOBS => 1 + 4 + 4,
            tag::REMOVE => 1 + 4,
            tag::CLEAR_STORAGE | tag::ADD_STORAGE | tag::REMOVE_STORAGE => 1,
            tag::BEGIN | tag::INVALIDATED | tag::DURABLE => MARKER_LEN,
            tag::END => END_LEN,
            unknown => return Err(unknown),
        })
    }

    /// What the collected bytes say; `None` when more of the entry comes.
    fn complete(&mut self) -> Option<Seen> {
        let len_at = |at| u64::from(u32::from_le_bytes(self.head[at..at + 4].try_into().expect("four bytes")));
        if self.count_follows {
            self.count_follows = false;
            self.skip = len_at(0) * 8;
            return (self.skip == 0).then_some(Seen::Data);
        }
        let epoch = Epoch(u64_at(&self.head, 1));
        match self.head[0] {
            tag::BEGIN => return Some(Seen::Begin(epoch)),
            tag::INVALIDATED => return Some(Seen::Invalidated(epoch)),
            tag::DURABLE => return Some(Seen::Durable(epoch)),
            tag::END => return Some(Seen::End(epoch, self.head[MARKER_LEN])),
            tag::PUT | tag::PUT_WITH_BLOBS => self.skip = STORAGE_AND_VERSION_LEN + len_at(1) + len_at(5),
            tag::REMOVE => self.skip = STORAGE_AND_VERSION_LEN + len_at(1),
            _ => self.skip = STORAGE_AND_VERSION_LEN,
        }
        self.count_follows = self.head[0] == tag::PUT_WITH_BLOBS;
        None
    }
}

/// A begin, invalidated or durable-epoch marker.
pub fn marker(tag: u8, epoch: Epoch) -> [u8; MARKER_LEN] {
    let mut bytes = [tag; MARKER_LEN];
    bytes[1..].copy_from_slice(&epoch.0.to_le_bytes());
    bytes
}

/// Appends an end marker.
pub fn encode_end(out: &mut Vec<u8>, epoch: Epoch) {
    out.extend_from_slice(&marker(tag::END, epoch));
    out.push(END_PLAIN);
}

fn encode_version(out: &mut Vec<u8>, version: WriteVersion) {
    out.extend_from_slice(&version.major.to_le_bytes());
    out.extend_from_slice(&version.minor.to_le_bytes());
}

/// Appends an upsert. Lengths must fit 32 bits; an empty BLOB list gives a plain entry.
#[inline]
pub fn encode_put(
    out: &mut Vec<u8>,
    storage: StorageId,
    key: &[u8],
    value: &[u8],
    version: WriteVersion,
    blobs: &[BlobId],
) {
    out.reserve(37 + key.len() + value.len() + blobs.len() * 8);
    let mut head = [0u8; 17];
    head[0] = if blobs.is_empty() { tag::PUT } else { tag::PUT_WITH_BLOBS };
    head[1..5].copy_from_slice(&(key.len() as u32).to_le_bytes());
    head[5..9].copy_from_slice(&(value.len() as u32).to_le_bytes());
    head[9..17].copy_from_slice(&storage.0.to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(key);
    encode_version(out, version);
    out.extend_from_slice(value);
    if !blobs.is_empty() {
        out.extend_from_slice(&(blobs.len() as u32).to_le_bytes());
        for blob in blobs {
            out.extend_from_slice(&blob.0.to_le_bytes());
        }
    }
}

/// Appends the removal of a key. The length must fit 32 bits.
pub fn encode_remove(out: &mut Vec<u8>, storage: StorageId, key: &[u8], version: WriteVersion) {
    out.push(tag::REMOVE);
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(&storage.0.to_le_bytes());
    out.extend_from_slice(key);
    encode_version(out, version);
}

/// Appends an entry about a whole storage; `tag` is one of the three storage tags.
pub fn encode_storage(out: &mut Vec<u8>, tag: u8, storage: StorageId, version: WriteVersion) {
    out.push(tag);
    out.extend_from_slice(&storage.0.to_le_bytes());
    encode_version(out, version);
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: WriteVersion = WriteVersion { major: 1, minor: 2 };

    fn roundtrip(bytes: &[u8]) -> Entry<'_> {
        let (entry, next) = decode(bytes, 0).expect("not empty").expect("readable");
        assert_eq!(next, bytes.len());
        for cut in 1..bytes.len() {
            assert_eq!(decode(&bytes[..cut], 0), Some(Err(Unreadable::Short(bytes[0]))));
        }
        entry
    }

    #[test]
    fn an_upsert_is_written_as_the_worked_example() {
        let mut out = Vec::new();
        encode_put(&mut out, StorageId(2), b"key2", b"v2", VERSION, &[BlobId(3), BlobId(4)]);
        let expected = "0a040000000200000002000000000000006b65793201000000000000000200000000000000\
                        76320200000003000000000000000400000000000000";
        assert_eq!(out.iter().map(|b| format!("{b:02x}")).collect::<String>(), expected);
        let Entry::Put { storage, key, version, value, blobs } = roundtrip(&out) else { panic!("an upsert") };
        assert_eq!((storage, key, version, value), (StorageId(2), &b"key2"[..], VERSION, &b"v2"[..]));
        assert_eq!(blobs.iter().collect::<Vec<_>>(), [BlobId(3), BlobId(4)]);
    }

    #[test]
    fn every_other_entry_is_read_back_as_written() {
        let mut out = Vec::new();
        encode_remove(&mut out, StorageId(2), b"key3", VERSION);
        assert_eq!(roundtrip(&out), Entry::Remove { storage: StorageId(2), key: b"key3", version: VERSION });
        for (tag, expected) in [
            (tag::CLEAR_STORAGE, Entry::ClearStorage { storage: StorageId(7), version: VERSION }),
            (tag::REMOVE_STORAGE, Entry::ClearStorage { storage: StorageId(7), version: VERSION }),
            (tag::ADD_STORAGE, Entry::AddStorage { storage: StorageId(7), version: VERSION }),
        ] {
            out.clear();
            encode_storage(&mut out, tag, StorageId(7), VERSION);
            assert_eq!(roundtrip(&out), expected);
        }
        out.clear();
        encode_end(&mut out, Epoch(1));
        assert_eq!(out, [3, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(roundtrip(&out), Entry::End(Epoch(1)));
        assert_eq!(roundtrip(&marker(tag::BEGIN, Epoch(9))), Entry::Begin(Epoch(9)));
    }

    #[test]
    fn a_length_beyond_the_file_is_short_and_allocates_nothing() {
        let bytes = [&[tag::PUT][..], &[0xff; 8], &[0; 100]].concat();
        assert_eq!(decode(&bytes, 0), Some(Err(Unreadable::Short(tag::PUT))));
        assert_eq!(decode(&[0], 0), Some(Err(Unreadable::Unknown(0))));
        assert_eq!(decode(&[], 0), None);
        assert_eq!(decode(&[1], 5), None);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The bytes of a group, the unit of the commit journal: a header of 64 bytes, then its pieces, then zeros up to the
//! next block. Numbers are little-endian.
//!
//! ```text
//! header   0 magic "LSJGROUP"   8 journal id (16)   24 sequence u64   32 settled u64   40 epoch u64
//!         48 pieces u32   52 body length u32   56 CRC-32 of the body u32   60 CRC-32 of bytes 0..60 u32
//! piece    0 kind u8 (1 bytes, 2 synced)   1 length of the name u8   2 offset u64   10 length u64   18 name   … bytes
//! ```
//!
//! A group begins and ends at a block, so that a write that is torn never reaches into the group before it.

use crate::types::Epoch;

/// Groups begin at multiples of this many bytes; no smaller than what a disk writes whole or not at all.
pub const BLOCK_BYTES: usize = 4096;
/// Where the body begins.
pub const HEADER_BYTES: usize = 64;
/// Bytes of a piece before its name.
const PIECE_BYTES: usize = 18;
const MAGIC: [u8; 8] = *b"LSJGROUP";
const KIND_BYTES: u8 = 1;
const KIND_SYNCED: u8 = 2;

/// Which use of a journal a group belongs to; random, so that no group of an earlier use is taken for one of this.
pub type JournalId = [u8; 16];

/// What the header of a group says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub journal: JournalId,
    /// 1 for the first group of a journal, one more for each that follows.
    pub sequence: u64,
    /// Groups up to this sequence need not be written to their files again. `settled < sequence`.
    pub settled: u64,
    /// Everything up to this epoch is durable with this group; 0 when the journal has not made any epoch durable yet.
    pub epoch: Epoch,
    pub pieces: u32,
}

/// A part of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The name of the file in the data directory.
    pub file: &'a str,
    pub offset: u64,
    pub len: u64,
    /// What stands there; `None` when the file itself was synced with it.
    pub bytes: Option<&'a [u8]>,
}

/// A whole group whose checksums are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    pub header: Header,
    pub body: &'a [u8],
}

/// Bytes that a group with such a body takes in a segment.
pub fn group_bytes(body_len: usize) -> usize {
    (HEADER_BYTES + body_len).next_multiple_of(BLOCK_BYTES)
}

/// Bytes that a piece takes in the body of a group.
pub fn piece_bytes(piece: &Piece<'_>) -> usize {
    PIECE_BYTES + piece.file.len() + piece.bytes.map_or(0, <[u8]>::len)
}

/// A group that is put together where it will be written from.
#[derive(Debug)]
pub struct NewGroup {
    /// Room for the header, then the body.
    bytes: Vec<u8>,
    pieces: u32,
}

impl Default for NewGroup {
    fn default() -> NewGroup {
        NewGroup { bytes: vec![0; HEADER_BYTES], pieces: 0 }
    }
}

impl NewGroup {
    pub fn is_empty(&self) -> bool {
        self.pieces == 0
    }

    pub fn body_len(&self) -> usize {
        self.bytes.len() - HEADER_BYTES
    }

    /// Appends a piece. The name has at most 255 bytes, as file systems have it; the body stays below 4 GiB.
    pub fn add(&mut self, piece: &Piece<'_>) {
        let name = piece.file.as_bytes();
        debug_assert!(name.len() <= usize::from(u8::MAX));
        let into = &mut self.bytes;
        into.push(if piece.bytes.is_some() { KIND_BYTES } else { KIND_SYNCED });
        into.push(name.len() as u8);
        into.extend_from_slice(&piece.offset.to_le_bytes());
        into.extend_from_slice(&piece.len.to_le_bytes());
        into.extend_from_slice(name);
        into.extend_from_slice(piece.bytes.unwrap_or_default());
        self.pieces += 1;
    }

    /// The whole group, as it is written. Nothing may be added afterwards.
    pub fn sealed(&mut self, journal: &JournalId, sequence: u64, settled: u64, epoch: Epoch) -> &[u8] {
        let (body_len, pieces) = (self.body_len() as u32, self.pieces);
        let (header, body) = self.bytes.split_at_mut(HEADER_BYTES);
        header[..8].copy_from_slice(&MAGIC);
        header[8..24].copy_from_slice(journal);
        for (at, number) in [(24, sequence), (32, settled), (40, epoch.0)] {
            header[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        for (at, number) in [(48, pieces), (52, body_len), (56, crc32fast::hash(body))] {
            header[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32fast::hash(&header[..60]);
        header[60..].copy_from_slice(&checksum.to_le_bytes());
        self.bytes.resize(group_bytes(body_len as usize), 0);
        &self.bytes
    }

    /// Empties it for another group, and keeps memory for `bytes_max`.
    pub fn clear(&mut self, bytes_max: usize) {
        self.bytes.truncate(HEADER_BYTES);
        self.bytes.shrink_to(bytes_max);
        self.pieces = 0;
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The group of this journal at the beginning of `bytes`; `None` when there is none or it is not whole.
pub fn decode_group<'a>(bytes: &'a [u8], journal: &JournalId) -> Option<Group<'a>> {
    let header = bytes.get(..HEADER_BYTES)?;
    if header[..8] != MAGIC || header[8..24] != *journal || crc32fast::hash(&header[..60]) != u32_at(header, 60) {
        return None;
    }
    let body = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(u32_at(header, 52) as usize)?)?;
    if crc32fast::hash(body) != u32_at(header, 56) {
        return None;
    }
    let header = Header {
        journal: *journal,
        sequence: u64_at(header, 24),
        settled: u64_at(header, 32),
        epoch: Epoch(u64_at(header, 40)),
        pieces: u32_at(header, 48),
    };
    Some(Group { header, body })
}

impl<'a> Group<'a> {
    /// Its pieces in order; the error says what was expected.
    pub fn pieces(&self) -> Result<Vec<Piece<'a>>, String> {
        let mut rest = self.body;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let piece = take_piece(&mut rest).ok_or_else(|| format!("piece {} is not whole", pieces.len()))?;
            pieces.push(piece);
        }
        match pieces.len() == self.header.pieces as usize {
            true => Ok(pieces),
            false => Err(format!("found {} pieces, expected {}", pieces.len(), self.header.pieces)),
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn take_piece<'a>(rest: &mut &'a [u8]) -> Option<Piece<'a>> {
    let head = take(rest, PIECE_BYTES)?;
    let (offset, len) = (u64_at(head, 2), u64_at(head, 10));
    let file = std::str::from_utf8(take(rest, usize::from(head[1]))?).ok()?;
    offset.checked_add(len)?;
    let bytes = match head[0] {
        KIND_BYTES => Some(take(rest, usize::try_from(len).ok()?)?),
        KIND_SYNCED => None,
        _ => return None,
    };
    Some(Piece { file, offset, len, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: JournalId = [7; 16];

    fn group(body: &[u8], pieces: u32) -> Vec<u8> {
        let mut group = NewGroup { pieces, ..NewGroup::default() };
        group.bytes.extend(body);
        group.sealed(&ID, 3, 1, Epoch(1 << 40)).to_vec()
    }

    fn sample() -> (Vec<u8>, [Piece<'static>; 2]) {
        let pieces = [
            Piece { file: "pwal_0000", offset: 1 << 33, len: 3, bytes: Some(b"abc") },
            Piece { file: "pwal_0001", offset: 9, len: 1 << 32, bytes: None },
        ];
        let mut group = NewGroup::default();
        group.add(&pieces[0]);
        group.clear(1000);
        assert!(group.is_empty());
        pieces.iter().for_each(|piece| group.add(piece));
        assert_eq!(group.body_len(), pieces.iter().map(piece_bytes).sum::<usize>());
        (group.bytes[HEADER_BYTES..].to_vec(), pieces)
    }

    #[test]
    fn a_group_is_read_as_it_was_written_and_ends_at_a_block() {
        let (body, pieces) = sample();
        let bytes = group(&body, 2);
        assert_eq!(bytes.len(), BLOCK_BYTES);
        let read = decode_group(&bytes, &ID).unwrap();
        assert_eq!((read.header.sequence, read.header.settled, read.header.epoch), (3, 1, Epoch(1 << 40)));
        assert_eq!(read.pieces().unwrap(), pieces);
        assert_eq!(group(&[0; BLOCK_BYTES], 0).len(), 2 * BLOCK_BYTES);
    }

    #[test]
    fn a_group_with_any_changed_byte_or_of_another_journal_is_none() {
        let (body, _) = sample();
        let whole = group(&body, 2);
        for at in 0..HEADER_BYTES + body.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert_eq!(decode_group(&bytes, &ID), None, "byte {at}");
        }
        for len in 0..HEADER_BYTES + body.len() {
            assert_eq!(decode_group(&whole[..len], &ID), None, "{len} bytes");
        }
        assert_eq!(decode_group(&whole, &[8; 16]), None);
    }

    #[test]
    fn a_body_that_does_not_hold_what_its_header_says_is_an_error() {
        let (body, _) = sample();
        let error = |body: &[u8], pieces| decode_group(&group(body, pieces), &ID).unwrap().pieces().unwrap_err();
        assert!(error(&body, 3).contains("found 2 pieces, expected 3"));
        assert!(error(&body[..body.len() - 1], 2).contains("piece 1 is not whole"));
        let mut unknown = body.clone();
        unknown[0] = 9;
        assert!(error(&unknown, 2).contains("piece 0 is not whole"));
        let mut beyond = body;
        beyond[2..18].fill(0xff);
        assert!(error(&beyond, 2).contains("piece 0 is not whole"));
    }
}

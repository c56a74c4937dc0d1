// SPDX-License-Identifier: Apache-2.0
//! Follows the bytes of one session as they arrive in pieces: a standby appends only what a start can read.

use crate::types::Epoch;
use crate::wal::entry::{tag, END_LEN, END_PLAIN, MARKER_LEN};

/// Storage id and write version.
const STORAGE_AND_VERSION_LEN: u64 = 8 + 16;

/// What is read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begin,
    Head,
    BlobCount,
    Ended,
}

/// The state behind the bytes seen so far. Memory is constant.
#[derive(Debug)]
pub(super) struct SessionCheck {
    epoch: Epoch,
    stage: Stage,
    head: [u8; END_LEN],
    have: usize,
    /// Bytes of keys and values still to come.
    skip: u64,
}

impl SessionCheck {
    /// At the beginning of a session that must carry `epoch`.
    pub(super) fn new(epoch: Epoch) -> SessionCheck {
        SessionCheck { epoch, stage: Stage::Begin, head: [0; END_LEN], have: 0, skip: 0 }
    }

    /// Whether the end marker was the last thing.
    pub(super) fn is_whole(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Takes the next bytes; the error says what was expected and found.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() as u64);
                bytes = &bytes[skipped as usize..];
                self.skip -= skipped;
                continue;
            }
            let needed = self.needed(bytes[0])?;
            let taken = (needed - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == needed {
                self.have = 0;
                self.complete()?;
            }
        }
        Ok(())
    }

    /// Bytes to collect before lengths are known; `next` is the next byte.
    fn needed(&self, next: u8) -> Result<usize, String> {
        let first = if self.have > 0 { self.head[0] } else { next };
        match (self.stage, first) {
            (Stage::BlobCount, _) => Ok(4),
            (Stage::Ended, _) => Err("bytes behind the end marker of the session".to_owned()),
            (Stage::Begin, tag::BEGIN) => Ok(MARKER_LEN),
            (Stage::Begin, other) => Err(format!("expected a begin marker, found tag {other:#04x}")),
            (Stage::Head, tag::PUT | tag::PUT_WITH_BLOBS) => Ok(1 + 4 + 4),
            (Stage::Head, tag::REMOVE) => Ok(1 + 4),
            (Stage::Head, tag::CLEAR_STORAGE | tag::ADD_STORAGE | tag::REMOVE_STORAGE) => Ok(1),
            (Stage::Head, tag::END) => Ok(END_LEN),
            (Stage::Head, other) => Err(format!("expected an entry or an end marker, found tag {other:#04x}")),
        }
    }

    fn complete(&mut self) -> Result<(), String> {
        let u32_at = |at: usize| u64::from(u32::from_le_bytes(self.head[at..at + 4].try_into().expect("four bytes")));
        match (self.stage, self.head[0]) {
            (Stage::BlobCount, _) => {
                self.skip = u32_at(0) * 8;
                self.stage = Stage::Head;
                return Ok(());
            }
            (Stage::Begin, _) | (_, tag::END) => {
                let epoch = Epoch(u64::from_le_bytes(self.head[1..MARKER_LEN].try_into().expect("eight bytes")));
                if epoch != self.epoch {
                    return Err(format!("expected a marker of epoch {}, found epoch {epoch}", self.epoch));
                }
                if self.stage == Stage::Head && self.head[MARKER_LEN] != END_PLAIN {
                    return Err(format!("expected checksum type {END_PLAIN}, found {}", self.head[MARKER_LEN]));
                }
                self.stage = if self.stage == Stage::Begin { Stage::Head } else { Stage::Ended };
                return Ok(());
            }
            (_, tag::PUT) => self.skip = STORAGE_AND_VERSION_LEN + u32_at(1) + u32_at(5),
            (_, tag::PUT_WITH_BLOBS) => {
                self.skip = STORAGE_AND_VERSION_LEN + u32_at(1) + u32_at(5);
                self.stage = Stage::BlobCount;
            }
            (_, tag::REMOVE) => self.skip = STORAGE_AND_VERSION_LEN + u32_at(1),
            _ => self.skip = STORAGE_AND_VERSION_LEN,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BlobId, StorageId, WriteVersion};
    use crate::wal::entry::{encode_end, encode_put, encode_remove, encode_storage, marker};

    const VERSION: WriteVersion = WriteVersion { major: 1, minor: 2 };

    fn session() -> Vec<u8> {
        let mut bytes = marker(tag::BEGIN, Epoch(7)).to_vec();
        encode_put(&mut bytes, StorageId(1), b"key", &[3; 100], VERSION, &[]);
        encode_put(&mut bytes, StorageId(1), b"", b"", VERSION, &[BlobId(3), BlobId(4)]);
        encode_remove(&mut bytes, StorageId(1), b"key", VERSION);
        for tag in [tag::CLEAR_STORAGE, tag::ADD_STORAGE, tag::REMOVE_STORAGE] {
            encode_storage(&mut bytes, tag, StorageId(1), VERSION);
        }
        encode_end(&mut bytes, Epoch(7));
        bytes
    }

    fn feed(bytes: &[u8], piece: usize) -> Result<bool, String> {
        let mut check = SessionCheck::new(Epoch(7));
        bytes.chunks(piece).try_for_each(|piece| check.feed(piece))?;
        Ok(check.is_whole())
    }

    #[test]
    fn a_session_is_followed_through_pieces_of_any_size_and_whole_only_at_its_end() {
        let bytes = session();
        for piece in [1, 2, 3, 7, 64, bytes.len()] {
            assert_eq!(feed(&bytes, piece), Ok(true), "pieces of {piece}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(feed(&bytes[..cut], 5), Ok(false), "cut at {cut}");
        }
    }

    #[test]
    fn what_a_start_could_not_read_is_refused() {
        let bytes = session();
        assert!(feed(&[&bytes[..], &[0]].concat(), 4).is_err(), "a byte behind the end");
        assert!(feed(&bytes[9..], 4).is_err(), "no begin marker");
        assert!(feed(&[&marker(tag::BEGIN, Epoch(6))[..], &bytes[9..]].concat(), 4).is_err(), "another epoch");
        assert!(feed(&[&bytes[..9], &bytes[..]].concat(), 4).is_err(), "a begin marker inside");
        assert!(feed(&[&bytes[..9], &marker(tag::DURABLE, Epoch(7))].concat(), 4).is_err(), "an epoch record inside");
        let mut ended = bytes.clone();
        *ended.last_mut().unwrap() = 9;
        assert!(feed(&ended, 4).is_err(), "an unknown checksum type");
    }
}

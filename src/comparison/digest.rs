// SPDX-License-Identifier: Apache-2.0
//! What a directory's content comes to, as a document that goes from one machine to another.

use crate::error::{Error, Result};
use crate::types::{Epoch, StorageId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::io::Read;

/// The form of the document, and how entries are put into ranges and hashed.
pub const FORMAT: u32 = 1;
/// Room for the ranges of some thousand million entries; more is no digest.
pub const BYTES_MAX: u64 = 1 << 30;

/// The content of a directory at an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// [`FORMAT`].
    pub digest: u32,
    pub directory: String,
    pub epoch: Epoch,
    /// Nothing was written after it up to the epoch: the content was the same at each between.
    pub same_since: Epoch,
    /// Up to which the directory had everything then.
    pub durable_epoch: Epoch,
    /// Whether what BLOBs hold counts, and not only which they are.
    pub with_blobs: bool,
    pub entries: u64,
    /// BLOBs that an entry refers to and that are not there; 0 when they do not count.
    pub missing_blobs: u64,
    /// Of the ranges, to compare by eye.
    #[serde(with = "hex")]
    pub sha256: Vec<u8>,
    /// In the order of the entries.
    pub ranges: Vec<Range>,
}

/// The entries of a storage from one key up to the next range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub storage: u64,
    /// The first key; empty for the first range of a storage.
    #[serde(with = "hex")]
    pub from: Vec<u8>,
    pub entries: u64,
    #[serde(serialize_with = "hex::serialize", deserialize_with = "hex::deserialize_sha256")]
    pub sha256: [u8; 32],
}

impl Range {
    /// Where it stands in the order of the entries.
    pub(super) fn place(&self) -> (u64, &[u8]) {
        (StorageId(self.storage).order(), &self.from)
    }
}

impl Digest {
    /// Of these ranges, and all else as in `of`.
    fn with(of: Digest, ranges: Vec<Range>) -> Digest {
        let mut hash = Sha256::new();
        for Range { storage, from, entries, sha256 } in &ranges {
            hash.update(storage.to_le_bytes());
            hash.update((from.len() as u64).to_le_bytes());
            hash.update(from);
            hash.update(entries.to_le_bytes());
            hash.update(sha256);
        }
        let (entries, sha256) = (ranges.iter().map(|range| range.entries).sum(), hash.finalize().to_vec());
        Digest { entries, sha256, ranges, ..of }
    }

    /// Of a directory that had everything up to `durable`, and may have been written to in the epoch itself.
    pub(super) fn new(directory: String, epoch: Epoch, durable: Epoch, ranges: Vec<Range>) -> Digest {
        let of = Digest {
            digest: FORMAT,
            directory,
            epoch,
            same_since: epoch,
            durable_epoch: durable,
            with_blobs: false,
            entries: 0,
            missing_blobs: 0,
            sha256: Vec::new(),
            ranges: Vec::new(),
        };
        Digest::with(of, ranges)
    }

    /// Whether BLOBs are missing that may have been deleted since the epoch, when no entry referred to them any more.
    pub fn may_have_lost_blobs(&self) -> bool {
        self.missing_blobs > 0 && self.epoch < self.durable_epoch
    }

    /// Reads the document.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when it is none; [`Error::Io`].
    pub fn read(from: impl Read, name: &str) -> Result<Digest> {
        let no_digest = |why: &dyn std::fmt::Display| {
            Error::InvalidArgument(format!("{name} is no document of tgreplica digest --json: {why}"))
        };
        let mut bytes = Vec::new();
        let mut limited = from.take(BYTES_MAX + 1);
        limited.read_to_end(&mut bytes).map_err(|e| Error::Io { message: format!("cannot read {name}"), source: e })?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(no_digest(&format!("it has more than {BYTES_MAX} bytes")));
        }
        #[derive(Deserialize)]
        struct Begin {
            digest: u32,
        }
        let Begin { digest } = serde_json::from_slice(&bytes).map_err(|e| no_digest(&e))?;
        if digest != FORMAT {
            return Err(no_digest(&format!("it has the format {digest}, {FORMAT} is known")));
        }
        let read: Digest = serde_json::from_slice(&bytes).map_err(|e| no_digest(&e))?;
        let in_order = read.ranges.windows(2).all(|pair| pair[0].place() < pair[1].place());
        let begins = |at: usize| at == 0 || read.ranges[at - 1].storage != read.ranges[at].storage;
        let is_whole = read.ranges.iter().enumerate().all(|(at, range)| range.from.is_empty() == begins(at));
        if read.same_since > read.epoch || read.epoch > read.durable_epoch {
            return Err(no_digest(&"its epochs are not in order"));
        }
        if !in_order || !is_whole {
            return Err(no_digest(&"its ranges are not in order"));
        }
        match Digest::with(read.clone(), read.ranges.clone()) == read {
            true => Ok(read),
            false => Err(no_digest(&"its ranges are not those that it was made with")),
        }
    }
}

/// Bytes as text.
pub mod hex {
    use serde::{de::Error as _, Deserialize, Deserializer, Serializer};
    use std::fmt::Write;

    pub fn text(bytes: &[u8]) -> String {
        bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&text(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.ok_or_else(|| D::Error::custom("hexadecimal digits were expected"))
    }

    pub(super) fn deserialize_sha256<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        deserialize(from)?.try_into().map_err(|_| D::Error::custom("64 hexadecimal digits were expected"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn digest_of(ranges: Vec<Range>) -> Digest {
        Digest::new("/log".to_owned(), Epoch(5), Epoch(5), ranges)
    }

    pub fn range(storage: u64, from: &str, sha256: u8) -> Range {
        Range { storage, from: from.as_bytes().to_vec(), entries: 10, sha256: [sha256; 32] }
    }

    fn read(text: &str) -> std::result::Result<Digest, String> {
        Digest::read(text.as_bytes(), "x").map_err(|e| e.to_string())
    }

    #[test]
    fn a_digest_is_read_back_as_written_and_nothing_else_is_taken_for_one() {
        let digest = digest_of(vec![range(256, "", 1), range(256, "k", 2), range(1, "", 3)]);
        let text = serde_json::to_string(&digest).unwrap();
        assert_eq!(read(&text).unwrap(), digest);
        let swapped = digest_of(vec![range(1, "", 3), range(256, "", 1)]);
        let headless = digest_of(vec![range(1, "k", 3)]);
        let early = Digest { same_since: Epoch(6), ..digest_of(Vec::new()) };
        for (text, why) in [
            (String::new(), "EOF"),
            (text.replace("\"digest\":1", "\"digest\":2"), "format 2"),
            (text.replace("0303", "0304"), "made with"),
            (text.replace("0303", "03x3"), "hexadecimal"),
            (text.replace("0303", "03"), "64 hexadecimal"),
            (serde_json::to_string(&swapped).unwrap(), "not in order"),
            (serde_json::to_string(&headless).unwrap(), "not in order"),
            (serde_json::to_string(&early).unwrap(), "epochs are not in order"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}

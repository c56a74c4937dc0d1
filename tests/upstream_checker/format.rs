// SPDX-License-Identifier: Apache-2.0
//! The encodings of the data directory (disk format §§2, 3, 4.1, 7.3), read the plain way and independently of the
//! crate, so that a mistake in the crate's codecs cannot hide itself.

use serde_json::Value;
use std::collections::BTreeSet;

pub const ADD: u8 = 0x01;
pub const BEGIN: u8 = 0x02;
pub const END: u8 = 0x03;
pub const DURABLE: u8 = 0x04;
pub const REMOVE: u8 = 0x05;
pub const INVALIDATED: u8 = 0x06;
pub const CLEAR: u8 = 0x07;
pub const ADD_STORAGE: u8 = 0x08;
pub const REMOVE_STORAGE: u8 = 0x09;
pub const ADD_WITH_BLOBS: u8 = 0x0a;

/// A write version: major, minor.
pub type Version = (u64, u64);

/// A data entry (tags 1, 5, 7, 8, 9, 10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub tag: u8,
    pub storage: u64,
    pub key: Vec<u8>,
    pub version: Version,
    pub value: Vec<u8>,
    pub blobs: Vec<u64>,
}

/// What stands at a position of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    Eof,
    Data(Entry),
    Begin(u64),
    Invalidated(u64),
    End {
        epoch: u64,
        crc_type: u8,
    },
    Durable(u64),
    /// An entry with this tag, cut off by the end of the file.
    Short(u8),
    Unknown(u8),
}

struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(taken)
    }

    fn u32(&mut self) -> Option<usize> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().unwrap()) as usize)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().unwrap()))
    }

    fn version(&mut self) -> Option<Version> {
        Some((self.u64()?, self.u64()?))
    }

    fn token(&mut self, tag: u8) -> Option<Token> {
        let entry = |storage, key: &[u8], version, value: &[u8], blobs| {
            Token::Data(Entry { tag, storage, key: key.into(), version, value: value.into(), blobs })
        };
        Some(match tag {
            ADD | ADD_WITH_BLOBS => {
                let (klen, vlen) = (self.u32()?, self.u32()?);
                let (storage, key) = (self.u64()?, self.take(klen)?);
                let (version, value) = (self.version()?, self.take(vlen)?);
                let mut blobs = Vec::new();
                if tag == ADD_WITH_BLOBS {
                    for _ in 0..self.u32()? {
                        blobs.push(self.u64()?);
                    }
                }
                entry(storage, key, version, value, blobs)
            }
            REMOVE => {
                let klen = self.u32()?;
                let (storage, key) = (self.u64()?, self.take(klen)?);
                entry(storage, key, self.version()?, b"", Vec::new())
            }
            CLEAR | ADD_STORAGE | REMOVE_STORAGE => entry(self.u64()?, b"", self.version()?, b"", Vec::new()),
            BEGIN => Token::Begin(self.u64()?),
            INVALIDATED => Token::Invalidated(self.u64()?),
            DURABLE => Token::Durable(self.u64()?),
            END => Token::End { epoch: self.u64()?, crc_type: self.take(1)?[0] },
            other => Token::Unknown(other),
        })
    }
}

/// Reads what stands at `at`, and the position behind it.
pub fn token(bytes: &[u8], at: usize) -> (Token, usize) {
    let Some(&tag) = bytes.get(at) else {
        return (Token::Eof, at);
    };
    let mut fields = Fields { bytes, at: at + 1 };
    match fields.token(tag) {
        Some(token) => (token, fields.at),
        None => (Token::Short(tag), bytes.len()),
    }
}

/// All records of an epoch file, or upstream's complaint.
pub fn epoch_records(bytes: &[u8]) -> Result<Vec<u64>, String> {
    let (mut records, mut at) = (Vec::new(), 0);
    loop {
        match token(bytes, at) {
            (Token::Eof, _) => return Ok(records),
            (Token::Durable(epoch), next) => {
                records.push(epoch);
                at = next;
            }
            (Token::Short(_), _) => return Err("this log_entry is broken: unexpected EOF".into()),
            (Token::Unknown(tag), _) => {
                return Err(format!("this log_entry is broken: unknown log_entry type {tag}"));
            }
            _ => return Err(format!("this epoch file is broken: unexpected log_entry type: {}", bytes[at])),
        }
    }
}

/// The compaction catalog.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub compacted: BTreeSet<String>,
    pub detached: BTreeSet<String>,
    pub max_epoch: u64,
    pub max_blob: u64,
}

impl Catalog {
    /// Adds what `text` says; what was read before an error stays, as in upstream.
    pub fn read(&mut self, text: &str) -> Result<(), String> {
        let mut lines = text.split('\n');
        if lines.next() != Some("COMPACTION_CATALOG_HEADER") {
            return Err("no header".into());
        }
        let mut has_epoch = false;
        for line in lines {
            if line == "COMPACTION_CATALOG_FOOTER" {
                return if has_epoch { Ok(()) } else { Err("no MAX_EPOCH_ID".into()) };
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(key) = words.first() else { continue };
            let word = |i: usize| words.get(i).copied().ok_or(format!("short line: {line}"));
            let number = |i: usize| word(i)?.parse::<u64>().map_err(|e| format!("{line}: {e}"));
            match *key {
                "COMPACTED_FILE" => {
                    number(2)?;
                    self.compacted.insert(word(1)?.into());
                }
                "DETACHED_PWAL" => {
                    self.detached.insert(word(1)?.into());
                }
                "MAX_EPOCH_ID" => {
                    self.max_epoch = number(1)?;
                    has_epoch = true;
                }
                "MAX_BLOB_ID" => self.max_blob = number(1)?,
                other => return Err(format!("unknown key {other}")),
            }
        }
        Err("no footer".into())
    }
}

/// The persistent format version in a manifest, or `None` if it cannot be read as one.
pub fn manifest_version(bytes: &[u8]) -> Option<i64> {
    let manifest: Value = serde_json::from_slice(bytes).ok()?;
    let format = manifest.as_object()?.get("format_version")?.as_str()?;
    if format != "1.0" {
        manifest.get("instance_uuid")?.as_str()?;
    }
    match manifest.get("persistent_format_version")? {
        Value::Bool(b) => Some(i64::from(*b)),
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)),
        _ => None,
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What must hold for any bytes that are read as a file of the data directory. One function per fuzz target; the same
//! functions replay the corpus in `tests/fuzz_corpus.rs`.
#![allow(dead_code)]

use limestone_core::replication::upstream::reader::{Budget, Reader};
use limestone_core::types::Epoch;
use limestone_core::wal::entry::{tag, Entry};
use limestone_core::wal::scanner::{scan, Edit, Visitor};
use limestone_core::wal::{catalog, epoch_file, manifest};
use std::path::Path;

/// Bytes in front of the log file in an input of `scanner`: one of flags (1: older than end markers, 2: a rotated
/// file), then the durable epoch, little endian.
pub const SCANNER_HEADER: usize = 9;

/// Condenses the entries handed out, so that comparing two scans needs no memory.
#[derive(Debug, Default, PartialEq, Eq)]
struct Digest {
    entries: u64,
    payload: u64,
    sum: u64,
}

impl Visitor for Digest {
    fn entry(&mut self, offset: usize, entry: Entry<'_>) {
        self.entries += 1;
        self.sum = self.sum.wrapping_mul(31).wrapping_add(offset as u64);
        if let Entry::Put { key, value, blobs, .. } = entry {
            self.payload += (key.len() + value.len() + blobs.iter().count() * 8) as u64;
        }
    }
}

/// A log file: reading it again after the changes that a start makes finds the same entries and nothing to change,
/// also when the epochs seen have become durable.
pub fn scanner(input: &[u8]) {
    let Some((header, bytes)) = input.split_at_checked(SCANNER_HEADER) else {
        return;
    };
    let end_markers = header[0] & 1 == 0;
    let durable = Epoch(u64::from_le_bytes(header[1..].try_into().expect("eight bytes")));
    let path = Path::new(if header[0] & 2 == 0 { "pwal_0000" } else { "pwal_0000.00000000000001.0" });
    let mut first = Digest::default();
    let Ok(found) = scan(bytes, durable, end_markers, path, &mut first) else {
        return;
    };
    assert!(first.payload <= bytes.len() as u64, "more was handed out than the file holds");

    let mut after = bytes.to_vec();
    for edit in &found.edits {
        match *edit {
            Edit::Invalidate { offset } => {
                assert_eq!(after[offset], tag::BEGIN, "only a begin marker can be invalidated");
                after[offset] = tag::INVALIDATED;
            }
            Edit::Cut { offset } => after.truncate(offset),
        }
    }
    for durable in [durable, durable.max(found.max_epoch)] {
        let mut second = Digest::default();
        let again = scan(&after, durable, end_markers, path, &mut second).expect("a mended file is readable");
        assert_eq!(again.edits, [], "a mended file needs no change");
        assert_eq!(first, second, "the changes took entries away or brought some back");
    }
}

/// An epoch file: cutting it where it is torn changes nothing.
pub fn epoch_file(input: &[u8]) {
    let path = Path::new("epoch");
    let Ok(found) = epoch_file::parse(input, path) else {
        return;
    };
    if let Some(torn) = found.torn_at {
        let cut = epoch_file::parse(&input[..torn], path).expect("the whole records are readable");
        assert_eq!((cut.max, cut.torn_at), (found.max, None));
    }
}

/// A manifest: what is written for it is read back.
pub fn manifest(input: &[u8]) {
    let Ok(found) = manifest::parse(input) else { return };
    let migrated = found.migrated();
    assert!(migrated.is_supported());
    assert_eq!(manifest::parse(&migrated.encode()), Ok(migrated));
}

/// A catalog: what is written for it is read back.
pub fn catalog(input: &[u8]) {
    let Ok(found) = catalog::parse(input) else { return };
    assert_eq!(catalog::parse(&found.encode()), Ok(found));
}

/// A stream of the upstream protocol: what is read of it is written back byte by byte.
pub fn upstream_wire(input: &[u8]) {
    let mut reader = Reader::new(input, Budget::default());
    let mut left = input;
    let mut written = Vec::new();
    while let Ok(Some(message)) = reader.next_whole() {
        let rest: &[u8] = reader.input();
        let (read, _) = left.split_at(left.len() - rest.len());
        written.clear();
        message.encode(&mut written);
        assert_eq!(written, read, "{message:?}");
        left = rest;
    }
}

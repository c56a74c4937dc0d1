// SPDX-License-Identifier: Apache-2.0
//! Sessions and directories of a few bytes, for tests here and above.

use super::{Input, Snapshot};
use crate::types::{BlobId, Epoch, StorageId, WriteVersion};
use crate::vfs::SimFs;
use crate::wal::catalog::Catalog;
use crate::wal::entry::{encode_end, encode_put, encode_remove, encode_storage, marker, tag};
use crate::wal::names;
use std::path::Path;

pub(crate) const LOCATION: &str = "/log";

pub(crate) fn version(major: u64) -> WriteVersion {
    WriteVersion { major, minor: 0 }
}

/// An upsert in storage 1 with this version.
pub(crate) fn put(key: &[u8], major: u64, value: &str) -> Vec<u8> {
    put_with_blobs(key, major, value, &[])
}

pub(crate) fn put_with_blobs(key: &[u8], major: u64, value: &str, blobs: &[u64]) -> Vec<u8> {
    let (mut bytes, blobs) = (Vec::new(), blobs.iter().map(|&id| BlobId(id)).collect::<Vec<_>>());
    encode_put(&mut bytes, StorageId(1), key, value.as_bytes(), version(major), &blobs);
    bytes
}

pub(crate) fn remove(key: &[u8], major: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_remove(&mut bytes, StorageId(1), key, version(major));
    bytes
}

pub(crate) fn clear(major: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_storage(&mut bytes, tag::CLEAR_STORAGE, StorageId(1), version(major));
    bytes
}

/// A whole session.
pub(crate) fn session(epoch: u64, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = marker(tag::BEGIN, Epoch(epoch)).to_vec();
    bytes.extend(entries.concat());
    encode_end(&mut bytes, Epoch(epoch));
    bytes
}

/// A compacted file.
pub(crate) fn compacted(entries: &[Vec<u8>]) -> Vec<u8> {
    [marker(tag::BEGIN, Epoch(0)).to_vec(), entries.concat()].concat()
}

/// Epoch records.
pub(crate) fn records(epochs: &[u64]) -> Vec<u8> {
    epochs.iter().flat_map(|&epoch| marker(tag::DURABLE, Epoch(epoch))).collect()
}

/// A directory on a simulated disk, and what a recovery of it needs.
pub(crate) struct Dir {
    pub fs: SimFs,
    pub catalog: Catalog,
    pub threads: usize,
}

impl Dir {
    /// With this durable epoch.
    pub fn new(durable: u64) -> Dir {
        let dir = Dir { fs: SimFs::new(), catalog: Catalog::default(), threads: 2 };
        dir.with(names::EPOCH, &records(&[durable]))
    }

    pub fn with(self, name: &str, bytes: &[u8]) -> Dir {
        self.fs.put(&Path::new(LOCATION).join(name), bytes).unwrap();
        self
    }

    pub fn input(&self) -> Input<'_> {
        Input {
            vfs: &self.fs,
            location: Path::new(LOCATION),
            catalog: &self.catalog,
            end_markers: true,
            threads: self.threads,
            memory_bytes: 1 << 20,
            releases: true,
            stopping: None,
            pace: None,
            marks: None,
        }
    }

    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.fs.files().remove(&Path::new(LOCATION).join(name))
    }
}

/// Keys and values of a snapshot, in its order.
pub(crate) fn rows(snapshot: &Snapshot) -> Vec<(String, String)> {
    let (mut cursor, mut rows) = (snapshot.cursor(), Vec::new());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    while let Some(row) = cursor.next().unwrap() {
        rows.push((text(row.key), text(row.value)));
    }
    rows
}

/// The same as literals.
pub(crate) fn pairs(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

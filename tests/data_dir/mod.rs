// SPDX-License-Identifier: Apache-2.0
//! Builds data directories byte by byte, so that a test can state a start-up case in a few lines.
#![allow(dead_code)]

use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A directory with a manifest, an empty catalog and no epoch record.
pub struct DataDir(TempDir);

impl DataDir {
    /// With a manifest of this version.
    pub fn of_version(version: u32) -> DataDir {
        DataDir(tempfile::tempdir().unwrap())
            .write("limestone-manifest.json", manifest(version))
            .write("compaction_catalog", catalog(&[]))
            .write("epoch", b"")
    }

    /// Of the current version, with these epoch records.
    pub fn with_epochs(epochs: &[u64]) -> DataDir {
        DataDir::of_version(7).write("epoch", records(epochs))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes one file, replacing what it held.
    pub fn write(self, name: &str, content: impl AsRef<[u8]>) -> DataDir {
        fs::write(self.path().join(name), content).unwrap();
        self
    }

    pub fn without(self, name: &str) -> DataDir {
        fs::remove_file(self.path().join(name)).unwrap();
        self
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).unwrap()
    }

    pub fn has(&self, name: &str) -> bool {
        self.path().join(name).exists()
    }
}

pub fn manifest(version: u32) -> String {
    match version {
        ..=4 => format!("{{\"format_version\":\"1.0\",\"persistent_format_version\":{version}}}"),
        _ => format!(
            "{{\"format_version\":\"1.1\",\"instance_uuid\":\"7fc52233-e4cc-4408-8dcd-035009f488f3\",\
             \"persistent_format_version\":{version}}}"
        ),
    }
}

/// A catalog with these lines between header and maxima.
pub fn catalog(lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    format!("COMPACTION_CATALOG_HEADER\n{lines}MAX_EPOCH_ID 0\nMAX_BLOB_ID 0\nCOMPACTION_CATALOG_FOOTER\n")
}

/// Epoch records.
pub fn records(epochs: &[u64]) -> Vec<u8> {
    epochs.iter().flat_map(|epoch| marker(0x04, *epoch)).collect()
}

pub fn begin(epoch: u64) -> Vec<u8> {
    marker(0x02, epoch)
}

pub fn invalidated(epoch: u64) -> Vec<u8> {
    marker(0x06, epoch)
}

pub fn end(epoch: u64) -> Vec<u8> {
    [marker(0x03, epoch), vec![1]].concat()
}

/// An entry of storage 1.
pub fn put(key: &str, value: &str, major: u64) -> Vec<u8> {
    let mut bytes = vec![0x01];
    bytes.extend((key.len() as u32).to_le_bytes());
    bytes.extend((value.len() as u32).to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(key.bytes());
    bytes.extend(version(major));
    bytes.extend(value.bytes());
    bytes
}

/// The removal of a key of storage 1.
pub fn remove(key: &str, major: u64) -> Vec<u8> {
    let mut bytes = vec![0x05];
    bytes.extend((key.len() as u32).to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(key.bytes());
    bytes.extend(version(major));
    bytes
}

/// A whole session that sets `key` to the epoch's number.
pub fn session(epoch: u64, key: &str) -> Vec<u8> {
    [begin(epoch), put(key, &epoch.to_string(), epoch), end(epoch)].concat()
}

/// A compacted file with these keys and values in the order given.
pub fn compacted(rows: &[(&str, &str)]) -> Vec<u8> {
    rows.iter().fold(begin(0), |bytes, (key, value)| [bytes, put(key, value, 0)].concat())
}

fn version(major: u64) -> Vec<u8> {
    [major.to_le_bytes(), 0u64.to_le_bytes()].concat()
}

fn marker(tag: u8, epoch: u64) -> Vec<u8> {
    [vec![tag], epoch.to_le_bytes().to_vec()].concat()
}

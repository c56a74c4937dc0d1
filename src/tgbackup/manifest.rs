// SPDX-License-Identifier: Apache-2.0
//! `backup.json`: what a backup is of, and its files with their sizes and checksums. It has a checksum of its own.

use crate::error::{Error, Result};
use crate::replication::backup_socket::Serves;
use crate::replication::epoch_times::TimeOfEpoch;
use crate::types::Epoch;
use crate::vfs::Vfs;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io::ErrorKind;
use std::path::Path;

/// The name of the file, beside the folder of the backup's files.
pub const NAME: &str = "backup.json";
const FORMAT: u32 = 1;
/// Room for some millions of files.
const MAX_BYTES: u64 = 1 << 30;
const CHECKSUM: &str = "checksum";

/// What `backup.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupManifest {
    pub format: u32,
    /// When it began, in UTC.
    pub begun_at: String,
    /// The same in milliseconds since 1970.
    pub begun_at_ms: u64,
    /// Exactly what sessions up to this epoch wrote is in it.
    pub epoch: Epoch,
    /// Who served the directory; nobody, when it was stopped.
    pub from: Option<Serves>,
    /// The directory as it was named.
    pub directory: String,
    #[serde(flatten)]
    pub identity: Identity,
    /// When which epoch up to that was durable, as far as is known, oldest first: milliseconds since 1970, and the
    /// epoch.
    pub times: Vec<TimeOfEpoch>,
    /// By name.
    pub files: Vec<SavedFile>,
}

/// Whose data it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub instance_uuid: String,
    pub term: Option<u64>,
    /// The run of an engine that wrote last.
    pub run: Option<String>,
}

/// A file of the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFile {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
    /// The backup before this one has the same file.
    pub shared: bool,
}

impl BackupManifest {
    pub fn new(begun_at_ms: u64, epoch: Epoch, from: Option<Serves>, directory: &Path) -> BackupManifest {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(begun_at_ms);
        BackupManifest {
            format: FORMAT,
            begun_at: crate::stderr_log::rfc3339(at),
            begun_at_ms,
            epoch,
            from,
            directory: directory.display().to_string(),
            identity: Identity::default(),
            times: Vec::new(),
            files: Vec::new(),
        }
    }

    /// The bytes of all its files.
    pub fn bytes(&self) -> u64 {
        sum(self.files.iter())
    }

    /// The bytes that the backup before it does not have.
    pub fn new_bytes(&self) -> u64 {
        sum(self.files.iter().filter(|file| !file.shared))
    }

    /// All that is known of when which epoch was durable, oldest first: last that of the backup itself.
    pub fn known_times(&self) -> impl DoubleEndedIterator<Item = TimeOfEpoch> + '_ {
        let own = (self.begun_at_ms, self.epoch);
        self.times.iter().copied().filter(move |(ms, epoch)| *ms < own.0 && *epoch <= own.1).chain([own])
    }

    /// The text of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut document = serde_json::json!(self);
        document[CHECKSUM] = Value::String(hex(&Sha256::digest(document.to_string())));
        format!("{document}\n").into_bytes()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Says what was expected and found.
    pub fn parse(bytes: &[u8]) -> std::result::Result<BackupManifest, String> {
        let mut document: Value = serde_json::from_slice(bytes).map_err(|e| format!("not a JSON document: {e}"))?;
        let checksum = document.as_object_mut().and_then(|object| object.remove(CHECKSUM));
        match document.get("format").and_then(Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            found => return Err(format!("format {FORMAT} was expected, found {}", found.unwrap_or_default())),
        }
        let expected = hex(&Sha256::digest(document.to_string()));
        match checksum {
            Some(Value::String(found)) if found == expected => {}
            found => return Err(format!("checksum {expected} was expected, found {}", found.unwrap_or_default())),
        }
        let manifest: BackupManifest = serde_json::from_value(document).map_err(|e| e.to_string())?;
        let is_plain = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains('/');
        match manifest.files.iter().find(|file| !is_plain(&file.name)) {
            Some(file) => Err(format!("{:?} is no name of a file", file.name)),
            None => Ok(manifest),
        }
    }

    /// Reads that of the backup in `directory`; `None` when it has none.
    ///
    /// # Errors
    /// [`Error::BrokenMetadata`] or [`Error::Io`].
    pub fn load(vfs: &dyn Vfs, directory: &Path) -> Result<Option<BackupManifest>> {
        let path = directory.join(NAME);
        let broken = |reason: String| Error::BrokenMetadata(format!("{} cannot be used: {reason}", path.display()));
        match vfs.read(&path, MAX_BYTES) {
            Ok(bytes) => BackupManifest::parse(&bytes).map(Some).map_err(broken),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == ErrorKind::InvalidData => Err(broken(e.to_string())),
            Err(e) => Err(Error::io("cannot read", &path, e)),
        }
    }
}

/// Whatever a manifest says of its files.
fn sum<'a>(files: impl Iterator<Item = &'a SavedFile>) -> u64 {
    files.fold(0, |sum, file| sum.saturating_add(file.bytes))
}

/// A checksum as it is written.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> BackupManifest {
        let mut manifest = BackupManifest::new(1_795_356_604_107, Epoch(7), Some(Serves::Replica), Path::new("/d"));
        manifest.times = vec![(1_795_356_600_000, Epoch(5))];
        manifest.identity = Identity { instance_uuid: "u".into(), term: Some(3), run: None };
        for (name, bytes, shared) in [("a", 5, true), ("b", 7, false)] {
            manifest.files.push(SavedFile { name: name.into(), bytes, sha256: "00".into(), shared });
        }
        manifest
    }

    #[test]
    fn what_was_written_is_read_and_any_flipped_bit_is_found() {
        let (manifest, bytes) = (manifest(), manifest().encode());
        assert_eq!(BackupManifest::parse(&bytes).as_ref(), Ok(&manifest));
        assert_eq!((manifest.bytes(), manifest.new_bytes(), &*manifest.begun_at), (12, 7, "2026-11-22T14:10:04.107Z"));
        for at in 0..bytes.len() - 1 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(BackupManifest::parse(&flipped).is_err(), "byte {at}");
        }
    }

    #[test]
    fn sizes_beyond_all_numbers_are_no_panic() {
        let mut manifest = manifest();
        manifest.files.iter_mut().for_each(|file| file.bytes = u64::MAX);
        let parsed = BackupManifest::parse(&manifest.encode()).unwrap();
        assert_eq!((parsed.bytes(), parsed.new_bytes()), (u64::MAX, u64::MAX));
    }

    #[test]
    fn a_later_format_and_names_that_lead_elsewhere_are_refused() {
        let later = BackupManifest { format: 2, ..manifest() };
        assert!(BackupManifest::parse(&later.encode()).unwrap_err().contains("format 1 was expected, found 2"));
        for name in ["", ".", "..", "../x", "/x", "a/b"] {
            let mut manifest = manifest();
            manifest.files[0].name = name.to_owned();
            assert!(BackupManifest::parse(&manifest.encode()).unwrap_err().contains("no name"), "{name}");
        }
    }
}

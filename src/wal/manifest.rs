// SPDX-License-Identifier: Apache-2.0
//! The manifest: format version and identity of a data directory (disk format §4).

use super::journal::JournalId;
use serde::Serialize;
use serde_json::Value;

/// What the newest directories carry and what is written.
pub const CURRENT_VERSION: i32 = 7;
/// The version while a commit journal is in use, which the original refuses: it would not see what is only there.
pub const JOURNAL_VERSION: i32 = 8;
/// The oldest version that is opened.
pub const OLDEST_VERSION: i32 = 1;
/// The first version whose sessions carry end markers.
pub const FIRST_WITH_END_MARKERS: i32 = 6;
/// A manifest has about a hundred bytes; a file larger than this is not one.
pub const MAX_BYTES: u64 = 1 << 20;

/// A manifest as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub persistent_format_version: i32,
    /// Absent in format 1.0.
    pub instance_uuid: Option<String>,
    /// The commit journal that is in use; only in version 8.
    pub journal: Option<JournalId>,
}

/// The keys in the order in which they are written.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_journal: Option<String>,
    format_version: &'static str,
    instance_uuid: &'a str,
    persistent_format_version: i32,
}

/// Reads a manifest; the error says what was expected.
pub fn parse(bytes: &[u8]) -> Result<Manifest, String> {
    let json: Value = serde_json::from_slice(bytes).map_err(|e| format!("not a JSON document: {e}"))?;
    let object = json.as_object().ok_or("not a JSON object")?;
    let format = object.get("format_version").and_then(Value::as_str).ok_or("no string format_version")?;
    let version = match object.get("persistent_format_version") {
        Some(Value::Number(number)) => number.as_f64().map_or(0, |v| v as i32),
        Some(Value::Bool(value)) => i32::from(*value),
        other => return Err(format!("persistent_format_version is not a number: {other:?}")),
    };
    let instance_uuid = match object.get("instance_uuid").and_then(Value::as_str) {
        _ if format == "1.0" => None,
        Some(uuid) => Some(uuid.to_owned()),
        None => return Err(format!("format_version {format:?} without a string instance_uuid")),
    };
    let journal = match object.get("commit_journal").and_then(Value::as_str) {
        Some(id) => Some(uuid::Uuid::parse_str(id).map_err(|e| format!("commit_journal is not a UUID: {e}"))?),
        None => None,
    };
    let journal = journal.filter(|_| version == JOURNAL_VERSION).map(uuid::Uuid::into_bytes);
    Ok(Manifest { persistent_format_version: version, instance_uuid, journal })
}

impl Manifest {
    /// A manifest of the current version with a new identity.
    pub fn new() -> Manifest {
        let uuid = uuid::Uuid::new_v4().to_string();
        Manifest { persistent_format_version: CURRENT_VERSION, instance_uuid: Some(uuid), journal: None }
    }

    /// The same directory with this commit journal in use, or with none.
    pub fn with_journal(&self, journal: Option<&JournalId>) -> Manifest {
        let version = if journal.is_some() { JOURNAL_VERSION } else { CURRENT_VERSION };
        Manifest { persistent_format_version: version, journal: journal.copied(), ..self.clone() }
    }

    /// The same directory in the current version; an identity is made when it has none.
    pub fn migrated(&self) -> Manifest {
        match &self.instance_uuid {
            Some(_) => self.with_journal(None),
            None => Manifest::new(),
        }
    }

    /// Whether this version can be opened.
    pub fn is_supported(&self) -> bool {
        (OLDEST_VERSION..=CURRENT_VERSION).contains(&self.persistent_format_version) || self.journal.is_some()
    }

    /// The text of the file: compact, keys in alphabetical order.
    pub fn encode(&self) -> Vec<u8> {
        let written = Written {
            commit_journal: self.journal.map(|id| uuid::Uuid::from_bytes(id).to_string()),
            format_version: "1.1",
            instance_uuid: self.instance_uuid.as_deref().unwrap_or_default(),
            persistent_format_version: self.persistent_format_version,
        };
        serde_json::to_vec(&written).expect("strings and a number are always JSON")
    }
}

impl Default for Manifest {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_compactly_and_read_back() {
        let manifest = Manifest::new();
        let text = String::from_utf8(manifest.encode()).unwrap();
        assert_eq!(text.len(), 109);
        assert!(text.starts_with("{\"format_version\":\"1.1\",\"instance_uuid\":\""));
        assert!(text.ends_with(",\"persistent_format_version\":7}"));
        assert_eq!(parse(text.as_bytes()), Ok(manifest));
    }

    #[test]
    fn odd_versions_are_read_as_the_original_does() {
        let version = |v: &str| {
            parse(format!("{{\"format_version\":\"1.0\",\"persistent_format_version\":{v}}}").as_bytes())
                .map(|m| m.persistent_format_version)
        };
        assert_eq!(version("7.9"), Ok(7));
        assert_eq!(version("true"), Ok(1));
        assert_eq!(version("-3"), Ok(-3));
        assert!(version("\"7\"").is_err());
        assert!(version("null").is_err());
    }

    #[test]
    fn only_version_8_has_a_journal_and_none_without_one_is_supported() {
        let manifest = Manifest::new();
        let in_use = manifest.with_journal(Some(&[7; 16]));
        let text = String::from_utf8(in_use.encode()).unwrap();
        assert!(text.starts_with("{\"commit_journal\":\"07070707-0707-0707-0707-070707070707\",\"format_version\""));
        assert!(text.ends_with(",\"persistent_format_version\":8}"));
        assert_eq!(parse(text.as_bytes()).as_ref(), Ok(&in_use));
        assert!(in_use.is_supported());
        assert_eq!(in_use.with_journal(None), manifest);
        let without = parse(b"{\"format_version\":\"1.0\",\"persistent_format_version\":8}").unwrap();
        assert!(!without.is_supported());
        let older = text.replace(":8}", ":7}");
        assert_eq!(parse(older.as_bytes()).unwrap().journal, None);
        assert!(parse(text.replace("0707-", "xxxx-").as_bytes()).unwrap_err().contains("not a UUID"));
    }

    #[test]
    fn format_1_1_needs_an_identity() {
        assert!(parse(b"{\"format_version\":\"1.1\",\"persistent_format_version\":7}").is_err());
        assert!(parse(b"{\"format_version\":1.1,\"persistent_format_version\":7}").is_err());
        assert!(parse(b"[]").is_err());
        assert!(parse(b"").is_err());
    }
}

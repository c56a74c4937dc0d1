// SPDX-License-Identifier: Apache-2.0
//! The manifest: format version and identity of a data directory (disk format §4).

use serde::Serialize;
use serde_json::Value;

/// What the newest directories carry and what is written.
pub const CURRENT_VERSION: i32 = 7;
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
}

/// The keys in the order in which they are written.
#[derive(Serialize)]
struct Written<'a> {
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
    Ok(Manifest { persistent_format_version: version, instance_uuid })
}

impl Manifest {
    /// A manifest of the current version with a new identity.
    pub fn new() -> Manifest {
        let uuid = uuid::Uuid::new_v4().to_string();
        Manifest { persistent_format_version: CURRENT_VERSION, instance_uuid: Some(uuid) }
    }

    /// The same directory in the current version; an identity is made when it has none.
    pub fn migrated(&self) -> Manifest {
        match &self.instance_uuid {
            Some(uuid) => Manifest { persistent_format_version: CURRENT_VERSION, instance_uuid: Some(uuid.clone()) },
            None => Manifest::new(),
        }
    }

    /// Whether this version can be opened.
    pub fn is_supported(&self) -> bool {
        (OLDEST_VERSION..=CURRENT_VERSION).contains(&self.persistent_format_version)
    }

    /// The text of the file: compact, keys in alphabetical order.
    pub fn encode(&self) -> Vec<u8> {
        let written = Written {
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
    fn format_1_1_needs_an_identity() {
        assert!(parse(b"{\"format_version\":\"1.1\",\"persistent_format_version\":7}").is_err());
        assert!(parse(b"{\"format_version\":1.1,\"persistent_format_version\":7}").is_err());
        assert!(parse(b"[]").is_err());
        assert!(parse(b"").is_err());
    }
}

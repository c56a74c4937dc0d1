// SPDX-License-Identifier: Apache-2.0
//! What each side says about itself: one document, the same for a primary and a replica.

use crate::types::WriteVersion;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Primary,
    Replica,
}

/// How the two sides stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkState {
    /// No program serves the directory.
    #[serde(rename = "stopped")]
    Stopped,
    /// A primary tries to connect; a replica waits for one.
    #[serde(rename = "connecting")]
    Connecting,
    #[serde(rename = "base sync")]
    BaseSync,
    #[serde(rename = "catch-up")]
    CatchUp,
    #[serde(rename = "streaming")]
    Streaming,
    /// Connected, but the replica's epoch does not move.
    #[serde(rename = "stalled")]
    Stalled,
    /// One side refused the other; it needs a person.
    #[serde(rename = "refused")]
    Refused,
}

impl LinkState {
    /// As it stands in the document and in log lines.
    pub fn name(self) -> &'static str {
        match self {
            LinkState::Stopped => "stopped",
            LinkState::Connecting => "connecting",
            LinkState::BaseSync => "base sync",
            LinkState::CatchUp => "catch-up",
            LinkState::Streaming => "streaming",
            LinkState::Stalled => "stalled",
            LinkState::Refused => "refused",
        }
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far the replica is behind what is stored on the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    pub epochs: u64,
    /// Log bytes that are not durable on the replica. A replica counts what it has received.
    pub bytes: u64,
    /// For how long there has been something that is stored and not propagated.
    pub ms: u64,
}

/// The document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub role: Side,
    /// `native` or `upstream`.
    pub protocol: String,
    pub state: LinkState,
    /// Milliseconds since the state was entered.
    pub state_ms: u64,
    /// Address of the other side while there is a connection.
    pub peer: Option<String>,
    /// The instance that the directory belongs to.
    pub instance_uuid: String,
    pub term: u64,
    /// Of the primary, as far as this side knows.
    pub switched_epoch: u64,
    pub stored_epoch: u64,
    /// Durable on the replica.
    pub propagated_epoch: u64,
    pub lag: Lag,
    /// What the primary does without the replica; unknown on a replica.
    pub policy: Option<String>,
    /// Milliseconds since 1970; while the notify level has fallen to STORED.
    pub degraded_since: Option<u64>,
    /// The GC boundary and the safe snapshot that the engine of the primary switched to last.
    #[serde(default)]
    pub boundary: Option<WriteVersion>,
    #[serde(default)]
    pub safe_snapshot: Option<WriteVersion>,
    pub last_error: Option<String>,
}

impl Status {
    /// One line of JSON without its end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings are always JSON")
    }
}

/// Lines for people.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.role {
            Side::Primary => "primary",
            Side::Replica => "replica",
        };
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        writeln!(f, "role:       {side} ({} protocol)", self.protocol)?;
        writeln!(f, "state:      {} for {} ms", self.state, self.state_ms)?;
        writeln!(f, "peer:       {}", or_none(&self.peer))?;
        writeln!(f, "instance:   {}, term {}", self.instance_uuid, self.term)?;
        writeln!(
            f,
            "epochs:     switched {}, stored {}, propagated {}",
            self.switched_epoch, self.stored_epoch, self.propagated_epoch
        )?;
        writeln!(f, "lag:        {} epochs, {} bytes, {} ms", self.lag.epochs, self.lag.bytes, self.lag.ms)?;
        if let Some(policy) = &self.policy {
            let degraded = self.degraded_since.map_or("-".to_owned(), |since| format!("{since} ms since 1970"));
            writeln!(f, "policy:     {policy}, degraded since: {degraded}")?;
        }
        let version = |version: Option<WriteVersion>| {
            version.map_or("-".to_owned(), |version| format!("({}, {})", version.major, version.minor))
        };
        writeln!(
            f,
            "versions:   GC boundary {}, safe snapshot {}",
            version(self.boundary),
            version(self.safe_snapshot)
        )?;
        write!(f, "last error: {}", or_none(&self.last_error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_read_back_as_written_and_uses_the_words_of_the_log() {
        let status = Status {
            role: Side::Replica,
            protocol: "native".to_owned(),
            state: LinkState::CatchUp,
            state_ms: 5,
            peer: None,
            instance_uuid: "u".to_owned(),
            term: 1,
            switched_epoch: 9,
            stored_epoch: 8,
            propagated_epoch: 6,
            lag: Lag { epochs: 2, bytes: 100, ms: 3 },
            policy: None,
            degraded_since: None,
            boundary: Some(WriteVersion { major: 7, minor: 1 }),
            safe_snapshot: None,
            last_error: Some("a \"quoted\" reason".to_owned()),
        };
        let json = status.to_json();
        assert!(json.contains("\"role\":\"replica\"") && json.contains("\"state\":\"catch-up\""), "{json}");
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
        for state in [LinkState::Stopped, LinkState::Connecting, LinkState::BaseSync, LinkState::CatchUp] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
        for state in [LinkState::Streaming, LinkState::Stalled, LinkState::Refused] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What each side says about itself: one document, the same for a primary and a replica and for both protocols. Both
//! hand in what they know as [`Known`]; here it becomes a document. Nothing that is unknown is ever shown as a number,
//! and `switched >= stored >= propagated` in each document.

use crate::datastore::{Datastore, HeldBack};
use crate::scrub::ScrubStatus;
use crate::types::{Epoch, WriteVersion};
use crate::wal::claim::Claim;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::time::{Duration, Instant};

/// Which side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Primary,
    Replica,
}

/// How the two sides stand to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkState {
    /// No program serves the directory, or the one that does ends.
    #[default]
    #[serde(rename = "stopped")]
    Stopped,
    /// An engine serves the directory, which is set to no replica.
    #[serde(rename = "not replicated")]
    NotReplicated,
    /// A primary tries to connect; a replica waits for one.
    #[serde(rename = "connecting")]
    Connecting,
    #[serde(rename = "base sync")]
    BaseSync,
    #[serde(rename = "catch-up")]
    CatchUp,
    /// The replica had everything that was stored, and gets the rest as it comes.
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
    /// All of them.
    pub const ALL: [LinkState; 8] = [
        LinkState::Stopped,
        LinkState::NotReplicated,
        LinkState::Connecting,
        LinkState::BaseSync,
        LinkState::CatchUp,
        LinkState::Streaming,
        LinkState::Stalled,
        LinkState::Refused,
    ];

    /// As it stands in the document and in log lines.
    pub fn name(self) -> &'static str {
        match self {
            LinkState::Stopped => "stopped",
            LinkState::NotReplicated => "not replicated",
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
    /// Stored epochs that are not propagated; 0 when those left wrote nothing.
    pub epochs: Option<u64>,
    /// Log bytes that are not durable on the replica: a primary counts what it has handed to the connections, a replica
    /// what it has received.
    pub bytes: Option<u64>,
    /// For how many milliseconds there has been something that is stored and not propagated.
    pub ms: Option<u64>,
    /// How many milliseconds old the other side's part of these numbers is.
    pub age_ms: Option<u64>,
}

/// What a primary knows of one of its replicas. What it does not know stays `None`.
#[derive(Clone, Debug)]
pub struct KnownReplica {
    pub name: String,
    pub state: LinkState,
    pub state_for: Duration,
    pub peer: Option<String>,
    pub heard: Option<Instant>,
    /// What counts of what it confirmed.
    pub propagated: Option<Epoch>,
    pub lag_bytes: Option<u64>,
    pub last_error: Option<String>,
}

/// What a side knows. What it does not know stays `None`.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub role: Option<Side>,
    pub protocol: Option<&'static str>,
    pub state: LinkState,
    /// How long it has been in this state.
    pub state_for: Option<Duration>,
    pub peer: Option<String>,
    /// When something came from the other side last.
    pub heard: Option<Instant>,
    pub instance_uuid: String,
    pub term: Option<u64>,
    pub claim: Option<Claim>,
    pub switched: Option<Epoch>,
    pub stored: Option<Epoch>,
    pub propagated: Option<Epoch>,
    /// The last stored epoch that wrote anything.
    pub written: Option<Epoch>,
    /// When the other side's part of the lag was heard; `None` when nothing is known of the lag now.
    pub lag_heard: Option<Instant>,
    pub lag_bytes: Option<u64>,
    pub lag_for: Option<Duration>,
    pub policy: Option<String>,
    pub degraded_since: Option<u64>,
    pub boundary: Option<WriteVersion>,
    pub safe_snapshot: Option<WriteVersion>,
    pub last_error: Option<String>,
    /// Who holds back a compaction that was asked for.
    pub held_back: Option<HeldBack>,
    /// Of a replica that reads its log files again and again.
    pub scrub: Option<ScrubStatus>,
    /// How many of several replicas must have an epoch.
    pub quorum: Option<usize>,
    /// Several replicas; one is the document itself.
    pub replicas: Vec<KnownReplica>,
}

impl Known {
    /// What the data store of a primary knows by itself.
    pub fn of_store(store: &Datastore) -> Known {
        let known = |epoch: Epoch| Some(epoch).filter(|epoch| *epoch > Epoch(0));
        // In this order each is at least what was read before.
        let (propagated, recorded) = (store.propagated_epoch(), store.recorded_epoch());
        let (stored, history) = (store.last_epoch(), store.history());
        Known {
            role: Some(Side::Primary),
            instance_uuid: store.instance_uuid().to_owned(),
            term: history.as_ref().map(|history| history.term),
            claim: history.map(|history| history.claim(recorded)),
            propagated: known(propagated),
            written: Some(recorded.min(stored)),
            stored: known(stored),
            switched: known(store.switched_epoch()),
            boundary: Some(store.available_boundary_version()).filter(|version| *version > WriteVersion::default()),
            safe_snapshot: store.safe_snapshot().map(|snapshot| snapshot.version),
            held_back: store.held_back_compaction(),
            ..Known::default()
        }
    }

    fn lag(&self, stored: Option<Epoch>) -> Lag {
        let age_ms = self.lag_heard.map(|heard| ms(heard.elapsed()));
        let epochs = match (self.propagated, self.written, stored) {
            (Some(has), Some(written), _) if has >= written => Some(0),
            (Some(has), _, Some(stored)) if has >= stored => Some(0),
            (Some(has), Some(_), Some(stored)) => Some(stored.0 - has.0),
            _ => None,
        };
        // How long something has been waiting is known without the other side.
        let ms = self.lag_for.map(ms);
        match age_ms {
            Some(_) => Lag { epochs, bytes: self.lag_bytes, ms, age_ms },
            None => Lag { ms, ..Lag::default() },
        }
    }

    /// The document.
    pub fn document(self) -> Status {
        // A side may have heard of the one before the other.
        let stored = self.stored.map(|stored| stored.max(self.propagated.unwrap_or_default()));
        let switched = self.switched.map(|switched| switched.max(stored.or(self.propagated).unwrap_or_default()));
        let lag = self.lag(stored);
        let number = |epoch: Option<Epoch>| epoch.map(|epoch| epoch.0);
        let replicas = self.replicas.iter().map(|replica| self.row(replica, stored)).collect();
        Status {
            role: self.role,
            protocol: self.protocol.map(str::to_owned),
            state: self.state,
            state_ms: self.state_for.map(ms),
            peer: self.peer.map(|peer| printable(&peer)),
            heard_ms: self.heard.map(|heard| ms(heard.elapsed())),
            instance_uuid: Some(printable(&self.instance_uuid)).filter(|uuid| !uuid.is_empty()),
            term: self.term,
            claim: self.claim,
            switched_epoch: number(switched),
            stored_epoch: number(stored),
            propagated_epoch: number(self.propagated),
            lag,
            policy: self.policy,
            degraded_since: self.degraded_since,
            boundary: self.boundary,
            safe_snapshot: self.safe_snapshot,
            last_error: self.last_error.map(|error| printable(&error)),
            compaction: self.held_back.map(|held_back| printable(&held_back.to_string())),
            scrub: self.scrub,
            quorum: self.quorum.map(|quorum| quorum as u64),
            replicas,
        }
    }

    fn row(&self, replica: &KnownReplica, stored: Option<Epoch>) -> ReplicaRow {
        let propagated = replica.propagated.filter(|epoch| *epoch > Epoch(0));
        let of_replica = Known {
            propagated,
            written: self.written,
            lag_heard: replica.heard,
            lag_bytes: replica.lag_bytes,
            ..Known::default()
        };
        ReplicaRow {
            name: replica.name.clone(),
            state: replica.state,
            state_ms: ms(replica.state_for),
            peer: replica.peer.as_deref().map(printable),
            heard_ms: replica.heard.map(|heard| ms(heard.elapsed())),
            propagated_epoch: propagated.map(|epoch| epoch.0),
            lag: of_replica.lag(stored),
            last_error: replica.last_error.as_deref().map(printable),
        }
    }
}

/// One of several replicas of a primary; the fields mean what they do in [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaRow {
    /// As it is set.
    pub name: String,
    pub state: LinkState,
    pub state_ms: u64,
    pub peer: Option<String>,
    pub heard_ms: Option<u64>,
    /// Durable there, as far as it counts.
    pub propagated_epoch: Option<u64>,
    pub lag: Lag,
    pub last_error: Option<String>,
}

/// A replica of a primary in the list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedReplica {
    pub name: String,
    /// As they stand in the settings, `|` between.
    pub addresses: String,
    pub state: LinkState,
    /// Durable there, as far as it counts.
    pub propagated_epoch: Option<u64>,
    pub last_error: Option<String>,
}

/// The document. `None`, `null` in JSON, is what the side that speaks does not know or does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub role: Option<Side>,
    /// `native` or `upstream`.
    pub protocol: Option<String>,
    pub state: LinkState,
    /// Milliseconds since the state was entered.
    pub state_ms: Option<u64>,
    /// Address of the other side while there is a connection.
    pub peer: Option<String>,
    /// Milliseconds since something came from the other side.
    pub heard_ms: Option<u64>,
    /// The instance that the directory belongs to.
    pub instance_uuid: Option<String>,
    /// The largest one that the directory was in or was told of.
    pub term: Option<u64>,
    /// What a cluster manager compares.
    pub claim: Option<Claim>,
    /// Of the primary; on a replica as it was told last.
    pub switched_epoch: Option<u64>,
    pub stored_epoch: Option<u64>,
    /// Durable on the replica; on a primary as it was told last.
    pub propagated_epoch: Option<u64>,
    pub lag: Lag,
    /// What the primary does without the replica; unknown on a replica.
    pub policy: Option<String>,
    /// Milliseconds since 1970; while the notify level has fallen to STORED.
    pub degraded_since: Option<u64>,
    /// The GC boundary and the safe snapshot that the engine of the primary switched to last.
    pub boundary: Option<WriteVersion>,
    pub safe_snapshot: Option<WriteVersion>,
    /// Why the last session failed or did not come about; gone when the replica has everything again.
    pub last_error: Option<String>,
    /// Why a compaction that was asked for is not done yet; `None` when none waits for a replica.
    #[serde(default)]
    pub compaction: Option<String>,
    /// Of a replica that reads its log files again and again.
    #[serde(default)]
    pub scrub: Option<ScrubStatus>,
    /// Of a primary with several replicas: how many must have an epoch before it counts as propagated. The link above
    /// is that of the one that completes them.
    #[serde(default)]
    pub quorum: Option<u64>,
    /// One for each replica where there are several.
    #[serde(default)]
    pub replicas: Vec<ReplicaRow>,
}

impl Status {
    /// One line of JSON without its end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings are always JSON")
    }
}

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// The text with control characters written out, so that what a peer says never steers a terminal or ends a line.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => write!(shown, "{}", c.escape_default()).expect("a string takes everything"),
            false => shown.push(c),
        }
    }
    shown
}

fn or_unknown<T: fmt::Display>(value: &Option<T>, unit: &str) -> String {
    value.as_ref().map_or_else(|| "unknown".to_owned(), |value| format!("{value}{unit}"))
}

fn or_none(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or("-")
}

/// Lines for people, from the same document.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.role {
            Some(Side::Primary) => "primary",
            Some(Side::Replica) => "replica",
            None => "none yet",
        };
        let protocol = self.protocol.as_ref().map_or_else(String::new, |protocol| format!(" ({protocol} protocol)"));
        let version = |version: Option<WriteVersion>| {
            version.map_or("-".to_owned(), |version| format!("({}, {})", version.major, version.minor))
        };
        let state_for = self.state_ms.map_or_else(String::new, |ms| format!(" for {ms} ms"));
        let heard = self.heard_ms.map_or_else(String::new, |ms| format!(", heard {ms} ms ago"));
        let Lag { epochs, bytes, ms, age_ms } = &self.lag;
        writeln!(f, "role:       {side}{protocol}")?;
        writeln!(f, "state:      {}{state_for}", self.state)?;
        writeln!(f, "peer:       {}{heard}", or_none(&self.peer))?;
        writeln!(f, "instance:   {}, term {}", or_none(&self.instance_uuid), or_unknown(&self.term, ""))?;
        writeln!(
            f,
            "epochs:     switched {}, stored {}, propagated {}",
            or_unknown(&self.switched_epoch, ""),
            or_unknown(&self.stored_epoch, ""),
            or_unknown(&self.propagated_epoch, "")
        )?;
        let age = age_ms.map_or_else(String::new, |age| format!(", as of {age} ms ago"));
        writeln!(
            f,
            "lag:        epochs {}, bytes {}, time {}{age}",
            or_unknown(epochs, ""),
            or_unknown(bytes, ""),
            or_unknown(ms, " ms")
        )?;
        if let Some(policy) = &self.policy {
            let degraded = self.degraded_since.map_or("-".to_owned(), |since| format!("{since} ms since 1970"));
            writeln!(f, "policy:     {policy}, degraded since: {degraded}")?;
        }
        writeln!(
            f,
            "versions:   GC boundary {}, safe snapshot {}",
            version(self.boundary),
            version(self.safe_snapshot)
        )?;
        write!(f, "last error: {}", or_none(&self.last_error))?;
        if let Some(compaction) = &self.compaction {
            write!(f, "\ncompaction: {compaction}")?;
        }
        if let Some(ScrubStatus { rounds, bytes, found, damaged }) = &self.scrub {
            write!(f, "\nscrub:      {rounds} rounds, {bytes} bytes, damage found {found} times")?;
            if !damaged.is_empty() {
                write!(f, ", not compacted until they are whole: {}", damaged.join(", "))?;
            }
        }
        if let Some(quorum) = self.quorum {
            write!(f, "\nreplicas:   {quorum} of {} must have an epoch", self.replicas.len())?;
        }
        self.replicas.iter().try_for_each(|replica| write!(f, "\n  {replica}"))
    }
}

impl fmt::Display for ReplicaRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReplicaRow { name, state, state_ms, peer, propagated_epoch, lag, last_error, .. } = self;
        write!(
            f,
            "{name}: {state} for {state_ms} ms, peer {}, propagated {}, lag {} bytes, last error: {}",
            or_none(peer),
            or_unknown(propagated_epoch, ""),
            or_unknown(&lag.bytes, ""),
            or_none(last_error)
        )
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;

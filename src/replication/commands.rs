// SPDX-License-Identifier: Apache-2.0
//! What a running engine is told about its replicas over the control socket: a line of JSON for a command, and one for
//! the answer.

use super::status::ListedReplica;
use serde::{Deserialize, Serialize};

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Nothing but the answer.
    ListReplicas,
    /// One more, as [`super::addresses::parse_replica`] reads it.
    AddReplica { replica: String },
    /// One less, by its name.
    RemoveReplica { name: String },
}

/// What has come of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// The replicas as they are afterwards, and how many of them must have an epoch.
    Replicas { replicas: Vec<ListedReplica>, quorum: usize },
    /// As programs end with it.
    Failed { error: String, exit: i32 },
}

// SPDX-License-Identifier: Apache-2.0
//! What the connections of a replica share.

use super::registry::Registry;
use crate::lock_order::RwLock;
use crate::replication::net::limits::Limits;
use crate::replication::replica_store::{Fault, StandbyStore};
use crate::replication::upstream::protocol::reader::Budget;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

/// Bounds of a replica.
#[derive(Clone, Debug)]
pub struct Options {
    /// For the first message, for a stall inside a message, and for a reply that the peer does not take. Default: 10 s.
    pub timeout: Duration,
    /// Whether peers elsewhere are served: the protocol cannot tell who they are. Default: no.
    pub allow_remote: bool,
    /// Connections at a time. Default: what the process's limit of descriptors allows.
    pub limits: Option<Limits>,
    /// What the messages being received may hold in memory together. Default: 1 GiB.
    pub budget: Budget,
}

impl Default for Options {
    fn default() -> Options {
        Options { timeout: Duration::from_secs(10), allow_remote: false, limits: None, budget: Budget::default() }
    }
}

/// What the connections share.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) store: Arc<StandbyStore>,
    pub(super) fault: Fault,
    pub(super) options: Options,
    pub(super) registry: Arc<Registry>,
    /// Held for reading while a session is appended, for writing while an epoch is recorded: a session is either whole
    /// in the log when the record is made, or knows that the record covers it.
    pub(super) recording: RwLock<()>,
    pub(super) stopping: AtomicBool,
}

impl Node {
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }
}

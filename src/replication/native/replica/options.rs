// SPDX-License-Identifier: Apache-2.0
//! What a replica is told at its start.

use crate::compaction::SelfCompaction;
use crate::datastore::Commit;
use crate::metrics::Metrics;
use crate::replication::native::protocol::message::VERSION_USUAL;
use crate::replication::net::tls::Certificates;
use crate::replication::secret::Secret;
use crate::scrub::Scrubbing;
use std::sync::Arc;
use std::time::Duration;

/// How a replica serves.
#[derive(Clone, Debug)]
pub struct Options {
    /// For a handshake, for a peer that takes nothing, for a primary that is silent. Default: 10 s.
    pub timeout: Duration,
    /// What peers have to know. Default: none.
    pub secret: Secret,
    /// Whether a peer elsewhere is accepted without a secret. Default: no.
    pub allow_no_secret: bool,
    /// With these, connections are taken over TLS only. Default: none.
    pub tls: Option<Arc<Certificates>>,
    /// The oldest version of the protocol that is spoken. Default: [`VERSION_USUAL`].
    pub version_min: u16,
    /// End with the first session of a primary.
    pub once: bool,
    /// How what is recorded becomes durable.
    pub commit: Commit,
    /// How log files are read again and again. Default: not at all.
    pub scrubbing: Option<Scrubbing>,
    /// When the log is compacted.
    pub compaction: Compaction,
    /// Where compactions are counted. Default: nobody looks.
    pub metrics: Arc<Metrics>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            timeout: Duration::from_secs(10),
            secret: Secret::default(),
            allow_no_secret: false,
            tls: None,
            version_min: VERSION_USUAL,
            once: false,
            commit: Commit::default(),
            scrubbing: None,
            compaction: Compaction::default(),
            metrics: Arc::default(),
        }
    }
}

/// When a replica compacts without being asked, and with how much memory.
#[derive(Clone, Copy, Debug)]
pub struct Compaction {
    /// `None` for never. Default: never.
    pub by_itself: Option<SelfCompaction>,
    /// Bounds the memory for sorting, in bytes. Default: 256 MiB.
    pub memory_bytes: u64,
}

impl Default for Compaction {
    fn default() -> Compaction {
        Compaction { by_itself: None, memory_bytes: 256 << 20 }
    }
}

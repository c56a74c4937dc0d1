// SPDX-License-Identifier: Apache-2.0
//! How to open a data store.

use super::progress::NotifyLevel;
use crate::compaction::SelfCompaction;
use crate::vfs::{RealFs, Vfs};
use crate::wal::journal;
use std::path::PathBuf;
use std::sync::Arc;

/// Bound for the index of a recovery when none is set: 1 GiB.
const DEFAULT_RECOVERY_MEMORY_BYTES: u64 = 1 << 30;
/// A smaller bound is raised to this: 1 MiB.
const RECOVERY_MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Bound for the index of a compaction when none is set: 256 MiB.
const DEFAULT_COMPACTION_MEMORY_BYTES: u64 = 256 << 20;
/// As in the original's configuration.
const DEFAULT_RECOVERY_THREADS: usize = 8;

/// How what sessions have written becomes durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Commit {
    /// The thread that ends a session syncs it; epochs are recorded, and callbacks called, before the call returns that
    /// completes them.
    #[default]
    Direct,
    /// Sessions are gathered and made durable together, with one sync, by a thread that also calls back.
    Journal(journal::Settings),
}

/// How to open a data store.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) location: PathBuf,
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) recovery_threads: usize,
    pub(super) recovery_memory_bytes: u64,
    pub(super) notify_level: NotifyLevel,
    pub(super) replicated: bool,
    pub(super) sessions_above_recovered: bool,
    pub(super) instance_id: String,
    pub(super) db_name: String,
    pub(super) commit: Commit,
    pub(super) self_compaction: Option<SelfCompaction>,
    pub(super) compaction_memory_bytes: u64,
}

impl Settings {
    /// Settings for the directory `location`; its parent must exist.
    pub fn new(location: impl Into<PathBuf>) -> Settings {
        Settings {
            location: location.into(),
            vfs: Arc::new(RealFs),
            recovery_threads: DEFAULT_RECOVERY_THREADS,
            recovery_memory_bytes: DEFAULT_RECOVERY_MEMORY_BYTES,
            notify_level: NotifyLevel::default(),
            replicated: false,
            sessions_above_recovered: true,
            instance_id: String::new(),
            db_name: String::new(),
            commit: Commit::default(),
            self_compaction: None,
            compaction_memory_bytes: DEFAULT_COMPACTION_MEMORY_BYTES,
        }
    }

    /// The disk to work on. Default: the machine's.
    pub fn vfs(mut self, vfs: Arc<dyn Vfs>) -> Settings {
        self.vfs = vfs;
        self
    }

    /// Threads that read the log at a start; no more are used than there are processors. 0 means the default.
    /// Default: 8.
    pub fn recovery_threads(mut self, threads: usize) -> Settings {
        self.recovery_threads = if threads == 0 { DEFAULT_RECOVERY_THREADS } else { threads };
        self
    }

    /// Memory in bytes that the index of a recovery may take, at least 1 MiB; beyond it, sorted pieces go to
    /// temporary files in the directory. 0 means the default. Default: 1 GiB.
    pub fn recovery_memory_bytes(mut self, bytes: u64) -> Settings {
        let bytes = if bytes == 0 { DEFAULT_RECOVERY_MEMORY_BYTES } else { bytes };
        self.recovery_memory_bytes = bytes.max(RECOVERY_MEMORY_BYTES_MIN);
        self
    }

    /// What the notify callback waits for. [`NotifyLevel::Propagated`] needs [`Self::replicated`]. Default:
    /// [`NotifyLevel::Stored`].
    pub fn notify_level(mut self, level: NotifyLevel) -> Settings {
        self.notify_level = level;
        self
    }

    /// The instance id that listeners to events are told. Default: empty.
    pub fn instance_id(mut self, instance_id: impl Into<String>) -> Settings {
        self.instance_id = instance_id.into();
        self
    }

    /// The name of the database that listeners to events are told. Default: empty.
    pub fn db_name(mut self, db_name: impl Into<String>) -> Settings {
        self.db_name = db_name.into();
        self
    }

    /// With replication, whether sessions before the first switch of epochs belong to an epoch above the recovered one:
    /// a replica that is brought up to date epoch by epoch needs that. Default: yes.
    pub fn sessions_above_recovered(mut self, above: bool) -> Settings {
        self.sessions_above_recovered = above;
        self
    }

    /// How commits become durable. Default: [`Commit::Direct`]; for an engine the environment decides
    /// ([`super::environment::commit`]).
    pub fn commit(mut self, commit: Commit) -> Settings {
        self.commit = commit;
        self
    }

    /// When the data store compacts its log without being asked, and deletes what it has compacted. Default: never.
    pub fn self_compaction(mut self, rule: Option<SelfCompaction>) -> Settings {
        self.self_compaction = rule;
        self
    }

    /// Memory in bytes that the index of an online compaction may take, at least 1 MiB; beyond it, sorted pieces go to
    /// temporary files in the directory. Beside it a compaction keeps at most about 128 MiB of what it reads in memory.
    /// 0 means the default. Default: 256 MiB.
    pub fn compaction_memory_bytes(mut self, bytes: u64) -> Settings {
        let bytes = if bytes == 0 { DEFAULT_COMPACTION_MEMORY_BYTES } else { bytes };
        self.compaction_memory_bytes = bytes.max(RECOVERY_MEMORY_BYTES_MIN);
        self
    }

    /// Whether replicas will confirm epochs. Default: no.
    pub fn replicated(mut self, replicated: bool) -> Settings {
        self.replicated = replicated;
        self
    }
}

// SPDX-License-Identifier: Apache-2.0
//! A running data store: its directory, its log channels and the coordination of epochs. Owns the life cycle and the
//! order of syncs that makes an epoch durable (`docs/durability.md`); promises that no epoch is acknowledged before
//! everything of it is on disk, and that nothing is acknowledged after a failure. Knows nothing of C, C++ or replicas.

mod backup;
mod callbacks;
mod channel;
mod committer;
mod compaction;
mod compactor;
mod coordinator;
mod durability;
pub mod environment;
mod epochs;
mod events;
mod file_names;
mod history;
mod journaling;
mod known_files;
mod maintenance;
mod open_sessions;
mod pauses;
mod progress;
mod reopening;
mod retention;
mod safe_snapshot;
mod settings;
mod short_turns;
mod start;
mod store;
mod subscription;
mod tags;
mod tap;
mod turns;

pub use crate::types::Durability;
pub use backup::Backup;
pub(crate) use committer::Committer;

pub use crate::compaction::SelfCompaction;
pub use callbacks::{EpochEvent, NotifyCallback, PersistentCallback};
pub use channel::Channel;
pub use compactor::Outcome;
pub use events::{Event, EventCallback, EventKind};
pub use progress::{EpochDurability, NotifyLevel};
pub use retention::{HeldBack, Retained};
pub use safe_snapshot::{SafeSnapshot, SnapshotCallback};
pub use settings::{Commit, Settings};
pub use start::RecoveryReport;
pub use store::Datastore;
pub use subscription::Subscription;
pub use tags::EpochTag;
pub use tap::{EndedSession, Tap, WrittenLog};

// SPDX-License-Identifier: Apache-2.0
//! Durable transaction log of the Tsurugi engine: parallel write-ahead log, group commit by epoch, recovery snapshot.
//!
//! [`datastore::Datastore`] is the way in for Rust; C and C++ come through [`ffi`] (`include/limestone_core.h`).
//! `docs/architecture.md` says how the parts fit.

pub mod backup;
pub mod blob;
pub mod compaction;
pub mod comparison;
pub mod datastore;
pub mod directory;
pub mod engine;
pub mod error;
pub mod ffi;
pub mod lock_order;
pub mod metrics;
pub mod monitoring;
pub mod program_output;
pub mod progress_bar;
pub mod recovery;
pub mod replication;
pub mod scrub;
pub mod stderr_log;
pub mod tgbackup;
pub mod tglogutil;
pub mod tgreplica;
pub mod types;
pub mod vfs;
pub mod wal;

// SPDX-License-Identifier: Apache-2.0
//! Replaces log files by one file with the live entries (disk format §7). Owns what is read, what is written and the
//! order of syncs in between; promises that a start gives the same entries whatever the moment at which a compaction
//! ends, that nothing is taken out of the log before the compacted file and the catalog that names it are on the disk,
//! and that memory is bounded. Knows nothing of channels, sessions or threads.
//!
//! What makes it safe: beside its own inputs a new compacted file gives the same entries as the old one, because the
//! log wins over it. So first the file takes its place, and only then the catalog takes the inputs out of the log.

mod catalog_file;
mod offline;
mod online;
pub mod own;
mod self_compaction;
mod writer;

pub use offline::{build, keep_copy, Built};

pub use online::{prepare, Preparation, Prepared};
pub use self_compaction::SelfCompaction;
pub(crate) use self_compaction::{behind_others, step_back, Policy, Sizes};
pub use writer::RESERVE_BYTES;

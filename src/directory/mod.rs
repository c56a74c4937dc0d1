// SPDX-License-Identifier: Apache-2.0
//! A data directory: its lock, manifest and catalog, what a start makes of it, and how programs use one that nobody
//! runs on. Promises that nothing is changed before everything has been read, and nothing without the lock. Knows
//! nothing of running sessions and epochs.

mod above;
mod catalog_file;
mod commit_journal;
mod cut;
mod cut_off;
pub(crate) mod data_directory;
mod log_directory;
mod manifest_file;
mod offline;
mod place;
mod request;
mod settled_view;
mod small_file;
pub(crate) mod start;
mod verdict;

pub(crate) use manifest_file::ManifestOnDisk;

pub use above::{compacted_up_to, Extent};
pub use cut::{cut, Cut};
pub use cut_off::Keep;
pub use log_directory::{LogDirectory, Restored};
pub use offline::{Access, OfflineDirectory};
pub use place::{create_or_open_once, open_once};
pub use request::{make_control_directory, CompactionRequest};
pub use verdict::Verdict;

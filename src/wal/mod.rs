// SPDX-License-Identifier: Apache-2.0
//! The bytes of the data directory. Owns the encoding of entries, the epoch file, the manifest, the catalog and the
//! rules by which a log file is read; promises that reading allocates nothing in proportion to a length it has not
//! checked, and never panics on any input. Knows nothing of channels, snapshots or replicas.

pub mod catalog;
pub mod claim;
pub mod confirmed;
pub mod entry;
pub mod epoch_file;
pub mod epoch_marks;
pub mod file_sync;
pub mod history;
pub mod history_file;
pub mod journal;
pub mod known_lack;
mod late_session;
pub mod manifest;
pub mod marks_file;
pub mod names;
pub(crate) mod read_ahead;
pub(crate) mod rotation;
pub mod scanner;
mod session_changes;
pub mod session_file;
pub mod sessions;

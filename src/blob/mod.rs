// SPDX-License-Identifier: Apache-2.0
//! Large objects beside the log, one file each. Owns their ids, their files and who still needs them; promises that a
//! registered BLOB is on the disk with its name before a session that refers to it ends, that no id is issued twice and
//! no file overwritten, and that no file is deleted that a live entry or a running pool refers to. Knows nothing of
//! channels or of C.

mod garbage;
pub mod paths;
mod pool;
mod reference_tag;
mod store;
#[cfg(test)]
mod tests;

pub use garbage::Found;
pub use pool::BlobPool;
pub use reference_tag::{reference_tag, ReferenceKey};
pub use store::{BlobStore, Incomplete};

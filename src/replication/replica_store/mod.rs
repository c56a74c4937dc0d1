// SPDX-License-Identifier: Apache-2.0
//! The replica's side of the disk: a data directory that grows by what a primary sends. Owns the log files of the
//! lanes, the epoch file, received BLOBs and the staging folder of a base sync; promises that [`StandbyStore::record`]
//! returns only when everything up to that epoch is on the disk, that nothing beyond the recorded epoch outlives a
//! [`StandbyStore::discard_beyond_durable`] or a restart, and that nothing is acknowledged after a failed write or
//! sync. Knows nothing of sockets and messages.

mod backup;
mod blobs;
mod compaction;
pub mod directory_id;
mod fault;
mod gate;
mod held;
mod held_back;
mod journaling;
mod lane;
mod sessions;
mod shared;
mod staging;
mod store;
pub mod versions;

pub use backup::begin_backup;
pub use blobs::BlobReceiver;
pub use compaction::{Outcome, Work};
pub use fault::Fault;
pub use held::HeldDirectory;
pub use lane::LaneLog;
pub use staging::{BaseStaging, STAGING_DIR};
pub use store::StandbyStore;
pub use versions::SwitchedVersions;

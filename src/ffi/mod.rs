// SPDX-License-Identifier: Apache-2.0
//! The C ABI (`include/limestone_core.h`, generated from here). Owns handles, error codes and the border that no
//! panic crosses; holds no logic of the data store.
//!
//! Rules of every function:
//! * It returns one of the `LIMESTONE_*` status codes; the text of the last failure of a thread is in
//!   `limestone_last_error_message`.
//! * A null, closed or foreign-kind handle gives `LIMESTONE_ERR_INVALID_HANDLE`. Handles keep a small stub for the life
//!   of the process, so that a stale one is recognised and never undefined.
//! * Pointers that were not made by this library, and wrong lengths, are the caller's responsibility.

mod backup;
mod blob;
mod blob_pool;
mod channel;
mod compaction;
mod cursor;
mod datastore;
mod durability;
mod events;
mod handle;
mod logging;
mod replication;
mod restore;
mod safe_snapshot;
mod settings;
mod status;
mod tags;

pub use backup::*;
pub use blob::*;
pub use blob_pool::*;
pub use channel::*;
pub use compaction::*;
pub use cursor::*;
pub use datastore::*;
pub use durability::*;
pub use events::*;
pub use logging::*;
pub use replication::*;
pub use restore::*;
pub use safe_snapshot::*;
pub use settings::*;
pub use status::*;
pub use tags::*;

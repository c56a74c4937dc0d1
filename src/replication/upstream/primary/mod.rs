// SPDX-License-Identifier: Apache-2.0
//! The primary for a replica that speaks the protocol of the original. Owns what is still to be sent ([`queue`]), how
//! the bytes of a log file become messages (`encode`), the connections (`connection`), what the threads share (`core`)
//! and do (`threads`), what is kept for the next run (`record`), and the way in (`driver`). Promises that nothing is
//! called propagated before the replica has confirmed it, that every wait ends, and that a replica that fails never
//! stops the engine.

mod connection;
mod core;
mod driver;
mod encode;
pub mod queue;
mod record;
mod threads;

pub use crate::wal::confirmed::{note as note_confirmed, NAME as CONFIRMED_NAME};
pub use core::{Observer, Phase};
pub use driver::{Primary, Status};

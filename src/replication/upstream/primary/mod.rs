// SPDX-License-Identifier: Apache-2.0
//! The primary for a replica that speaks the protocol of the original. Owns what is still to be sent ([`queue`]), how
//! the bytes of a log file become messages (`encode`), the connections (`link`), what the threads share (`state`) and do
//! (`threads`), and the way in (`driver`). Promises that nothing is called propagated before the replica has confirmed
//! it, that every wait ends, and that a replica that fails never stops the engine.

mod confirmed;
mod driver;
mod encode;
mod link;
pub mod queue;
mod state;
mod threads;

pub use confirmed::NAME as CONFIRMED_NAME;
pub use driver::{Options, Primary, Status};
pub use state::{Observer, Phase};

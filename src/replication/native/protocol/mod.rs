// SPDX-License-Identifier: Apache-2.0
//! The native protocol without its sockets: frames, messages, and what each side makes of them. Pure logic: bytes or
//! messages in, messages and verdicts out; time comes in as a number. The threads that carry it out live beside this
//! module, the simulation in `tests/replication_sim/` carries it out in one thread.

mod clock;
mod digest_message;
pub mod encoding;
pub mod frame;
pub mod handshake;
pub mod lane_order;
pub mod message;
pub mod primary_session;
pub mod proofs;
mod reason;
pub mod replica_session;
pub mod seal;

pub use clock::{heartbeat_interval, Millis};

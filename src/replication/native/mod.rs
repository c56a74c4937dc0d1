// SPDX-License-Identifier: Apache-2.0
//! The native protocol without its sockets: frames, messages, and what each side makes of them. Pure logic: bytes or
//! messages in, messages and actions out; time comes in as a number. The threads that carry the actions out live beside
//! this module, the simulation in `tests/replication_sim/` carries them out in one thread.

mod encoding;
pub mod frame;
pub mod message;
mod reason;

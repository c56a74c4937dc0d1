// SPDX-License-Identifier: Apache-2.0
//! The native protocol without its sockets: frames, messages, and what each side makes of them. Pure logic: bytes or
//! messages in, messages and verdicts out; time comes in as a number. The threads that carry it out live beside this
//! module, the simulation in `tests/replication_sim/` carries it out in one thread.

mod encoding;
pub mod frame;
pub mod handshake;
mod lane_order;
pub mod message;
pub mod primary_session;
mod reason;
pub mod replica_session;

/// Milliseconds on a clock that only goes forward.
pub type Millis = u64;

/// How often each side says on the control connection that it is alive, given the time after which it counts as lost.
pub fn heartbeat_interval(timeout: Millis) -> Millis {
    (timeout / 4).max(1)
}

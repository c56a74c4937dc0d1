// SPDX-License-Identifier: Apache-2.0
//! Time as the protocol counts it.

/// Milliseconds on a clock that only goes forward.
pub type Millis = u64;

/// How often each side says on the control connection that it is alive, given the time after which it counts as lost.
pub fn heartbeat_interval(timeout: Millis) -> Millis {
    (timeout / 4).max(1)
}

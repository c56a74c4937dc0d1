// SPDX-License-Identifier: Apache-2.0
//! Sockets of both protocols: opening, accepting and closing them, and when to try again. Knows no message.

pub mod backoff;
pub mod transport;

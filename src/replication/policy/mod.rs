// SPDX-License-Identifier: Apache-2.0
//! What is notified while a replica is missing: the rule, who applies it to a data store, and the file of the intervals
//! in which less was promised than was asked for. The same for both protocols.

pub mod degraded_intervals;
pub mod keeper;
pub mod rule;

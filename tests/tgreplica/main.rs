// SPDX-License-Identifier: Apache-2.0
//! The program `tgreplica` as a process of its own, with a primary made of the messages of the native protocol.

#[path = "../replication_native/authority.rs"]
mod authority;
mod base_sync;
mod certificates;
mod command_line;
#[path = "../commits/mod.rs"]
#[allow(dead_code)]
mod commits;
mod compare;
mod disk;
mod ending;
mod metrics;
mod openmetrics;
mod operator;
mod pair;
#[path = "../ports/mod.rs"]
mod ports;
mod primary;
mod program;
mod scrub;
mod scrub_engine;
mod sessions;
mod takeover;
mod with_primary;

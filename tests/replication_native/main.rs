// SPDX-License-Identifier: Apache-2.0
//! A primary and a replica with real sockets: what is reported as propagated is on the replica, whatever ends or
//! restarts.

mod authority;
#[path = "../commits/mod.rs"]
#[allow(dead_code)]
mod commits;
mod compaction;
mod faults;
mod histories;
mod pair;
mod policies;
#[path = "../ports/mod.rs"]
mod ports;
mod relay;
mod retention;
mod rewinds;
mod run_time;
mod sealed;
mod several;
#[path = "../status_watch/mod.rs"]
#[allow(dead_code)]
mod status_watch;
mod streaming;
mod switch_over;
mod terms;
mod tls;
mod tls_recipe;
mod tls_strangers;
#[path = "../unlocked/mod.rs"]
mod unlocked;

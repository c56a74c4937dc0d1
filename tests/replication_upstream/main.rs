// SPDX-License-Identifier: Apache-2.0
//! The protocol of the original: bytes, both roles over real sockets, and what a hostile peer can do.

mod codec;
#[path = "../commits/mod.rs"]
#[allow(dead_code)]
mod commits;
mod engine;
mod golden;
mod peer;
mod power_cuts;
mod primary;
mod reopening;
mod replica;
mod runs;
mod stand_in;
#[path = "../status_watch/mod.rs"]
#[allow(dead_code)]
mod status_watch;

#[path = "../engine_run/mod.rs"]
mod engine_run;
#[path = "../golden_data/mod.rs"]
mod golden_data;
#[path = "../ports/mod.rs"]
mod ports;

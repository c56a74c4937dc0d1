// SPDX-License-Identifier: Apache-2.0
//! The program `tgbackup` as a process of its own, on directories that an engine or a `tgreplica` serves, or nobody.

mod command_line;
#[path = "../commits/mod.rs"]
#[allow(dead_code)]
mod commits;
mod held;
mod history;
mod points;
#[path = "../ports/mod.rs"]
mod ports;
mod program;
mod replica;
#[path = "../unlocked/mod.rs"]
mod unlocked;
mod whole;

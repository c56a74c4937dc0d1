// SPDX-License-Identifier: Apache-2.0
//! Crash and fault tests on a simulated disk: the power goes, or a call fails, at every call that a workload makes to
//! the disk. Afterwards the directory must start, show everything that was acknowledged, show every session whole or
//! not at all, and take new sessions.

mod backup_program;
mod backups;
mod base_sync;
mod blobs;
#[path = "../commits/mod.rs"]
#[allow(dead_code)]
mod commits;
mod faults;
mod invariants;
mod late_sessions;
mod model;
mod panics;
mod power_cuts;
mod random;
mod replication_panics;
mod restores;
mod rewind;
mod runner;
mod script;
mod standby;
mod sweep;
mod threads;

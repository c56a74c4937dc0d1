// SPDX-License-Identifier: Apache-2.0
//! `tglogutil` as a program: what it prints, its exit codes, and what it leaves on the disk.

mod compaction;
mod diff;
#[path = "../engine_run/mod.rs"]
mod engine_run;
#[path = "../golden_data/mod.rs"]
mod golden_data;
mod histories;
mod inspect;
mod power_cuts;
mod repair;
mod tool;
mod usage;
mod verify_and_dump;
mod who_wrote;

// SPDX-License-Identifier: Apache-2.0
//! The tool `tglogutil`: looks at a data directory that no data store runs on, and repairs it. Owns the command line,
//! what is printed and the exit codes (public API §16); promises to lock first, to change nothing unless the command is
//! `repair` or `compaction`, and to leave no directory worse than it was. Knows nothing of channels or of running
//! epochs.

mod arguments;
mod blobs;
mod command;
mod compaction;
mod diff;
mod dump;
mod examine;
mod gflags;
mod glance;
mod inspect;
mod logs;
mod repair;
mod salvage;
mod scan;
mod verify;

pub use command::run;

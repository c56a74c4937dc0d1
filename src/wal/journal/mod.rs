// SPDX-License-Identifier: Apache-2.0
//! The commit journal: what sessions have written is made durable for many of them with one write and one sync of a
//! prepared file, and reaches their own files in the background. Owns the format of groups, the segments that are used
//! in turn, and what a start writes once more (*redo*). Knows nothing of channels, of when an epoch has ended, or of
//! the manifest, which says that a journal is in use: [`Host`] does.
//!
//! Positions in order: gathered ≥ in a group that is synced ≥ *settled*, which is synced in its own files with an epoch
//! record that covers it. Only what is settled may be renamed, cut, or lose its place in the journal.

mod format;
mod gather;
mod hand_over;
mod host;
mod pace;
pub mod redo;
mod running;
mod segments;
mod settler;
#[cfg(test)]
mod tests;

pub use format::JournalId;
pub use gather::{Fill, LogFile};
pub use host::Host;
pub use running::{Journal, Pause};
pub use segments::Settings;

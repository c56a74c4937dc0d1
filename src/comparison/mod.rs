// SPDX-License-Identifier: Apache-2.0
//! Whether two data directories have the same content at an epoch that both have, while engine and replica use them.
//! Owns the digest of a directory's content, in ranges of keys that both sides cut alike, and what differs between two
//! digests. Changes nothing.
//!
//! The content is what a start gives: the live entries with their values and the BLOBs they refer to. Write versions do
//! not count, because a compaction forgets them and each side compacts by itself.

mod cutting;
mod differences;
pub mod digest;
mod held_view;
mod side;
mod work;

pub use differences::{differences, Difference};
pub use digest::Digest;
pub use side::{Side, Span};
pub use work::{work, How};

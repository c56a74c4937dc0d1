// SPDX-License-Identifier: Apache-2.0
//! Finds what a disk has changed by itself in log files, where nobody writes any more. Owns `limestone-checksums`,
//! which says what such files held, and the reading of them, at a bounded rate; promises that a file that was replaced,
//! renamed, compacted or restored is never taken for a damaged one, and that nothing depends on what it has written
//! down. Knows nothing of what is done about a damaged file.

mod damage;
mod keeper;
mod known;
mod records;
mod rounds;
mod scrubbed;

pub use damage::{Damage, Wrong};
pub use keeper::{keep, Host};
pub use known::{Comparison, Known};
pub use rounds::{Rate, Reading, Round, Scrub, Scrubbing, Which};
pub use scrubbed::{ScrubStatus, Scrubbed};

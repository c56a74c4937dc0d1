// SPDX-License-Identifier: Apache-2.0
//! What a process counts of one directory that it serves: one structure of numbers without a lock, which everybody who
//! works raises and whoever asks reads. Knows nothing of what is counted, and not how it is shown.

mod counters;
mod epoch_clock;
mod histogram;
mod snapshot;

pub use counters::{Metrics, Number};
pub use epoch_clock::EpochClock;
pub use histogram::{Distribution, Histogram, BOUNDS_US};
pub use snapshot::Snapshot;

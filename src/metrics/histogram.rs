// SPDX-License-Identifier: Apache-2.0
//! How long something took, as counts between fixed bounds.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds in microseconds; a last part without a bound follows.
pub const BOUNDS_US: [u64; 16] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000,
    20_000_000,
];
const PARTS: usize = BOUNDS_US.len() + 1;

/// Counts of durations. Any thread; no lock.
#[derive(Debug, Default)]
pub struct Histogram {
    parts: [AtomicU64; PARTS],
    sum_ns: AtomicU64,
}

/// What a [`Histogram`] held at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many were at most as long as each of [`BOUNDS_US`] and longer than the one before; the last are longer.
    pub parts: Vec<u64>,
    pub sum_ns: u64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, time: Duration) {
        let us = time.as_nanos().div_ceil(1000);
        let part = BOUNDS_US.partition_point(|&bound| u128::from(bound) < us);
        self.parts[part].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    /// What it holds; of what is counted meanwhile, any part.
    pub fn distribution(&self) -> Distribution {
        let parts = self.parts.iter().map(|part| part.load(Relaxed)).collect();
        Distribution { parts, sum_ns: self.sum_ns.load(Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_below_the_first_bound_that_is_not_smaller() {
        let histogram = Histogram::default();
        for ns in [0, 50_000, 50_001, 20_000_000_000, 20_000_000_001] {
            histogram.observe(Duration::from_nanos(ns));
        }
        let Distribution { parts, sum_ns } = histogram.distribution();
        assert_eq!((parts[0], parts[1], parts[15], parts[16]), (2, 1, 1, 1));
        assert_eq!((parts.iter().sum::<u64>(), sum_ns), (5, 40_000_100_002));
    }
}

// SPDX-License-Identifier: Apache-2.0
//! How much may wait for the next group, so that an epoch waits for it no longer than a few milliseconds: a group that
//! takes longer lets less wait, and whoever ends a session waits for its turn instead.

use std::time::Duration;

/// A full group that takes longer was too large for this disk. A group that an epoch needs has one before it.
const TARGET: Duration = Duration::from_millis(3);
/// Less does not make a group much faster: most of its time is the sync.
const BYTES_MIN: usize = 512 << 10;

#[derive(Debug)]
pub(super) struct Pace {
    bytes_max: usize,
    limit: usize,
}

impl Pace {
    /// No more than `limit` ever waits.
    pub(super) fn new(limit: usize) -> Pace {
        Pace { bytes_max: limit, limit }
    }

    /// Bytes that may wait.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// A group with so many bytes took so long. One that was far from full says nothing.
    pub(super) fn note(&mut self, bytes: usize, took: Duration) {
        if bytes >= self.bytes_max / 2 {
            let next = if took > TARGET { self.bytes_max / 4 * 3 } else { self.bytes_max / 8 * 9 };
            self.bytes_max = next.clamp(BYTES_MIN.min(self.limit), self.limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 2 << 20;

    #[test]
    fn a_slow_disk_lets_less_wait_and_a_fast_one_more_within_bounds() {
        let mut pace = Pace::new(LIMIT);
        assert_eq!(pace.bytes_max(), LIMIT);
        for _ in 0..20 {
            // 200 MB/s
            pace.note(pace.bytes_max(), Duration::from_nanos(pace.bytes_max() as u64 * 5));
        }
        assert!((400_000..800_000).contains(&pace.bytes_max()), "{pace:?}");
        for _ in 0..20 {
            pace.note(pace.bytes_max(), Duration::from_secs(1));
        }
        assert_eq!(pace.bytes_max(), BYTES_MIN);
        pace.note(4096, Duration::from_micros(100));
        assert_eq!(pace.bytes_max(), BYTES_MIN, "a small group says nothing about large ones");
        for _ in 0..20 {
            pace.note(pace.bytes_max(), Duration::from_millis(1));
        }
        assert_eq!(pace.bytes_max(), LIMIT);
        let mut small = Pace::new(100_000);
        small.note(100_000, Duration::from_secs(1));
        assert_eq!(small.bytes_max(), 100_000);
    }
}

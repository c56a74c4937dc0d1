// SPDX-License-Identifier: Apache-2.0
//! How much may wait for the next group, so that an epoch waits for it no longer than a few milliseconds: a group that
//! takes longer lets less wait, and whoever ends a session waits for its turn instead.

use std::time::Duration;

/// A full group that takes longer was too large for this disk. A group that an epoch needs has one before it.
const TARGET: Duration = Duration::from_micros(500);
/// Less does not make a group much faster: most of its time is the sync.
const BYTES_MIN: usize = 64 << 10;
/// The same where even the quickest group takes about as long as [`TARGET`]: smaller ones would only be more.
const BYTES_MIN_SLOW: usize = 512 << 10;
/// The quickest group is forgotten when some hundred have taken longer.
const FORGET: u32 = 256;
/// Whoever waits for room writes a group after this time: the thread that should may be in a callback, and the callback
/// may be what waits.
pub(super) const PATIENCE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Pace {
    bytes_max: usize,
    limit: usize,
    /// What the quickest of the last groups took.
    quickest: Duration,
}

impl Pace {
    /// No more than `limit` ever waits.
    pub(super) fn new(limit: usize) -> Pace {
        Pace { bytes_max: limit, limit, quickest: TARGET }
    }

    /// Bytes that may wait.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// A group with so many bytes took so long. One that was far from full says only what the disk needs at least.
    pub(super) fn note(&mut self, bytes: usize, took: Duration) {
        self.quickest = took.min(self.quickest + (self.quickest / FORGET).max(Duration::from_nanos(1)));
        if bytes >= self.bytes_max / 2 {
            let next = if took > TARGET { self.bytes_max / 4 * 3 } else { self.bytes_max / 8 * 9 };
            let bytes_min = if self.quickest > TARGET / 2 { BYTES_MIN_SLOW } else { BYTES_MIN };
            self.bytes_max = next.clamp(bytes_min.min(self.limit), self.limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 2 << 20;

    #[test]
    fn a_disk_lets_wait_what_it_writes_in_time_within_bounds() {
        let mut pace = Pace::new(LIMIT);
        assert_eq!(pace.bytes_max(), LIMIT);
        pace.note(4096, Duration::from_micros(100));
        assert_eq!(pace.bytes_max(), LIMIT, "a small group says nothing about large ones");
        for _ in 0..30 {
            // 400 MB/s
            pace.note(
                pace.bytes_max(),
                Duration::from_micros(100) + Duration::from_nanos(pace.bytes_max() as u64 * 5 / 2),
            );
        }
        assert!((110_000..200_000).contains(&pace.bytes_max()), "{pace:?}");
        for _ in 0..20 {
            pace.note(pace.bytes_max(), Duration::from_millis(1));
        }
        assert_eq!(pace.bytes_max(), BYTES_MIN);
        for _ in 0..40 {
            pace.note(pace.bytes_max(), TARGET / 4);
        }
        assert_eq!(pace.bytes_max(), LIMIT);
        let mut small = Pace::new(100_000);
        small.note(100_000, Duration::from_secs(1));
        assert_eq!(small.bytes_max(), 100_000);
    }

    #[test]
    fn a_disk_whose_syncs_take_long_is_given_more_at_once() {
        let mut pace = Pace::new(LIMIT);
        for _ in 0..1000 {
            pace.note(pace.bytes_max(), Duration::from_millis(5));
        }
        assert_eq!(pace.bytes_max(), BYTES_MIN_SLOW);
        // It was busy with something else.
        for _ in 0..10 {
            pace.note(4096, Duration::from_micros(100));
            pace.note(pace.bytes_max(), Duration::from_millis(5));
        }
        assert_eq!(pace.bytes_max(), BYTES_MIN);
    }
}

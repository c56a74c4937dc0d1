// SPDX-License-Identifier: Apache-2.0
//! How long to wait between attempts: longer each time, up to a bound, and never for all alike.

use crate::replication::secret;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
/// A replica that is back should not have to wait for its primary.
const LONGEST: Duration = Duration::from_millis(250);

/// The waiting times of one connection.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// No time is longer than the time-out of the connection.
    pub(crate) fn new(timeout: Duration) -> Backoff {
        Backoff { next: FIRST, longest: LONGEST.min(timeout) }
    }

    /// To be called after a success.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The time to wait now: between half and the whole of one that doubles.
    pub(crate) fn next(&mut self) -> Duration {
        let time = self.next.min(self.longest);
        self.next = (time * 2).min(self.longest);
        // Without random bytes all wait equally long, which does no harm.
        let [jitter] = secret::random().unwrap_or([u8::MAX]);
        time / 2 + time / 2 * u32::from(jitter) / u32::from(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_grow_up_to_the_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(300));
        let times: Vec<Duration> = std::iter::repeat_with(|| backoff.next()).take(8).collect();
        for (time, expected) in times.iter().zip([50, 100, 200, 250, 250, 250, 250, 250]) {
            let expected = Duration::from_millis(expected);
            assert!((expected / 2..=expected).contains(time), "{times:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}

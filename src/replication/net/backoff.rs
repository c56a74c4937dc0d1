// SPDX-License-Identifier: Apache-2.0
//! How long to wait between attempts: longer each time, up to a bound, and never for all alike.

use crate::replication::secret;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
/// Who answers and cannot serve is asked again after this time at the latest.
const LONGEST: Duration = Duration::from_millis(250);
/// Who does not answer costs nobody anything, and should not have to wait when it is back.
const LONGEST_AWAY: Duration = Duration::from_millis(50);

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
        part_of(time)
    }

    /// The same when nobody answers.
    pub(crate) fn next_away(&self) -> Duration {
        part_of(self.longest.min(LONGEST_AWAY))
    }
}

/// Between half of it and the whole.
fn part_of(time: Duration) -> Duration {
    // Without random bytes all wait equally long, which does no harm.
    let [jitter] = secret::random().unwrap_or([u8::MAX]);
    time / 2 + time / 2 * u32::from(jitter) / u32::from(u8::MAX)
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

    #[test]
    fn who_does_not_answer_is_soon_asked_again_however_long_it_was_away() {
        let mut backoff = Backoff::new(Duration::from_secs(10));
        let longest = (0..100).map(|_| backoff.next_away()).max();
        assert!(longest <= Some(LONGEST_AWAY), "{longest:?}");
        assert!(backoff.next() <= FIRST, "such times do not make others grow");
        assert!(Backoff::new(Duration::from_millis(10)).next_away() <= Duration::from_millis(10));
    }
}

// SPDX-License-Identifier: Apache-2.0
//! When epochs ended, for as many of the last ones as anybody may still wait for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Epochs that are kept; a longer wait is measured from the oldest of them.
const KEPT: usize = 1024;

/// Remembers when each epoch began, which is when the one before it ended. One thread at a time says so, any may ask.
#[derive(Debug)]
pub struct EpochClock {
    origin: Instant,
    kept: Box<[Begun]>,
}

#[derive(Debug, Default)]
struct Begun {
    epoch: AtomicU64,
    ns: AtomicU64,
}

impl Default for EpochClock {
    fn default() -> EpochClock {
        EpochClock { origin: Instant::now(), kept: (0..KEPT).map(|_| Begun::default()).collect() }
    }
}

impl EpochClock {
    /// All epochs before `epoch` end now.
    pub fn begin(&self, epoch: u64) {
        let begun = self.place(epoch);
        begun.epoch.store(0, Ordering::Release);
        begun.ns.store(self.now_ns(), Ordering::Release);
        begun.epoch.store(epoch, Ordering::Release);
    }

    /// How long ago `epoch` ended; at least so long when that is no longer known exactly, and `None` for an epoch that
    /// no switch ended.
    pub fn since_end_of(&self, epoch: u64) -> Option<Duration> {
        let next = epoch.checked_add(1)?;
        let ns = match self.read(self.place(next)) {
            (found, ns) if found == next => Some(ns),
            // Its place was taken by a later one.
            (found, _) if found > next => self.oldest_ns(),
            _ => None,
        }?;
        Some(Duration::from_nanos(self.now_ns().saturating_sub(ns)))
    }

    fn place(&self, epoch: u64) -> &Begun {
        &self.kept[(epoch % KEPT as u64) as usize]
    }

    /// Both numbers of one epoch; 0 while they are being written.
    fn read(&self, begun: &Begun) -> (u64, u64) {
        let epoch = begun.epoch.load(Ordering::Acquire);
        let ns = begun.ns.load(Ordering::Acquire);
        match begun.epoch.load(Ordering::Acquire) {
            same if same == epoch => (epoch, ns),
            _ => (0, 0),
        }
    }

    fn oldest_ns(&self) -> Option<u64> {
        self.kept.iter().map(|begun| self.read(begun)).filter(|&(epoch, _)| epoch > 0).map(|(_, ns)| ns).min()
    }

    fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_ends_when_the_next_one_begins() {
        let clock = EpochClock::default();
        assert_eq!(clock.since_end_of(0), None);
        clock.begin(1);
        let begun = Instant::now();
        std::thread::sleep(Duration::from_millis(5));
        clock.begin(3);
        let waited = clock.since_end_of(0).unwrap();
        assert!(waited >= Duration::from_millis(5) && waited >= begun.elapsed() - Duration::from_millis(1));
        assert!(clock.since_end_of(2).unwrap() < waited);
        assert_eq!((clock.since_end_of(3), clock.since_end_of(u64::MAX)), (None, None));
    }

    #[test]
    fn what_ended_too_long_ago_is_at_least_as_old_as_the_oldest_that_is_known() {
        let clock = EpochClock::default();
        clock.begin(1);
        std::thread::sleep(Duration::from_millis(2));
        clock.begin(2);
        std::thread::sleep(Duration::from_millis(2));
        (3..KEPT as u64 + 2).for_each(|epoch| clock.begin(epoch));
        let (gone, oldest) = (clock.since_end_of(0).unwrap(), clock.since_end_of(1).unwrap());
        assert!(gone >= Duration::from_millis(2) && gone.abs_diff(oldest) < Duration::from_millis(1));
    }
}

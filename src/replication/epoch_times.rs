// SPDX-License-Identifier: Apache-2.0
//! When which epoch was durable, since a process began to serve: what a backup needs to be restored to a point in time.
//! Looked at once a second, in bounded memory.

use crate::lock_order::{Mutex, Rank};
use crate::types::Epoch;
use crate::wal::names;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// What is kept: 18 hours of it, and twice as long whenever every second one is given up.
const KEPT_MAX: usize = 1 << 16;

/// At a time in milliseconds since 1970 everything up to this epoch was durable.
pub type TimeOfEpoch = (u64, Epoch);

/// What is known, oldest first; both numbers rise.
#[derive(Debug)]
struct Known {
    times: Vec<TimeOfEpoch>,
    /// The next one is taken so long after the last.
    every_ms: u64,
    kept_max: usize,
}

impl Known {
    fn new(kept_max: usize) -> Known {
        Known { times: Vec::new(), every_ms: 0, kept_max }
    }

    fn note(&mut self, now_ms: u64, epoch: Epoch) {
        match self.times.last() {
            // Also when the clock was set back.
            Some((ms, known)) if now_ms < ms + self.every_ms.max(1) || epoch <= *known => return,
            _ => self.times.push((now_ms, epoch)),
        }
        if self.times.len() >= self.kept_max {
            let mut at = 0;
            self.times.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            self.every_ms = (2 * self.every_ms).max(2 * EVERY.as_millis() as u64);
        }
    }
}

/// Looks while it lives.
#[derive(Debug)]
pub(super) struct EpochTimes {
    known: Arc<Mutex<Known>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// A process that was forked from this one has the memory of it, and not the thread.
    process: u32,
}

impl EpochTimes {
    /// `durable` says up to which epoch everything is durable, and never waits.
    pub(super) fn start(durable: impl Fn() -> Epoch + Send + 'static) -> io::Result<EpochTimes> {
        let (known, stopping) =
            (Arc::new(Mutex::new(Rank::Leaf, Known::new(KEPT_MAX))), Arc::new(AtomicBool::new(false)));
        let look = {
            let (known, stopping) = (known.clone(), stopping.clone());
            move || {
                while !stopping.load(SeqCst) {
                    // In this order: the epoch was durable by then.
                    let epoch = durable();
                    known.lock().note(now_ms(), epoch);
                    std::thread::park_timeout(EVERY);
                }
            }
        };
        let thread = std::thread::Builder::new().name("epoch-times".to_owned()).spawn(look)?;
        Ok(EpochTimes { known, stopping, thread: Some(thread), process: std::process::id() })
    }

    /// What is known of epochs up to this one.
    pub(super) fn up_to(&self, last: Epoch) -> Vec<TimeOfEpoch> {
        self.known.lock().times.iter().copied().take_while(|(_, epoch)| *epoch <= last).collect()
    }
}

impl Drop for EpochTimes {
    fn drop(&mut self) {
        self.stopping.store(true, SeqCst);
        if let Some(thread) = self.thread.take().filter(|_| self.process == std::process::id()) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    u64::try_from(names::unix_ms()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_epochs_rise_and_old_ones_become_rarer_before_there_are_too_many() {
        let mut known = Known::new(8);
        known.note(1000, Epoch(5));
        for (ms, epoch) in [(1000, 6), (999, 7), (2000, 5), (2000, 4)] {
            known.note(ms, Epoch(epoch));
        }
        assert_eq!(known.times, [(1000, Epoch(5))]);
        for second in 2..=100 {
            known.note(1000 * second, Epoch(10 * second));
        }
        let times = &known.times;
        assert!(times.len() < 8 && times.len() >= 4, "{times:?}");
        assert!(times.is_sorted() && times.iter().skip(1).all(|(ms, epoch)| *ms == 100 * epoch.0), "{times:?}");
        assert!(times[0] == (1000, Epoch(5)) && times.last().unwrap().0 >= 60_000, "{times:?}");
    }

    #[test]
    fn what_is_durable_is_noted_while_it_lives() {
        let times = EpochTimes::start(|| Epoch(7)).unwrap();
        let begun = std::time::Instant::now();
        while times.up_to(Epoch(7)).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(times.up_to(Epoch(6)).is_empty());
        let (ms, epoch) = times.up_to(Epoch(9))[0];
        assert!(epoch == Epoch(7) && now_ms() - ms < 60_000);
    }
}

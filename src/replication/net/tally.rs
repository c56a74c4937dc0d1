// SPDX-License-Identifier: Apache-2.0
//! Counts what strangers do, so that the log gets one line now and then and not one for each of them.

use crate::lock_order::Mutex;
use std::time::{Duration, Instant};

/// How often at most a line is written.
const INTERVAL: Duration = Duration::from_secs(10);

/// What happened since the last line.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    count: u64,
    last: String,
    written: Option<Instant>,
}

impl Tally {
    /// It happened again, for this reason.
    pub fn note(&self, reason: String) {
        let mut counted = self.0.lock();
        counted.count += 1;
        counted.last = reason;
    }

    /// The line to write, when there is something to say and it is time.
    pub fn due(&self) -> Option<String> {
        let mut counted = self.0.lock();
        let early = counted.written.is_some_and(|written| written.elapsed() < INTERVAL);
        if counted.count == 0 || early {
            return None;
        }
        counted.written = Some(Instant::now());
        let last = std::mem::take(&mut counted.last);
        match std::mem::take(&mut counted.count) {
            1 => Some(last),
            count => Some(format!("{count} connections were not served, the last one: {last}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_together_later() {
        let tally = Tally::default();
        assert_eq!(tally.due(), None);
        tally.note("one".to_owned());
        assert_eq!(tally.due().unwrap(), "one");
        tally.note("two".to_owned());
        tally.note("three".to_owned());
        assert_eq!(tally.due(), None);
        tally.0.lock().written = None;
        assert_eq!(tally.due().unwrap(), "2 connections were not served, the last one: three");
        assert_eq!(tally.due(), None);
    }
}

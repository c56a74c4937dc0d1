// SPDX-License-Identifier: Apache-2.0
//! A line on a terminal that says how far a long run is.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Below this nobody has to wait.
const BYTES_MIN: u64 = 64 << 20;
const INTERVAL: Duration = Duration::from_millis(200);

/// Counts bytes; prints only when stderr is a terminal and there is much to read.
pub struct Progress {
    total: u64,
    before: u64,
    shown: Option<Instant>,
    calls: u32,
}

impl Progress {
    pub fn new(total: u64) -> Progress {
        let visible = total >= BYTES_MIN && std::io::stderr().is_terminal();
        Progress { total, before: 0, shown: visible.then(Instant::now), calls: 0 }
    }

    /// The run is at `offset` of the present file.
    pub fn at(&mut self, offset: usize) {
        self.calls = self.calls.wrapping_add(1);
        if !self.calls.is_multiple_of(4096) || self.shown.is_none_or(|shown| shown.elapsed() < INTERVAL) {
            return;
        }
        self.shown = Some(Instant::now());
        let done = self.before + offset as u64;
        let tenths = (done as u128 * 20 / self.total.max(1) as u128) as usize;
        let bar = "#".repeat(tenths.min(20));
        let _ = write!(std::io::stderr(), "\r[{bar:<20}] {} of {} MiB", done >> 20, self.total >> 20);
    }

    /// A file of `len` bytes is done.
    pub fn file_done(&mut self, len: usize) {
        self.before += len as u64;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r{:60}\r", "");
        }
    }
}

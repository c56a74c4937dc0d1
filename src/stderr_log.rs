// SPDX-License-Identifier: Apache-2.0
//! Log lines of the programs on stderr, one each. A tool that runs and ends writes them at once. A program that serves
//! hands them to a thread of their own, with the time in front: whoever reads stderr slowly, or not at all, holds up
//! nobody; what finds no room is dropped and counted.

use crate::lock_order::{Condvar, Mutex, Rank};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Lines that wait at most, and the longest one in bytes: together at most 4 MiB.
const LINES_MAX: usize = 1024;
const LINE_BYTES_MAX: usize = 4096;

fn level(record: &log::Record<'_>) -> &'static str {
    match record.level() {
        log::Level::Warn => "WARNING",
        other => other.as_str(),
    }
}

struct Direct;

impl log::Log for Direct {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // There is nowhere to tell that stderr is gone.
        let _ = writeln!(io::stderr(), "{}: {}", level(record), record.args());
    }

    fn flush(&self) {}
}

/// Sends what is logged from now on to stderr, unless it goes somewhere already.
pub fn install() {
    if log::set_logger(&Direct).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// Lines on their way.
struct Queue {
    waiting: Mutex<Waiting>,
    /// There is a line, or none is left.
    changed: Condvar,
}

struct Waiting {
    lines: VecDeque<String>,
    /// Lines that found no room since the last one that did.
    dropped: u64,
    /// A line is being written.
    writing: bool,
}

static QUEUE: Queue = Queue {
    waiting: Mutex::new(Rank::Log, Waiting { lines: VecDeque::new(), dropped: 0, writing: false }),
    changed: Condvar::new(),
};

impl Queue {
    fn push(&self, line: String) {
        let mut waiting = self.waiting.lock();
        match waiting.lines.len() < LINES_MAX {
            true => waiting.lines.push_back(line),
            false => waiting.dropped += 1,
        }
        self.changed.notify_all();
    }

    /// The next line; one that tells of dropped lines comes as soon as there is room again.
    fn next(&self) -> String {
        let mut waiting = self.waiting.lock();
        waiting.writing = false;
        self.changed.notify_all();
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.writing = true;
                return line;
            }
            let dropped = std::mem::take(&mut waiting.dropped);
            if dropped > 0 {
                waiting.writing = true;
                let text = format!("{dropped} log lines were dropped, stderr takes them too slowly");
                return line_of(SystemTime::now(), "WARNING", &text);
            }
            self.changed.wait(&mut waiting);
        }
    }

    fn write_all(&self, mut to: impl Write) {
        loop {
            // There is nowhere to tell that stderr is gone.
            let _ = to.write_all(self.next().as_bytes());
        }
    }
}

struct Queued;

impl log::Log for Queued {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        QUEUE.push(line_of(SystemTime::now(), level(record), &record.args().to_string()));
    }

    fn flush(&self) {}
}

/// As [`install`], for a program that serves: with times, and no call that logs ever waits. Panics are logged as well.
pub fn install_queued() {
    if log::set_logger(&Queued).is_err() {
        return;
    }
    log::set_max_level(log::LevelFilter::Info);
    // Not through the standard library's stderr: its lock would be held while the writing waits.
    // SAFETY: the descriptor is only borrowed: it is never closed here.
    let stderr = ManuallyDrop::new(unsafe { File::from_raw_fd(2) });
    let started = std::thread::Builder::new().name("log".to_owned()).spawn(move || QUEUE.write_all(&*stderr));
    if started.is_ok() {
        std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    }
}

/// Waits until everything logged so far is written, at most as long.
pub fn finish(patience: Duration) {
    let deadline = Instant::now() + patience;
    let mut waiting = QUEUE.waiting.lock();
    while waiting.writing || !waiting.lines.is_empty() || waiting.dropped > 0 {
        if QUEUE.changed.wait_until(&mut waiting, deadline).timed_out() {
            return;
        }
    }
}

/// A line: nothing in it can end it early or steer a terminal.
fn line_of(time: SystemTime, level: &str, text: &str) -> String {
    let mut line = format!("{} {level}: ", rfc3339(time));
    for c in text.chars() {
        if line.len() >= LINE_BYTES_MAX {
            line.push_str(" ...");
            break;
        }
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    line.push('\n');
    line
}

/// The time in UTC with milliseconds, as RFC 3339 writes it.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, ms) = (since.as_secs(), since.subsec_millis());
    // Days are counted from the first of March of the year 0, so that a leap day is the last of its year; an era is 400
    // years.
    let day = seconds / 86_400 + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let (date, month) = (of_year - (153 * month_from_march + 2) / 5 + 1, (month_from_march + 2) % 12 + 1);
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc_with_leap_years() {
        let at = |seconds, ms| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(ms));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399, 999), "2000-02-28T23:59:59.999Z");
        assert_eq!(at(951_782_400, 0), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(951_868_800, 0), "2000-03-01T00:00:00.000Z");
        assert_eq!(at(4_107_542_400, 7), "2100-03-01T00:00:00.007Z");
        assert_eq!(at(1_735_689_599, 0), "2024-12-31T23:59:59.000Z");
    }

    #[test]
    fn a_line_stays_one_line_of_bounded_length_whatever_is_in_it() {
        let line = line_of(UNIX_EPOCH, "INFO", "a\nb\u{1b}[2J\u{9b}c");
        assert_eq!(line, "1970-01-01T00:00:00.000Z INFO: a\\nb\\u{1b}[2J\\u{9b}c\n");
        let long = line_of(UNIX_EPOCH, "INFO", &"x".repeat(100_000));
        assert!(long.len() < LINE_BYTES_MAX + 20 && long.ends_with(" ...\n"));
    }

    #[test]
    fn lines_that_find_no_room_are_counted_and_the_count_is_told() {
        let queue = Queue {
            waiting: Mutex::new(Rank::Log, Waiting { lines: VecDeque::new(), dropped: 0, writing: false }),
            changed: Condvar::new(),
        };
        for number in 0..LINES_MAX + 7 {
            queue.push(format!("{number}\n"));
        }
        for number in 0..LINES_MAX {
            assert_eq!(queue.next(), format!("{number}\n"));
        }
        assert!(queue.next().contains("7 log lines were dropped"));
        queue.push("on\n".to_owned());
        assert_eq!(queue.next(), "on\n");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Log lines of the programs: to stderr, one each, with the level in front.

use std::io::Write;

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let level = match record.level() {
            log::Level::Warn => "WARNING",
            other => other.as_str(),
        };
        // There is nowhere to tell that stderr is gone.
        let _ = writeln!(std::io::stderr(), "{level}: {}", record.args());
    }

    fn flush(&self) {}
}

/// Sends what is logged from now on to stderr, unless it goes somewhere already.
pub fn install() {
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

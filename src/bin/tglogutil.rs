// SPDX-License-Identifier: Apache-2.0
//! Inspects, verifies, dumps and repairs a data directory. Results go to stdout, log lines to stderr.

use limestone_core::vfs::RealFs;
use std::io::Write;
use std::sync::Arc;

/// Log lines on stderr.
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

fn main() {
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let exit = limestone_core::inspection::run(std::env::args_os(), Arc::new(RealFs), &mut out);
    let _ = out.flush();
    drop(out);
    std::process::exit(exit);
}

// SPDX-License-Identifier: Apache-2.0
//! Serves a data directory as the replica of a primary. Results go to stdout, log lines to stderr.

use std::io::Write;
use std::sync::atomic::AtomicBool;
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
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        if let Err(e) = signal_hook::flag::register(signal, stop.clone()) {
            log::warn!("signal {signal} will end the program at once: {e}");
        }
    }
    let environment = std::env::vars_os().collect();
    let exit = limestone_core::replication::server::command::run(
        std::env::args_os(),
        environment,
        &stop,
        &mut std::io::stdout(),
    );
    std::process::exit(exit);
}

// SPDX-License-Identifier: Apache-2.0
//! Serves a data directory as the replica of a primary. Results go to stdout, log lines to stderr.

use limestone_core::stderr_log;
use limestone_core::tgreplica::{command, signals::Signals};
use std::time::Duration;

/// For the last log lines, when whoever reads them is slow.
const LAST_LINES: Duration = Duration::from_millis(500);

fn main() {
    stderr_log::install_queued();
    let signals = Signals::default();
    let wanted = [
        (signal_hook::consts::SIGTERM, &signals.stop),
        (signal_hook::consts::SIGINT, &signals.stop),
        (signal_hook::consts::SIGHUP, &signals.reload),
    ];
    for (signal, flag) in wanted {
        if let Err(e) = signal_hook::flag::register(signal, flag.clone()) {
            log::warn!("signal {signal} will end the program at once: {e}");
        }
    }
    // A file that must not grow is an error of the write, which is told, and not the silent end of the program.
    // SAFETY: ignoring a signal touches nothing else.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let environment = std::env::vars_os().collect();
    let exit = command::run(std::env::args_os(), environment, &signals, &mut std::io::stdout());
    stderr_log::finish(LAST_LINES);
    std::process::exit(exit);
}

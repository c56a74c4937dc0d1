// SPDX-License-Identifier: Apache-2.0
//! Serves a data directory as the replica of a primary. Results go to stdout, log lines to stderr.

use std::sync::atomic::AtomicBool;
use std::sync::Arc;

fn main() {
    limestone_core::stderr_log::install();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        if let Err(e) = signal_hook::flag::register(signal, stop.clone()) {
            log::warn!("signal {signal} will end the program at once: {e}");
        }
    }
    let environment = std::env::vars_os().collect();
    let exit = limestone_core::tgreplica::command::run(std::env::args_os(), environment, &stop, &mut std::io::stdout());
    std::process::exit(exit);
}

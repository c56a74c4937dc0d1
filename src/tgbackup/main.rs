// SPDX-License-Identifier: Apache-2.0
//! Makes, checks and restores backups of a data directory. Results go to stdout, log lines to stderr.

use limestone_core::vfs::RealFs;
use std::sync::Arc;

fn main() {
    limestone_core::stderr_log::install();
    // A file that must not grow is an error of the write, which is told, and not the silent end of the program.
    // SAFETY: ignoring a signal touches nothing else.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let (out, errors) = (&mut std::io::stdout(), &mut std::io::stderr());
    let exit = limestone_core::tgbackup::run(std::env::args_os(), Arc::new(RealFs), out, errors);
    std::process::exit(exit);
}

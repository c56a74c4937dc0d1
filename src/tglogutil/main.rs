// SPDX-License-Identifier: Apache-2.0
//! Inspects, verifies, dumps and repairs a data directory. Results go to stdout, log lines to stderr.

use limestone_core::vfs::RealFs;
use std::io::Write;
use std::sync::Arc;

fn main() {
    limestone_core::stderr_log::install();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let exit = limestone_core::tglogutil::run(std::env::args_os(), Arc::new(RealFs), &mut out);
    let _ = out.flush();
    drop(out);
    std::process::exit(exit);
}

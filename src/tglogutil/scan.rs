// SPDX-License-Identifier: Apache-2.0
//! Several threads that read log files, one file each at a time.

use super::logs::LogFile;
use crate::recovery::pool::{self, Queue};

/// Runs `read` on every file, on as many threads as are given; the results are in the order of the files.
pub fn each_file<R: Send>(logs: &[LogFile], threads: usize, read: impl Fn(&LogFile) -> R + Sync) -> Vec<R> {
    let queue = Queue::new(logs.iter().enumerate().collect());
    let worker = || {
        let mut done = Vec::new();
        while let Some((n, log)) = queue.next() {
            log.bytes.advise(true);
            done.push((n, read(log)));
        }
        done
    };
    let mut results: Vec<(usize, R)> = pool::run(threads.min(logs.len()), worker).into_iter().flatten().collect();
    results.sort_by_key(|(n, _)| *n);
    results.into_iter().map(|(_, result)| result).collect()
}

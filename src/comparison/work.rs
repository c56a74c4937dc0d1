// SPDX-License-Identifier: Apache-2.0
//! Reads directories while the processes that serve them hear that this goes on.

use super::digest::Digest;
use super::side::{Reading, Side};
use crate::error::{Error, Result};
use crate::recovery::Pace;
use crate::replication::backup_socket::OpenBackup;
use crate::types::Epoch;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether the work shall end, and a process be told that it goes on.
const POLL: Duration = Duration::from_millis(100);
const MEMORY_BYTES: u64 = 256 << 20;

/// How directories are read.
#[derive(Clone, Debug)]
pub struct How {
    /// Whether what BLOBs hold counts, and not only which they are.
    pub with_blobs: bool,
    /// At most so much is read in a second, of log files and BLOBs; `None` for as fast as can be.
    pub bytes_per_second: Option<u64>,
    /// Bound for the index of a directory; beyond it sorted pieces go to unnamed files.
    pub memory_bytes: u64,
    /// Threads that read a log.
    pub threads: usize,
    /// How much has been read, for others to look at.
    pub read: Arc<AtomicU64>,
}

impl Default for How {
    /// As a program does that has nothing else to do.
    fn default() -> How {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        How { with_blobs: false, bytes_per_second: None, memory_bytes: MEMORY_BYTES, threads, read: Arc::default() }
    }
}

/// What the directories have at an epoch of all their spans. Ended early, with an error, when `stop` is set.
///
/// # Errors
/// [`Error::WrongState`] when files were not held to the end: then nothing is known of them.
pub fn work(mut sides: Vec<Side>, epoch: Epoch, how: How, stop: &AtomicBool) -> Result<Vec<Digest>> {
    let holds: Vec<OpenBackup> = sides.iter_mut().filter_map(|side| side.held.take()).collect();
    let (stopping, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let pace = Pace::counting(how.bytes_per_second, how.read);
    let reading = Reading {
        with_blobs: how.with_blobs,
        memory_bytes: how.memory_bytes,
        threads: how.threads,
        pace: Some(&pace),
        stopping: &stopping,
    };
    let (digests, holds) = std::thread::scope(|scope| {
        let keeper = scope.spawn(|| keep(holds, stop, &stopping, &done));
        let digests: Result<Vec<Digest>> = sides.iter().map(|side| side.digest(epoch, reading)).collect();
        done.store(true, SeqCst);
        keeper.thread().unpark();
        (digests, keeper.join().unwrap_or_else(|_| Err(io::Error::other("the thread that holds them panicked"))))
    });
    let ended = holds.and_then(|holds| holds.into_iter().try_for_each(OpenBackup::end));
    match (ended, digests) {
        (_, Err(e)) if stop.load(SeqCst) => Err(e),
        (Err(e), _) => Err(Error::WrongState(format!("the files were not held to the end: {e}"))),
        (Ok(()), digests) => digests,
    }
}

/// Says that the work goes on until it is done.
fn keep(
    mut holds: Vec<OpenBackup>,
    stop: &AtomicBool,
    stopping: &AtomicBool,
    done: &AtomicBool,
) -> io::Result<Vec<OpenBackup>> {
    while !done.load(SeqCst) {
        let goes_on = holds.iter_mut().try_for_each(OpenBackup::goes_on);
        if goes_on.is_err() || stop.load(SeqCst) {
            stopping.store(true, SeqCst);
        }
        goes_on?;
        std::thread::park_timeout(POLL);
    }
    Ok(holds)
}

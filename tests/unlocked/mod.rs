// SPDX-License-Identifier: Apache-2.0
//! A process that another test starts has, for a moment, all descriptors of this one, and with them the lock of a
//! directory that was closed here meanwhile.

use limestone_core::error::Error;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);

/// What `open` opens, as soon as the lock is free.
pub fn unlocked<T>(open: impl Fn() -> Result<T, Error>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match open() {
            Err(Error::Locked { .. }) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            opened => return opened.unwrap_or_else(|e| panic!("{e}")),
        }
    }
}

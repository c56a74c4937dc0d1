// SPDX-License-Identifier: Apache-2.0
//! The limit of the process on the size of files. Who writes beyond it is sent SIGXFSZ, which ends the process unless
//! that has said otherwise; a library must not say so for its process. So nothing is written that would be beyond.

use std::io;

/// Fails with EFBIG when a file must not be written up to `end`, as the write would if the signal were ignored.
pub(super) fn check(end: u64) -> io::Result<()> {
    match end > limit() {
        true => Err(io::Error::from_raw_os_error(libc::EFBIG)),
        false => Ok(()),
    }
}

/// It can be changed at any time, from outside too.
fn limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a structure of the right type that lives through the call.
    match unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) } {
        0 if limit.rlim_cur != libc::RLIM_INFINITY => limit.rlim_cur,
        _ => u64::MAX,
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Numbers of descriptors. A process that was started without its standard streams gives their numbers to the next
//! files that it opens, and whatever it prints afterwards goes there.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The first number that is not one of a standard stream.
const FIRST: i32 = 3;

/// The same file, socket or pipe under a number that no standard stream has. Everything that this library opens goes
/// through here before it is used.
pub fn above_standard_streams<T: AsFd + From<OwnedFd>>(opened: T) -> io::Result<T> {
    if opened.as_fd().as_raw_fd() >= FIRST {
        return Ok(opened);
    }
    Ok(T::from(rustix::io::fcntl_dupfd_cloexec(&opened, FIRST)?))
}

/// Whether the error says that the process or the machine has no descriptor left at the moment.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

// SPDX-License-Identifier: Apache-2.0
//! Whether a process holds a lock, for those who only look: who tried to take it would be in the way of a process that
//! starts just then. So who has the lock shows it with a lock of another kind, which can be asked for.

use super::descriptor::above_standard_streams;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Shows until `file` is closed that it is locked. The lock stands without: where this kind is not known, nobody is
/// told.
pub(super) fn show(file: &File) {
    let lock = whole_file(libc::F_WRLCK);
    // SAFETY: the descriptor is open and the structure lives through the call.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
}

/// Whether some process, this one too, has the file `path` locked for itself alone. Takes no lock and waits for nobody.
///
/// # Errors
/// When the file cannot be opened for reading.
pub fn is_held(path: &Path) -> io::Result<bool> {
    let file = above_standard_streams(File::open(path)?)?;
    let mut lock = whole_file(libc::F_RDLCK);
    // SAFETY: as above.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } {
        0 => Ok(i32::from(lock.l_type) != libc::F_UNLCK),
        _ => Err(io::Error::last_os_error()),
    }
}

fn whole_file(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Lock, RealFs, Vfs};

    #[test]
    fn a_lock_for_one_alone_can_be_seen_and_nobody_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(is_held(&path).is_err());
        std::fs::write(&path, "").unwrap();
        assert!(!is_held(&path).unwrap());
        let shared = RealFs.lock(&path, Lock::Shared).unwrap();
        assert!(!is_held(&path).unwrap());
        drop(shared);
        let own = RealFs.lock(&path, Lock::Exclusive).unwrap();
        assert!(is_held(&path).unwrap());
        drop(own);
        assert!(!is_held(&path).unwrap());
    }
}

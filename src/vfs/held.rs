// SPDX-License-Identifier: Apache-2.0
//! Whether a process holds a lock, for those who only look: who tried to take it would be in the way of a process that
//! starts just then. So who has the lock shows it with a lock of another kind, which can be asked for. Who it is, the
//! system tells.

use super::descriptor::above_standard_streams;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// For so long the former holder may show its lock when it has given it back.
const HIDING_PATIENCE: Duration = Duration::from_millis(100);
const HIDING_POLL: Duration = Duration::from_millis(1);

/// Shows until `file` is closed, or [`hide`] is called, that it is locked. The lock stands without: where this kind is
/// not known, nobody is told.
pub(super) fn show(file: &File) {
    let deadline = Instant::now() + HIDING_PATIENCE;
    while let Err(libc::EAGAIN | libc::EACCES) = set(file, libc::F_WRLCK) {
        if Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(HIDING_POLL);
    }
}

/// Does not show it any more. To be called when the lock was given back, so that who is told of none can have it.
pub(super) fn hide(file: &File) {
    let _ = set(file, libc::F_UNLCK);
}

fn set(file: &File, kind: i32) -> Result<(), i32> {
    let lock = whole_file(kind);
    // SAFETY: the descriptor is open and the structure lives through the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or_default()),
    }
}

/// Whether some process, this one too, has the file `path` locked for itself alone. Takes no lock and waits for nobody.
///
/// # Errors
/// When the file cannot be opened for reading.
pub fn is_held(path: &Path) -> io::Result<bool> {
    // Who put a pipe in its place does not make this wait.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let file = above_standard_streams(file)?;
    let mut lock = whole_file(libc::F_RDLCK);
    // SAFETY: as above.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } {
        0 => Ok(i32::from(lock.l_type) != libc::F_UNLCK),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Who has locked the file `path`, as far as the system tells: a process elsewhere on the network, or in another
/// container, has no number here.
pub fn holder(path: &Path) -> Option<String> {
    let found = std::fs::metadata(path).ok()?;
    let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", found.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let process = locks.lines().find_map(|line| process_of(line, &file))?;
    if process == std::process::id() {
        return Some("this process".to_owned());
    }
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    let name = name.trim().escape_debug();
    Some(format!("process {process} {name}").trim_end().to_owned())
}

/// The process that a line of `/proc/locks` names for a lock of this file.
fn process_of(line: &str, file: &str) -> Option<u32> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    match fields[..] {
        [_, "FLOCK", _, _, process, locked, ..] if locked == file => process.parse().ok().filter(|&id| id > 0),
        _ => None,
    }
}

fn whole_file(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Lock, LockError, RealFs, Vfs};
    use std::os::fd::BorrowedFd;

    #[test]
    fn a_lock_for_one_alone_can_be_seen_and_nobody_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(is_held(&path).is_err());
        std::fs::write(&path, "").unwrap();
        assert!(!is_held(&path).unwrap());
        let shared = RealFs.lock(&path, Lock::Shared).unwrap();
        assert!(!is_held(&path).unwrap());
        assert!(matches!(RealFs.lock(&path, Lock::Exclusive), Err(LockError::HeldByReaders)));
        drop(RealFs.lock(&path, Lock::Shared).unwrap());
        drop(shared);
        let own = RealFs.lock(&path, Lock::Exclusive).unwrap();
        assert!(is_held(&path).unwrap());
        assert!(matches!(RealFs.lock(&path, Lock::Exclusive), Err(LockError::Held)));
        assert!(matches!(RealFs.lock(&path, Lock::Shared), Err(LockError::Held)));
        drop(own);
        assert!(!is_held(&path).unwrap());
    }

    #[test]
    fn a_lock_that_is_given_back_is_free_although_a_forked_process_has_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        for how in [Lock::Exclusive, Lock::Shared] {
            let lock = RealFs.lock(&path, how).unwrap();
            // Another descriptor of the same opening, as a fork makes one.
            let number = std::fs::read_dir("/proc/self/fd").unwrap().find_map(|entry| {
                let entry = entry.unwrap();
                let is_it = std::fs::read_link(entry.path()).is_ok_and(|target| target == path);
                is_it.then(|| entry.file_name().to_str().unwrap().parse().unwrap())
            });
            // SAFETY: the lock has the descriptor open.
            let inherited = unsafe { BorrowedFd::borrow_raw(number.unwrap()) }.try_clone_to_owned().unwrap();
            drop(lock);
            assert!(!is_held(&path).unwrap());
            drop(RealFs.lock(&path, Lock::Exclusive).unwrap());
            drop(inherited);
        }
    }

    #[test]
    fn a_forked_process_does_not_give_back_the_lock_of_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        let lock = RealFs.lock(&path, Lock::Exclusive).unwrap();
        // SAFETY: the child gives the lock back and ends at once, without what is done at the end of a process.
        match unsafe { libc::fork() } {
            0 => {
                drop(lock);
                // SAFETY: as above.
                unsafe { libc::_exit(0) }
            }
            child => {
                // SAFETY: nothing is written but the number of the child.
                assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
                assert!(is_held(&path).unwrap());
                assert!(matches!(RealFs.lock(&path, Lock::Exclusive), Err(LockError::Held)));
                drop(lock);
                drop(RealFs.lock(&path, Lock::Exclusive).unwrap());
            }
        }
    }

    #[test]
    fn the_system_tells_who_has_locked_a_file() {
        let line = "7: FLOCK  ADVISORY  READ 15415 fe:00:10133506 0 EOF";
        assert_eq!(process_of(line, "fe:00:10133506"), Some(15415));
        assert_eq!(process_of(line, "fe:00:1013350"), None);
        assert_eq!(process_of("8: OFDLCK ADVISORY  WRITE -1 00:1b:6978699 0 EOF", "00:1b:6978699"), None);
        assert_eq!(process_of("7: -> FLOCK  ADVISORY  READ 15415 fe:00:1 0 EOF", "fe:00:1"), None);
        assert_eq!(process_of("9: FLOCK  ADVISORY  WRITE 0 fe:00:1 0 EOF", "fe:00:1"), None);
    }
}

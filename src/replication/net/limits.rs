// SPDX-License-Identifier: Apache-2.0
//! How many connections a process may serve, from what the system lets it open: files of the log must always find a
//! descriptor, whoever connects.

use std::io;

/// Descriptors that connections never get: the directory, the log, its rotation, the status socket.
const RESERVE: u64 = 64;
/// Connections of peers of which nothing is known.
const STRANGERS_MAX: u64 = 64;
const STRANGERS_MIN: u64 = 4;

/// How many connections may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of peers that have shown what they are for.
    pub known_max: usize,
    /// Of all others. When they are full the oldest of them goes.
    pub strangers_max: usize,
}

impl Limits {
    /// What `descriptors` allow when each connection of the primary needs `each` of them, at most `wanted` of those.
    pub fn of(descriptors: u64, each: u64, wanted: usize) -> Limits {
        let strangers = (descriptors / 16).clamp(STRANGERS_MIN, STRANGERS_MAX);
        // A stranger that is sent away may hold its descriptor for a moment longer.
        let rest = descriptors.saturating_sub(2 * strangers + RESERVE.min(descriptors / 3));
        let known = (rest / each.max(1)).clamp(1, wanted as u64);
        Limits { known_max: known as usize, strangers_max: strangers as usize }
    }

    /// Raises the process's soft limit of descriptors to the hard one, and says what that allows.
    ///
    /// # Errors
    /// When the system does not tell the limit.
    pub fn of_this_process(each: u64, wanted: usize) -> io::Result<Limits> {
        Ok(Limits::of(raise_descriptors()?, each, wanted))
    }
}

/// The soft limit after it was raised as far as that is allowed.
fn raise_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a structure of the right type that lives through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: as above. When it fails the limit stays what it was.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } {
        0 => Ok(raised.rlim_cur),
        _ => Ok(limit.rlim_cur),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_never_take_all_descriptors_and_a_primary_always_finds_a_place() {
        for descriptors in [0, 16, 48, 256, 1024, 1 << 20] {
            for each in [1, 3] {
                let Limits { known_max, strangers_max } = Limits::of(descriptors, each, 10_000);
                assert!(known_max >= 1 && strangers_max >= 4);
                let used = known_max as u64 * each + 2 * strangers_max as u64;
                assert!(descriptors < 32 || used + descriptors.min(3 * 64) / 3 <= descriptors, "{descriptors} {each}");
            }
        }
        // One lane and the three others.
        assert!(Limits::of(48, 3, 256).known_max >= 4 && Limits::of(1024, 2, 10_000).known_max > 256);
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        assert_eq!(raise_descriptors().unwrap(), raise_descriptors().unwrap());
        assert!(Limits::of_this_process(2, 8).unwrap().known_max <= 8);
    }
}

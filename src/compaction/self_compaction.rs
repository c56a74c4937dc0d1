// SPDX-License-Identifier: Apache-2.0
//! When a data store compacts its log without being asked, and what keeps that out of the way of commits.
//!
//! What of the log is garbage is known only once it is merged. But what is live is at most what the compacted file
//! holds and what was written since; so the log is merged when it has grown to a share of both. The directory then
//! stays below `live * 100 / (100 - share)`, and the smallest log that is worth it, and the new file while it is
//! written; and the bytes written by compactions stay below `100 / share` for each byte of the log.

use super::writer::RESERVE_BYTES;
use crate::error::{Error, Result};
use crate::vfs::{Disk, FileKind, Vfs};
use crate::wal::names;
use std::path::Path;
use std::time::{Duration, Instant};

/// When the log is small enough to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfCompaction {
    log_bytes_min: u64,
    share_percent: u64,
    pause: Duration,
}

/// The thread of a compaction that nobody waits for.
const BACKGROUND_NAME: &str = "cmpctn_self";
/// As long as a compaction has taken, times this, no other begins by itself.
const REST: u32 = 10;
/// When space is low, a log of this part of the smallest is worth it.
const EARLIER: u64 = 8;

impl Default for SelfCompaction {
    fn default() -> SelfCompaction {
        SelfCompaction { log_bytes_min: 256 << 20, share_percent: 50, pause: Duration::from_secs(60) }
    }
}

impl SelfCompaction {
    /// Bytes of log below which nothing is done; at least 1 MiB. Default: 256 MiB.
    pub fn log_bytes_min(mut self, bytes: u64) -> SelfCompaction {
        self.log_bytes_min = bytes.max(1 << 20);
        self
    }

    /// Of the bytes of log and compacted file, those of the log, in percent; from 1 to 99. Default: 50.
    pub fn share_percent(mut self, percent: u64) -> SelfCompaction {
        self.share_percent = percent.clamp(1, 99);
        self
    }

    /// The shortest time between two. Default: 60 s.
    pub fn pause(mut self, pause: Duration) -> SelfCompaction {
        self.pause = pause;
        self
    }
}

/// Bytes on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Of log files that count.
    pub(crate) log: u64,
    pub(crate) compacted: u64,
}

impl Sizes {
    /// Those of the directory; `is_detached` tells the files that do not count.
    pub(crate) fn of(vfs: &dyn Vfs, location: &Path, is_detached: impl Fn(&str) -> bool) -> Result<Sizes> {
        let listing = vfs.list(location).map_err(|e| Error::io("cannot list", location, e))?;
        let mut sizes = Sizes::default();
        for entry in listing.iter().filter(|entry| entry.kind == FileKind::File) {
            match entry.name.to_str() {
                Some(names::COMPACTED) => sizes.compacted = entry.len,
                Some(name) if names::is_log(name) && !names::is_compacted(name) && !is_detached(name) => {
                    sizes.log += entry.len;
                }
                _ => {}
            }
        }
        Ok(sizes)
    }
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    No,
    Yes,
    /// The compaction would fill the disk.
    NoSpace,
}

/// When the next one may begin.
#[derive(Clone, Copy, Debug)]
struct Rest {
    until: Instant,
    until_when_scarce: Instant,
}

/// Decides from one look at the directory to the next.
#[derive(Debug)]
pub(crate) struct Policy {
    rule: SelfCompaction,
    /// What the last compaction left in the log: files that are written to, and what somebody else needs there.
    left: u64,
    rest: Option<Rest>,
    space_is_low: bool,
}

impl Policy {
    pub(crate) fn new(rule: SelfCompaction) -> Policy {
        Policy { rule, left: 0, rest: None, space_is_low: false }
    }

    /// Whether to compact now. Says so in the log, once, when the disk has no room for it.
    pub(crate) fn is_due(&mut self, sizes: Sizes, disk: Option<Disk>, location: &Path) -> bool {
        let free = disk.map(|disk| disk.free_bytes);
        let until = |rest: Rest| if is_scarce(sizes, free) { rest.until_when_scarce } else { rest.until };
        if self.rest.is_some_and(|rest| Instant::now() < until(rest)) {
            return false;
        }
        let due = self.due(sizes, free);
        if due == Due::NoSpace && !self.space_is_low {
            log::warn!(
                "{}: {} bytes of log and {} bytes of compacted log are not compacted because only {} bytes are free on \
                 the disk; make room, or commits will fail when it is full",
                location.display(),
                sizes.log,
                sizes.compacted,
                disk.map_or(0, |disk| disk.free_bytes)
            );
        }
        self.space_is_low = due == Due::NoSpace;
        due == Due::Yes
    }

    fn due(&self, sizes: Sizes, free: Option<u64>) -> Due {
        let Sizes { log, compacted } = sizes;
        let relief = if is_scarce(sizes, free) { EARLIER } else { 1 };
        let grown = log.saturating_sub(self.left) >= self.rule.log_bytes_min / relief;
        let share = u128::from(log) * 100 * u128::from(relief)
            >= u128::from(log + compacted) * u128::from(self.rule.share_percent);
        match grown && share {
            false => Due::No,
            // It holds about what the last one held.
            true if free.is_some_and(|free| free < compacted + RESERVE_BYTES) => Due::NoSpace,
            true => Due::Yes,
        }
    }

    /// A compaction has ended, with this much left in the log. After one that failed no other begins earlier because
    /// space is scarce: it might fail again and again.
    pub(crate) fn ended(&mut self, took: Duration, left: u64, succeeded: bool) {
        let (now, rest) = (Instant::now(), self.rule.pause.max(took * REST));
        self.left = left;
        self.rest = Some(Rest { until: now + rest, until_when_scarce: now + if succeeded { took } else { rest } });
    }
}

fn is_scarce(Sizes { log, compacted }: Sizes, free: Option<u64>) -> bool {
    free.is_some_and(|free| free < 2 * (log + compacted))
}

/// Lets this thread's use of the disk and of processors come behind that of others, and that of the threads it starts,
/// as far as the system can.
pub(crate) fn step_back() {
    const PROCESSORS: libc::c_int = 10;
    /// Best effort, the lowest level.
    const DISK: libc::c_int = (2 << 13) | 7;
    const THIS_THREAD: libc::c_int = 0;
    const OF_A_PROCESS: libc::c_int = 1;
    // SAFETY: both take numbers only, and act on the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, THIS_THREAD as libc::id_t, PROCESSORS);
        libc::syscall(libc::SYS_ioprio_set, OF_A_PROCESS, THIS_THREAD, DISK);
    }
}

/// Runs this behind all others, on a thread of its own: one that has stepped back may not step forward again.
pub(crate) fn behind_others<T: Send>(location: &Path, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let behind = || {
        step_back();
        run()
    };
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name(BACKGROUND_NAME.to_owned());
        match builder.spawn_scoped(scope, behind) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(e) => Err(Error::io("cannot start a thread in", location, e)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn policy() -> Policy {
        Policy::new(SelfCompaction::default().log_bytes_min(100 * MIB).pause(Duration::ZERO))
    }

    fn sizes(log: u64, compacted: u64) -> Sizes {
        Sizes { log: log * MIB, compacted: compacted * MIB }
    }

    #[test]
    fn it_is_due_when_the_log_is_large_enough_and_its_share_too() {
        let policy = policy();
        assert_eq!(policy.due(sizes(99, 0), None), Due::No);
        assert_eq!(policy.due(sizes(100, 0), None), Due::Yes);
        assert_eq!(policy.due(sizes(999, 1000), None), Due::No);
        assert_eq!(policy.due(sizes(1000, 1000), None), Due::Yes);
    }

    #[test]
    fn what_the_last_one_had_to_leave_does_not_count_again() {
        let mut policy = policy();
        policy.ended(Duration::ZERO, 500 * MIB, true);
        assert_eq!(policy.due(sizes(599, 10), None), Due::No);
        assert_eq!(policy.due(sizes(600, 10), None), Due::Yes);
    }

    #[test]
    fn scarce_space_makes_it_earlier_and_no_space_not_at_all() {
        let policy = policy();
        assert_eq!(policy.due(sizes(20, 100), Some(1000 * MIB)), Due::No);
        assert_eq!(policy.due(sizes(20, 100), Some(200 * MIB)), Due::Yes);
        assert_eq!(policy.due(sizes(20, 100), Some(150 * MIB)), Due::NoSpace);
        assert_eq!(policy.due(sizes(5, 100), Some(150 * MIB)), Due::No, "it would not help");
    }

    #[test]
    fn after_one_there_is_a_rest() {
        let mut policy = Policy::new(SelfCompaction::default().log_bytes_min(MIB).pause(Duration::ZERO));
        let is_due = |policy: &mut Policy| policy.is_due(sizes(1000, 0), None, Path::new("/log"));
        assert!(is_due(&mut policy));
        policy.ended(Duration::from_secs(1000), 0, true);
        assert!(!is_due(&mut policy));
        policy.ended(Duration::ZERO, 0, true);
        assert!(is_due(&mut policy));
    }

    #[test]
    fn a_disk_that_fills_does_not_wait_for_the_rest_to_be_over() {
        let mut policy = Policy::new(SelfCompaction::default().log_bytes_min(MIB));
        let is_due = |policy: &mut Policy, free| {
            let disk = Disk { size_bytes: 10_000 * MIB, free_bytes: free * MIB };
            policy.is_due(sizes(1000, 0), Some(disk), Path::new("/log"))
        };
        policy.ended(Duration::ZERO, 0, true);
        assert!(!is_due(&mut policy, 2000) && is_due(&mut policy, 1999));
        policy.ended(Duration::ZERO, 0, false);
        assert!(!is_due(&mut policy, 1999), "it would fail again");
        policy.ended(Duration::from_secs(1000), 0, true);
        assert!(!is_due(&mut policy, 1999), "there is time for commits between two");
    }
}

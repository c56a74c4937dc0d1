// SPDX-License-Identifier: Apache-2.0
//! The thread that commits works for microseconds between two waits for the disk, and every epoch waits for it. Where
//! more threads are busy than there are processors it would be given one of them late each time.

use std::mem;

/// Within what the system takes (0.1 to 100 ms).
const TURN_NANOSECONDS: u64 = 100_000;

/// The turns of the calling thread on a processor become short, and so it is given one soon after what it waits for has
/// come. Its share does not grow. A system that does not know this (Linux before 6.12) goes on as before, and so does
/// one where threads were given another policy than the usual one.
pub(super) fn take() {
    let Some(mut attributes) = attributes() else { return };
    if attributes.sched_policy == libc::SCHED_OTHER as u32 {
        attributes.sched_runtime = TURN_NANOSECONDS;
        // SAFETY: the structure outlives the call and says its size; 0 is the calling thread.
        let status = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
        if status != 0 {
            log::debug!("the turns of the thread that commits stay long: {}", std::io::Error::last_os_error());
        }
    }
}

/// How the calling thread is scheduled; `None` when the system does not say.
fn attributes() -> Option<libc::sched_attr> {
    // SAFETY: numbers only, which may all be 0.
    let mut found: libc::sched_attr = unsafe { mem::zeroed() };
    let size = mem::size_of_val(&found) as u32;
    // SAFETY: the structure outlives the call and has this size; 0 is the calling thread.
    let status = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut found, size, 0) };
    found.size = size;
    (status == 0).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_short_where_the_system_knows_that_and_nothing_else_changes() {
        let (before, after) = std::thread::spawn(|| {
            let before = attributes();
            take();
            (before, attributes())
        })
        .join()
        .unwrap();
        let (Some(before), Some(after)) = (before, after) else { return };
        assert!([before.sched_runtime, TURN_NANOSECONDS].contains(&after.sched_runtime), "{}", after.sched_runtime);
        assert_eq!((after.sched_policy, after.sched_nice), (before.sched_policy, before.sched_nice));
    }
}

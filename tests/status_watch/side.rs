// SPDX-License-Identifier: Apache-2.0
//! Asks one side, in the process of the test, for its status as long as it lives, and compares each answer with what
//! the side itself says before and after.

use super::{document_faults, has_fallen, FAULTS_SHOWN, INTERVAL};
use limestone_core::replication::status::{Side, Status};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::thread::JoinHandle;

/// What a side is known to have: the last stored and the last propagated epoch; `None` where it does not say, and when
/// it has ended.
pub type Has = (Option<u64>, Option<u64>);

/// Watches while it lives.
#[derive(Debug)]
pub struct SideWatch {
    stop: Arc<AtomicBool>,
    /// How often it has begun again.
    life: Arc<AtomicU64>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl SideWatch {
    pub fn start(has: impl Fn() -> Has + Send + 'static, says: impl Fn() -> Status + Send + 'static) -> SideWatch {
        let (stop, life) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, lived) = (stop.clone(), life.clone());
        let thread = std::thread::spawn(move || {
            let (mut faults, mut earlier) = (Vec::new(), None::<(u64, Status)>);
            while !stopped.load(SeqCst) && faults.len() < FAULTS_SHOWN {
                let begun = lived.load(SeqCst);
                let same = || lived.load(SeqCst) == begun;
                earlier = earlier.filter(|(life, _)| *life == begun);
                let found = look(&has, &says, earlier.map(|(_, status)| status), same, &mut faults);
                earlier = found.map(|status| (begun, status));
                std::thread::sleep(INTERVAL);
            }
            faults
        });
        SideWatch { stop, life, thread: Some(thread) }
    }

    /// To be called between the end of the side and its next start, which may be too short to be seen.
    pub fn begins_again(&self) {
        self.life.fetch_add(1, SeqCst);
    }
}

/// Returns the status if the side lived all the while; `same` says whether it has not begun again.
fn look(
    has: impl Fn() -> Has,
    says: impl Fn() -> Status,
    earlier: Option<Status>,
    same: impl Fn() -> bool,
    faults: &mut Vec<String>,
) -> Option<Status> {
    let (before, status, after) = (has(), says(), has());
    if !same() {
        return None;
    }
    let mut fault = |what: &str| faults.push(format!("{what}: {status:?} between {before:?} and {after:?}"));
    document_faults(&status).into_iter().for_each(&mut fault);
    let told = (status.stored_epoch, status.propagated_epoch);
    let is_between = |least: Option<u64>, told: Option<u64>, most: Option<u64>| match (least, most) {
        (Some(least), Some(most)) => (least..=most).contains(&told.unwrap_or(0)),
        _ => true,
    };
    if !is_between(before.0, told.0, after.0) {
        fault("another epoch STORED than there is");
    }
    if !is_between(before.1, told.1, after.1) {
        fault("another epoch PROPAGATED than there is");
    }
    // One that has ended may begin again.
    let lives = before != (None, None) && after != (None, None);
    let falls = |earlier: &Status| match status.role {
        // What it was told is of the primary, which may have begun again without epochs in which nothing was written.
        Some(Side::Replica) => status.propagated_epoch < earlier.propagated_epoch,
        _ => has_fallen(earlier, &status),
    };
    if lives && earlier.as_ref().is_some_and(falls) {
        fault("an epoch has fallen");
    }
    Some(status).filter(|_| lives)
}

impl Drop for SideWatch {
    /// # Panics
    /// When an answer was not true.
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        let faults = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            let faults = faults.expect("it is ended once").expect("the watching thread panicked");
            assert!(faults.is_empty(), "the status was not true:\n{}", faults.join("\n"));
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Runs many independent cases on all processors; a case that neither passes nor fails in time ends the process with
//! its name, since nothing may hang.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const CASE_SECONDS_MAX: u64 = 60;
const FAILURES_SHOWN: usize = 10;

/// Runs `check` on every case and panics with the first failures.
pub fn sweep<C: Sync + std::fmt::Debug>(cases: &[C], check: impl Fn(&C) -> Result<(), String> + Sync) {
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get()).min(8);
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let running: Vec<Mutex<Option<(usize, Instant)>>> = (0..workers).map(|_| Mutex::new(None)).collect();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for slot in &running {
            scope.spawn(|| {
                while let Some((at, case)) =
                    Some(next.fetch_add(1, Ordering::SeqCst)).and_then(|at| Some((at, cases.get(at)?)))
                {
                    *slot.lock().unwrap() = Some((at, Instant::now()));
                    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(case)));
                    let result = result.unwrap_or_else(|_| Err("panicked, see above".to_owned()));
                    if let Err(reason) = result {
                        failures.lock().unwrap().push(format!("{case:?}: {reason}"));
                    }
                    *slot.lock().unwrap() = None;
                }
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        while done.load(Ordering::SeqCst) < workers {
            std::thread::park_timeout(Duration::from_millis(20));
            for slot in &running {
                if let Some((at, since)) = *slot.lock().unwrap() {
                    if since.elapsed() > Duration::from_secs(CASE_SECONDS_MAX) {
                        eprintln!("{:?} hangs", cases[at]);
                        std::process::exit(101);
                    }
                }
            }
        }
    });
    let failures = failures.into_inner().unwrap();
    let shown = failures.iter().take(FAILURES_SHOWN).cloned().collect::<Vec<_>>().join("\n\n");
    assert!(failures.is_empty(), "{} of {} cases failed:\n{shown}", failures.len(), cases.len());
}

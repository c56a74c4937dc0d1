// SPDX-License-Identifier: Apache-2.0
//! Threads that share one list of work, for the length of a call.

use parking_lot::Mutex;

/// Work that several threads take from, in the order given.
pub struct Queue<T>(Mutex<std::vec::IntoIter<T>>);

impl<T> Queue<T> {
    pub fn new(work: Vec<T>) -> Queue<T> {
        Queue(Mutex::new(work.into_iter()))
    }

    pub fn next(&self) -> Option<T> {
        self.0.lock().next()
    }
}

/// Runs `job` on `threads` threads at once and returns what each returned. A panic of one is passed on.
pub fn run<R: Send>(threads: usize, job: impl Fn() -> R + Sync) -> Vec<R> {
    if threads <= 1 {
        return vec![job()];
    }
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(&job)).collect();
        let first = job();
        let mut results = vec![first];
        for thread in others {
            match thread.join() {
                Ok(result) => results.push(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}

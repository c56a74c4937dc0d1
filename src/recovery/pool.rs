// SPDX-License-Identifier: Apache-2.0
//! Threads that share one list of work, for the length of a call.

use crate::lock_order::{Mutex, Rank};

/// Work that several threads take from, in the order given.
pub struct Queue<T>(Mutex<std::vec::IntoIter<T>>);

impl<T> Queue<T> {
    pub fn new(work: Vec<T>) -> Queue<T> {
        Queue(Mutex::new(Rank::Leaf, work.into_iter()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_of_work_is_done_once_and_every_thread_gives_its_result() {
        for threads in [0, 1, 4] {
            let work = Queue::new((0..1000).collect());
            let done = run(threads, || std::iter::from_fn(|| work.next()).collect::<Vec<i32>>());
            assert_eq!(done.len(), threads.max(1));
            let mut all = done.concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..1000), "{threads} threads");
        }
    }

    #[test]
    fn a_panic_of_one_thread_is_one_of_the_caller() {
        let turn = Queue::new(vec![false, false, true]);
        let run = || run(3, || assert_ne!(turn.next(), Some(true), "on purpose"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    }
}

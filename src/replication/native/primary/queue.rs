// SPDX-License-Identifier: Apache-2.0
//! What waits to be sent on a connection: references, never bytes. Bounded in their number. What is not urgent waits
//! for what is, or for company: one turn of the taker, one packet and one turn of the other side then do for all of it.

use crate::lock_order::{Condvar, Mutex, Rank};
use std::collections::VecDeque;
use std::time::Duration;

/// So much is worth a turn of the taker.
const COMPANY_BYTES: u64 = 64 << 10;

/// A queue with one taker that sleeps when there is nothing to do.
#[derive(Debug)]
pub(super) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug)]
struct Inner<T> {
    items: VecDeque<T>,
    /// Bytes behind the references; what is urgent counts as [`COMPANY_BYTES`].
    bytes: u64,
    sleeping: bool,
    closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Queue<T> {
        let inner = Inner { items: VecDeque::new(), bytes: 0, sleeping: false, closed: false };
        Queue { inner: Mutex::new(Rank::Leaf, inner), filled: Condvar::new(), emptied: Condvar::new() }
    }

    /// Adds an item and returns how many wait now. Never blocks; wakes the taker only when it sleeps. After
    /// [`Self::close`] it does nothing.
    pub(super) fn push(&self, item: T) -> usize {
        self.add(item, COMPANY_BYTES)
    }

    /// The same for an item of so many bytes that need not be taken before an urgent one.
    pub(super) fn push_at_leisure(&self, item: T, bytes: u64) -> usize {
        self.add(item, bytes)
    }

    fn add(&self, item: T, bytes: u64) -> usize {
        let mut inner = self.inner.lock();
        if inner.closed {
            return 0;
        }
        inner.items.push_back(item);
        inner.bytes = inner.bytes.saturating_add(bytes);
        let len = inner.items.len();
        if inner.bytes >= COMPANY_BYTES && std::mem::take(&mut inner.sleeping) {
            drop(inner);
            self.filled.notify_one();
        }
        len
    }

    /// Waits until fewer than `limit` items wait; false when the time passes before. True when the queue is closed.
    pub(super) fn wait_for_room(&self, limit: usize, timeout: Duration) -> bool {
        let mut inner = self.inner.lock();
        let full = |inner: &mut Inner<T>| inner.items.len() >= limit && !inner.closed;
        !self.emptied.wait_while_for(&mut inner, full, timeout).timed_out() || !full(&mut inner)
    }

    /// Moves everything that waits into `items`, which is empty; sleeps until something is urgent or there is much.
    /// False when the queue is closed.
    pub(super) fn take(&self, items: &mut VecDeque<T>) -> bool {
        let mut inner = self.inner.lock();
        while inner.bytes < COMPANY_BYTES && !inner.closed {
            inner.sleeping = true;
            self.filled.wait(&mut inner);
        }
        inner.sleeping = false;
        inner.bytes = 0;
        std::mem::swap(&mut inner.items, items);
        let closed = inner.closed;
        drop(inner);
        self.emptied.notify_all();
        !closed
    }

    /// Drops what waits and lets nobody wait any more.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        let dropped = std::mem::take(&mut inner.items);
        drop(inner);
        self.filled.notify_all();
        self.emptied.notify_all();
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    #[test]
    fn the_taker_gets_everything_in_order_and_ends_with_the_queue() {
        let queue = Queue::new();
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| {
                let (mut all, mut items) = (Vec::new(), VecDeque::new());
                while queue.take(&mut items) {
                    all.extend(items.drain(..));
                }
                all
            });
            for n in 0..1000 {
                queue.push(n);
                if n % 100 == 0 {
                    assert!(queue.wait_for_room(1, Duration::from_secs(10)));
                }
            }
            assert!(queue.wait_for_room(1, Duration::from_secs(10)));
            queue.close();
            assert_eq!(taker.join().unwrap(), (0..1000).collect::<Vec<_>>());
        });
        assert_eq!(queue.push(1), 0);
    }

    #[test]
    fn what_is_not_urgent_waits_for_what_is_or_for_company() {
        let taken_after = |push: &dyn Fn(&Queue<u32>)| {
            let (queue, taken) = (Queue::new(), AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut items = VecDeque::new();
                    taken.store(queue.take(&mut items) && items.len() == 2, SeqCst);
                });
                queue.push_at_leisure(1, COMPANY_BYTES - 1);
                assert!(!queue.wait_for_room(1, Duration::from_millis(20)), "taken alone");
                push(&queue);
                assert!(queue.wait_for_room(1, Duration::from_secs(10)));
                queue.close();
            });
            taken.into_inner()
        };
        assert!(taken_after(&|queue| _ = queue.push(2)));
        assert!(taken_after(&|queue| _ = queue.push_at_leisure(2, 1)));
    }

    #[test]
    fn waiting_for_room_ends_at_its_bound() {
        let queue = Queue::new();
        queue.push(1);
        assert!(!queue.wait_for_room(1, Duration::from_millis(10)));
        assert!(queue.wait_for_room(2, Duration::from_millis(10)));
        queue.close();
        assert!(queue.wait_for_room(1, Duration::from_millis(10)));
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The order in which one thread may hold several locks: [`Rank`]. Debug builds check it at each lock and name both
//! locks when it is broken, whether or not the threads happened to wait for each other; release builds pay nothing.
//!
//! Locks that are held for a few instructions, and under which no other is ever taken, need no rank.

use parking_lot::{lock_api, Condvar, RawMutex, RawRwLock};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Instant;

/// Locks by their place: whoever holds one may take those below it, never one above or beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The state of a data store from its opening to its end; serializes start, rotation and shutdown.
    Lifecycle,
    /// A running compaction.
    Compaction,
    /// Who changes the names of log files.
    FileNames,
    /// The list of channels.
    Channels,
    /// What one channel writes. A thread may hold those of several channels, taken while it holds [`Rank::Channels`].
    Channel,
    /// Backups that keep the commit journal out of use.
    Pauses,
    /// Registrations and deletions of BLOBs.
    Blobs,
    /// Who makes epochs durable.
    Leader,
    /// The slots of open sessions.
    Slots,
    /// The epochs in which sessions have ended.
    Written,
    /// Who listens to sessions and epochs for replication. What the listener locks comes after all of these.
    Tap,
    /// Threads that wait for an epoch.
    Waiters,
    /// Backups that are open.
    Backups,
    /// Whom to tell about epochs; never held while they are told.
    Callbacks,
}

/// Says that this thread holds a lock.
#[derive(Debug)]
struct Held(#[cfg(debug_assertions)] Rank);

#[cfg(debug_assertions)]
mod held {
    use crate::lock_order::{Held, Rank};
    use std::cell::RefCell;

    impl Rank {
        fn may_be_held_more_than_once(self) -> bool {
            self == Rank::Channel
        }
    }

    thread_local! {
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    impl Held {
        /// # Panics
        /// When the thread holds a lock that must not be held then.
        pub(super) fn take(rank: Rank) -> Held {
            // A thread that ends may lock in the destructor of another thread-local: what it holds is not known any
            // more.
            let last = HELD.try_with(|held| held.borrow().iter().max().copied()).ok().flatten();
            if let Some(last) = last {
                let allowed = last < rank || (last == rank && rank.may_be_held_more_than_once());
                assert!(allowed, "the order of locks is broken: {rank:?} is taken while {last:?} is held");
            }
            let _ = HELD.try_with(|held| held.borrow_mut().push(rank));
            Held(rank)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                if let Some(at) = held.iter().rposition(|rank| *rank == self.0) {
                    held.swap_remove(at);
                }
            });
        }
    }

    pub(super) fn check_none() {
        let held = HELD.try_with(|held| held.borrow().clone()).unwrap_or_default();
        assert!(held.is_empty(), "foreign code would run while these locks are held: {held:?}");
    }
}

#[cfg(not(debug_assertions))]
impl Held {
    #[inline]
    fn take(_: Rank) -> Held {
        Held()
    }
}

/// Checks, in debug builds, that this thread holds no lock with a rank: to be called before code runs that may call
/// back.
#[inline]
pub fn check_none_held() {
    #[cfg(debug_assertions)]
    held::check_none();
}

/// A mutex with a place in the order.
pub struct Mutex<T> {
    rank: Rank,
    inner: parking_lot::Mutex<T>,
}

/// What a lock gives: the content until it is dropped. The lock is let go before the thread forgets that it holds it.
#[derive(Debug)]
pub struct Guard<G> {
    inner: G,
    _held: Held,
}

pub type MutexGuard<'a, T> = Guard<lock_api::MutexGuard<'a, RawMutex, T>>;
pub type ReadGuard<'a, T> = Guard<lock_api::RwLockReadGuard<'a, RawRwLock, T>>;
pub type WriteGuard<'a, T> = Guard<lock_api::RwLockWriteGuard<'a, RawRwLock, T>>;

impl<G: Deref> Deref for Guard<G> {
    type Target = G::Target;

    #[inline]
    fn deref(&self) -> &G::Target {
        &self.inner
    }
}

impl<G: DerefMut> DerefMut for Guard<G> {
    #[inline]
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.inner
    }
}

impl<T> Mutex<T> {
    pub const fn new(rank: Rank, content: T) -> Mutex<T> {
        Mutex { rank, inner: parking_lot::Mutex::new(content) }
    }

    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let _held = Held::take(self.rank);
        Guard { inner: self.inner.lock(), _held }
    }

    /// `None` when somebody holds it, which may be this thread.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = self.inner.try_lock()?;
        Some(Guard { inner, _held: Held::take(self.rank) })
    }
}

impl<T> MutexGuard<'_, T> {
    /// Lets the mutex go until `changed` says so.
    pub fn wait(&mut self, changed: &Condvar) {
        changed.wait(&mut self.inner);
    }

    /// The same, but not beyond the deadline; false when that has passed.
    pub fn wait_until(&mut self, changed: &Condvar, deadline: Instant) -> bool {
        !changed.wait_until(&mut self.inner, deadline).timed_out()
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// A lock for many readers or one writer with a place in the order.
pub struct RwLock<T> {
    rank: Rank,
    inner: parking_lot::RwLock<T>,
}

impl<T> RwLock<T> {
    pub const fn new(rank: Rank, content: T) -> RwLock<T> {
        RwLock { rank, inner: parking_lot::RwLock::new(content) }
    }

    /// Never twice on one thread: a writer that waits in between would hold up both.
    #[inline]
    pub fn read(&self) -> ReadGuard<'_, T> {
        let _held = Held::take(self.rank);
        Guard { inner: self.inner.read(), _held }
    }

    #[inline]
    pub fn write(&self) -> WriteGuard<'_, T> {
        let _held = Held::take(self.rank);
        Guard { inner: self.inner.write(), _held }
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;
    use std::panic::{catch_unwind, AssertUnwindSafe};

    fn panics(work: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(work)).expect_err("nothing was noticed");
        panic.downcast_ref::<String>().expect("a text").clone()
    }

    #[test]
    fn locks_are_taken_downwards() {
        let (outer, inner) = (Mutex::new(Rank::Lifecycle, ()), RwLock::new(Rank::Channels, ()));
        let both = (outer.lock(), inner.read());
        assert!(panics(check_none_held).contains("Lifecycle"));
        drop(both);
        check_none_held();
        let held = inner.write();
        let text = panics(|| drop(outer.lock()));
        assert!(text.contains("Lifecycle is taken while Channels is held"), "{text}");
        drop(held);
        drop(outer.lock());
    }

    #[test]
    fn only_channels_are_held_beside_each_other() {
        let channels = [Mutex::new(Rank::Channel, ()), Mutex::new(Rank::Channel, ())];
        drop((channels[0].lock(), channels[1].lock()));
        let lists = [RwLock::new(Rank::Slots, ()), RwLock::new(Rank::Slots, ())];
        let _held = lists[0].read();
        assert!(panics(|| drop(lists[1].read())).contains("Slots is taken while Slots is held"));
    }

    #[test]
    fn guards_may_be_dropped_in_any_order_and_a_lock_that_is_taken_is_not_held() {
        let (outer, inner) = (Mutex::new(Rank::Lifecycle, ()), Mutex::new(Rank::Leader, ()));
        let (first, second) = (outer.lock(), inner.lock());
        drop(first);
        assert!(inner.try_lock().is_none());
        drop(second);
        check_none_held();
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The order in which one thread may hold several locks: [`Rank`]. Debug builds check it at each lock and name both
//! locks when it is broken, whether or not the threads happened to wait for each other; release builds pay nothing.
//!
//! All locks of the core are of the types of this file, so all of them are in the order.

use parking_lot::{lock_api, RawMutex, RawRwLock, WaitTimeoutResult};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// Locks by their place: whoever holds one may take those below it, never one above or beside it. Who calls stands
/// above who is called: the C ABI, replication, the data store, the journal, BLOBs, files. What replication locks when
/// the data store tells it something stands below the data store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// What a handle of the C ABI stands for, during a call. Those that are given to calls with callbacks are not held
    /// meanwhile.
    Handle,

    /// A replica: who is being accepted, or sets the directory apart. Held until the former session has ended.
    Accepting,
    /// A replica of the original's protocol: its present primary; what a former one left is discarded meanwhile.
    Life,
    /// A replica of the original's protocol: sessions are appended, or an epoch is recorded.
    Recording,
    /// What a replica tells about a directory that it cannot look at just now.
    Seen,
    /// The store of a replica; held for writing while its directory is replaced.
    ReplicaStore,
    /// The runs that a replica knows of, written to its directory.
    ReplicaHistory,
    /// The session that a replica serves, while it becomes none.
    Serving,
    /// Whether the session of a replica has ended; the last word is sent meanwhile.
    ServingEnd,
    /// What a replica says next about its durable epoch, until it is sent.
    Telling,
    /// Who records epochs on a replica.
    Recorder,
    /// Who syncs the log of a lane, or hands it over to the journal.
    LaneTurn,
    /// What is written to the log of a lane.
    LaneWriter,
    /// Whose data a replica has.
    Identity,
    /// The lock of a replica's directory, until it is closed.
    ReplicaDirectory,
    /// The versions that a replica was told, written to its directory.
    Versions,

    /// What the policy makes of an absent replica, written to the directory.
    Policy,
    /// Which sessions are told by the data store. Held while the tap is set.
    Subscribers,
    /// The files that a base sync has listed; letting go of them ends a backup.
    BaseSet,
    /// When that was.
    BaseSetDropped,
    /// The addresses of a replica, while one of them is connected to.
    Dialer,
    /// What a replica of the original's protocol has confirmed, written to the directory.
    Confirmed,
    /// What is sent on a control connection, so that epochs are told in order.
    Control,
    /// How far a base sync is.
    Base,
    /// Where a session has its feed.
    FeedSlot,

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
    /// Who makes epochs durable.
    Leader,

    /// Who writes a group to the commit journal.
    JournalWriter,
    /// Who settles the journal.
    Settling,
    /// The segments of the journal that nobody writes to.
    JournalTurn,

    /// The slots of open sessions.
    Slots,
    /// The epochs in which sessions have ended.
    Written,
    /// Who listens to sessions and epochs for replication. What the listener locks comes after all of these.
    Tap,
    /// What a session with a replica has been told, and what it still has to be sent.
    Feed,
    /// The queues of a session's lanes.
    SessionLanes,
    /// The BLOBs that a replica has been sent.
    BlobNumbers,
    /// Which replicas there are; one comes to the quorum, and goes, with its place here.
    Roster,
    /// Threads that wait for an epoch.
    Waiters,
    /// Backups that are open.
    Backups,
    /// Whom to tell about epochs; never held while they are told.
    Callbacks,

    /// The BLOBs of a pool, while it is released.
    BlobPool,
    /// Registrations and deletions of BLOBs; a shutdown waits for them.
    Blobs,
    /// Which directories of BLOBs are durable; held while one is made.
    BlobDirectories,
    /// Who syncs the names in a directory of BLOBs.
    BlobNames,

    /// The runs of a directory, written to it.
    History,
    /// Epoch tags, written to the directory.
    Tags,
    /// Where to begin to read log files, written to the directory.
    Marks,
    /// The manifest, written to the directory.
    Manifest,
    /// Who syncs a log file.
    FileSync,
    /// Who syncs the names of log files.
    NameSync,
    /// The epoch file.
    EpochFile,
    /// Who is told about events; held while they are told, so that none comes after the callback was removed.
    EventCallback,
    /// The disk of simulations.
    Disk,
    /// What a replica sends on a connection; it is encrypted meanwhile.
    Outgoing,
    /// Everything under which no other is taken. What has no rank of its own is one of these.
    Leaf,
    /// Where log lines go: they are written wherever something is to be said.
    Log,
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
            check(rank);
            Held::taken(rank)
        }

        /// Of a lock that was taken without waiting.
        pub(super) fn taken(rank: Rank) -> Held {
            let _ = HELD.try_with(|held| held.borrow_mut().push(rank));
            Held(rank)
        }

        /// Takes it once more, after [`Self::end`].
        pub(super) fn again(&self) {
            check(self.0);
            std::mem::forget(Held::taken(self.0));
        }

        pub(super) fn end(&self) {
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                if let Some(at) = held.iter().rposition(|rank| *rank == self.0) {
                    held.swap_remove(at);
                }
            });
        }
    }

    fn check(rank: Rank) {
        // A thread that ends may lock in the destructor of another thread-local: what it holds is not known any more.
        // One that panics has said already what is wrong.
        let last = HELD.try_with(|held| held.borrow().iter().max().copied()).ok().flatten();
        if let Some(last) = last.filter(|_| !std::thread::panicking()) {
            let allowed = last < rank || (last == rank && rank.may_be_held_more_than_once());
            assert!(allowed, "the order of locks is broken: {rank:?} is taken while {last:?} is held");
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            self.end();
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

    #[inline]
    fn taken(_: Rank) -> Held {
        Held()
    }

    #[inline]
    fn again(&self) {}

    #[inline]
    fn end(&self) {}
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
    held: Held,
}

pub type MutexGuard<'a, T> = Guard<lock_api::MutexGuard<'a, RawMutex, T>>;
pub type ReadGuard<'a, T> = Guard<lock_api::RwLockReadGuard<'a, RawRwLock, T>>;
pub type WriteGuard<'a, T> = Guard<lock_api::RwLockWriteGuard<'a, RawRwLock, T>>;

impl<G: fmt::Display> fmt::Display for Guard<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

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
        let held = Held::take(self.rank);
        Guard { inner: self.inner.lock(), held }
    }

    /// `None` when somebody holds it, which may be this thread. Whoever does not wait needs no order; for what is taken
    /// under it there is one.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = self.inner.try_lock()?;
        Some(Guard { inner, held: Held::taken(self.rank) })
    }

    /// Needs no lock: nobody else has it.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

impl<T> MutexGuard<'_, T> {
    /// Lets the mutex go while `work` runs.
    pub fn unlocked<R>(guard: &mut Self, work: impl FnOnce() -> R) -> R {
        guard.held.end();
        let result = lock_api::MutexGuard::unlocked(&mut guard.inner, work);
        guard.held.again();
        result
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(Rank::Leaf, T::default())
    }
}

/// What threads that hold a [`Mutex`] wait for. They let it go meanwhile; it keeps its place in the order.
#[derive(Debug, Default)]
pub struct Condvar(parking_lot::Condvar);

impl Condvar {
    pub const fn new() -> Condvar {
        Condvar(parking_lot::Condvar::new())
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        self.0.wait(&mut guard.inner);
    }

    /// The same, but not beyond the deadline.
    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> WaitTimeoutResult {
        self.0.wait_until(&mut guard.inner, deadline)
    }

    /// The same, but not longer than `time`.
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, time: Duration) -> WaitTimeoutResult {
        self.0.wait_for(&mut guard.inner, time)
    }

    /// Waits while `condition` holds, but not longer than `time`.
    pub fn wait_while_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        condition: impl FnMut(&mut T) -> bool,
        time: Duration,
    ) -> WaitTimeoutResult {
        self.0.wait_while_for(&mut guard.inner, condition, time)
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
        let held = Held::take(self.rank);
        Guard { inner: self.inner.read(), held }
    }

    /// `None` when somebody writes, or waits to.
    #[inline]
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        let inner = self.inner.try_read()?;
        Some(Guard { inner, held: Held::taken(self.rank) })
    }

    #[inline]
    pub fn write(&self) -> WriteGuard<'_, T> {
        let held = Held::take(self.rank);
        Guard { inner: self.inner.write(), held }
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> RwLock<T> {
        RwLock::new(Rank::Leaf, T::default())
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

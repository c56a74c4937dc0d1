// SPDX-License-Identifier: Apache-2.0
//! Who is told about epochs, and when: callbacks never run at the same time, each hears epochs that only grow, and no
//! lock of the data store is held while one runs, so that it may call back in.
//!
//! What is to be told is *posted* while the epochs advance and *delivered* afterwards. When a callback is running
//! already, the thread that is inside it tells the rest: a slow callback delays reports and nothing else.

use crate::lock_order::{self, Condvar, Mutex, MutexGuard, Rank};
use crate::types::{Durability, Epoch};
use std::fmt;
use std::sync::Arc;

/// What the callback is told; epochs of one state strictly increase and may skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEvent {
    /// Everything of this epoch and of all before it has reached `state`.
    pub epoch: Epoch,
    pub state: Durability,
    /// Whether a session ended in any epoch that is reported for the first time. Exact for [`Durability::Stored`]; for
    /// [`Durability::Propagated`] it may also be true when none did but one did in a later epoch that is stored.
    pub had_writes: bool,
}

/// Called on the thread that completed an epoch: the one that commits, or, without a commit journal, one that is inside
/// a switch of epochs, the end of a session, or the confirmation of a replica. It may call back into the data store;
/// what would have to wait for an epoch is refused there.
pub type PersistentCallback = Arc<dyn Fn(EpochEvent) + Send + Sync>;

/// Told each epoch once, when it has reached the notify level; epochs strictly increase and may skip. Same threads and
/// rules as for [`PersistentCallback`], with which it never runs at the same time.
pub type NotifyCallback = Arc<dyn Fn(Epoch) + Send + Sync>;

pub(super) struct Callbacks {
    state: Mutex<State>,
    /// A call has returned.
    returned: Condvar,
}

#[derive(Default)]
struct State {
    persistent: Option<PersistentCallback>,
    notify: Option<NotifyCallback>,
    due: Due,
    /// The thread that is inside a call.
    running: Option<ThisThread>,
    /// Calls that have returned.
    returned: u64,
    closed: bool,
}

/// What was posted and not told yet; of one kind the last is enough.
#[derive(Default)]
struct Due {
    stored: Option<EpochEvent>,
    propagated: Option<EpochEvent>,
    notified: Option<Epoch>,
}

/// Tells threads that live apart, also within the destructors of one that ends, where its [`std::thread::current`] is
/// gone.
type ThisThread = usize;

fn this_thread() -> ThisThread {
    thread_local! {
        static MARK: u8 = const { 0 };
    }
    MARK.with(|mark| std::ptr::from_ref(mark) as usize)
}

/// A call that is to be made.
type Call = Box<dyn FnOnce()>;

impl State {
    /// The next call. STORED comes before PROPAGATED, because what is due may be the same epoch.
    fn next(&mut self) -> Option<Call> {
        if self.closed {
            return None;
        }
        let event = self.due.stored.take().or_else(|| self.due.propagated.take());
        match (event, &self.persistent) {
            (Some(event), Some(callback)) => {
                let callback = callback.clone();
                Some(Box::new(move || callback(event)))
            }
            (Some(_), None) => self.next(),
            (None, _) => {
                let (epoch, callback) = (self.due.notified.take()?, self.notify.clone()?);
                Some(Box::new(move || callback(epoch)))
            }
        }
    }

    fn is_running_here(&self) -> bool {
        self.running == Some(this_thread())
    }
}

impl Callbacks {
    pub(super) fn new() -> Callbacks {
        Callbacks { state: Mutex::new(Rank::Callbacks, State::default()), returned: Condvar::new() }
    }

    pub(super) fn set_persistent(&self, callback: Option<PersistentCallback>) {
        self.replace(|state| std::mem::replace(&mut state.persistent, callback));
    }

    pub(super) fn set_notify(&self, callback: Option<NotifyCallback>) {
        self.replace(|state| std::mem::replace(&mut state.notify, callback));
    }

    /// When this returns, no call of the former callback is running, unless this is called from within it.
    fn replace<T>(&self, exchange: impl FnOnce(&mut State) -> T) {
        let mut state = self.state.lock();
        let former = exchange(&mut state);
        self.wait_for_call(&mut state);
        drop(state);
        // Whatever it holds may call back in when it goes.
        drop(former);
    }

    /// Waits for the end of the call that is running, unless it runs on this thread.
    fn wait_for_call(&self, state: &mut MutexGuard<'_, State>) {
        let before = state.returned;
        while state.running.is_some() && !state.is_running_here() && state.returned == before {
            self.returned.wait(state);
        }
    }

    /// Whether a call is running, on whatever thread.
    pub(super) fn is_running(&self) -> bool {
        self.state.lock().running.is_some()
    }

    /// Waits for the end of the call that is running, unless it runs on this thread.
    pub(super) fn wait(&self) {
        self.wait_for_call(&mut self.state.lock());
    }

    /// Whether this thread is inside a callback.
    pub(super) fn is_calling(&self) -> bool {
        self.state.lock().is_running_here()
    }

    /// To be told: everything of an epoch has reached a state.
    pub(super) fn post(&self, event: EpochEvent) {
        let due = &mut self.state.lock().due;
        let place = match event.state {
            Durability::Stored => &mut due.stored,
            Durability::Propagated => &mut due.propagated,
        };
        let had_writes = event.had_writes || place.is_some_and(|earlier| earlier.had_writes);
        *place = Some(EpochEvent { had_writes, ..event });
    }

    /// To be told: an epoch has reached the notify level.
    pub(super) fn post_notified(&self, epoch: Epoch) {
        self.state.lock().due.notified = Some(epoch);
    }

    /// Tells what was posted, or leaves that to the thread that is inside a callback. To be called without any lock.
    pub(super) fn deliver(&self) {
        lock_order::check_none_held();
        /// Ends a call even when it panics.
        struct Running<'a>(&'a Callbacks);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                let mut state = self.0.state.lock();
                state.running = None;
                state.returned += 1;
                self.0.returned.notify_all();
            }
        }
        loop {
            let mut state = self.state.lock();
            if state.running.is_some() {
                return;
            }
            let Some(call) = state.next() else { return };
            state.running = Some(this_thread());
            drop(state);
            let _running = Running(self);
            call();
        }
    }

    /// Nothing is told any more; a call that is running goes on.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.due = Due::default();
    }

    /// The same; when this returns no call is running, unless this is called from within it.
    pub(super) fn close_and_wait(&self) {
        self.close();
        self.wait_for_call(&mut self.state.lock());
    }

    /// What is posted from here on is told.
    pub(super) fn open_again(&self) {
        let mut state = self.state.lock();
        state.due = Due::default();
        state.closed = false;
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        write!(f, "Callbacks(running {:?}, closed {})", state.running, state.closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::mpsc;

    fn stored(epoch: u64, had_writes: bool) -> EpochEvent {
        EpochEvent { epoch: Epoch(epoch), state: Durability::Stored, had_writes }
    }

    #[test]
    fn what_is_posted_during_a_call_is_told_after_it_and_of_each_kind_only_the_last() {
        let callbacks = Arc::new(Callbacks::new());
        let told = Arc::new(Mutex::new(Vec::new()));
        let (weak, log) = (Arc::downgrade(&callbacks), told.clone());
        callbacks.set_persistent(Some(Arc::new(move |event: EpochEvent| {
            log.lock().push(event);
            let callbacks = weak.upgrade().unwrap();
            assert!(callbacks.is_calling());
            if event.epoch == Epoch(1) {
                callbacks.post(EpochEvent { state: Durability::Propagated, ..stored(2, false) });
                callbacks.post(stored(2, true));
                callbacks.post(stored(3, false));
                callbacks.deliver();
                assert_eq!(log.lock().len(), 1, "no call inside a call");
            }
        })));
        callbacks.post(stored(1, false));
        callbacks.deliver();
        let propagated = EpochEvent { state: Durability::Propagated, ..stored(2, false) };
        assert_eq!(*told.lock(), [stored(1, false), stored(3, true), propagated]);
        assert!(!callbacks.is_calling());
    }

    #[test]
    fn a_callback_that_was_taken_away_is_not_running() {
        let callbacks = Arc::new(Callbacks::new());
        let (entered, has_entered) = mpsc::channel();
        let (leave, may_leave) = mpsc::channel::<()>();
        let may_leave = Mutex::new(may_leave);
        callbacks.set_notify(Some(Arc::new(move |epoch| {
            entered.send(epoch).unwrap();
            let _ = may_leave.lock().recv();
        })));
        callbacks.post_notified(Epoch(7));
        std::thread::scope(|scope| {
            let telling = scope.spawn(|| callbacks.deliver());
            assert_eq!(has_entered.recv().unwrap(), Epoch(7));
            let removing = scope.spawn(|| callbacks.set_notify(None));
            while callbacks.state.lock().notify.is_some() {
                std::thread::yield_now();
            }
            callbacks.post_notified(Epoch(8));
            callbacks.deliver();
            assert!(!removing.is_finished() && !telling.is_finished());
            drop(leave);
        });
        assert!(has_entered.try_recv().is_err(), "the one that was taken away is told no more");
    }

    #[test]
    fn nothing_is_told_after_the_end() {
        let callbacks = Callbacks::new();
        callbacks.set_persistent(Some(Arc::new(|event| panic!("told {event:?}"))));
        callbacks.post(stored(1, true));
        callbacks.close_and_wait();
        callbacks.post(stored(2, true));
        callbacks.deliver();
    }
}

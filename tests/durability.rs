// SPDX-License-Identifier: Apache-2.0
//! STORED, PROPAGATED and the notify level: counters, callbacks and waiting threads, with confirmations as replication
//! makes them.

use limestone_core::datastore::{Datastore, Durability, EpochDurability, NotifyLevel, Settings};
use limestone_core::error::Error;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, SimFs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use Durability::{Propagated, Stored};

const LONG: Option<Duration> = Some(Duration::from_secs(60));

/// What a callback was told: a state, or none for the notify callback.
type Told = (Option<Durability>, u64, bool);

struct Watched {
    store: Arc<Datastore>,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Watched {
    fn open(level: NotifyLevel) -> Watched {
        let settings = Settings::new("/log").vfs(Arc::new(SimFs::new())).notify_level(level).replicated(true);
        let store = Datastore::open(settings).unwrap();
        let told: Arc<Mutex<Vec<Told>>> = Arc::default();
        let events = told.clone();
        store.set_persistent_callback(Some(Arc::new(move |event| {
            events.lock().unwrap().push((Some(event.state), event.epoch.0, event.had_writes));
        })));
        let events = told.clone();
        store.set_notify_callback(Some(Arc::new(move |epoch| events.lock().unwrap().push((None, epoch.0, false)))));
        store.create_channel().unwrap();
        store.ready().unwrap();
        Watched { store, told }
    }

    fn switch(&self, epoch: u64) {
        self.store.switch_epoch(Epoch(epoch)).unwrap();
    }

    fn confirm(&self, epoch: u64) {
        self.store.confirm_propagated(Epoch(epoch)).unwrap();
    }

    /// What was told since the last look.
    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    fn of(&self, epoch: u64) -> (bool, bool, bool) {
        let EpochDurability { stored, propagated, degraded, replicated } = self.store.durability(Epoch(epoch));
        assert!(replicated);
        (stored, propagated, degraded)
    }
}

#[test]
fn the_notify_level_decides_which_state_is_notified() {
    let at_stored = Watched::open(NotifyLevel::Stored);
    at_stored.switch(1);
    at_stored.switch(2);
    assert_eq!(at_stored.told(), [(Some(Stored), 1, false), (None, 1, false)]);
    at_stored.confirm(1);
    assert_eq!(at_stored.told(), [(Some(Propagated), 1, false)]);

    let at_propagated = Watched::open(NotifyLevel::Propagated);
    at_propagated.switch(1);
    at_propagated.switch(2);
    assert_eq!(at_propagated.told(), [(Some(Stored), 1, false)]);
    assert_eq!(at_propagated.store.notified_epoch(), Epoch(0));
    at_propagated.confirm(1);
    assert_eq!(at_propagated.told(), [(Some(Propagated), 1, false), (None, 1, false)]);
    assert_eq!(at_propagated.store.notified_epoch(), Epoch(1));
}

#[test]
fn inv4_a_confirmation_counts_only_for_what_is_stored_and_later_for_the_rest() {
    let watched = Watched::open(NotifyLevel::Propagated);
    watched.switch(1);
    watched.confirm(3);
    assert_eq!(watched.told(), []);
    assert_eq!(watched.of(1), (false, false, false));
    watched.switch(3);
    assert_eq!(watched.told(), [(Some(Stored), 2, false), (Some(Propagated), 2, false), (None, 2, false)]);
    watched.switch(5);
    assert_eq!(watched.told(), [(Some(Stored), 4, false), (Some(Propagated), 3, false), (None, 3, false)]);
    assert_eq!((watched.of(3), watched.of(4)), ((true, true, false), (true, false, false)));
}

#[test]
fn confirmations_only_grow() {
    let watched = Watched::open(NotifyLevel::Stored);
    watched.switch(6);
    watched.confirm(4);
    watched.told();
    watched.confirm(4);
    watched.confirm(2);
    assert_eq!(watched.told(), []);
    assert_eq!(watched.store.propagated_epoch(), Epoch(4));
}

#[test]
fn both_states_say_whether_anything_was_written() {
    let watched = Watched::open(NotifyLevel::Stored);
    let channel = watched.store.create_channel().unwrap();
    watched.switch(3);
    channel.begin_session().unwrap();
    channel.end_session().unwrap();
    watched.switch(4);
    watched.switch(6);
    let stored: Vec<Told> = watched.told().into_iter().filter(|told| told.0.is_some()).collect();
    assert_eq!(stored, [(Some(Stored), 2, false), (Some(Stored), 3, true), (Some(Stored), 5, false)]);
    watched.confirm(2);
    watched.confirm(3);
    watched.confirm(5);
    assert_eq!(
        watched.told(),
        [(Some(Propagated), 2, false), (Some(Propagated), 3, true), (Some(Propagated), 5, false)]
    );
}

#[test]
fn while_degraded_epochs_are_notified_when_stored_and_remembered_as_degraded() {
    let watched = Watched::open(NotifyLevel::Propagated);
    watched.switch(4);
    watched.confirm(1);
    watched.told();
    watched.store.set_degraded(true).unwrap();
    assert_eq!(watched.told(), [(None, 3, false)], "at once, without a further switch");
    watched.switch(6);
    assert_eq!(watched.told(), [(Some(Stored), 5, false), (None, 5, false)]);
    watched.confirm(5);
    assert_eq!(watched.told(), [(Some(Propagated), 5, false)], "not notified again");
    watched.store.set_degraded(false).unwrap();
    watched.switch(8);
    assert_eq!(watched.told(), [(Some(Stored), 7, false)]);
    watched.confirm(7);
    assert_eq!(watched.told(), [(Some(Propagated), 7, false), (None, 7, false)]);
    let degraded: Vec<u64> = (0..10).filter(|&epoch| watched.of(epoch).2).collect();
    assert_eq!(degraded, [2, 3, 4, 5]);
}

#[test]
fn after_many_degraded_intervals_none_is_forgotten() {
    let watched = Watched::open(NotifyLevel::Propagated);
    watched.switch(1);
    for k in 1..=3000 {
        watched.store.set_degraded(true).unwrap();
        watched.switch(2 * k + 1);
        watched.confirm(2 * k);
        watched.store.set_degraded(false).unwrap();
        watched.switch(2 * k + 2);
        watched.confirm(2 * k + 1);
    }
    assert!((1..=3000).all(|k| watched.of(2 * k).2));
    assert!(!watched.of(5999).2, "the newest are exact");
}

#[test]
fn propagation_needs_replication() {
    let settings = Settings::new("/log").vfs(Arc::new(SimFs::new())).notify_level(NotifyLevel::Propagated);
    assert!(matches!(Datastore::open(settings), Err(Error::InvalidArgument(_))));
    let store = Datastore::open(Settings::new("/log").vfs(Arc::new(SimFs::new()))).unwrap();
    store.ready().unwrap();
    assert!(matches!(store.confirm_propagated(Epoch(1)), Err(Error::WrongState(_))));
    assert!(matches!(store.wait_durable(Epoch(1), Propagated, None), Err(Error::WrongState(_))));
    assert!(!store.durability(Epoch(0)).replicated);
}

#[test]
fn a_waiting_thread_ends_with_the_epoch_the_time_or_the_data_store() {
    let watched = Watched::open(NotifyLevel::Stored);
    watched.switch(1);
    let store = &watched.store;
    assert!(!store.wait_durable(Epoch(1), Stored, Some(Duration::ZERO)).unwrap());
    assert!(!store.wait_durable(Epoch(1), Stored, Some(Duration::from_millis(10))).unwrap());
    std::thread::scope(|scope| {
        let stored = scope.spawn(|| store.wait_durable(Epoch(2), Stored, None));
        let propagated = scope.spawn(|| store.wait_durable(Epoch(2), Propagated, LONG));
        let never = scope.spawn(|| store.wait_durable(Epoch(100), Stored, Some(Duration::MAX)));
        watched.switch(3);
        assert!(stored.join().unwrap().unwrap());
        watched.confirm(2);
        assert!(propagated.join().unwrap().unwrap());
        store.shutdown();
        assert!(matches!(never.join().unwrap(), Err(Error::WrongState(_))));
    });
    assert!(store.wait_durable(Epoch(2), Propagated, None).unwrap(), "what was reached stays so");
}

#[test]
fn a_failed_sync_ends_every_wait() {
    let fs = SimFs::new();
    let settings = Settings::new("/log").vfs(Arc::new(fs.clone())).replicated(true);
    let store = &Datastore::open(settings).unwrap();
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    store.switch_epoch(Epoch(1)).unwrap();
    channel.begin_session().unwrap();
    std::thread::scope(|scope| {
        let waiting = [Stored, Propagated].map(|state| scope.spawn(move || store.wait_durable(Epoch(1), state, LONG)));
        fs.fail_from(fs.operations(), Fault::IoError);
        channel.end_session().unwrap_err();
        for waiting in waiting {
            assert!(matches!(waiting.join().unwrap(), Err(Error::Poisoned(_))));
        }
    });
    assert!(matches!(store.confirm_propagated(Epoch(1)), Err(Error::Poisoned(_))));
}

/// Switches, confirmations ahead of and behind them, sessions, waiting threads and changes of the policy all at once.
#[test]
fn inv2_an_epoch_whose_record_fails_is_stored_for_nobody_who_asks() {
    for n in 1.. {
        let fs = SimFs::new();
        let store = Datastore::open(Settings::new("/log").vfs(Arc::new(fs.clone()))).unwrap();
        let channel = store.create_channel().unwrap();
        store.ready().unwrap();
        store.switch_epoch(Epoch(1)).unwrap();
        channel.begin_session().unwrap();
        channel.add_entry(StorageId(1), b"key", b"value", WriteVersion { major: 1, minor: 1 }, &[]).unwrap();
        channel.end_session().unwrap();
        fs.fail_from(fs.operations() + n, Fault::IoError);
        let switched = store.switch_epoch(Epoch(2));
        assert_eq!(store.durability(Epoch(1)).stored, switched.is_ok(), "call {n}: {switched:?}");
        if switched.is_ok() {
            assert!(n > 1, "the epoch was recorded without a call to the disk");
            return;
        }
    }
}

#[test]
fn inv1_counters_stay_in_order_whatever_the_threads_do() {
    const LAST: u64 = 3000;
    let watched = Watched::open(NotifyLevel::Propagated);
    let store = &watched.store;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for epoch in 1..=LAST + 1 {
                watched.switch(epoch);
            }
        });
        scope.spawn(|| {
            for epoch in 1..=LAST {
                watched.confirm(epoch);
                assert!(store.propagated_epoch() <= store.last_epoch());
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let (propagated, notified, stored) =
                    (store.propagated_epoch(), store.notified_epoch(), store.last_epoch());
                assert!(propagated <= stored && notified <= stored && stored < store.switched_epoch().max(Epoch(1)));
                let of = store.durability(stored);
                assert!(of.stored);
            }
        });
        let channel = store.create_channel().unwrap();
        scope.spawn(move || {
            for _ in 0..200 {
                channel.begin_session().unwrap();
                channel.end_session().unwrap();
            }
        });
        let waiters: Vec<_> = (0..4)
            .map(|k| {
                scope.spawn(move || {
                    for epoch in (1 + k..=LAST).step_by(40) {
                        let state = if epoch % 3 == 0 { Stored } else { Propagated };
                        assert!(store.wait_durable(Epoch(epoch), state, LONG).unwrap(), "epoch {epoch} {state:?}");
                    }
                })
            })
            .collect();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        over.store(true, Ordering::SeqCst);
    });
    assert!(store.wait_durable(Epoch(LAST), Propagated, LONG).unwrap());
    let told = watched.told();
    let mut last = [0; 3];
    for (state, epoch, _) in told {
        let at = state.map_or(2, |state| state as usize);
        assert!(epoch > last[at], "{state:?} {epoch} after {}", last[at]);
        last[at] = epoch;
        assert!(last[1] <= last[0] && last[2] <= last[1], "stored, propagated, notified: {last:?}");
    }
    assert_eq!(last, [LAST; 3]);
}

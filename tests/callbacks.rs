// SPDX-License-Identifier: Apache-2.0
//! What a callback may do: every call works inside it or says that it is at the wrong time, and no other thread waits
//! for ever meanwhile.

use limestone_core::datastore::{Channel, Datastore, Durability, EpochEvent, Settings};
use limestone_core::error::{Error, Result};
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::vfs::SimFs;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn open() -> (Arc<Datastore>, Arc<Channel>) {
    let store = Datastore::open(Settings::new("/log").vfs(Arc::new(SimFs::new()))).unwrap();
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    store.switch_epoch(Epoch(1)).unwrap();
    put(&channel);
    (store, channel)
}

fn put(channel: &Channel) {
    channel.begin_session().unwrap();
    channel.add_entry(StorageId(1), b"key", b"value", WriteVersion { major: 1, minor: 0 }, &[]).unwrap();
    channel.end_session().unwrap();
}

/// Does `work` inside the callback for epoch 1; tells that it has begun, and what came of it.
fn in_a_callback<T: Send + 'static>(
    store: &Arc<Datastore>,
    work: impl Fn(&Datastore) -> T + Send + Sync + 'static,
) -> (Receiver<()>, Receiver<T>) {
    let (entered, has_entered) = mpsc::channel();
    let (done, is_done) = mpsc::channel();
    let weak = Arc::downgrade(store);
    store.set_persistent_callback(Some(Arc::new(move |event: EpochEvent| {
        if event.epoch == Epoch(1) {
            let _ = entered.send(());
            let _ = done.send(work(&weak.upgrade().unwrap()));
        }
    })));
    (has_entered, is_done)
}

/// Switches to epoch 2 on a thread of its own, which calls back; tells when that has returned.
fn switch_elsewhere(store: &Arc<Datastore>) -> Receiver<Result<()>> {
    let (done, is_done) = mpsc::channel();
    let store = store.clone();
    std::thread::spawn(move || done.send(store.switch_epoch(Epoch(2))));
    is_done
}

#[test]
fn every_call_inside_a_callback_works_or_says_that_it_is_at_the_wrong_time() {
    type Call = fn(&Datastore) -> Result<()>;
    let works: [(&str, Call); 6] = [
        ("rotate", |store| store.rotate()),
        ("rotate_epoch_file", |store| store.rotate_epoch_file().map(drop)),
        ("record_epoch", |store| store.record_epoch(Epoch(1))),
        ("begin_backup", |store| store.begin_backup().map(drop)),
        ("begin_detailed_backup", |store| store.begin_detailed_backup(LONG).map(drop)),
        ("shutdown", |store| {
            store.shutdown();
            Ok(())
        }),
    ];
    for (name, call) in works {
        let (store, _channel) = open();
        let (_, is_done) = in_a_callback(&store, call);
        switch_elsewhere(&store).recv_timeout(LONG).expect(name).unwrap();
        is_done.try_recv().expect(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let refused: [(&str, Call); 2] = [
        ("compact", |store| store.compact().map(drop)),
        ("wait_durable", |store| store.wait_durable(Epoch(9), Durability::Stored, Some(LONG)).map(drop)),
    ];
    for (name, call) in refused {
        let (store, _channel) = open();
        let (_, is_done) = in_a_callback(&store, call);
        switch_elsewhere(&store).recv_timeout(LONG).expect(name).unwrap();
        assert!(matches!(is_done.try_recv(), Ok(Err(Error::WrongState(_)))), "{name}");
        store.switch_epoch(Epoch(3)).unwrap();
        assert_eq!(store.last_epoch(), Epoch(2), "{name}");
    }
}

#[test]
fn what_another_thread_does_with_the_files_waits_for_no_callback() {
    type Call = fn(&Datastore) -> Result<()>;
    let calls: [(&str, Call); 3] = [
        ("rotate_epoch_file", |store| store.rotate_epoch_file().map(drop)),
        ("record_epoch", |store| store.record_epoch(Epoch(1))),
        ("switch_epoch", |store| store.switch_epoch(Epoch(3))),
    ];
    for (name, call) in calls {
        let (store, _channel) = open();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let may_go_on = Mutex::new(may_go_on);
        let (has_entered, is_done) = in_a_callback(&store, move |store| {
            may_go_on.lock().unwrap().recv_timeout(LONG).expect("the other thread waits for the callback");
            store.rotate()
        });
        let switched = switch_elsewhere(&store);
        has_entered.recv_timeout(LONG).unwrap();
        call(&store).unwrap_or_else(|e| panic!("{name}: {e}"));
        go_on.send(()).unwrap();
        switched.recv_timeout(LONG).unwrap().unwrap();
        is_done.try_recv().unwrap().unwrap();
    }
}

#[test]
fn epochs_are_stored_while_a_callback_takes_its_time_and_told_afterwards() {
    let (store, channel) = open();
    let (entered, has_entered) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    store.set_persistent_callback(Some(Arc::new(move |event: EpochEvent| {
        entered.send((event.epoch.0, event.had_writes)).unwrap();
        let _ = may_go_on.lock().unwrap().recv();
    })));
    let switched = switch_elsewhere(&store);
    assert_eq!(has_entered.recv_timeout(LONG).unwrap(), (1, true));
    put(&channel);
    store.switch_epoch(Epoch(5)).unwrap();
    store.switch_epoch(Epoch(6)).unwrap();
    assert_eq!((store.last_epoch(), store.recorded_epoch()), (Epoch(5), Epoch(2)));
    assert!(has_entered.try_recv().is_err(), "one call at a time");
    drop(go_on);
    assert_eq!(has_entered.recv_timeout(LONG).unwrap(), (5, true), "with the writes of what was skipped");
    switched.recv_timeout(LONG).unwrap().unwrap();
}

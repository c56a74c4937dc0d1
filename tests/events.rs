// SPDX-License-Identifier: Apache-2.0
//! Events for an audit log: each step once, with its epoch, and failures too.

use limestone_core::datastore::{Datastore, Event, EventKind, Settings};
use limestone_core::types::Epoch;
use limestone_core::vfs::{Fault, SimFs};
use std::path::Path;
use std::sync::{Arc, Mutex};

type Heard = Arc<Mutex<Vec<(EventKind, u64, bool)>>>;

fn open(fs: &SimFs) -> (Arc<Datastore>, Heard) {
    let store = Datastore::open(Settings::new("/log").vfs(Arc::new(fs.clone()))).unwrap();
    let heard = Heard::default();
    let events = heard.clone();
    store.set_event_callback(Some(Arc::new(move |Event { kind, epoch, success }| {
        events.lock().unwrap().push((kind, epoch.0, success));
    })));
    (store, heard)
}

#[test]
fn a_start_and_each_record_are_told_with_their_epoch() {
    let fs = SimFs::new();
    let (store, heard) = open(&fs);
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    for epoch in [3, 4, 5] {
        store.switch_epoch(Epoch(epoch)).unwrap();
        if epoch != 4 {
            channel.begin_session().unwrap();
            channel.end_session().unwrap();
        }
    }
    store.switch_epoch(Epoch(6)).unwrap();
    store.emit(EventKind::WalShipped, Epoch(5), true);
    store.set_event_callback(None);
    store.emit(EventKind::WalShipped, Epoch(6), true);
    store.shutdown();
    use EventKind::{WalShipped, WalStarted, WalStored};
    let expected = [(WalStarted, 0, true), (WalStored, 3, true), (WalStored, 5, true), (WalShipped, 5, true)];
    assert_eq!(*heard.lock().unwrap(), expected);
    let (store, heard) = open(&fs);
    store.ready().unwrap();
    assert_eq!(*heard.lock().unwrap(), [(WalStarted, 5, true)]);
}

#[test]
fn a_record_that_cannot_be_written_is_told_as_a_failure() {
    let fs = SimFs::new();
    let (store, heard) = open(&fs);
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    store.switch_epoch(Epoch(1)).unwrap();
    channel.begin_session().unwrap();
    channel.end_session().unwrap();
    fs.fail_from(fs.operations() + 1, Fault::IoError);
    store.switch_epoch(Epoch(2)).unwrap_err();
    store.switch_epoch(Epoch(3)).unwrap_err();
    assert_eq!(heard.lock().unwrap()[1..], [(EventKind::WalStored, 1, false)]);
}

#[test]
fn a_start_that_fails_is_told_with_epoch_0() {
    let fs = SimFs::new();
    let (store, _) = open(&fs);
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    store.switch_epoch(Epoch(1)).unwrap();
    channel.begin_session().unwrap();
    channel.end_session().unwrap();
    store.switch_epoch(Epoch(2)).unwrap();
    store.shutdown();
    fs.put(Path::new("/log/pwal_0000"), &[0x55; 40]).unwrap();
    let (store, heard) = open(&fs);
    store.ready().unwrap_err();
    assert_eq!(*heard.lock().unwrap(), [(EventKind::WalStarted, 0, false)]);
}

// SPDX-License-Identifier: Apache-2.0
//! The invariants of epochs, by their numbers in `docs/durability.md`.

use crate::model::{last_marker, Model, Session, MARKERS};
use crate::runner::{OnError, Run, LOCATION};
use crate::script::{self, Script};
use limestone_core::datastore::{Channel, Datastore, Durability, EpochEvent, Settings};
use limestone_core::error::Error;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, Loss, SimFs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

type Events = Arc<Mutex<Vec<EpochEvent>>>;

/// A ready data store on a fresh simulated disk, its channels, and the events it reports.
fn store(channels: usize) -> (SimFs, Arc<Datastore>, Vec<Arc<Channel>>, Events) {
    let fs = SimFs::new();
    let store = Datastore::open(Settings::new(LOCATION).vfs(Arc::new(fs.clone()))).unwrap();
    let events = Events::default();
    let seen = events.clone();
    store.set_persistent_callback(Some(Arc::new(move |event| seen.lock().unwrap().push(event))));
    let channels = (0..channels).map(|_| store.create_channel().unwrap()).collect();
    store.ready().unwrap();
    (fs, store, channels, events)
}

fn write(channel: &Channel, minor: u64) {
    let version = WriteVersion { major: 1, minor };
    channel.add_entry(StorageId(2), b"key", b"value", version, &[]).unwrap();
}

fn session(channel: &Channel) {
    channel.begin_session().unwrap();
    write(channel, 0);
    channel.end_session().unwrap();
}

fn epochs(events: &Events) -> Vec<u64> {
    events.lock().unwrap().iter().map(|event| event.epoch.0).collect()
}

fn switch(store: &Datastore, epoch: u64) {
    store.switch_epoch(Epoch(epoch)).unwrap();
}

#[test]
fn inv1_counters_only_grow_and_stored_stays_behind_switched() {
    let (_, store, channels, _) = store(2);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for channel in &channels {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    session(channel);
                }
            });
        }
        let observer = scope.spawn(|| {
            let (mut stored_before, mut switched_before) = (0, 0);
            while !stop.load(Ordering::SeqCst) {
                // Read in this order, the second can only have grown since the first was read.
                let stored = store.last_epoch().0;
                let switched = store.switched_epoch().0;
                assert!(stored_before <= stored && switched_before <= switched, "a counter went back");
                assert!(stored <= switched, "stored {stored}, switched {switched}");
                assert!(stored == 0 || stored < switched, "the current epoch was called stored");
                (stored_before, switched_before) = (stored, switched);
            }
        });
        for epoch in 1..300 {
            switch(&store, epoch);
        }
        // A value that is not larger changes nothing.
        switch(&store, 7);
        assert_eq!(store.switched_epoch(), Epoch(299));
        stop.store(true, Ordering::SeqCst);
        observer.join().unwrap();
    });
}

#[test]
fn inv1_no_session_begins_in_an_epoch_that_is_stored() {
    let (_, store, channels, _) = store(2);
    switch(&store, 1);
    let sessions = |channel: &Channel| {
        for _ in 0..20_000 {
            let epoch = channel.begin_session().unwrap();
            let stored = store.last_epoch();
            channel.end_session().unwrap();
            assert!(stored < epoch, "a session of epoch {epoch} was open when epoch {stored} was stored");
        }
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = channels.iter().map(|channel| scope.spawn(|| sessions(channel))).collect();
        let mut epoch = 1;
        while writers.iter().any(|writer| !writer.is_finished()) {
            epoch += 1;
            switch(&store, epoch);
        }
    });
}

#[test]
fn inv1_the_epochs_of_the_callback_strictly_increase() {
    let (_, store, channels, events) = store(3);
    std::thread::scope(|scope| {
        for channel in &channels {
            scope.spawn(|| (0..100).for_each(|_| session(channel)));
        }
        (1..200).for_each(|epoch| switch(&store, epoch));
    });
    switch(&store, 200);
    let epochs = epochs(&events);
    assert!(epochs.windows(2).all(|pair| pair[0] < pair[1]), "{epochs:?}");
    assert_eq!(epochs.last(), Some(&199));
}

#[test]
fn inv2_an_open_session_holds_its_epoch_back() {
    let (_, store, channels, events) = store(2);
    switch(&store, 1);
    channels[0].begin_session().unwrap();
    session(&channels[1]);
    switch(&store, 2);
    session(&channels[1]);
    switch(&store, 3);
    assert!(epochs(&events).is_empty());
    channels[0].end_session().unwrap();
    assert_eq!(epochs(&events), [2]);
}

#[test]
fn inv2_a_second_session_of_an_epoch_on_one_channel_holds_it_back() {
    let (_, store, channels, events) = store(1);
    switch(&store, 1);
    session(&channels[0]);
    channels[0].begin_session().unwrap();
    switch(&store, 2);
    switch(&store, 3);
    assert!(epochs(&events).is_empty());
    channels[0].end_session().unwrap();
    assert_eq!(epochs(&events), [2]);
}

#[test]
fn inv2_no_order_of_sessions_over_channels_lets_the_callback_run_ahead_of_the_record() {
    // Every order of ends of three sessions of three epochs: each prefix of epochs is reported when it is complete, and
    // the epoch file covers it then.
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (_, store, channels, events) = store(3);
        for (at, channel) in channels.iter().enumerate() {
            switch(&store, 1 + at as u64);
            channel.begin_session().unwrap();
            write(channel, at as u64);
        }
        switch(&store, 4);
        let mut ended = [false; 3];
        for at in order {
            channels[at].end_session().unwrap();
            ended[at] = true;
            let complete = ended.iter().take_while(|ended| **ended).count() as u64;
            assert_eq!(epochs(&events).last().copied().unwrap_or(0), complete, "{order:?}");
            assert!(store.recorded_epoch().0 >= complete, "{order:?}");
        }
    }
}

#[test]
fn inv2_a_power_cut_inside_any_callback_loses_nothing_of_the_reported_epoch() {
    for script in [script::sessions(), script::rotations(), script::many_epochs()] {
        let mut run = Run::new(&SimFs::new(), Model::default());
        let images: Arc<Mutex<Vec<(u64, SimFs)>>> = Arc::default();
        let (taken, fs) = (images.clone(), run.fs.clone());
        run.on_event(move |event| {
            taken.lock().unwrap().push((event.epoch.0, fs.reboot(Loss::DropUnsynced)));
        });
        run.play(&script, OnError::Stop);
        assert_eq!(run.errors, Vec::<String>::new());
        let images = std::mem::take(&mut *images.lock().unwrap());
        assert!(!images.is_empty());
        for (epoch, image) in images {
            let content = Run::new(&image, Model::default()).content().unwrap();
            let reported = |session: &Session| session.epoch <= epoch && !session.covered;
            for (id, session) in run.model.sessions.iter().enumerate().filter(|(_, session)| reported(session)) {
                let marker = (MARKERS, last_marker(id));
                assert!(content.contains_key(&marker), "epoch {epoch} was reported without session {id} {session:?}");
            }
        }
    }
}

#[test]
fn inv3_and_inv4_only_stored_is_reported_while_there_are_no_replicas() {
    let (_, store, channels, events) = store(1);
    switch(&store, 1);
    session(&channels[0]);
    switch(&store, 2);
    switch(&store, 3);
    assert!(events.lock().unwrap().iter().all(|event| event.state == Durability::Stored));
    assert_eq!(epochs(&events), [1, 2]);
}

#[test]
fn inv5_an_epoch_without_writes_is_stored_in_its_turn_without_touching_the_disk() {
    let (fs, store, channels, events) = store(2);
    switch(&store, 1);
    session(&channels[0]);
    switch(&store, 2);
    let calls = fs.operations();
    for epoch in 3..50 {
        switch(&store, epoch);
        assert_eq!(events.lock().unwrap().last().unwrap().epoch, Epoch(epoch - 1));
        assert!(!events.lock().unwrap().last().unwrap().had_writes);
    }
    assert_eq!(fs.operations(), calls, "{:?}", &fs.trace()[calls as usize..]);
    assert!(events.lock().unwrap()[0].had_writes);
    session(&channels[1]);
    switch(&store, 50);
    assert!(events.lock().unwrap().last().unwrap().had_writes);
}

#[test]
fn inv6_after_a_failed_sync_nothing_is_acknowledged_and_the_sync_is_not_retried() {
    for failing in ["/log/pwal_0000", "/log/epoch"] {
        let (fs, store, channels, events) = store(2);
        switch(&store, 1);
        session(&channels[0]);
        switch(&store, 2);
        // The calls of one more round tell when the sync comes.
        let (quiet, before) = (fs.trace().len(), epochs(&events));
        session(&channels[0]);
        switch(&store, 3);
        let is_sync = |call: &String| *call == format!("sync {failing}");
        let after = 1 + fs.trace()[quiet..].iter().position(is_sync).expect("each round syncs it");
        assert_eq!(before, [1]);

        fs.fail_at(fs.operations() + after as u64, Fault::IoError);
        let failed = channels[0].begin_session().and_then(|_| channels[0].end_session()).map(drop);
        let failed = failed.and_then(|()| store.switch_epoch(Epoch(4)));
        assert!(matches!(failed, Err(Error::Io { .. })), "{failing}: {failed:?}");
        let (calls, acknowledged) = (fs.operations(), epochs(&events));
        assert_eq!(acknowledged, [1, 2]);
        for round in 0..3 {
            assert!(matches!(store.switch_epoch(Epoch(5 + round)), Err(Error::Poisoned(_))));
            assert!(matches!(store.rotate(), Err(Error::Poisoned(_))));
            assert!(channels[0].end_session().is_err());
            assert!(matches!(channels[1].begin_session(), Err(Error::Poisoned(_))));
            assert!(matches!(store.record_epoch(Epoch(3)), Err(Error::Poisoned(_))));
        }
        assert_eq!(epochs(&events), acknowledged);
        assert_eq!(fs.operations(), calls, "{failing}: {:?}", &fs.trace()[calls as usize..]);
        store.shutdown();
        assert_eq!(epochs(&events), acknowledged);
    }
}

#[test]
fn a_session_begun_before_the_first_switch_is_whole_or_not_at_all() {
    let mut script = Script::new(2);
    script.session(0, "a").begin(1).put(1, "b", 600_000).switch().end(1).switch().restart();
    script.session(0, "c").begin(1).put(1, "d", 600_000).switch().end(1).switch();
    crate::power_cuts::cut_everywhere(&crate::power_cuts::Start::fresh(), &script);
    crate::power_cuts::die_everywhere(&crate::power_cuts::Start::fresh(), &script);
}

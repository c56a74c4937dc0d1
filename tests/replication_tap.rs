// SPDX-License-Identifier: Apache-2.0
//! The hand-over from the log on disk to the tap: however channels write, rotate and are made, each session is either
//! in the logs of the subscription or reaches the tap, and never both.

use limestone_core::datastore::{Channel, Datastore, EndedSession, SafeSnapshot, Settings, Tap};
use limestone_core::replication::backlog::Backlog;
use limestone_core::types::{BlobId, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{RealFs, SimFs, Vfs};
use limestone_core::wal::entry::{decode, Entry};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

/// Ends the writers when the test ends, also by a failed assertion.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Keeps what it is told.
#[derive(Default)]
struct Recorder {
    sessions: Mutex<Vec<EndedSession>>,
    stored: Mutex<Vec<(Epoch, Option<Epoch>, usize)>>,
    safe_snapshots: Mutex<Vec<WriteVersion>>,
}

impl Tap for Recorder {
    fn session_ended(&self, session: EndedSession) {
        self.sessions.lock().push(session);
    }

    fn stored(&self, stored: Epoch, last_written: Option<Epoch>) -> Option<Epoch> {
        let sessions = self.sessions.lock().len();
        self.stored.lock().push((stored, last_written, sessions));
        last_written.is_none().then_some(stored)
    }

    fn boundary(&self, _: WriteVersion) {}
    fn safe_snapshot(&self, version: WriteVersion) {
        self.safe_snapshots.lock().push(version);
    }
}

/// The keys in the bytes of a session, which must be whole and of its epoch.
fn keys(session: &EndedSession) -> Vec<u64> {
    let mut bytes = vec![0; session.len as usize];
    assert_eq!(session.file.read_at(session.start, &mut bytes).unwrap(), bytes.len());
    let (mut keys, mut offset, mut markers) = (Vec::new(), 0, Vec::new());
    while let Some(decoded) = decode(&bytes, offset) {
        let (entry, next) = decoded.expect("a whole entry");
        match entry {
            Entry::Begin(epoch) | Entry::End(epoch) => markers.push((offset, epoch)),
            Entry::Put { key, .. } => keys.push(u64::from_le_bytes(key.try_into().unwrap())),
            other => panic!("{other:?}"),
        }
        offset = next;
    }
    assert_eq!(markers, [(0, session.epoch), (bytes.len() - 10, session.epoch)]);
    keys
}

fn open(vfs: &Arc<dyn Vfs>, location: &Path) -> Arc<Datastore> {
    Datastore::open(Settings::new(location).vfs(vfs.clone()).replicated(true)).unwrap()
}

/// One that has begun, with a channel.
fn started(location: &Path) -> (Arc<Datastore>, Arc<Channel>) {
    let store = open(&(Arc::new(RealFs) as Arc<dyn Vfs>), location);
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    (store, channel)
}

/// `pause` slows the writers down: the simulated disk keeps everything that was ever written.
fn hand_over_under_load(vfs: Arc<dyn Vfs>, location: &Path, subscriptions: usize, pause: Duration) {
    let store = open(&vfs, location);
    let channels: Vec<_> = (0..3).map(|_| store.create_channel().unwrap()).collect();
    store.ready().unwrap();
    store.switch_epoch(Epoch(1)).unwrap();
    let (stop, next_key) = (AtomicBool::new(false), AtomicU64::new(0));
    let write = |channel: &limestone_core::datastore::Channel| {
        channel.begin_session().unwrap();
        for _ in 0..3 {
            let key = next_key.fetch_add(1, SeqCst).to_le_bytes();
            channel.add_entry(StorageId(1), &key, &[b'v'; 100], WriteVersion::default(), &[]).unwrap();
        }
        channel.end_session().unwrap();
    };
    std::thread::scope(|scope| {
        for channel in &channels {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    write(channel);
                    std::thread::sleep(pause);
                }
            });
        }
        scope.spawn(|| {
            for epoch in 2.. {
                if stop.load(SeqCst) {
                    return;
                }
                store.switch_epoch(Epoch(epoch)).unwrap();
                if epoch % 7 == 0 {
                    store.rotate().unwrap();
                }
                std::thread::sleep(pause.max(Duration::from_micros(100)));
            }
        });
        let _stop = StopOnDrop(&stop);
        // Each subscription is checked by itself: what it found and what it was told is all there is.
        for round in 0..subscriptions {
            let recorder = Arc::new(Recorder::default());
            let subscription = store.subscribe(recorder.clone()).unwrap();
            let stored_before = subscription.stored_before;
            let created = store.create_channel().unwrap();
            write(&created);
            let told = recorder.sessions.lock().len();
            while recorder.sessions.lock().len() < told + 20 {
                std::thread::yield_now();
            }
            if round + 1 == subscriptions {
                stop.store(true, SeqCst);
            } else {
                store.unsubscribe();
                // Sessions that end now belong to nobody; the next subscription finds them in the log.
            }
            let source = Backlog::new(subscription, Epoch(0)).unwrap();
            let mut window = source.window(Epoch(0)).unwrap();
            assert_eq!(window.rest_above, None);
            let mut seen = BTreeMap::new();
            for session in std::iter::from_fn(|| source.next(&mut window)) {
                keys(&session).into_iter().for_each(|key| *seen.entry(key).or_insert(0) += 1);
            }
            let live = recorder.sessions.lock().clone();
            assert!(live.iter().all(|session| session.epoch > stored_before));
            for session in &live {
                keys(session).into_iter().for_each(|key| *seen.entry(key).or_insert(0) += 1);
            }
            let doubled: Vec<_> = seen.iter().filter(|(_, &count)| count != 1).collect();
            assert!(doubled.is_empty(), "round {round}: {doubled:?}");
            // Everything of the sessions that were told before an epoch was stored, and that are not later than it, is
            // ahead of that report.
            for (stored, _, before) in recorder.stored.lock().iter() {
                assert!(
                    live[*before.min(&live.len())..].iter().all(|session| session.epoch > *stored),
                    "stored {stored}"
                );
            }
        }
    });
    // When all have stopped, a last look has every key.
    let recorder = Arc::new(Recorder::default());
    let source = Backlog::new(store.subscribe(recorder.clone()).unwrap(), Epoch(0)).unwrap();
    let mut window = source.window(Epoch(0)).unwrap();
    let mut all: Vec<u64> = std::iter::from_fn(|| source.next(&mut window)).flat_map(|s| keys(&s)).collect();
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..next_key.load(SeqCst)), "{} of {} keys", all.len(), next_key.load(SeqCst));
    assert!(recorder.sessions.lock().is_empty());
}

#[test]
fn nothing_is_lost_or_doubled_while_channels_write_and_files_rotate() {
    let dir = tempfile::tempdir().unwrap();
    hand_over_under_load(Arc::new(RealFs), dir.path(), 15, Duration::ZERO);
}

#[test]
fn nothing_is_lost_or_doubled_on_the_simulated_disk() {
    hand_over_under_load(Arc::new(SimFs::new()), Path::new("/log"), 6, Duration::from_millis(1));
}

#[test]
fn a_session_reaches_the_tap_with_its_blobs_before_its_epoch_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (store, channel) = started(dir.path());
    let recorder = Arc::new(Recorder::default());
    store.switch_epoch(Epoch(5)).unwrap();
    channel.begin_session().unwrap();
    let blob = store.blob_pool().register_data(b"large object").unwrap();
    channel.add_entry(StorageId(1), b"k", b"v", WriteVersion::default(), &[blob, BlobId(1)]).unwrap();
    // The session was open when the tap was set.
    store.subscribe(recorder.clone()).unwrap();
    channel.end_session().unwrap();
    let session = recorder.sessions.lock()[0].clone();
    assert_eq!((session.epoch, session.channel, &session.blobs[..]), (Epoch(5), 0, &[blob, BlobId(1)][..]));
    store.switch_epoch(Epoch(6)).unwrap();
    assert_eq!(*recorder.stored.lock(), [(Epoch(4), Some(Epoch(0)), 0), (Epoch(5), Some(Epoch(5)), 1)]);
    store.switch_epoch(Epoch(9)).unwrap();
    assert_eq!(recorder.stored.lock().last(), Some(&(Epoch(8), None, 1)), "nothing was written");
    assert_eq!(store.propagated_epoch(), Epoch(8), "an epoch that the tap confirms at once is propagated");

    store.unsubscribe();
    channel.begin_session().unwrap();
    channel.end_session().unwrap();
    assert_eq!(recorder.sessions.lock().len(), 1);
    store.shutdown();
    assert!(store.subscribe(recorder).is_err());
}

/// The replica would be told that the epoch of the backup was reported, and seem to lack something without it.
#[test]
fn an_epoch_that_only_a_backup_has_recorded_is_none_with_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, channel) = started(dir.path());
    store.switch_epoch(Epoch(5)).unwrap();
    channel.begin_session().unwrap();
    channel.end_session().unwrap();
    store.switch_epoch(Epoch(9)).unwrap();
    drop(store.begin_detailed_backup(Duration::ZERO).unwrap());
    assert_eq!(store.recorded_epoch(), Epoch(8));
    let recorder = Arc::new(Recorder::default());
    store.subscribe(recorder.clone()).unwrap();
    assert_eq!(*recorder.stored.lock(), [(Epoch(8), Some(Epoch(5)), 0)]);
    store.shutdown();
}

#[test]
fn sessions_cannot_begin_before_the_start_has_said_which_epochs_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealFs);
    let store = open(&vfs, dir.path());
    let channel = store.create_channel().unwrap();
    assert!(channel.begin_session().is_err());
    store.ready().unwrap();
    assert_eq!(channel.begin_session().unwrap(), Epoch(1));
}

#[test]
fn an_aborted_session_never_reaches_the_tap() {
    let dir = tempfile::tempdir().unwrap();
    let (store, channel) = started(dir.path());
    let recorder = Arc::new(Recorder::default());
    store.subscribe(recorder.clone()).unwrap();
    store.switch_epoch(Epoch(1)).unwrap();
    let add = |key: u64, len: usize| {
        channel.add_entry(StorageId(1), &key.to_le_bytes(), &vec![b'v'; len], WriteVersion::default(), &[]).unwrap();
    };
    channel.begin_session().unwrap();
    add(1, 1 << 20);
    channel.abort_session().unwrap();
    channel.begin_session().unwrap();
    add(2, 10);
    channel.end_session().unwrap();
    channel.begin_session().unwrap();
    add(3, 1 << 20);
    store.switch_epoch(Epoch(2)).unwrap();
    channel.abort_session().unwrap();
    let sessions = recorder.sessions.lock();
    assert_eq!(sessions.iter().map(keys).collect::<Vec<_>>(), [[2]], "and what is there can still be read");
    assert_eq!(recorder.stored.lock().last(), Some(&(Epoch(1), Some(Epoch(1)), 1)));
}

#[test]
fn the_tap_is_told_the_safe_snapshot_in_order_with_and_without_a_callback() {
    let vfs: Arc<dyn Vfs> = Arc::new(SimFs::new());
    let store = open(&vfs, Path::new("/log"));
    store.ready().unwrap();
    let recorder = Arc::new(Recorder::default());
    store.subscribe(recorder.clone()).unwrap();
    let version = |major| WriteVersion { major, minor: 0 };
    let switch = |major| store.switch_safe_snapshot(SafeSnapshot { version: version(major), inclusive: true });
    switch(3);
    let told = Arc::new(Mutex::new(Vec::new()));
    let events = told.clone();
    store.set_snapshot_callback(Some(Arc::new(move |to: SafeSnapshot| events.lock().push(to.version))));
    [2, 3, 5, 4].into_iter().for_each(switch);
    assert_eq!(*recorder.safe_snapshots.lock(), [version(3), version(5)]);
    assert_eq!(*told.lock(), [version(5)]);
}

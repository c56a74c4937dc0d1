// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::datastore::Settings;
use crate::replication::native::protocol::message::{Outcome, ReplicaIdentity};
use crate::replication::quorum::Quorum;
use crate::types::BlobId;
use crate::vfs::{Open, SimFs, Vfs, VfsFile};
use crate::wal::history::History;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

#[derive(Default)]
struct Noted {
    overflowed: AtomicUsize,
}

impl Observer for Noted {
    fn overflowed(&self, limit: usize) {
        self.overflowed.store(limit, SeqCst);
    }
    fn control(&self) {}
}

struct Rig {
    fs: SimFs,
    feed: Arc<Feed>,
    pass: Mutex<Option<Pass>>,
    lanes: Vec<Arc<Queue<Item>>>,
    file: Arc<dyn VfsFile>,
    observer: Arc<Noted>,
    /// Held because the tap does not.
    _store: Arc<Datastore>,
}

impl Rig {
    /// Two lanes that nobody empties.
    fn new() -> Rig {
        let fs = SimFs::new();
        let store = Datastore::open(Settings::new("/log").vfs(Arc::new(fs.clone()))).unwrap();
        let lanes: Vec<Arc<Queue<Item>>> = (0..2).map(|_| Arc::new(Queue::new())).collect();
        let observer = Arc::new(Noted::default());
        let weak: Weak<dyn Observer> = Arc::downgrade(&(observer.clone() as Arc<dyn Observer>));
        let replica = ReplicaIdentity {
            uuid: "uuid".to_owned(),
            term: 1,
            history: History::default(),
            durable: Epoch(1),
            outcome: Outcome::CatchUp,
            max_channels: 8,
            directory: 7,
        };
        let machine = PrimarySession::new(Epoch(1), &replica, 1000, 0);
        let seat = Quorum::new(1, 1).begin(0, 7, Epoch(1), false).0;
        let feed = Feed::new(seat, lanes.clone(), Arc::new(Blobs::new()), &store, weak, machine);
        let file = fs.open(Path::new("/file"), Open::Create).unwrap().into();
        Rig { fs, feed: Arc::new(feed), pass: Mutex::default(), lanes, file, observer, _store: store }
    }

    fn session(&self, channel: u32, epoch: u64, blobs: &[BlobId]) -> EndedSession {
        EndedSession { epoch: Epoch(epoch), channel, file: self.file.clone(), start: 0, len: 20, blobs: blobs.into() }
    }

    fn ends(&self, channel: u32, epoch: u64) {
        self.is_told(self.session(channel, epoch, &[]));
    }

    /// Waits until so many files were looked up, and says whether they were.
    fn has_looked_up(&self, files: usize) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        let looked_up =
            || self.fs.trace().iter().filter(|call| call.starts_with("kind") && call.contains(".blob")).count();
        while looked_up() < files && Instant::now() < deadline {
            std::thread::yield_now();
        }
        looked_up() == files
    }

    fn is_told(&self, session: EndedSession) {
        self.pass.lock().as_ref().unwrap().session_ended(session);
    }

    fn begin_pass(&self) -> Option<Pass> {
        self.pass.lock().replace(self.feed.begin_pass())
    }

    fn stream(&self) {
        self.begin_pass();
        assert!(self.feed.go_live(Vec::new()));
    }

    /// What waits in the lanes, a letter for each item. Wakes whoever takes it.
    fn waiting(&self) -> Vec<String> {
        let letters = |lane: &Arc<Queue<Item>>| {
            lane.push(Item::Sync);
            let mut items = VecDeque::new();
            lane.take(&mut items);
            items.pop_back();
            let letter = |item: &Item| match item {
                Item::Session(_) => 's',
                Item::Commit { .. } => 'C',
                Item::Sync => 'Y',
            };
            items.iter().map(letter).collect()
        };
        self.lanes.iter().map(letters).collect()
    }
}

#[test]
fn no_channel_waits_for_the_look_up_of_another_ones_blobs() {
    let rig = Rig::new();
    rig.stream();
    let looked_up = std::thread::scope(|scope| {
        let locked = rig.feed.state.lock();
        scope.spawn(|| rig.is_told(rig.session(0, 2, &[BlobId(7), BlobId(8)])));
        let ended = rig.has_looked_up(2);
        scope.spawn(|| rig.feed.go_live(vec![rig.session(1, 2, &[BlobId(9)])]));
        let held = rig.has_looked_up(3);
        drop(locked);
        (ended, held)
    });
    assert_eq!(looked_up, (true, true));
}

#[test]
fn a_switch_of_epochs_asks_for_a_sync_of_what_was_sent_since_the_last() {
    let rig = Rig::new();
    rig.stream();
    rig.feed.switched(Epoch(2));
    assert_eq!(rig.waiting(), ["", ""], "an epoch in which nothing was written sends nothing");
    rig.ends(0, 2);
    rig.ends(2, 2);
    rig.feed.switched(Epoch(3));
    rig.feed.switched(Epoch(4));
    assert_eq!(rig.waiting(), ["ssY", ""]);
    // One that was open across the switch is the last of its channel in that epoch.
    rig.ends(1, 3);
    rig.ends(0, 4);
    assert_eq!(rig.waiting(), ["s", "sY"]);
    rig.feed.stored(Epoch(3), Some(Epoch(3)));
    assert_eq!(rig.waiting(), ["C", "C"]);
}

#[test]
fn a_replica_for_which_too_much_waits_has_to_catch_up_once_more() {
    let rig = Rig::new();
    rig.stream();
    for _ in 0..QUEUED_MAX {
        rig.ends(0, 2);
    }
    assert_eq!(rig.observer.overflowed.load(SeqCst), 0);
    rig.ends(0, 2);
    assert_eq!(rig.observer.overflowed.load(SeqCst), QUEUED_MAX);
    assert!(!rig.feed.is_streaming());
    let waiting = rig.waiting()[0].len();
    for _ in 0..10 {
        rig.ends(0, 2);
    }
    assert_eq!((waiting, rig.waiting()[0].len()), (QUEUED_MAX + 1, 0), "nothing more is kept");
}

#[test]
fn too_much_that_ends_during_a_catch_up_makes_another_pass_necessary() {
    let rig = Rig::new();
    rig.begin_pass();
    for _ in 0..=PENDING_MAX {
        rig.ends(0, 2);
    }
    assert!(!rig.feed.go_live(Vec::new()));
    assert_eq!(rig.observer.overflowed.load(SeqCst), 0, "the session goes on");
    assert_eq!(rig.waiting(), ["", ""]);
    let former = rig.begin_pass().unwrap();
    former.session_ended(rig.session(0, 2, &[]));
    rig.ends(0, 2);
    assert!(rig.feed.go_live(Vec::new()));
    assert_eq!(rig.waiting(), ["s", ""], "the log of this pass has what the former one is told");
    rig.feed.close();
    rig.ends(0, 2);
    assert_eq!(rig.waiting(), ["", ""]);
}

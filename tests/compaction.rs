// SPDX-License-Identifier: Apache-2.0
//! Online compaction through the public interface, on a simulated disk.

use limestone_core::datastore::{Channel, Datastore, Outcome, Retained, Settings};
use limestone_core::error::Error;
use limestone_core::types::{BlobId, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, SimFs, Vfs};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod golden_data;
mod upstream_checker;

const LOCATION: &str = "/log";
const STORAGE: StorageId = StorageId(1);

struct Engine {
    fs: SimFs,
    store: Arc<Datastore>,
    channels: Vec<Arc<Channel>>,
}

fn version(major: u64, minor: u64) -> WriteVersion {
    WriteVersion { major, minor }
}

impl Engine {
    fn start(fs: &SimFs, channels: usize) -> Engine {
        let store = Datastore::open(Settings::new(LOCATION).vfs(Arc::new(fs.clone()))).unwrap();
        let channels = (0..channels).map(|_| store.create_channel().unwrap()).collect();
        store.ready().unwrap();
        store.blobs().wait_for_collection();
        store.switch_epoch(Epoch(store.last_epoch().0 + 1)).unwrap();
        Engine { fs: fs.clone(), store, channels }
    }

    fn epoch(&self) -> u64 {
        self.store.switched_epoch().0
    }

    fn switch(&self) {
        self.store.switch_epoch(Epoch(self.epoch() + 1)).unwrap();
    }

    /// A session with one entry, whose epoch ends with it.
    fn put(&self, channel: usize, key: &str, value: &str) {
        self.put_with(channel, key, value, &[]);
    }

    fn put_with(&self, channel: usize, key: &str, value: &str, blobs: &[BlobId]) {
        let channel = &self.channels[channel];
        channel.begin_session().unwrap();
        let version = version(self.epoch(), 0);
        channel.add_entry(STORAGE, key.as_bytes(), value.as_bytes(), version, blobs).unwrap();
        channel.end_session().unwrap();
        self.switch();
    }

    fn remove(&self, channel: usize, key: &str) {
        let channel = &self.channels[channel];
        channel.begin_session().unwrap();
        channel.remove_entry(STORAGE, key.as_bytes(), version(self.epoch(), 0)).unwrap();
        channel.end_session().unwrap();
        self.switch();
    }

    fn clear(&self, channel: usize) {
        let channel = &self.channels[channel];
        channel.begin_session().unwrap();
        channel.truncate_storage(STORAGE, version(self.epoch(), 0)).unwrap();
        channel.end_session().unwrap();
        self.switch();
    }

    /// A replica has the log up to this epoch.
    fn retain(&self, beyond: Epoch, moves: bool) {
        self.store.retain(Some(Retained { beyond, by: "replica r".to_owned(), moves }));
    }

    /// Waits for what happens while epochs go on.
    fn wait_for(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            self.switch();
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Compacts while epochs go on.
    fn compact(&self) -> Result<Outcome, Error> {
        self.compact_with(Datastore::compact)
    }

    fn compact_with(&self, compact: fn(&Datastore) -> Result<Outcome, Error>) -> Result<Outcome, Error> {
        std::thread::scope(|scope| {
            let compaction = scope.spawn(|| compact(&self.store));
            while !compaction.is_finished() {
                self.switch();
                std::thread::yield_now();
            }
            compaction.join().unwrap()
        })
    }

    fn restart(self, channels: usize) -> Engine {
        self.store.shutdown();
        let fs = self.fs.clone();
        drop(self);
        Engine::start(&fs, channels)
    }

    fn rows(&self) -> BTreeMap<String, String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut rows = BTreeMap::new();
        let mut cursor = self.store.snapshot().unwrap().cursor();
        while let Some(row) = cursor.next().unwrap() {
            assert!(rows.insert(text(row.key), text(row.value)).is_none(), "a key twice");
        }
        rows
    }

    fn catalog(&self) -> String {
        String::from_utf8(self.fs.files()[Path::new("/log/compaction_catalog")].clone()).unwrap()
    }

    fn detached(&self) -> Vec<String> {
        self.catalog().lines().filter_map(|line| line.strip_prefix("DETACHED_PWAL ")).map(str::to_owned).collect()
    }

    /// What `tgdel_logs.sh` does.
    fn delete_detached(&self) -> usize {
        let detached = self.detached();
        for name in &detached {
            self.fs.unlink(&Path::new(LOCATION).join(name)).unwrap();
        }
        detached.len()
    }
}

fn rows(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// What the original would make of the directory.
fn upstream_rows(fs: &SimFs) -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().unwrap();
    fs.store(dir.path()).unwrap();
    let location = dir.path().join("log");
    assert_eq!(upstream_checker::handover_violations(&location), Vec::<String>::new());
    assert_eq!(upstream_checker::session_violations(&location), Vec::<String>::new());
    let start = upstream_checker::upstream_start(&location).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    start.rows.iter().map(|row| (text(&row.key), text(&row.value))).collect()
}

#[test]
fn the_live_entries_are_all_that_is_left_and_all_that_is_needed() {
    let engine = Engine::start(&SimFs::new(), 2);
    engine.put(0, "a", "old");
    engine.put(1, "a", "new");
    engine.put(0, "b", "kept");
    engine.put(1, "c", "removed");
    engine.remove(0, "c");
    assert_eq!(engine.compact().unwrap(), Outcome::Done);
    assert_eq!(engine.delete_detached(), 2);
    let engine = engine.restart(2);
    assert_eq!(engine.rows(), rows(&[("a", "new"), ("b", "kept")]));
}

#[test]
fn the_original_reads_the_same_after_every_step() {
    let engine = Engine::start(&SimFs::new(), 2);
    engine.put(0, "a", "1");
    engine.put(1, "b", "1");
    engine.compact().unwrap();
    engine.put(0, "a", "2");
    engine.remove(1, "b");
    engine.put(1, "c", "3");
    engine.store.shutdown();
    let expected = rows(&[("a", "2"), ("c", "3")]);
    assert_eq!(upstream_rows(&engine.fs), expected);
    let engine = engine.restart(1);
    assert_eq!(engine.rows(), expected);
    engine.compact().unwrap();
    engine.store.shutdown();
    assert_eq!(upstream_rows(&engine.fs), expected);
    assert_eq!(engine.restart(1).rows(), expected);
}

#[test]
fn removes_and_clears_after_a_compaction_are_effective() {
    let engine = Engine::start(&SimFs::new(), 1);
    engine.put(0, "a", "1");
    engine.put(0, "b", "1");
    engine.compact().unwrap();
    engine.remove(0, "a");
    let engine = engine.restart(1);
    assert_eq!(engine.rows(), rows(&[("b", "1")]));
    engine.clear(0);
    engine.put(0, "c", "1");
    let engine = engine.restart(1);
    assert_eq!(engine.rows(), rows(&[("c", "1")]));
    engine.compact().unwrap();
    engine.delete_detached();
    assert_eq!(engine.restart(1).rows(), rows(&[("c", "1")]));
}

#[test]
fn files_of_channels_that_the_process_does_not_have_are_compacted_too() {
    let engine = Engine::start(&SimFs::new(), 3);
    engine.put(2, "a", "old");
    engine.put(1, "b", "old");
    let engine = engine.restart(1);
    engine.put(0, "a", "new");
    engine.remove(0, "b");
    engine.compact().unwrap();
    assert_eq!(engine.delete_detached(), 3);
    assert_eq!(engine.restart(1).rows(), rows(&[("a", "new")]));
}

#[test]
fn a_session_that_is_older_than_a_later_ended_one_is_compacted_with_it() {
    let engine = Engine::start(&SimFs::new(), 2);
    let old = version(engine.epoch(), 0);
    engine.channels[0].begin_session().unwrap();
    engine.channels[0].add_entry(STORAGE, b"k", b"older", old, &[]).unwrap();
    engine.put_sessions_while_open(1, "k", "newer");
    std::thread::scope(|scope| {
        let compaction = scope.spawn(|| engine.store.compact());
        for _ in 0..3 {
            engine.switch();
        }
        assert!(!compaction.is_finished(), "the older session has not ended");
        engine.channels[0].end_session().unwrap();
        while !compaction.is_finished() {
            engine.switch();
            std::thread::yield_now();
        }
        assert_eq!(compaction.join().unwrap().unwrap(), Outcome::Done);
    });
    assert_eq!(engine.restart(2).rows(), rows(&[("k", "newer")]));
}

impl Engine {
    /// A session of a later epoch than those that are open.
    fn put_sessions_while_open(&self, channel: usize, key: &str, value: &str) {
        self.switch();
        self.put(channel, key, value);
    }
}

#[test]
fn a_long_session_that_begins_during_a_compaction_keeps_all_its_entries() {
    let engine = Engine::start(&SimFs::new(), 2);
    engine.put(0, "a", "1");
    let large = "x".repeat(700_000);
    engine.channels[0].begin_session().unwrap();
    let major = engine.epoch();
    engine.channels[0].add_entry(STORAGE, b"large", large.as_bytes(), version(major, 0), &[]).unwrap();
    std::thread::scope(|scope| {
        let compaction = scope.spawn(|| engine.store.compact());
        while !compaction.is_finished() {
            // The session is of the current epoch or an earlier one, so that the compaction waits for its end.
            engine.switch();
            // Again and again, because the compaction may begin after the first of these sessions.
            if (engine.epoch() - major) % 50 == 5 {
                engine.channels[0].end_session().unwrap();
                engine.channels[0].begin_session().unwrap();
                let later = version(engine.epoch(), 0);
                engine.channels[0].add_entry(STORAGE, b"later", large.as_bytes(), later, &[]).unwrap();
            }
            std::thread::yield_now();
        }
        compaction.join().unwrap().unwrap();
    });
    engine.channels[0].add_entry(STORAGE, b"end", b"1", version(engine.epoch(), 1), &[]).unwrap();
    engine.channels[0].end_session().unwrap();
    engine.switch();
    engine.delete_detached();
    let found = engine.restart(2).rows();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "end", "large", "later"]);
}

#[test]
fn a_compaction_without_anything_new_changes_nothing() {
    let engine = Engine::start(&SimFs::new(), 1);
    assert_eq!(engine.compact().unwrap(), Outcome::NothingToDo);
    engine.put(0, "a", "1");
    assert_eq!(engine.compact().unwrap(), Outcome::Done);
    let before = engine.catalog();
    assert_eq!(engine.compact().unwrap(), Outcome::NothingToDo);
    assert_eq!(engine.catalog(), before);
}

#[test]
fn repeated_compactions_give_the_same_as_none() {
    let engine = Engine::start(&SimFs::new(), 2);
    let mut expected = BTreeMap::new();
    for round in 0..30 {
        let key = format!("k{}", round * 7 % 11);
        if round % 5 == 4 {
            engine.remove(round % 2, &key);
            expected.remove(&key);
        } else {
            engine.put(round % 2, &key, &round.to_string());
            expected.insert(key, round.to_string());
        }
        if round % 3 == 0 {
            engine.compact().unwrap();
        }
        if round % 9 == 0 {
            engine.delete_detached();
        }
    }
    assert_eq!(engine.restart(1).rows(), expected);
}

#[test]
fn no_log_file_gets_the_name_of_one_that_was_deleted_and_is_still_listed() {
    let fs = SimFs::new();
    let engine = Engine::start(&fs, 1);
    engine.put(0, "a", "1");
    engine.compact().unwrap();
    engine.delete_detached();
    engine.store.shutdown();
    // As if the clock had gone back since.
    let later = "pwal_0000.99999999999990.0";
    let catalog = engine.catalog().replace(&engine.detached()[0], later);
    fs.put(Path::new("/log/compaction_catalog"), catalog.as_bytes()).unwrap();
    let engine = engine.restart(1);
    engine.put(0, "b", "2");
    engine.store.rotate().unwrap();
    let rotated: Vec<_> = fs.files().into_keys().filter(|path| path.starts_with("/log")).collect();
    let rotated = rotated.iter().filter_map(|path| path.file_name()?.to_str()).filter(|name| name.len() > 20);
    assert!(rotated.into_iter().any(|name| name > later && name.starts_with("pwal_0000.")), "{:?}", fs.files().keys());
    assert_eq!(engine.restart(1).rows(), rows(&[("a", "1"), ("b", "2")]));
}

#[test]
fn a_shutdown_ends_a_compaction_that_waits_for_an_epoch() {
    let engine = Engine::start(&SimFs::new(), 1);
    engine.put(0, "a", "1");
    std::thread::scope(|scope| {
        let compaction = scope.spawn(|| engine.store.compact());
        std::thread::park_timeout(Duration::from_millis(20));
        assert!(!compaction.is_finished(), "nobody has switched the epoch");
        let begun = Instant::now();
        engine.store.shutdown();
        assert!(compaction.join().unwrap().is_err());
        assert!(begun.elapsed() < Duration::from_secs(10));
    });
    assert_eq!(engine.restart(1).rows(), rows(&[("a", "1")]));
}

#[test]
fn before_the_first_epoch_and_outside_of_the_life_of_the_store_there_is_no_compaction() {
    let fs = SimFs::new();
    let store = Datastore::open(Settings::new(LOCATION).vfs(Arc::new(fs))).unwrap();
    assert!(matches!(store.compact(), Err(Error::WrongState(_))));
    store.ready().unwrap();
    let text = store.compact().unwrap_err().to_string();
    assert!(text.contains("rotation requires epoch_id > 0, but got epoch_id = 0"), "{text}");
    store.shutdown();
    assert!(matches!(store.compact(), Err(Error::WrongState(_))));
}

#[test]
fn held_files_stay_and_the_compaction_is_done_afterwards() {
    let engine = Engine::start(&SimFs::new(), 1);
    engine.put(0, "a", "1");
    let held = engine.store.begin_backup().unwrap();
    let before = engine.fs.files();
    assert_eq!(engine.store.compact().unwrap(), Outcome::Postponed);
    assert_eq!(engine.fs.files(), before);
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !engine.fs.files().contains_key(Path::new("/log/pwal_0000.compacted")) {
        assert!(Instant::now() < deadline, "the postponed compaction is not done");
        engine.switch();
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert_eq!(engine.restart(1).rows(), rows(&[("a", "1")]));
}

#[test]
fn a_file_in_the_control_directory_asks_for_a_compaction() {
    let engine = Engine::start(&SimFs::new(), 1);
    engine.put(0, "a", "1");
    engine.fs.put(Path::new("/log/ctrl/start_compaction"), b"").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while engine.detached().is_empty() {
        assert!(Instant::now() < deadline, "the request is not carried out");
        engine.switch();
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert!(!engine.fs.files().contains_key(Path::new("/log/ctrl/start_compaction")));
}

#[test]
fn files_beyond_the_retained_epoch_stay_in_the_log() {
    let engine = Engine::start(&SimFs::new(), 1);
    engine.put(0, "a", "1");
    engine.store.rotate().unwrap();
    let floor = engine.store.last_epoch();
    engine.put(0, "a", "2");
    engine.retain(floor, false);
    assert_eq!(engine.store.retained_epoch(), Some(floor));
    engine.compact().unwrap();
    assert_eq!(engine.detached().len(), 1);
    engine.delete_detached();
    let engine = engine.restart(1);
    assert_eq!(engine.rows(), rows(&[("a", "2")]));
    engine.compact().unwrap();
    assert_eq!(engine.detached().len(), 1);
}

#[test]
fn a_compaction_that_a_replica_holds_back_is_done_when_the_replica_has_confirmed() {
    let engine = Engine::start(&SimFs::new(), 1);
    let floor = engine.store.last_epoch();
    engine.put(0, "a", "1");
    let last = Epoch(engine.epoch() - 1);
    engine.retain(floor, false);
    assert_eq!(engine.compact().unwrap(), Outcome::Postponed);
    let held_back = engine.store.held_back_compaction().unwrap();
    assert_eq!((held_back.by.as_str(), held_back.has, held_back.needs), ("replica r", floor, last));
    assert!(engine.detached().is_empty());
    // What comes later may be needed for as long as it takes.
    engine.put(0, "a", "2");
    engine.retain(last, false);
    engine.wait_for("the compaction that was held back is done", || !engine.detached().is_empty());
    engine.wait_for("nothing is owed any more", || engine.store.held_back_compaction().is_none());
    assert_eq!(engine.detached().len(), 1);
    engine.delete_detached();
    assert_eq!(engine.restart(1).rows(), rows(&[("a", "2")]));
}

#[test]
fn a_compaction_waits_a_little_for_a_replica_that_is_there() {
    type Compact = fn(&Engine) -> Result<Outcome, Error>;
    let by_request: Compact = Engine::compact;
    let by_itself: Compact = |engine| engine.compact_with(Datastore::compact_and_delete);
    for compact in [by_request, by_itself] {
        let engine = Engine::start(&SimFs::new(), 1);
        engine.put(0, "a", "1");
        engine.retain(Epoch(0), true);
        std::thread::scope(|scope| {
            let compaction = scope.spawn(|| compact(&engine));
            // It has cut the log when the file has another name.
            engine.wait_for("the log is cut", || {
                let active = Path::new("/log/pwal_0000");
                !engine.fs.files().contains_key(active)
            });
            engine.retain(engine.store.recorded_epoch(), true);
            assert_eq!(compaction.join().unwrap().unwrap(), Outcome::Done);
        });
        assert!(engine.store.held_back_compaction().is_none());
    }
}

#[test]
fn a_boundary_version_never_falls() {
    let engine = Engine::start(&SimFs::new(), 1);
    engine.store.switch_available_boundary_version(version(5, 1)).unwrap();
    engine.store.switch_available_boundary_version(version(5, 1)).unwrap();
    let text = engine.store.switch_available_boundary_version(version(5, 0)).unwrap_err().to_string();
    assert_eq!(text, "The new boundary version (5, 0) is smaller than the current boundary version (5, 1)");
    assert_eq!(engine.store.available_boundary_version(), version(5, 1));
}

#[test]
fn a_compaction_deletes_blobs_that_only_old_versions_refer_to_and_no_others() {
    let engine = Engine::start(&SimFs::new(), 1);
    let pool = engine.store.blob_pool();
    let register = |n: u8| pool.register_data(&[n]).unwrap();
    let [old, new, plain, recent] = [1, 2, 3, 4].map(register);
    engine.put_with(0, "k", "", &[old]);
    engine.put_with(0, "k", "", &[new]);
    engine.put_with(0, "p", "", &[plain]);
    engine.put(0, "p", "no BLOB any more");
    engine.put_with(0, "r", "", &[recent]);
    let boundary = version(engine.epoch(), 0);
    let later = register(5);
    engine.put_with(0, "r", "", &[later]);
    pool.release();
    // Running transactions: one has given its BLOB to a session that is not in the files that are compacted.
    let running = engine.store.blob_pool();
    let unlogged = running.register_data(b"u").unwrap();
    let blob_is_there = |id: BlobId| engine.store.blobs().file(id).1;

    engine.compact().unwrap();
    engine.store.blobs().wait_for_collection();
    assert!(blob_is_there(old), "the boundary has not moved beyond the last compaction");

    engine.put(0, "other", "1");
    engine.store.switch_available_boundary_version(boundary).unwrap();
    let early = engine.compact().unwrap();
    assert_eq!(early, Outcome::Done);
    engine.store.blobs().wait_for_collection();
    for id in [new, recent, later, unlogged] {
        assert!(blob_is_there(id), "BLOB {id}");
    }
}

#[test]
fn blobs_go_by_the_boundary_version() {
    let engine = Engine::start(&SimFs::new(), 1);
    let pool = engine.store.blob_pool();
    let ids: Vec<BlobId> = (0..6u8).map(|n| pool.register_data(&[n]).unwrap()).collect();
    let [oldest, old, read, newest, plain, owned] = ids[..] else { panic!("six ids") };
    engine.put_with(0, "k", "", &[oldest]);
    engine.put_with(0, "k", "", &[old]);
    engine.put_with(0, "k", "", &[read]);
    engine.put_with(0, "p", "", &[plain]);
    engine.put(0, "p", "no BLOB any more");
    engine.store.switch_available_boundary_version(version(engine.epoch(), 0)).unwrap();
    engine.put_with(0, "k", "", &[newest]);
    pool.release();
    let running = engine.store.blob_pool();
    let unlogged = running.register_data(b"u").unwrap();
    let blob_is_there = |id: BlobId| engine.store.blobs().file(id).1;
    assert!(!blob_is_there(owned), "the release of its pool deletes what no entry refers to");

    engine.compact().unwrap();
    engine.store.blobs().wait_for_collection();
    let left: Vec<bool> = [oldest, old, read, newest, plain, unlogged].map(blob_is_there).to_vec();
    // `read` is the newest below the boundary; a plain entry does not supersede one with BLOBs, as in the original.
    assert_eq!(left, [false, false, true, true, true, true]);
    let engine = engine.restart(1);
    assert!(engine.store.blobs().file(newest).1);
    assert!(!engine.store.blobs().file(plain).1, "the next start deletes it");
    let next = engine.store.blob_pool().register_data(b"next").unwrap();
    assert!(next > unlogged, "{next} was given out before");
}

#[test]
fn an_error_of_the_disk_ends_a_compaction_and_nothing_else() {
    let calls = {
        let engine = Engine::start(&SimFs::new(), 1);
        engine.put(0, "a", "1");
        let before = engine.fs.operations();
        engine.compact().unwrap();
        engine.fs.operations() - before
    };
    let mut failures = 0;
    for n in 1..=calls {
        let engine = Engine::start(&SimFs::new(), 1);
        engine.put(0, "a", "1");
        engine.fs.fail_at(engine.fs.operations() + n, Fault::IoError);
        let result = std::thread::scope(|scope| {
            let compaction = scope.spawn(|| engine.store.compact());
            while !compaction.is_finished() {
                let _ = engine.store.switch_epoch(Epoch(engine.epoch() + 1));
                std::thread::yield_now();
            }
            compaction.join().unwrap()
        });
        if result.is_ok() {
            continue;
        }
        failures += 1;
        engine.fs.heal();
        let last = engine.fs.trace().into_iter().rfind(|call| call.contains(" -> ")).unwrap();
        let rotating = last.starts_with("sync_dir /log ");
        if engine.channels[0].begin_session().is_err() {
            assert!(rotating, "the data store stopped because of {last}");
            continue;
        }
        engine.channels[0].add_entry(STORAGE, b"b", b"2", version(engine.epoch(), 0), &[]).unwrap();
        engine.channels[0].end_session().unwrap();
        engine.switch();
        engine.compact().unwrap();
        assert_eq!(engine.restart(1).rows(), rows(&[("a", "1"), ("b", "2")]), "{last}");
    }
    assert!(failures > 20, "only {failures} of {calls} calls matter");
}

#[test]
fn what_is_compacted_and_deleted_is_gone_and_what_somebody_asked_for_stays() {
    let engine = Engine::start(&SimFs::new(), 1);
    engine.put(0, "a", "1");
    engine.compact().unwrap();
    let asked_for = engine.detached();
    assert_eq!(asked_for.len(), 1);
    engine.put(0, "a", "2");
    engine.put(0, "b", "2");
    std::thread::scope(|scope| {
        let compaction = scope.spawn(|| engine.store.compact_and_delete());
        while !compaction.is_finished() {
            engine.switch();
            std::thread::yield_now();
        }
        assert_eq!(compaction.join().unwrap().unwrap(), Outcome::Done);
    });
    let logs: Vec<String> = engine
        .fs
        .files()
        .into_keys()
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            (name.starts_with("pwal_0000.") && !name.ends_with(".compacted")).then_some(name)
        })
        .collect();
    assert_eq!(logs, asked_for);
    assert!(!engine.fs.files().contains_key(Path::new("/log/ctrl/own_detached")));
    assert_eq!(engine.restart(1).rows(), rows(&[("a", "2"), ("b", "2")]));
}

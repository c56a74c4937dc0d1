// SPDX-License-Identifier: Apache-2.0
//! A data store that commits with a journal: what it does to the disk, what a start makes of what a process left that
//! did not end in order, who calls back, and copies of the directory.

#[allow(dead_code)]
mod commits;

use commits::small_journal as small;
use limestone_core::datastore::{Channel, Commit, Datastore, EpochEvent, Settings};
use limestone_core::error::Error;
use limestone_core::tglogutil;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, Loss, Open, SimFs, Vfs};
use limestone_core::wal::manifest;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LOCATION: &str = "/log";

struct Engine {
    store: Arc<Datastore>,
    channels: Vec<Arc<Channel>>,
    epoch: u64,
    minor: u64,
}

impl Engine {
    fn open(fs: &SimFs, commit: Commit, channels: usize) -> Result<Engine, Error> {
        let store = Datastore::open(Settings::new(LOCATION).vfs(Arc::new(fs.clone())).commit(commit))?;
        let channels = (0..channels).map(|_| store.create_channel()).collect::<Result<_, _>>()?;
        store.ready()?;
        let epoch = store.last_epoch().0 + 1;
        store.switch_epoch(Epoch(epoch))?;
        Ok(Engine { store, channels, epoch, minor: 0 })
    }

    fn session(&mut self, channel: usize, key: &str) {
        self.session_with(channel, key, b"value");
    }

    fn session_with(&mut self, channel: usize, key: &str, value: &[u8]) {
        self.minor += 1;
        let version = WriteVersion { major: self.epoch, minor: self.minor };
        self.channels[channel].begin_session().unwrap();
        self.channels[channel].add_entry(StorageId(2), key.as_bytes(), value, version, &[]).unwrap();
        self.channels[channel].end_session().unwrap();
    }

    fn switch(&mut self) {
        self.epoch += 1;
        self.store.switch_epoch(Epoch(self.epoch)).unwrap();
    }

    /// The keys that are there.
    fn keys(&self) -> Vec<String> {
        let mut cursor = self.store.snapshot().unwrap().cursor();
        let mut keys = Vec::new();
        while let Some(row) = cursor.next().unwrap() {
            keys.push(String::from_utf8(row.key.to_vec()).unwrap());
        }
        keys
    }
}

fn format(fs: &SimFs) -> i32 {
    let bytes = fs.read(&Path::new(LOCATION).join("limestone-manifest.json"), 1 << 20).unwrap();
    manifest::parse(&bytes).unwrap().persistent_format_version
}

fn segments(files: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<&PathBuf> {
    files.keys().filter(|path| path.to_string_lossy().contains("limestone-journal.")).collect()
}

/// The power may go as soon as a callback is told something.
#[test]
fn what_a_callback_is_told_is_on_the_disk() {
    let fs = SimFs::new();
    let mut engine = Engine::open(&fs, small(), 2).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let (disk, log) = (fs.clone(), told.clone());
    engine.store.set_persistent_callback(Some(Arc::new(move |event: EpochEvent| {
        log.lock().unwrap().push((event.epoch.0, disk.reboot(Loss::DropUnsynced)));
    })));
    // The second is too large for the journal.
    let sessions = [("a", 10), ("b", 100_000), ("c", 10), ("d", 70_000)];
    for (n, (key, len)) in sessions.into_iter().enumerate() {
        engine.session_with(n % 2, key, &vec![1; len]);
        engine.switch();
        engine.store.drain().unwrap();
    }
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(told.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for (epoch, image) in told {
        let found = Engine::open(&image, Commit::Direct, 1).unwrap().keys();
        assert_eq!(found, ["a", "b", "c", "d"][..epoch as usize], "epoch {epoch}");
    }
}

/// A disk after the power went: sessions `a` and `b` were acknowledged, `c` was not.
fn left_by_a_power_cut(loss: Loss) -> SimFs {
    let fs = SimFs::new();
    let mut engine = Engine::open(&fs, small(), 2).unwrap();
    engine.session(0, "a");
    engine.switch();
    engine.store.drain().unwrap();
    engine.session(1, "b");
    engine.switch();
    engine.store.drain().unwrap();
    assert_eq!(engine.store.last_epoch(), Epoch(2));
    engine.session(0, "c");
    fs.reboot(loss)
}

#[test]
fn any_number_of_sessions_costs_one_sync_and_their_ends_none() {
    let fs = SimFs::new();
    let mut engine = Engine::open(&fs, small(), 8).unwrap();
    engine.session(0, "first");
    engine.switch();
    engine.store.drain().unwrap();
    let before = fs.trace().len();
    let syncs = |from: usize| {
        let trace = fs.trace();
        trace[from..].iter().filter(|call| call.starts_with("sync")).cloned().collect::<Vec<_>>()
    };
    for channel in 0..8 {
        engine.session(channel, &format!("key {channel}"));
    }
    assert_eq!(syncs(before), [""; 0]);
    engine.switch();
    engine.store.drain().unwrap();
    assert_eq!(syncs(before), ["sync /log/limestone-journal.0000"]);
    assert_eq!(engine.store.last_epoch(), Epoch(2));
    engine.switch();
    engine.store.drain().unwrap();
    assert_eq!(syncs(before).len(), 1, "an epoch without writes costs nothing");
}

#[test]
fn the_manifest_says_version_8_while_a_journal_is_in_use_and_7_after_an_orderly_end() {
    let fs = SimFs::new();
    let mut engine = Engine::open(&fs, small(), 1).unwrap();
    assert_eq!(format(&fs), 7, "nothing was written");
    engine.session(0, "a");
    engine.switch();
    engine.store.drain().unwrap();
    assert_eq!(format(&fs.reboot(Loss::DropUnsynced)), 8);
    engine.session(0, "b");
    engine.switch();
    engine.store.shutdown();
    let left = fs.reboot(Loss::DropUnsynced);
    assert_eq!((format(&left), segments(&left.files()).len()), (7, 0));
    let engine = Engine::open(&left, Commit::Direct, 1).unwrap();
    assert_eq!(engine.keys(), ["a", "b"], "a shutdown stores what has ended");
}

#[test]
fn a_start_finds_what_was_only_in_the_journal_and_puts_it_away() {
    for loss in (0..40).map(|seed| Loss::Torn { seed }).chain([Loss::DropUnsynced, Loss::KeepUnsynced]) {
        let left = left_by_a_power_cut(loss);
        assert_eq!(format(&left), 8);
        let engine = Engine::open(&left, Commit::Direct, 2).unwrap();
        assert_eq!(engine.keys(), ["a", "b"], "{loss:?}");
        assert_eq!((format(&left), segments(&left.files()).len()), (7, 0));
    }
}

#[test]
fn a_start_that_is_cut_off_while_it_settles_is_done_again() {
    let left = left_by_a_power_cut(Loss::DropUnsynced);
    let whole = left.reboot(Loss::DropUnsynced);
    drop(Engine::open(&whole, Commit::Direct, 2).unwrap());
    for n in 1..=whole.operations() {
        let image = left.reboot(Loss::DropUnsynced);
        image.fail_at(n, Fault::PowerCut);
        drop(Engine::open(&image, Commit::Direct, 2));
        for loss in [Loss::DropUnsynced, Loss::KeepUnsynced, Loss::Torn { seed: n }] {
            let again = image.reboot(loss);
            assert_eq!(Engine::open(&again, Commit::Direct, 2).unwrap().keys(), ["a", "b"], "call {n}, {loss:?}");
        }
    }
}

#[test]
fn a_start_refuses_a_journal_that_is_damaged_in_its_durable_range_or_gone_and_changes_nothing() {
    let damages: [fn(&SimFs, &Path); 2] = [
        |fs, segment| fs.open(segment, Open::Existing).unwrap().write_at(100, b"damage").unwrap(),
        |fs, segment| fs.unlink(segment).unwrap(),
    ];
    for damage in damages {
        let left = left_by_a_power_cut(Loss::DropUnsynced);
        damage(&left, &Path::new(LOCATION).join("limestone-journal.0000"));
        let before = left.files();
        let error = Engine::open(&left, small(), 1).err().unwrap();
        assert!(matches!(error, Error::Corrupted(_)) && error.to_string().contains("the commit journal is"), "{error}");
        assert_eq!(left.files(), before);
    }
}

/// Runs a tool on the directory.
fn tool(disk: &SimFs, word: &str) -> (i32, String) {
    let mut out = Vec::new();
    let exit = tglogutil::run(["tglogutil", word, LOCATION], Arc::new(disk.clone()), &mut out);
    (exit, String::from_utf8(out).unwrap())
}

#[test]
fn tools_that_change_nothing_see_a_directory_as_it_is_when_its_journal_is_settled() {
    for loss in [Loss::DropUnsynced, Loss::KeepUnsynced] {
        let left = left_by_a_power_cut(loss);
        let before = left.files();
        let seen = ["dump", "inspect"].map(|word| tool(&left, word));
        assert!(seen[1].1.contains("count-durable-wal-entries: 2"), "{seen:?}");
        let (_, verified) = tool(&left, "verify");
        assert!(
            verified.contains("warning: the commit journal is not settled (2 groups, up to epoch 2)"),
            "{verified}"
        );
        assert_eq!(left.files(), before, "nothing is written");
        assert_eq!(tool(&left, "settle").0, 0);
        assert_eq!(["dump", "inspect"].map(|word| tool(&left, word)), seen);
        assert_eq!(tool(&left, "verify").0, 0);
    }
}

#[test]
fn tools_that_change_something_refuse_a_directory_whose_journal_is_not_settled_until_it_is() {
    let left = left_by_a_power_cut(Loss::DropUnsynced);
    let before = left.files();
    assert_eq!(tool(&left, "repair").0, 64);
    assert_eq!(left.files(), before);
    let (exit, text) = tool(&left, "settle");
    assert!(exit == 0 && text.contains("settled: 2 groups of the commit journal"), "{exit}: {text}");
    assert_eq!(format(&left.reboot(Loss::DropUnsynced)), 7);
    let (exit, text) = tool(&left, "settle");
    assert!(exit == 0 && text.contains("no commit journal is in use"), "{exit}: {text}");
    assert_eq!(tool(&left, "inspect").0, 0);
    assert_eq!(Engine::open(&left, Commit::Direct, 1).unwrap().keys(), ["a", "b"]);
}

#[test]
fn a_plain_backup_before_the_start_lists_nothing_that_the_start_takes_away() {
    for loss in [Loss::DropUnsynced, Loss::KeepUnsynced] {
        let left = left_by_a_power_cut(loss);
        let store = Datastore::open(Settings::new(LOCATION).vfs(Arc::new(left.clone())).commit(small())).unwrap();
        let backup = store.begin_backup().unwrap();
        store.ready().unwrap();
        let (files, copy) = (left.files(), SimFs::new());
        for file in backup.files() {
            assert!(segments(&BTreeMap::from([(file.source.clone(), Vec::new())])).is_empty(), "{file:?}");
            let content = files.get(&file.source).unwrap_or_else(|| panic!("{file:?} is gone"));
            copy.put(&Path::new(LOCATION).join(&file.destination), content).unwrap();
        }
        assert_eq!(Engine::open(&copy, Commit::Direct, 1).unwrap().keys(), ["a", "b"]);
    }
}

#[test]
fn a_backup_is_of_settled_files_and_sessions_beside_it_are_durable() {
    let fs = SimFs::new();
    let mut engine = Engine::open(&fs, small(), 2).unwrap();
    engine.session(0, "a");
    engine.switch();
    let backup = engine.store.begin_detailed_backup(Duration::from_secs(60)).unwrap();
    assert_eq!((format(&fs), segments(&fs.files()).len()), (7, 0));
    engine.session(1, "beside");
    engine.switch();
    engine.store.drain().unwrap();
    assert_eq!(format(&fs), 7, "the manifest is copied while sessions end");
    assert_eq!(engine.store.last_epoch(), Epoch(engine.epoch - 1));
    let left = fs.reboot(Loss::DropUnsynced);
    assert_eq!(Engine::open(&left, Commit::Direct, 1).unwrap().keys(), ["a", "beside"]);
    let copy = SimFs::new();
    for file in backup.files() {
        copy.put(&Path::new(LOCATION).join(&file.destination), &fs.files()[&file.source]).unwrap();
    }
    assert_eq!(Engine::open(&copy, Commit::Direct, 1).unwrap().keys(), ["a"]);
    drop(backup);
    engine.session(0, "behind");
    engine.switch();
    engine.store.drain().unwrap();
    assert_eq!(format(&fs), 8);
}

#[test]
fn the_name_of_a_blob_is_durable_with_the_group_that_refers_to_it() {
    let fs = SimFs::new();
    let engine = Engine::open(&fs, small(), 1).unwrap();
    let pool = engine.store.blob_pool();
    let blob = pool.register_data(b"large").unwrap();
    let version = WriteVersion { major: 1, minor: 1 };
    engine.channels[0].begin_session().unwrap();
    engine.channels[0].add_entry(StorageId(2), b"key", b"value", version, &[blob]).unwrap();
    engine.channels[0].end_session().unwrap();
    engine.store.switch_epoch(Epoch(2)).unwrap();
    engine.store.drain().unwrap();
    assert_eq!(engine.store.last_epoch(), Epoch(1));
    let left = fs.reboot(Loss::DropUnsynced).files();
    let name = format!("{:016x}.blob", blob.0);
    assert!(left.keys().any(|path| path.ends_with(&name)), "{name} is gone: {:?}", left.keys());
}

/// A callback may call whatever it likes, also what settles the journal or ends the data store.
#[test]
fn callbacks_come_in_order_on_one_thread_and_may_call_back_in() {
    let fs = SimFs::new();
    let mut engine = Engine::open(&fs, small(), 2).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let (weak, log) = (Arc::downgrade(&engine.store), told.clone());
    engine.store.set_persistent_callback(Some(Arc::new(move |event: EpochEvent| {
        let store = weak.upgrade().unwrap();
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let mut told = log.lock().unwrap();
        told.push((event.epoch.0, name));
        match told.len() {
            1 => store.rotate().unwrap(),
            2 => drop(store.begin_backup().unwrap()),
            3 => store.drain().unwrap(),
            4 => store.shutdown(),
            _ => panic!("told after the shutdown"),
        }
    })));
    for round in 0..4 {
        engine.session(round % 2, &round.to_string());
        engine.switch();
        engine.store.drain().or_else(|e| if round == 3 { Ok(()) } else { Err(e) }).unwrap();
    }
    engine.store.shutdown();
    let told = told.lock().unwrap();
    assert_eq!(told.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(told.iter().all(|(_, thread)| thread == "lstone_commit"), "{told:?}");
    assert_eq!(Engine::open(&fs.reboot(Loss::DropUnsynced), Commit::Direct, 1).unwrap().keys(), ["0", "1", "2", "3"]);
}

/// The thread that commits is in the callback, and so does not write the groups that are waited for.
#[test]
fn a_callback_may_end_more_sessions_than_wait_for_a_group() {
    let fs = SimFs::new();
    let mut engine = Engine::open(&fs, small(), 2).unwrap();
    let channel = engine.channels[1].clone();
    engine.store.set_persistent_callback(Some(Arc::new(move |event: EpochEvent| {
        for minor in 0..if event.epoch == Epoch(1) { 30 } else { 0 } {
            channel.begin_session().unwrap();
            let version = WriteVersion { major: 2, minor };
            channel.add_entry(StorageId(2), format!("{minor:02}").as_bytes(), &[1; 10_000], version, &[]).unwrap();
            channel.end_session().unwrap();
        }
    })));
    engine.session(0, "a");
    engine.switch();
    engine.store.drain().unwrap();
    engine.switch();
    engine.store.drain().unwrap();
    let found = Engine::open(&fs.reboot(Loss::DropUnsynced), Commit::Direct, 1).unwrap().keys();
    assert_eq!(found, (0..30).map(|n| format!("{n:02}")).chain(["a".to_owned()]).collect::<Vec<_>>());
}

#[test]
fn a_panic_of_a_callback_stops_acknowledgement_and_hangs_nobody() {
    let fs = SimFs::new();
    let mut engine = Engine::open(&fs, small(), 1).unwrap();
    engine.store.set_persistent_callback(Some(Arc::new(|_| panic!("as the test wants it"))));
    engine.session(0, "a");
    engine.switch();
    assert!(matches!(engine.store.drain(), Err(Error::Poisoned(_))));
    assert!(engine.channels[0].begin_session().is_err());
    engine.store.shutdown();
    assert_eq!(Engine::open(&fs.reboot(Loss::DropUnsynced), Commit::Direct, 1).unwrap().keys(), ["a"]);
}

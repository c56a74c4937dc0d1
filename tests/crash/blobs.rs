// SPDX-License-Identifier: Apache-2.0
//! BLOBs: a power cut, the death of the process, or a failure at every call of registrations, of sessions that refer to
//! them, and of the deletion of unused files. Whatever entry is there afterwards, its BLOBs are there with their
//! content.

use crate::faults::each_fault;
use crate::power_cuts::losses;
use crate::runner::tail;
use crate::sweep::sweep;
use limestone_core::blob::BlobPool;
use limestone_core::datastore::{Channel, Datastore, Settings};
use limestone_core::error::Result;
use limestone_core::types::{BlobId, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, Loss, Open, SimFs, Vfs};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

const LOCATION: &str = "/log";
const STORAGE: StorageId = StorageId(1);

/// An upsert; its value in the log is its place in the history.
struct Written {
    key: &'static str,
    blobs: Vec<BlobId>,
    epoch: Epoch,
    ended: bool,
}

/// What was asked for and what was answered.
#[derive(Default)]
struct History {
    written: Vec<Written>,
    contents: BTreeMap<BlobId, Vec<u8>>,
    /// Ids that were returned and that their owner still counts on.
    held: BTreeSet<BlobId>,
    acknowledged: Arc<AtomicU64>,
}

struct Store {
    store: Arc<Datastore>,
    channel: Arc<Channel>,
}

impl Store {
    fn start(fs: &SimFs, history: &History) -> Result<Store> {
        let store = Datastore::open(Settings::new(LOCATION).vfs(Arc::new(fs.clone())))?;
        let channel = store.create_channel()?;
        let acknowledged = history.acknowledged.clone();
        store.set_persistent_callback(Some(Arc::new(move |event| {
            acknowledged.fetch_max(event.epoch.0, Ordering::SeqCst);
        })));
        store.ready()?;
        store.blobs().wait_for_collection();
        store.switch_epoch(Epoch(store.last_epoch().0 + 1))?;
        Ok(Store { store, channel })
    }

    /// One session with one entry; then its epoch ends.
    fn write(&self, history: &mut History, key: &'static str, blobs: &[BlobId]) -> Result<()> {
        let epoch = self.channel.begin_session()?;
        let number = history.written.len();
        history.written.push(Written { key, blobs: blobs.to_vec(), epoch, ended: false });
        let version = WriteVersion { major: epoch.0, minor: number as u64 };
        let value = number.to_string();
        self.channel.add_entry(STORAGE, key.as_bytes(), value.as_bytes(), version, blobs)?;
        self.channel.end_session()?;
        history.written[number].ended = true;
        self.store.switch_epoch(Epoch(epoch.0 + 1))
    }
}

impl Store {
    /// Compacts, and deletes the BLOBs that only old versions refer to; those of the open pool stay. Nothing has been
    /// written since the last switch, so that the switches meanwhile make no calls to the disk.
    fn compact(&self, fs: &SimFs, history: &History) -> Result<()> {
        let before: Vec<BlobId> = blob_files(fs).into_keys().filter(|id| history.held.contains(id)).collect();
        let boundary = WriteVersion { major: self.store.switched_epoch().0, minor: 0 };
        self.store.switch_available_boundary_version(boundary)?;
        let compacted = std::thread::scope(|scope| {
            let compaction = scope.spawn(|| self.store.compact());
            while !compaction.is_finished() {
                // A failure ends the compaction as well, which reports it.
                let _ = self.store.switch_epoch(Epoch(self.store.switched_epoch().0 + 1));
                std::thread::yield_now();
            }
            compaction.join().expect("the compaction ends")
        });
        self.store.blobs().wait_for_collection();
        compacted?;
        assert!(!before.is_empty());
        let after = blob_files(fs);
        for id in &before {
            assert!(after.contains_key(id), "BLOB {id} is gone");
        }
        Ok(())
    }
}

impl History {
    /// Takes note of a registration; an id must not be that of another BLOB.
    fn registered(&mut self, id: Result<BlobId>, content: &[u8]) -> Result<BlobId> {
        let id = id?;
        assert!(!self.held.contains(&id), "the id {id} was given out twice");
        self.held.insert(id);
        self.contents.insert(id, content.to_vec());
        Ok(id)
    }

    fn data(&mut self, pool: &BlobPool, seed: u8, len: usize) -> Result<BlobId> {
        let content = vec![seed; len];
        self.registered(pool.register_data(&content), &content)
    }

    fn file(&mut self, pool: &BlobPool, path: &str, is_temporary: bool) -> Result<BlobId> {
        self.registered(pool.register_file(Path::new(path), is_temporary), path.as_bytes())
    }

    fn duplicate(&mut self, pool: &BlobPool, reference: BlobId) -> Result<BlobId> {
        let content = self.contents[&reference].clone();
        self.registered(pool.duplicate(reference), &content)
    }

    fn released(&mut self, ids: &[BlobId]) {
        self.held.retain(|id| !ids.contains(id));
    }

    /// What no entry refers to may go at a start, and then its id may come back.
    fn restarted(&mut self) {
        let referred: BTreeSet<BlobId> = self.written.iter().flat_map(|written| written.blobs.clone()).collect();
        self.held.retain(|id| referred.contains(id));
    }
}

/// A disk with files to register. Nobody has synced what is in them.
fn fresh() -> SimFs {
    let fs = SimFs::new();
    for path in ["/in/copied", "/in/moved", "/in/moved later", "/other/moved"] {
        fs.put(Path::new(path), b"").unwrap();
    }
    fs.mount(Path::new("/other"));
    for path in ["/in/copied", "/in/moved", "/in/moved later", "/other/moved"] {
        fs.open(Path::new(path), Open::Existing).unwrap().write_at(0, path.as_bytes()).unwrap();
    }
    fs
}

/// Every kind of registration, entries that refer to them, releases, and two starts that find unused files.
fn workload(fs: &SimFs, history: &mut History) -> Result<()> {
    let run = Store::start(fs, history)?;
    let pool = run.store.blob_pool();
    let data = history.data(&pool, 1, 1500)?;
    let copied = history.file(&pool, "/in/copied", false)?;
    let moved = history.file(&pool, "/in/moved", true)?;
    let crossed = history.file(&pool, "/other/moved", true)?;
    let twin = history.duplicate(&pool, moved)?;
    let unused = history.data(&pool, 2, 10)?;
    run.write(history, "all", &[data, copied, moved, crossed])?;
    run.write(history, "twin", &[twin])?;
    pool.release();
    history.released(&[unused]);
    // What these pools leave: an overwritten BLOB, one that nothing refers to, and a second name of a BLOB that is
    // needed.
    let pool = run.store.blob_pool();
    let overwritten = history.data(&pool, 3, 600)?;
    run.write(history, "k", &[overwritten])?;
    run.write(history, "k", &[])?;
    history.data(&pool, 4, 20)?;
    history.duplicate(&pool, data)?;
    run.store.shutdown();

    history.restarted();
    let run = Store::start(fs, history)?;
    let pool = run.store.blob_pool();
    let later = history.file(&pool, "/in/moved later", true)?;
    run.compact(fs, history)?;
    let again = history.duplicate(&pool, twin)?;
    run.write(history, "all", &[later])?;
    run.write(history, "again", &[again, data])?;
    pool.release();
    run.store.shutdown();

    history.restarted();
    let run = Store::start(fs, history)?;
    let pool = run.store.blob_pool();
    let last = history.data(&pool, 5, 30)?;
    run.write(history, "last", &[last])?;
    run.store.shutdown();
    Ok(())
}

fn blob_files(fs: &SimFs) -> BTreeMap<BlobId, Vec<u8>> {
    let id = |path: &PathBuf| limestone_core::blob::paths::id_of(path.file_name()?);
    let files = fs.files().into_iter().filter(|(path, _)| path.starts_with("/log/blob"));
    files.filter_map(|(path, bytes)| Some((id(&path)?, bytes))).collect()
}

/// Starts and checks everything that is known; then one more BLOB is registered and acknowledged.
fn check(fs: &SimFs, history: &mut History) -> std::result::Result<(), String> {
    let acknowledged = history.acknowledged.load(Ordering::SeqCst);
    let before = blob_files(fs);
    let run = Store::start(fs, history).map_err(|e| e.to_string())?;
    let mut visible = BTreeMap::new();
    let mut cursor = run.store.snapshot().map_err(|e| e.to_string())?.cursor();
    while let Some(row) = cursor.next().map_err(|e| e.to_string())? {
        let number: usize = String::from_utf8_lossy(row.value).parse().expect("values are numbers");
        visible.insert(String::from_utf8_lossy(row.key).into_owned(), number);
    }
    for (number, written) in history.written.iter_mut().enumerate() {
        let durable = written.ended && written.epoch.0 <= acknowledged;
        let gone = visible.get(written.key).is_none_or(|newest| *newest < number);
        if durable && gone {
            return Err(format!("entry {number} of {} was acknowledged and is gone", written.key));
        }
        // What is gone stays gone, and its epoch may be used again.
        written.ended &= !gone;
    }
    let files = blob_files(fs);
    let mut needed = BTreeSet::new();
    for (key, number) in &visible {
        for id in &history.written[*number].blobs {
            needed.insert(*id);
            if files.get(id) != Some(&history.contents[id]) {
                return Err(format!("BLOB {id} of {key} is {:?}", files.get(id).map(Vec::len)));
            }
            if !run.store.blobs().file(*id).1 {
                return Err(format!("BLOB {id} of {key} is there and not available"));
            }
        }
    }
    if let Some(id) = files.keys().find(|id| !needed.contains(id)) {
        return Err(format!("BLOB {id} is still there though nothing refers to it"));
    }
    let pool = run.store.blob_pool();
    let id = pool.register_data(b"after").map_err(|e| e.to_string())?;
    if before.keys().chain(&needed).any(|other| *other >= id) {
        return Err(format!("the id {id} was given out again"));
    }
    history.contents.insert(id, b"after".to_vec());
    run.write(history, "after", &[id]).map_err(|e| e.to_string())?;
    run.store.shutdown();
    Ok(())
}

/// Checks what each loss leaves, and what a power cut right after that leaves.
fn survive(fs: &SimFs, n: u64, history: impl Fn() -> History) -> std::result::Result<(), String> {
    for (loss, image) in fs.reboots(losses(n)) {
        let mut history = history();
        let checked = check(&image, &mut history).and_then(|()| check(&image.reboot(Loss::DropUnsynced), &mut history));
        checked.map_err(|reason| format!("{loss:?}: {reason}\n  {}", tail(fs)))?;
    }
    Ok(())
}

fn calls() -> Vec<u64> {
    let fs = fresh();
    let before = fs.operations();
    let mut history = History::default();
    workload(&fs, &mut history).expect("the workload runs");
    check(&fs, &mut history).expect("and is right");
    (before + 1..=fs.operations()).collect()
}

/// The workload with a fault at the `n`-th call, and what was known when it ended.
fn faulted(n: u64, fault: Fault) -> (SimFs, impl Fn() -> History) {
    let fs = fresh();
    fs.fail_at(n, fault);
    let mut history = History::default();
    // The fault makes it end early, or hits a call that it can do without.
    let _ = workload(&fs, &mut history);
    let acknowledged = history.acknowledged.load(Ordering::SeqCst);
    let copy = move || History {
        written: history.written.iter().map(Written::copy).collect(),
        contents: history.contents.clone(),
        held: history.held.clone(),
        acknowledged: Arc::new(AtomicU64::new(acknowledged)),
    };
    (fs, copy)
}

impl Written {
    fn copy(&self) -> Written {
        Written { key: self.key, blobs: self.blobs.clone(), epoch: self.epoch, ended: self.ended }
    }
}

#[test]
fn power_cut_anywhere_among_blobs_leaves_every_entry_its_blobs() {
    sweep(&calls(), |&n| {
        let (fs, history) = faulted(n, Fault::PowerCut);
        survive(&fs, n, history)
    });
}

#[test]
fn process_that_dies_among_blobs_leaves_nothing_that_a_later_power_cut_takes() {
    sweep(&calls(), |&n| {
        let (fs, history) = faulted(n, Fault::PowerCut);
        fs.heal();
        let mut next = history();
        check(&fs, &mut next)?;
        let image = fs.reboot(Loss::DropUnsynced);
        check(&image, &mut next).map_err(|reason| format!("{reason}\n  {}", tail(&fs)))
    });
}

#[test]
fn failure_of_any_call_among_blobs_leaves_every_entry_its_blobs() {
    sweep(&calls(), |&n| {
        each_fault(&[Fault::IoError, Fault::SyncLoses, Fault::NoSpace], |fault| {
            let (fs, history) = faulted(n, fault);
            survive(&fs, n, history).map_err(|reason| format!("{fault:?}: {reason}"))?;
            Ok(fs)
        })
    });
}

// SPDX-License-Identifier: Apache-2.0
//! A directory that is taken back to what it has in common with a primary: whatever cuts it, the directory holds the
//! old content or that up to the common point, with the history that belongs to it, and what went is saved before it
//! goes.

use super::faults::each_fault;
use super::power_cuts::losses;
use super::runner::tail;
use super::sweep::sweep;
use limestone_core::datastore::{Commit, Datastore, Settings};
use limestone_core::directory::Keep;
use limestone_core::error::{Error, Result};
use limestone_core::replication::replica_store::StandbyStore;
use limestone_core::tglogutil;
use limestone_core::types::{BlobId, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, FileKind, Loss, SimFs, Vfs};
use limestone_core::wal::entry::{encode_end, encode_put, marker, tag};
use limestone_core::wal::history::{History, Run, RunId};
use limestone_core::wal::history_file::{DirectoryHistory, Place};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DIR: &str = "/log";
const UUID: &str = "00000000-0000-4000-8000-000000000001";
/// What the directory has in common with the primary.
const COMMON: u64 = 3;
const BLOB: BlobId = BlobId(7);

fn session(epoch: u64, key: &str, blobs: &[BlobId]) -> Vec<u8> {
    let mut bytes = marker(tag::BEGIN, Epoch(epoch)).to_vec();
    let version = WriteVersion { major: epoch, minor: 0 };
    encode_put(&mut bytes, StorageId(1), key.as_bytes(), &[7; 700], version, blobs);
    encode_end(&mut bytes, Epoch(epoch));
    bytes
}

fn history() -> DirectoryHistory {
    let runs = [(1, 0), (2, COMMON + 1)].map(|(term, first_epoch)| Run { id: RunId(term.into()), term, first_epoch });
    DirectoryHistory::following(UUID, 2, History::new(runs.to_vec(), false).unwrap())
}

/// A directory with the sessions of epochs 1 to 5, of which the last run wrote those above the common point.
fn fresh() -> SimFs {
    let fs = SimFs::new();
    let store = StandbyStore::open(Arc::new(fs.clone()), Path::new(DIR)).unwrap();
    store.adopt_identity(UUID).unwrap();
    history().save(&fs, Path::new(DIR)).unwrap();
    let mut receiver = store.blob_receiver();
    receiver.piece(BLOB, 900, 0, &[7; 900], Some(crc32fast::hash(&[7; 900]))).unwrap();
    receiver.sync_names(|| {}).unwrap();
    for epoch in 1..=5 {
        let blobs: &[BlobId] = if epoch == 5 { &[BLOB] } else { &[] };
        for lane in 0..2 {
            let bytes = session(epoch, &format!("{epoch}.{lane}"), blobs);
            store.lane(lane).append(Epoch(epoch), true, true, &bytes).unwrap();
        }
        store.record(Epoch(epoch)).unwrap();
    }
    // What need not be read is written down, so that what goes is found by that.
    store.leave();
    assert!(fs.files().contains_key(&Path::new(DIR).join("limestone-marks")));
    fs
}

fn keep() -> Keep {
    Keep { directories: 1, bytes: 1 << 20 }
}

/// Takes the directory back and goes on with what the primary has in that epoch.
fn workload(fs: &SimFs) -> Result<()> {
    let mut store = StandbyStore::open(Arc::new(fs.clone()), Path::new(DIR))?;
    if store.durable() > Epoch(COMMON + 1) {
        let held = store.hold().ok_or(Error::WrongState("the disk has failed".to_owned()))?;
        let cut = held.cut(Some(Epoch(COMMON)), keep());
        // Whatever has become of it.
        store = StandbyStore::open_held(held, Commit::Direct)?;
        cut?;
    }
    if store.durable() == Epoch(COMMON) {
        store.lane(0).append(Epoch(COMMON + 1), true, true, &session(COMMON + 1, "of the primary", &[]))?;
        store.record(Epoch(COMMON + 1))?;
    }
    Ok(())
}

fn keys_up_to(last: u64, more: &[&str]) -> Vec<String> {
    let keys = (1..=last).flat_map(|epoch| (0..2).map(move |lane| format!("{epoch}.{lane}")));
    keys.chain(more.iter().map(|key| (*key).to_owned())).collect()
}

/// What an engine's start on the directory shows.
fn keys(fs: &SimFs) -> std::result::Result<Vec<String>, String> {
    let store = Datastore::open(Settings::new(DIR).vfs(Arc::new(fs.clone()))).map_err(|e| e.to_string())?;
    let started = store.ready().map_err(|e| e.to_string());
    let mut keys = Vec::new();
    if started.is_ok() {
        let mut cursor = store.snapshot().map_err(|e| e.to_string())?.cursor();
        while let Some(row) = cursor.next().map_err(|e| e.to_string())? {
            keys.push(String::from_utf8_lossy(row.key).into_owned());
        }
    }
    store.shutdown();
    started.map(|_| keys)
}

fn tool(fs: &SimFs, subcommand: &str, dir: &Path) -> (i32, String) {
    let mut out = Vec::new();
    let args = ["tglogutil", subcommand, &dir.to_string_lossy()].map(str::to_owned);
    let exit = tglogutil::run(args, Arc::new(fs.clone()), &mut out);
    (exit, String::from_utf8_lossy(&out).into_owned())
}

/// The directories that hold what was cut off.
fn saved(fs: &SimFs) -> Vec<PathBuf> {
    let folder = Path::new(DIR).join("cut_off");
    let names = fs.names(&folder).unwrap_or_default().into_iter();
    let whole =
        names.filter(|(name, kind)| *kind == FileKind::Directory && !name.to_string_lossy().contains("partial"));
    whole.map(|(name, _)| folder.join(name)).collect()
}

/// What went is there, whole, for every tool.
fn check_saved(fs: &SimFs) -> std::result::Result<(), String> {
    let saved = saved(fs);
    let [dir] = &saved[..] else { return Err(format!("expected one directory of what was cut off, found {saved:?}")) };
    for subcommand in ["inspect", "verify"] {
        let (exit, out) = tool(fs, subcommand, dir);
        if exit != 0 {
            return Err(format!("{subcommand} of {}: exit {exit}: {out}", dir.display()));
        }
    }
    let (_, dump) = tool(fs, "dump", dir);
    let found: Vec<&str> = dump.lines().filter_map(|line| line.split("key=\"").nth(1)?.split('"').next()).collect();
    if found != ["4.0", "5.0", "4.1", "5.1"] {
        return Err(format!("{} holds {found:?}", dir.display()));
    }
    match fs.files().get(&dir.join("blob/dir_07/0000000000000007.blob")) {
        Some(bytes) if *bytes == [7; 900] => Ok(()),
        other => Err(format!("the BLOB has {:?} bytes", other.map(Vec::len))),
    }
}

/// The old content or the new one; the new one only when it is `done`, and then with all that is in common.
fn check(fs: &SimFs, done: bool) -> std::result::Result<(), String> {
    // An engine takes over what is there, or refuses because the rewind is not complete.
    match keys(&fs.reboot(Loss::DropUnsynced)) {
        Ok(found) if found == keys_up_to(5, &[]) && !done => {}
        Ok(found) if found == keys_up_to(3, &[]) || found == keys_up_to(3, &["of the primary"]) => {}
        Err(e) if e.contains("a rewind to epoch 3 has begun") && !done => {}
        other => return Err(format!("an engine finds {other:?}, done: {done}")),
    }
    let store = StandbyStore::open(Arc::new(fs.clone()), Path::new(DIR)).map_err(|e| format!("does not open: {e}"))?;
    let durable = store.durable().0;
    drop(store);
    let place = Place { vfs: fs, location: Path::new(DIR), instance: UUID };
    let history = DirectoryHistory::load(place).map_err(|e| e.to_string())?.ok_or("there is no history")?;
    let runs: Vec<u64> = history.history.runs().iter().map(|run| run.first_epoch).collect();
    let (expected_runs, expected) = match durable {
        5 if !done => (vec![0, 4], keys_up_to(5, &[])),
        3 if !done => (vec![0], keys_up_to(3, &[])),
        4 => (vec![0], keys_up_to(3, &["of the primary"])),
        other => return Err(format!("durable is {other}, done: {done}")),
    };
    let found = keys(&fs.reboot(Loss::DropUnsynced))?;
    if (&runs, &found) != (&expected_runs, &expected) {
        return Err(format!(
            "durable is {durable}, runs begin at {runs:?}, {found:?}, expected {expected_runs:?}, {expected:?}"
        ));
    }
    if durable == 5 {
        Ok(())
    } else {
        check_saved(fs)
    }
}

fn calls() -> Vec<u64> {
    let fs = fresh();
    let before = fs.operations();
    workload(&fs).expect("the workload runs");
    let calls = (before + 1..=fs.operations()).collect();
    check(&fs, true).expect("and is right");
    calls
}

#[test]
fn power_cut_or_failure_anywhere_in_a_rewind_leaves_the_old_content_or_that_up_to_the_common_point() {
    sweep(&calls(), |&n| {
        each_fault(&[Fault::PowerCut, Fault::IoError, Fault::SyncLoses, Fault::NoSpace], |fault| {
            let fs = fresh();
            fs.fail_at(n, fault);
            let done = workload(&fs).is_ok();
            let few = if fault == Fault::PowerCut { usize::MAX } else { 2 };
            for (loss, image) in fs.reboots(losses(n).take(few)) {
                let checked = check(&image, done).and_then(|()| {
                    workload(&image).map_err(|e| format!("it cannot be gone on with: {e}"))?;
                    check(&image.reboot(Loss::DropUnsynced), true)
                });
                checked.map_err(|reason| format!("{fault:?}, {loss:?}: {reason}\n  {}", tail(&fs)))?;
            }
            Ok(fs)
        })
    });
}

#[test]
fn process_that_dies_anywhere_in_a_rewind_leaves_nothing_that_a_later_power_cut_takes() {
    sweep(&calls(), |&n| {
        let fs = fresh();
        fs.fail_at(n, Fault::PowerCut);
        let done = workload(&fs).is_ok();
        fs.heal();
        check(&fs, done).map_err(|reason| format!("{reason}\n  {}", tail(&fs)))?;
        check(&fs.reboot(Loss::DropUnsynced), done).map_err(|reason| format!("later: {reason}\n  {}", tail(&fs)))
    });
}

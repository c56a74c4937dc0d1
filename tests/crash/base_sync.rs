// SPDX-License-Identifier: Apache-2.0
//! A base sync on a replica that has something already: whatever cuts it, the directory holds the old content or the
//! new one, whole, with the identity and the terms that belong to it, and the base sync can be done again.

use super::commits;
use super::faults::each_fault;
use super::power_cuts::losses;
use super::runner::tail;
use super::sweep::sweep;
use limestone_core::datastore::{Commit, Datastore, Settings};
use limestone_core::error::Result;
use limestone_core::replication::replica_store::{BaseStaging, StandbyStore};
use limestone_core::types::{BlobId, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, Loss, SimFs};
use limestone_core::wal::catalog::Catalog;
use limestone_core::wal::entry::{encode_end, encode_put, marker, tag};
use limestone_core::wal::history::{History, Run, RunId};
use limestone_core::wal::history_file::{DirectoryHistory, Place};
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/log";
const OLD_UUID: &str = "00000000-0000-4000-8000-000000000001";
const NEW_UUID: &str = "00000000-0000-4000-8000-000000000002";

fn session(epoch: u64, key: &str, blobs: &[BlobId]) -> Vec<u8> {
    let mut bytes = marker(tag::BEGIN, Epoch(epoch)).to_vec();
    let version = WriteVersion { major: epoch, minor: 0 };
    encode_put(&mut bytes, StorageId(1), key.as_bytes(), &[7; 700], version, blobs);
    encode_end(&mut bytes, Epoch(epoch));
    bytes
}

fn history(instance: &str, term: u64) -> DirectoryHistory {
    let runs = (1..=term).map(|term| Run { id: RunId(term.into()), term, first_epoch: term - 1 });
    DirectoryHistory::following(instance, term, History::new(runs.collect(), false).unwrap())
}

/// A replica with the sessions of epochs 1 and 2.
fn fresh() -> SimFs {
    let fs = SimFs::new();
    let store = StandbyStore::open(Arc::new(fs.clone()), Path::new(DIR)).unwrap();
    store.adopt_identity(OLD_UUID).unwrap();
    history(OLD_UUID, 1).save(&fs, Path::new(DIR)).unwrap();
    for epoch in 1..=2 {
        store.lane(0).append(Epoch(epoch), true, true, &session(epoch, &format!("old{epoch}"), &[])).unwrap();
        store.record(Epoch(epoch)).unwrap();
    }
    fs
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    let manifest = format!(r#"{{"format_version":"1.1","instance_uuid":"{NEW_UUID}","persistent_format_version":7}}"#);
    vec![
        ("limestone-manifest.json", manifest.into_bytes()),
        ("compaction_catalog", Catalog::default().encode()),
        ("epoch", marker(tag::DURABLE, Epoch(7)).to_vec()),
        ("pwal_0000.01795356604107.0", session(7, "new", &[BlobId(3)])),
        // Beyond the durable epoch of the set: it must not count.
        ("pwal_0000", session(8, "beyond", &[])),
        ("blob/dir_03/0000000000000003.blob", vec![3; 1000]),
    ]
}

/// Goes on with the old content, receives the files, decides for them and puts them in place.
fn workload(fs: &SimFs, commit: Commit) -> Result<()> {
    let store = StandbyStore::open_with(Arc::new(fs.clone()), Path::new(DIR), commit)?;
    if store.durable() == Epoch(2) {
        store.lane(0).append(Epoch(3), true, true, &session(3, "beyond", &[]))?;
        store.sync()?;
        store.discard_beyond_durable()?;
    }
    let files = files();
    let mut staging = BaseStaging::open(Arc::new(fs.clone()), Path::new(DIR))?;
    for (name, content) in &files {
        let mut offset = staging.offer(name, content.len() as u64, crc32fast::hash(content))?;
        while offset < content.len() as u64 {
            let piece = &content[offset as usize..content.len().min(offset as usize + 500)];
            staging.data(offset, piece)?;
            offset += piece.len() as u64;
        }
        staging.file_end()?;
    }
    let paused = store.pause_journal()?;
    staging.install(files.len() as u64, &history(NEW_UUID, 2))?;
    store.close();
    drop(paused);
    drop(store);
    let store = StandbyStore::open(Arc::new(fs.clone()), Path::new(DIR))?;
    assert_eq!(store.durable(), Epoch(7));
    Ok(())
}

/// What a takeover shows.
fn keys(fs: &SimFs) -> std::result::Result<Vec<String>, String> {
    let store = Datastore::open(Settings::new(DIR).vfs(Arc::new(fs.clone()))).map_err(|e| e.to_string())?;
    store.ready().map_err(|e| e.to_string())?;
    let mut cursor = store.snapshot().map_err(|e| e.to_string())?.cursor();
    let mut keys = Vec::new();
    while let Some(row) = cursor.next().map_err(|e| e.to_string())? {
        keys.push(String::from_utf8_lossy(row.key).into_owned());
        for id in row.blobs.iter() {
            let (path, there) = store.blobs().file(id);
            if !there || fs.files().remove(&path) != Some(vec![3; 1000]) {
                return Err(format!("BLOB {id} is not whole"));
            }
        }
    }
    store.shutdown();
    Ok(keys)
}

/// The old content or the new one; the new one only when it is `done`.
fn check(fs: &SimFs, done: bool) -> std::result::Result<(), String> {
    let store = StandbyStore::open(Arc::new(fs.clone()), Path::new(DIR)).map_err(|e| format!("does not open: {e}"))?;
    let found = (store.durable().0, store.identity());
    drop(store);
    let place = Place { vfs: fs, location: Path::new(DIR), instance: &found.1 };
    let state = DirectoryHistory::load(place).map_err(|e| e.to_string())?.map(|history| history.term);
    let keys = keys(&fs.reboot(Loss::DropUnsynced))?;
    let expected = match found.0 {
        7 => (NEW_UUID, Some(2), vec!["new"]),
        2 if !done => (OLD_UUID, Some(1), vec!["old1", "old2"]),
        other => return Err(format!("durable is {other}, done: {done}")),
    };
    match (found.1.as_str(), state, keys.iter().map(String::as_str).collect::<Vec<_>>()) == expected {
        true => Ok(()),
        false => Err(format!("{found:?}, term {state:?}, {keys:?}, expected {expected:?}")),
    }
}

/// Every call with each way to commit.
fn calls() -> Vec<(Commit, u64)> {
    let mut calls = Vec::new();
    for commit in commits::ways() {
        let fs = fresh();
        let before = fs.operations();
        workload(&fs, commit).expect("the workload runs");
        calls.extend((before + 1..=fs.operations()).map(|n| (commit, n)));
        check(&fs, true).expect("and is right");
    }
    calls
}

#[test]
fn power_cut_or_failure_anywhere_in_a_base_sync_leaves_the_old_content_or_the_new_one() {
    sweep(&calls(), |&(commit, n)| {
        each_fault(&[Fault::PowerCut, Fault::IoError, Fault::SyncLoses, Fault::NoSpace], |fault| {
            let fs = fresh();
            fs.fail_at(n, fault);
            let done = workload(&fs, commit).is_ok();
            for (loss, image) in fs.reboots(losses(n)) {
                let checked = check(&image, done).and_then(|()| {
                    // The base sync is done again; spoilt files are found out and come anew.
                    let again = (0..files().len()).find_map(|_| workload(&image, commit).ok());
                    again.ok_or_else(|| "it cannot be done again".to_owned())?;
                    check(&image.reboot(Loss::DropUnsynced), true)
                });
                checked.map_err(|reason| format!("{fault:?}, {loss:?}: {reason}\n  {}", tail(&fs)))?;
            }
            Ok(fs)
        })
    });
}

#[test]
fn replica_that_dies_anywhere_in_a_base_sync_leaves_nothing_that_a_later_power_cut_takes() {
    sweep(&calls(), |&(commit, n)| {
        let fs = fresh();
        fs.fail_at(n, Fault::PowerCut);
        let done = workload(&fs, commit).is_ok();
        fs.heal();
        check(&fs, done).map_err(|reason| format!("{reason}\n  {}", tail(&fs)))?;
        check(&fs.reboot(Loss::DropUnsynced), done).map_err(|reason| format!("later: {reason}\n  {}", tail(&fs)))
    });
}

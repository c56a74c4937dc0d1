// SPDX-License-Identifier: Apache-2.0
//! The program `tgbackup`: a power cut, its death, or a failure at every call. What stands in the folder of backups
//! under its name is whole, a run that was told to be done has made it, and the next one goes on; a restore up to an
//! epoch leaves what was there or what was wanted.

use crate::faults::each_fault;
use crate::power_cuts::losses;
use crate::sweep::sweep;
use limestone_core::datastore::{Datastore, Settings};
use limestone_core::tgbackup;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, Loss, SimFs};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/log";
const TARGET: &str = "/backups";
const NEW: &str = "/new";
const EPOCHS: u64 = 6;
/// Up to which it is restored.
const UNTIL: u64 = 4;

/// Runs the program; its exit code and what it printed.
fn run(fs: &SimFs, args: &[&str]) -> (i32, serde_json::Value) {
    let mut out = Vec::new();
    let args = ["tgbackup"].iter().chain(args).chain(&["--json"]).map(Into::into);
    let exit = tgbackup::run(args, Arc::new(fs.clone()), &mut out, &mut std::io::sink());
    (exit, serde_json::from_slice(&out).unwrap_or_default())
}

fn open(fs: &SimFs, location: &str) -> Arc<Datastore> {
    Datastore::open(Settings::new(location).vfs(Arc::new(fs.clone()))).unwrap()
}

/// Writes an epoch for each number, each with a key and a BLOB.
fn write(fs: &SimFs, epochs: std::ops::RangeInclusive<u64>) {
    let store = open(fs, DIR);
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    let pool = store.blob_pool();
    for epoch in epochs.clone() {
        store.switch_epoch(Epoch(epoch)).unwrap();
        let blob = pool.register_data(b"a BLOB").unwrap();
        channel.begin_session().unwrap();
        let version = WriteVersion { major: epoch, minor: 0 };
        channel.add_entry(StorageId(1), epoch.to_string().as_bytes(), b"value", version, &[blob]).unwrap();
        channel.end_session().unwrap();
    }
    store.switch_epoch(Epoch(epochs.end() + 1)).unwrap();
    pool.release();
    store.shutdown();
}

/// The epochs whose entry and BLOB are there.
fn content(fs: &SimFs, location: &str) -> Result<BTreeSet<u64>, String> {
    let store = Datastore::open(Settings::new(location).vfs(Arc::new(fs.clone()))).map_err(|e| e.to_string())?;
    store.ready().map_err(|e| e.to_string())?;
    let mut cursor = store.snapshot().unwrap().cursor();
    let mut found = BTreeSet::new();
    while let Some(row) = cursor.next().unwrap() {
        if let Some(id) = row.blobs.iter().find(|id| !store.blobs().file(*id).1) {
            return Err(format!("BLOB {id} is missing"));
        }
        found.insert(String::from_utf8_lossy(row.key).parse().unwrap());
    }
    store.shutdown();
    Ok(found)
}

/// A disk with a directory, and a backup of it when `EPOCHS` had been written before more.
fn prepared(more: u64) -> SimFs {
    let fs = SimFs::new();
    fs.put(Path::new("/other"), b"").unwrap();
    write(&fs, 1..=EPOCHS);
    assert_eq!(run(&fs, &["create", DIR, TARGET]).0, 0);
    if more > 0 {
        write(&fs, EPOCHS + 1..=EPOCHS + more);
    }
    fs.reboot(Loss::KeepUnsynced)
}

/// All that stands in the folder is whole; how many backups that are.
fn whole_backups(fs: &SimFs) -> Result<usize, String> {
    let (exit, verified) = run(fs, &["verify", TARGET]);
    if exit != 0 {
        return Err(format!("{exit}: {verified}"));
    }
    Ok(verified["backups"].as_array().map_or(0, Vec::len))
}

fn check_created(fs: &SimFs, acknowledged: bool) -> Result<(), String> {
    let found = whole_backups(fs)?;
    if found < 1 + usize::from(acknowledged) {
        return Err(format!("{found} backups are there, acknowledged: {acknowledged}"));
    }
    let (exit, again) = run(fs, &["create", DIR, TARGET]);
    if exit != 0 || whole_backups(fs)? != found + 1 {
        return Err(format!("the next run: {exit}: {again}"));
    }
    match fs.files().keys().find(|path| path.to_string_lossy().contains(".partial")) {
        Some(left) => Err(format!("{} is left", left.display())),
        None => Ok(()),
    }
}

#[test]
fn power_cut_anywhere_in_a_backup_run_leaves_whole_backups_only() {
    let fs = prepared(2);
    assert_eq!(run(&fs, &["create", DIR, TARGET]).0, 0);
    let calls: Vec<u64> = (1..=fs.operations()).collect();
    assert!(calls.len() > 40, "{}", calls.len());
    sweep(&calls, |&n| {
        let fs = prepared(2);
        fs.fail_at(n, Fault::PowerCut);
        let acknowledged = run(&fs, &["create", DIR, TARGET]).0 == 0;
        for (loss, image) in fs.reboots(losses(n)) {
            check_created(&image, acknowledged).map_err(|reason| format!("{loss:?}: {reason}"))?;
        }
        fs.heal();
        check_created(&fs, acknowledged)
    });
}

#[test]
fn failure_of_any_call_in_a_backup_run_is_told_and_leaves_whole_backups_only() {
    let fs = prepared(2);
    assert_eq!(run(&fs, &["create", DIR, TARGET]).0, 0);
    let calls: Vec<u64> = (1..=fs.operations()).collect();
    sweep(&calls, |&n| {
        each_fault(&[Fault::IoError, Fault::SyncLoses, Fault::TornWrite, Fault::NoSpace], |fault| {
            let fs = prepared(2);
            fs.fail_at(n, fault);
            let (exit, told) = run(&fs, &["create", DIR, TARGET]);
            if exit != 0 && !told["error"].is_string() {
                return Err(format!("{fault:?}: {exit}: {told}"));
            }
            fs.heal();
            let after = fs.reboot(Loss::DropUnsynced);
            for image in [&after, &fs] {
                check_created(image, exit == 0).map_err(|reason| format!("{fault:?}: {told}: {reason}"))?;
            }
            Ok(fs)
        })
    });
}

#[test]
fn power_cut_anywhere_in_a_deletion_of_backups_leaves_whole_backups_only() {
    let twice = || {
        let fs = prepared(2);
        assert_eq!(run(&fs, &["create", DIR, TARGET]).0, 0);
        fs.reboot(Loss::KeepUnsynced)
    };
    let expire = |fs: &SimFs| run(fs, &["expire", TARGET, "--keep", "1"]).0;
    let fs = twice();
    assert_eq!((expire(&fs), whole_backups(&fs)), (0, Ok(1)));
    let calls: Vec<u64> = (1..=fs.operations()).collect();
    sweep(&calls, |&n| {
        let fs = twice();
        fs.fail_at(n, Fault::PowerCut);
        let acknowledged = expire(&fs) == 0;
        for (loss, image) in fs.reboots(losses(n)) {
            let found = whole_backups(&image).map_err(|reason| format!("{loss:?}: {reason}"))?;
            if found > 2 - usize::from(acknowledged) || found == 0 {
                return Err(format!("{loss:?}: {found} backups are there, acknowledged: {acknowledged}"));
            }
            check_created(&image, false)?;
        }
        Ok(())
    });
}

#[test]
fn power_cut_anywhere_in_a_restore_up_to_an_epoch_leaves_nothing_or_that() {
    let until = UNTIL.to_string();
    let restore = |fs: &SimFs| run(fs, &["restore", TARGET, NEW, "--until-epoch", &until]);
    let wanted: BTreeSet<u64> = (1..=UNTIL).collect();
    let fs = prepared(0);
    assert_eq!(restore(&fs).0, 0);
    assert_eq!(content(&fs, NEW), Ok(wanted.clone()));
    let calls: Vec<u64> = (1..=fs.operations()).collect();
    sweep(&calls, |&n| {
        let fs = prepared(0);
        fs.fail_at(n, Fault::PowerCut);
        let acknowledged = restore(&fs).0 == 0;
        for (loss, image) in fs.reboots(losses(n)) {
            // Whoever starts on it, and whoever restores again.
            let (started, again) = (image.reboot(Loss::KeepUnsynced), image);
            let found = content(&started, NEW).map_err(|reason| format!("{loss:?}: {reason}"))?;
            if found != wanted && (acknowledged || !found.is_empty()) {
                return Err(format!("{loss:?}: {found:?} is there, acknowledged: {acknowledged}"));
            }
            let (exit, told) = restore(&again);
            if exit == 1 && content(&again, NEW)? == wanted {
                continue;
            }
            let found = content(&again, NEW)?;
            if exit != 0 || found != wanted {
                return Err(format!("{loss:?}: again: {exit}: {told}: {found:?}"));
            }
        }
        Ok(())
    });
}

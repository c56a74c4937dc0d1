// SPDX-License-Identifier: Apache-2.0
//! Detailed backups beside writers: whatever is cut or fails while they are made, the directory loses nothing, and a
//! backup that was made recovers elsewhere to exactly what was durable at its last epoch.

use crate::faults::fail_everywhere;
use crate::model::{Content, Progress, SessionId};
use crate::power_cuts::{cut_everywhere, die_everywhere, Start};
use crate::runner::{read, text, Run};
use crate::script;
use limestone_core::datastore::{Backup, Datastore, Settings};
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, Loss, SimFs};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A backup that was begun and not copied yet.
pub struct OpenBackup {
    backup: Backup,
    expected: Content,
}

impl Run {
    pub fn begin_backup(&mut self) -> Result<(), String> {
        let acknowledged = self.model.acknowledged();
        let backup = self.store().begin_detailed_backup(Duration::ZERO).map_err(text)?;
        let finish = backup.log_finish().0;
        if finish < acknowledged {
            return Err(self.violation(format!("log_finish is {finish}, but {acknowledged} was acknowledged")));
        }
        let counts = |id: &SessionId| {
            let session = &self.model.sessions[*id];
            match session.progress {
                Progress::Settled => true,
                Progress::Ended => session.epoch <= finish,
                _ => false,
            }
        };
        let visible: BTreeSet<SessionId> = (0..self.model.sessions.len()).filter(counts).collect();
        let expected = self.model.merge(&visible);
        self.backups.push(OpenBackup { backup, expected });
        Ok(())
    }

    /// Ends the last backup that was begun; none when that failed.
    pub fn end_backup(&mut self) -> Result<(), String> {
        let Some(OpenBackup { backup, expected }) = self.backups.pop() else { return Ok(()) };
        self.recover_copy(&backup, &expected).map_err(|reason| self.violation(format!("backup: {reason}")))
    }

    fn recover_copy(&self, backup: &Backup, expected: &Content) -> Result<(), String> {
        let files = self.fs.files();
        let copy = SimFs::new();
        for file in backup.files() {
            let bytes = files.get(&file.source).ok_or(format!("{} is gone", file.source.display()))?;
            copy.put(&Path::new("/backup").join(&file.destination), bytes).map_err(|e| e.to_string())?;
        }
        let store = Datastore::open(Settings::new("/restored").vfs(Arc::new(copy))).map_err(text)?;
        store.restore(Path::new("/backup"), true).map_err(text)?;
        let report = store.ready().map_err(text)?;
        if report.durable_epoch != backup.log_finish() {
            return Err(format!("its durable epoch is {}, not {}", report.durable_epoch, backup.log_finish()));
        }
        match read(&store)? {
            found if found == *expected => Ok(()),
            found => Err(format!("it recovers to {found:?}, not to {expected:?}")),
        }
    }
}

#[test]
fn power_cut_anywhere_among_backups_loses_nothing_acknowledged() {
    cut_everywhere(&Start::fresh(), &script::backups());
}

#[test]
fn process_that_dies_among_backups_leaves_nothing_that_a_later_power_cut_takes() {
    die_everywhere(&Start::fresh(), &script::backups());
}

#[test]
fn failure_of_any_call_among_backups_is_an_error_and_spoils_neither_directory_nor_backup() {
    let faults = [Fault::IoError, Fault::SyncLoses, Fault::TornWrite, Fault::NoSpace];
    fail_everywhere(&script::backups(), &faults, false);
}

/// A data store with one session per epoch up to 3 on one channel.
fn written() -> (SimFs, Arc<Datastore>) {
    let fs = SimFs::new();
    let store = Datastore::open(Settings::new("/log").vfs(Arc::new(fs.clone()))).unwrap();
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    for epoch in 1..=3 {
        store.switch_epoch(Epoch(epoch)).unwrap();
        channel.begin_session().unwrap();
        let version = WriteVersion { major: epoch, minor: 0 };
        channel.add_entry(StorageId(1), &epoch.to_le_bytes(), b"value", version, &[]).unwrap();
        channel.end_session().unwrap();
    }
    store.switch_epoch(Epoch(4)).unwrap();
    (fs, store)
}

#[test]
fn what_a_backup_lists_is_on_the_disk_when_it_is_listed() {
    let (fs, store) = written();
    let backup = store.begin_detailed_backup(Duration::ZERO).unwrap();
    let (now, after) = (fs.files(), fs.reboot(Loss::DropUnsynced).files());
    assert!(backup.files().iter().any(|file| file.destination.to_string_lossy().starts_with("epoch.")));
    for file in backup.files() {
        assert_eq!(after.get(&file.source), now.get(&file.source), "{}", file.source.display());
    }
}

#[test]
fn a_backup_does_not_say_more_than_its_directory_after_a_power_cut() {
    let (fs, store) = written();
    // Epochs without writes.
    store.switch_epoch(Epoch(9)).unwrap();
    let finish = store.begin_detailed_backup(Duration::ZERO).unwrap().log_finish();
    assert_eq!(finish, Epoch(8));
    let again = Datastore::open(Settings::new("/log").vfs(Arc::new(fs.reboot(Loss::DropUnsynced)))).unwrap();
    assert!(again.ready().unwrap().durable_epoch >= finish, "the copy would be ahead of what it was copied from");
}

#[test]
fn a_backup_whose_epoch_file_cannot_be_written_fails_alone() {
    let (fs, store) = written();
    let before = fs.operations();
    drop(store.begin_detailed_backup(Duration::ZERO).unwrap());
    let of_the_file: Vec<u64> = (before..fs.operations())
        .filter(|&call| {
            let trace = &fs.trace()[call as usize];
            trace.contains("/log/epoch.") && ["create", "write", "sync"].iter().any(|name| trace.starts_with(name))
        })
        .map(|call| call - before + 1)
        .collect();
    assert_eq!(of_the_file.len(), 3, "created, written, synced");
    for call in of_the_file {
        let (fs, store) = written();
        fs.fail_at(fs.operations() + call, Fault::NoSpace);
        assert!(store.begin_detailed_backup(Duration::ZERO).is_err());
        fs.heal();
        let channel = store.create_channel().unwrap();
        channel.begin_session().unwrap();
        channel.end_session().unwrap();
        store.switch_epoch(Epoch(5)).unwrap();
        assert_eq!(store.last_epoch(), Epoch(4));
        assert!(store.begin_detailed_backup(Duration::ZERO).is_ok());
    }
}

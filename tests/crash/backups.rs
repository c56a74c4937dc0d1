// SPDX-License-Identifier: Apache-2.0
//! Detailed backups beside writers: whatever is cut or fails while they are made, the directory loses nothing, and a
//! backup that was made recovers elsewhere to exactly what was durable at its last epoch.

use crate::faults::fail_everywhere;
use crate::model::{Content, Progress, SessionId};
use crate::power_cuts::{cut_everywhere, die_everywhere, Start};
use crate::runner::{read, text, Run};
use crate::script;
use limestone_core::datastore::{Backup, Datastore, Settings};
use limestone_core::vfs::{Fault, SimFs};
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

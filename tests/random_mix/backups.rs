// SPDX-License-Identifier: Apache-2.0
//! Backups of both kinds, kept as the files that were copied, and restores of them into the same or another directory.

use crate::blobs;
use crate::disk::Disk;
use crate::model::{Model, Progress};
use crate::world::{violation, visible_up_to, World};
use crate::writer::text;
use limestone_core::backup::{FileToRestore, Phase};
use limestone_core::datastore::{Backup, Datastore};
use limestone_core::types::Epoch;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const KEPT_MAX: usize = 3;

/// A backup that was begun; its files are still to be copied.
pub struct Taken {
    backup: Backup,
    model: Model,
}

/// A backup that was copied.
pub struct Kept {
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// What it must recover to: nothing of it is lost, and nothing else is there.
    pub model: Model,
    log_finish: Epoch,
    detailed: bool,
}

/// The model of what was durable at this epoch.
pub fn model_at(model: &Model, epoch: Epoch) -> Model {
    let mut model = model.clone();
    let visible = visible_up_to(&model, epoch.0);
    model.settle(&visible, epoch.0);
    model
}

impl Kept {
    /// Copies the files of an open backup.
    pub fn copy(disk: &Disk, backup: &Backup, model: Model, detailed: bool) -> Result<Kept, String> {
        let mut files = BTreeMap::new();
        for file in backup.files() {
            let bytes = disk.read(&file.source);
            let bytes = bytes.map_err(|e| violation(format!("backup: {}: {e}", file.source.display())))?;
            files.insert(file.destination.clone(), bytes);
        }
        Ok(Kept { files, model, log_finish: backup.log_finish(), detailed })
    }
}

impl World {
    pub fn begin_backup(&mut self) -> Result<(), String> {
        if self.model().sessions.iter().any(|session| session.progress == Progress::Ending) {
            // Its end failed: nobody can say whether it is in the files, and nothing is acknowledged any more.
            return Ok(());
        }
        // After a plain one nobody may write until it is copied, nor may it be renamed: so that is done at once.
        if self.taken.is_empty() && self.random.below(3) == 0 {
            self.note("plain backup");
            let backup = self.store().begin_backup().map_err(text)?;
            let model = model_at(&self.model(), backup.log_finish());
            return self.copy(Taken { backup, model }, false);
        }
        self.note("begin a detailed backup");
        let acknowledged = self.model().acknowledged();
        let backup = self.store().begin_detailed_backup(Duration::ZERO).map_err(text)?;
        if backup.log_finish().0 < acknowledged {
            let finish = backup.log_finish();
            return Err(violation(format!("log_finish is {finish}, but {acknowledged} was acknowledged")));
        }
        if backup.log_finish() > self.store().last_epoch() {
            let (finish, last) = (backup.log_finish(), self.store().last_epoch());
            return Err(violation(format!("log_finish is {finish}, but only {last} is durable")));
        }
        let model = model_at(&self.model(), backup.log_finish());
        self.taken.push(Taken { backup, model });
        Ok(())
    }

    pub fn end_backup(&mut self) -> Result<(), String> {
        let Some(taken) = self.taken.pop() else { return Ok(()) };
        self.note(format!("end the backup up to {}", taken.backup.log_finish()));
        self.copy(taken, true)
    }

    fn copy(&mut self, taken: Taken, detailed: bool) -> Result<(), String> {
        let kept = Kept::copy(&self.disk, &taken.backup, taken.model, detailed)?;
        drop(taken.backup);
        self.verify(&kept).map_err(|reason| violation(format!("backup up to {}: {reason}", kept.log_finish)))?;
        if self.kept.len() == KEPT_MAX {
            self.kept.remove(0);
        }
        self.count(if detailed { "detailed backups" } else { "plain backups" });
        self.kept.push(kept);
        Ok(())
    }

    /// Restores it on another disk and looks at it.
    pub fn verify(&self, kept: &Kept) -> Result<(), String> {
        let disk = self.disk.another();
        let from = disk.path("backup");
        for (name, bytes) in &kept.files {
            disk.write(&from, name, bytes).map_err(|e| e.to_string())?;
        }
        let settings = limestone_core::datastore::Settings::new(disk.path("log")).vfs(disk.vfs());
        let store = Datastore::open(settings).map_err(text)?;
        store.restore(&from, true).map_err(text)?;
        let report = store.ready().map_err(text)?;
        if kept.detailed && report.durable_epoch != kept.log_finish {
            return Err(format!("its durable epoch is {}", report.durable_epoch));
        }
        store.blobs().wait_for_collection();
        let (content, _) = blobs::read(&store, &disk)?;
        kept.model.check(&content, store.last_epoch().0).map(drop)
    }

    /// Restores one of the backups in place of what is there.
    pub fn restore_here(&mut self) -> Result<(), String> {
        let Some(at) = self.pick_kept() else { return Ok(()) };
        self.note(format!("restore the backup up to {}", self.kept[at].log_finish));
        let from = self.unpack(at)?;
        let settings = self.settings(self.location.clone());
        let store = Datastore::open(settings).map_err(text)?;
        self.restore(&store, &from, at)?;
        self.ready(store, 2)?;
        self.count("restores in place");
        Ok(())
    }

    /// Restores one of the backups into a new directory and goes on there.
    pub fn move_elsewhere(&mut self) -> Result<(), String> {
        let Some(at) = self.pick_kept() else { return Ok(()) };
        let to = self.unused_directory("log");
        self.note(format!("restore the backup up to {} into {}", self.kept[at].log_finish, to.display()));
        let from = self.unpack(at)?;
        let settings = self.settings(to.clone());
        let store = Datastore::open(settings).map_err(text)?;
        store.restore(&from, true).map_err(text)?;
        self.candidates = vec![self.kept[at].model.clone()];
        self.location = to;
        self.ready(store, 3)?;
        self.count("restores elsewhere");
        Ok(())
    }

    fn pick_kept(&mut self) -> Option<usize> {
        let len = self.kept.len() as u64;
        (len > 0).then(|| self.random.below(len) as usize)
    }

    /// The files of the backup on the disk, as `cp` leaves them.
    fn unpack(&mut self, at: usize) -> Result<PathBuf, String> {
        let from = self.unused_directory("backup");
        for (name, bytes) in &self.kept[at].files {
            self.disk.write(&from, name, bytes).map_err(|e| e.to_string())?;
        }
        Ok(from)
    }

    fn restore(&mut self, store: &Arc<Datastore>, from: &Path, at: usize) -> Result<(), String> {
        let model = self.kept[at].model.clone();
        let restored = match self.random.below(3) {
            0 => {
                let list = self.kept[at].files.keys();
                let files: Vec<_> =
                    list.map(|name| FileToRestore { source: name.clone(), destination: name.clone() }).collect();
                store.restore_files(from, &files)
            }
            n => store.restore(from, n == 1),
        };
        match (&restored, store.restore_progress().phase) {
            (_, Phase::Completed) => self.candidates = vec![model],
            (Err(_), Phase::Canceled) => {}
            // What is there is the old content or the new one.
            (Err(_), _) => self.candidates.push(model),
            (Ok(()), phase) => return Err(violation(format!("a restore that succeeded is {phase:?}"))),
        }
        restored.map_err(text)
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Backups of a running data store, and restores into one that is not ready yet.

use super::pauses::WithoutJournal;
use super::store::{Datastore, Lifecycle, State};
use crate::backup::{
    restore_directory, restore_files, set, BackupFile, FileToRestore, InProgress, Phase, Target, Ticket,
};
use crate::backup::{Progress, Snapshot as RestoreState};
use crate::directory::start::{self, Reading, Record};
use crate::error::{Error, Result};
use crate::types::{Durability, Epoch};
use crate::wal::{epoch_file, rotation};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An open backup. While it lives, nothing it lists is deleted or replaced; dropping it ends it.
#[derive(Debug)]
pub struct Backup {
    files: Vec<BackupFile>,
    log_finish: Epoch,
    _ticket: Ticket,
    /// The manifest that is copied must not speak of a journal, which is not.
    _pause: WithoutJournal,
}

impl Backup {
    /// The files to copy; all existed when the backup began.
    pub fn files(&self) -> &[BackupFile] {
        &self.files
    }

    /// For a detailed backup: exactly what sessions up to this epoch wrote is what a copy of the files recovers to. For
    /// a plain one: at least that, when nobody writes meanwhile.
    pub fn log_finish(&self) -> Epoch {
        self.log_finish
    }
}

impl Datastore {
    /// Begins a plain backup: every file that is there, live log files included. Waits for nothing and rotates nothing.
    /// The copy is consistent when nobody writes until all files are copied, and otherwise only when no log file is
    /// created and no BLOB registered meanwhile: use [`Self::begin_detailed_backup`] beside writers. A rotation renames
    /// listed files, so no detailed backup may begin before this one has ended.
    pub fn begin_backup(&self) -> Result<Backup> {
        // What is listed must not be renamed, replaced or deleted before it is copied.
        let ticket = self.hold_files();
        let _lifecycle = self.lifecycle.lock();
        let pause = self.pause_journal()?;
        let (log_finish, incomplete) = (self.last_epoch(), self.blobs.incomplete());
        let (vfs, location) = (&*self.settings.vfs, &self.settings.location);
        let files = self.files_as_given(set::all_files(vfs, location, |id| incomplete.contains(id))?);
        Ok(Backup { files, log_finish, _ticket: ticket, _pause: pause })
    }

    /// Begins a detailed backup: files that nobody changes any more, with a rotated epoch file that says up to which
    /// epoch they count. Gives what was written before the call the time to become durable: waits until the epochs of
    /// all sessions so far are stored, but not longer than `patience`; whatever has been acknowledged is in the backup
    /// in any case. Writers go on.
    ///
    /// After a shutdown it waits for nothing: what counts then is in the backup.
    ///
    /// # Errors [`Error::WrongState`] before [`Self::ready`], and when a shutdown ends the wait; [`Error::Io`] with
    /// `ENOENT` when the directory was deleted.
    pub fn begin_detailed_backup(&self, patience: Duration) -> Result<Backup> {
        if self.lifecycle.lock().state == State::Shutdown {
            return self.begin_backup_of_stopped();
        }
        self.wait_for_written(patience)?;
        let ticket = self.hold_files();
        let lifecycle = self.lifecycle.lock();
        self.check_ready(&lifecycle)?;
        let pause = self.pause_journal()?;
        // First the epoch, then the logs: all its sessions have ended, so the rotated files hold them. Sessions of
        // later epochs may be in there as well and do not count.
        let log_finish = self.coordinator.epochs().stored();
        let incomplete = self.blobs.incomplete();
        self.rotate_logs(&lifecycle)?;
        let (vfs, location) = (&*self.settings.vfs, &self.settings.location);
        // Nothing depends on this file but the backup.
        epoch_file::write_rotated(vfs, location, log_finish, self.coordinator.epochs().switched())?;
        epoch_file::sync_names(vfs, location).map_err(|e| self.coordinator.poison(e))?;
        let files = self.files_as_given(set::settled_files(vfs, location, log_finish, |id| incomplete.contains(id))?);
        drop(lifecycle);
        // After a crash the numbers of epochs that are not recorded are used again, and a copy must not be ahead then.
        if log_finish > self.recorded_epoch() {
            self.record_epoch(log_finish)?;
        }
        Ok(Backup { files, log_finish, _ticket: ticket, _pause: pause })
    }

    /// Everything in the journal is settled, and until the backup ends all is committed without it.
    fn pause_journal(&self) -> Result<WithoutJournal> {
        self.pauses.begin(self.coordinator.journaling()).map_err(|e| self.coordinator.poison(e))
    }

    /// A detailed backup after a shutdown: the directory is put right as a start does it, so that its logs hold ended
    /// sessions only, and given back.
    fn begin_backup_of_stopped(&self) -> Result<Backup> {
        let ticket = self.hold_files();
        let lifecycle = self.lifecycle.lock();
        if lifecycle.state != State::Shutdown {
            return Err(Error::WrongState("a detailed backup is not possible while the data store starts".to_owned()));
        }
        let pause = self.pause_journal()?;
        let directory = self.directory_again()?;
        let (vfs, location) = (&*self.settings.vfs, &self.settings.location);
        let reading = Reading { threads: self.settings.recovery_threads, snapshot_memory_bytes: None, marks: None };
        let log_finish = start::read(&directory, reading)?.put_right(Record::Last)?.last_epoch;
        rotation::rotate_idle(vfs, location, |_| true)?;
        epoch_file::write_rotated(vfs, location, log_finish, log_finish)?;
        let incomplete = self.blobs.incomplete();
        let files = self.files_as_given(set::settled_files(vfs, location, log_finish, |id| incomplete.contains(id))?);
        Ok(Backup { files, log_finish, _ticket: ticket, _pause: pause })
    }

    fn files_as_given(&self, files: Vec<BackupFile>) -> Vec<BackupFile> {
        files.into_iter().map(|file| BackupFile { source: self.as_given(&file.source), ..file }).collect()
    }

    fn check_ready(&self, lifecycle: &Lifecycle) -> Result<()> {
        match lifecycle.state {
            State::Ready => self.coordinator.check(),
            _ => Err(Error::WrongState("a detailed backup is possible only after ready()".to_owned())),
        }
    }

    /// Waits for what sessions have written by now.
    fn wait_for_written(&self, patience: Duration) -> Result<()> {
        self.check_ready(&self.lifecycle.lock())?;
        match self.coordinator.unstored() {
            // A callback would wait for itself.
            Some(epoch) if !self.coordinator.callbacks.is_calling() => {
                self.wait_durable(epoch, Durability::Stored, Some(patience)).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Which backups are open; who deletes or replaces files of the directory asks here first.
    pub fn backups(&self) -> &InProgress {
        &self.backups
    }

    /// Puts the epoch records aside under a rotated name, which is returned, and begins a new epoch file with the last
    /// one.
    pub fn rotate_epoch_file(&self) -> Result<PathBuf> {
        // Not under the life cycle: epochs that end meanwhile are told about in here.
        if self.lifecycle.lock().state != State::Ready {
            return Err(Error::WrongState("rotation is possible only between ready() and shutdown()".to_owned()));
        }
        self.check_there()?;
        self.coordinator.rotate_epoch_file(&*self.settings.vfs, &self.settings.location)
    }

    /// Replaces the content of the directory by the files in `from`, between [`Self::open`] and [`Self::ready`] or
    /// after a shutdown, while no session is open. All is checked before anything is changed. After a crash or a
    /// failure at any moment the directory holds the old content, or the next start completes the restore. BLOBs of the
    /// old content stay until nothing refers to them at a start. Without `keep_backup` the files in `from` are deleted
    /// in the end.
    ///
    /// # Errors
    /// As for [`restore_directory`]; [`Self::restore_progress`] tells whether anything was changed.
    pub fn restore(&self, from: &Path, keep_backup: bool) -> Result<()> {
        self.replace_content(|target| restore_directory(target, from, keep_backup))
    }

    /// As [`Self::restore`], with an explicit list of files, which stay. Relative sources lie below `from`.
    ///
    /// # Errors
    /// As for [`restore_files`].
    pub fn restore_files(&self, from: &Path, files: &[FileToRestore]) -> Result<()> {
        self.replace_content(|target| restore_files(target, from, files))
    }

    /// How far the last restore of this data store has come; may be called while it runs.
    pub fn restore_progress(&self) -> RestoreState {
        self.restore_progress.get()
    }

    fn replace_content(&self, restore: impl FnOnce(&Target<'_>) -> Result<()>) -> Result<()> {
        let mut lifecycle = self.lifecycle.lock();
        let mut again;
        let Lifecycle { state, directory } = &mut *lifecycle;
        let directory = match (&state, directory) {
            (State::NotReady, Some(directory)) => directory,
            (State::Shutdown, _) => {
                again = self.directory_again()?;
                &mut again
            }
            _ => {
                let message = "a restore is possible only before ready() and after shutdown()";
                return Err(Error::WrongState(message.to_owned()));
            }
        };
        self.coordinator.check_failure()?;
        let channels = self.channels.read();
        let mut writers: Vec<_> = channels.iter().map(|channel| channel.lock()).collect();
        writers.iter().try_for_each(|writer| writer.check_idle("a restore is not possible"))?;
        let Some(_change) = self.backups.try_change() else {
            return Err(Error::WrongState("a restore is not possible while a backup is open".to_owned()));
        };
        writers.iter_mut().for_each(|writer| writer.forget_file());
        let progress: &Progress = &self.restore_progress;
        let restored = directory.replace(progress, restore);
        match (restored, progress.get().phase) {
            // Old and new content may be mixed: nothing goes on from here but a new start.
            (Err(e), Phase::Failed) => Err(self.coordinator.poison(e)),
            (restored, Phase::Completed) => {
                if *state == State::NotReady {
                    self.tags.reload();
                }
                restored
            }
            (restored, _) => restored,
        }
    }
}

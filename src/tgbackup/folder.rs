// SPDX-License-Identifier: Apache-2.0
//! The folder of backups: what stands in it, who may change it, and how a backup gets its place in it.

use super::manifest::{self, BackupManifest};
use super::times;
use crate::error::{Error, Result};
use crate::stderr_log::rfc3339;
use crate::types::Epoch;
use crate::vfs::{crashsafe, holder, FileKind, FileLock, Lock, LockError, Open, Vfs};
use crate::wal::names;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Whoever changes the folder has it locked, and whoever reads it with others.
const LOCK: &str = "tgbackup.lock";
/// What a file system has at its root.
const OF_FILE_SYSTEM: &str = "lost+found";
/// Behind the name of a backup that is being made or deleted.
const PARTIAL: &str = ".partial";
/// Where the files of a backup are, below its directory.
pub const FILES: &str = "files";

/// A folder of backups, under lock.
#[derive(Debug)]
pub struct Folder {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    _lock: Option<Box<dyn FileLock>>,
}

/// A backup that stands in its place.
#[derive(Debug)]
pub struct Backup {
    /// `None` for a directory into which files were copied by hand.
    pub name: Option<String>,
    /// Where its files are.
    pub files: PathBuf,
    /// Why it cannot be used; nothing is known of what was copied by hand.
    pub manifest: Result<Option<BackupManifest>>,
}

impl Backup {
    /// How it is called when it is spoken of.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.files.display().to_string())
    }
}

impl Folder {
    /// Opens the folder to change it; it is made when it is not there. What was begun and not ended is deleted.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a directory with other things; [`Error::Locked`] or [`Error::Io`].
    pub fn open_to_change(vfs: &Arc<dyn Vfs>, location: &Path, create: bool) -> Result<Folder> {
        let failed = |e| Error::io("cannot open", location, e);
        match vfs.kind(location).map_err(failed)? {
            None if create => crashsafe::create_dir(&**vfs, location).map_err(failed)?,
            None => return Err(not_there(location)),
            Some(_) => {}
        }
        for (name, _) in vfs.names(location).map_err(failed)? {
            let name = name.to_string_lossy();
            if name != LOCK && name != OF_FILE_SYSTEM && !is_backup(name.strip_suffix(PARTIAL).unwrap_or(&name)) {
                let text = format!("{} is no folder of backups: it has {name:?}", location.display());
                return Err(Error::InvalidArgument(text));
            }
        }
        let path = location.join(LOCK);
        vfs.open(&path, Open::Create).map_err(|e| Error::io("cannot open", &path, e))?;
        let lock = lock(&**vfs, location, Lock::Exclusive)?;
        let folder = Folder { vfs: vfs.clone(), location: location.to_owned(), _lock: lock };
        folder.delete_leftovers()?;
        Ok(folder)
    }

    /// Opens the folder to read backups, also one that cannot be written to.
    ///
    /// # Errors
    /// As for [`Self::open_to_change`].
    pub fn open(vfs: &Arc<dyn Vfs>, location: &Path) -> Result<Folder> {
        let folder = Folder::look(vfs, location)?;
        let path = location.join(LOCK);
        match vfs.kind(&path).map_err(|e| Error::io("cannot open", &path, e))? {
            Some(_) => Ok(Folder { _lock: lock(&**vfs, location, Lock::Shared)?, ..folder }),
            None => Ok(folder),
        }
    }

    /// Opens the folder to see what stands in it, whoever changes it meanwhile.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Io`].
    pub fn look(vfs: &Arc<dyn Vfs>, location: &Path) -> Result<Folder> {
        match vfs.kind(location).map_err(|e| Error::io("cannot open", location, e))? {
            Some(FileKind::Directory) => Ok(Folder { vfs: vfs.clone(), location: location.to_owned(), _lock: None }),
            _ => Err(not_there(location)),
        }
    }

    /// The backups, oldest first. A directory into which files were copied by hand is one itself.
    pub fn backups(&self) -> Result<Vec<Backup>> {
        let (vfs, location) = (&*self.vfs, &self.location);
        let listed = vfs.names(location).map_err(|e| Error::io("cannot list", location, e))?;
        if listed.iter().any(|(name, _)| name == names::MANIFEST) {
            return Ok(vec![Backup { name: None, files: location.clone(), manifest: Ok(None) }]);
        }
        let mut found = Vec::new();
        for (name, kind) in listed {
            match name.to_str() {
                Some(name) if kind == FileKind::Directory && is_backup(name) => found.push(self.backup(name)),
                _ => {}
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn backup(&self, name: &str) -> Backup {
        let directory = self.location.join(name);
        let manifest = BackupManifest::load(&*self.vfs, &directory).and_then(|manifest| match manifest {
            Some(manifest) => Ok(Some(manifest)),
            None => {
                let path = directory.join(manifest::NAME);
                Err(Error::BrokenMetadata(format!("{} is missing", path.display())))
            }
        });
        Backup { name: Some(name.to_owned()), files: directory.join(FILES), manifest }
    }

    /// The backup of this name.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub fn find(&self, name: &str) -> Result<Backup> {
        let found = self.backups()?.into_iter().find(|backup| backup.name.as_deref() == Some(name));
        found.ok_or_else(|| Error::NotFound(format!("{} has no backup {name:?}", self.location.display())))
    }

    /// Begins a backup: an empty directory with one for the files in it. Its name comes behind all that are there, also
    /// when the clock was set back: who wants the newest gets it, and who keeps the newest does not delete it.
    pub fn begin(&self, begun_at_ms: u64, epoch: Epoch) -> Result<NewBackup<'_>> {
        let newest = self.backups()?.pop().and_then(|backup| backup.name);
        let after = newest.as_deref().and_then(time_of).map_or(0, |newest_ms| newest_ms + 1);
        let name = name_of(begun_at_ms.max(after), epoch);
        if let Some(newest) = newest.filter(|_| after > begun_at_ms + 1) {
            log::warn!("the clock says an earlier time than the name of {newest}: this backup is named {name}");
        }
        let directory = self.location.join(format!("{name}{PARTIAL}"));
        let create = || self.vfs.create_dir(&directory).and_then(|()| self.vfs.create_dir(&directory.join(FILES)));
        create().map_err(|e| Error::io("cannot create", &directory, e))?;
        Ok(NewBackup { folder: self, name, directory })
    }

    /// Deletes a backup. It loses its name first, so that what is left of it is none.
    pub fn delete(&self, name: &str) -> Result<()> {
        let (path, partial) = (self.location.join(name), self.location.join(format!("{name}{PARTIAL}")));
        crashsafe::rename(&*self.vfs, &path, &partial).map_err(|e| Error::io("cannot rename", &path, e))?;
        self.remove(&partial)
    }

    fn delete_leftovers(&self) -> Result<()> {
        for (name, _) in self.vfs.names(&self.location).map_err(|e| Error::io("cannot list", &self.location, e))? {
            if name.to_string_lossy().ends_with(PARTIAL) {
                let path = self.location.join(&name);
                log::info!("{} is deleted: it was not ended", path.display());
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let remove = || self.vfs.remove_dir_all(path).and_then(|()| self.vfs.sync_dir(&self.location));
        remove().map_err(|e| Error::io("cannot delete", path, e))
    }
}

/// A backup that is being made; dropping it gives it up.
#[derive(Debug)]
pub struct NewBackup<'a> {
    folder: &'a Folder,
    pub name: String,
    directory: PathBuf,
}

impl NewBackup<'_> {
    /// Where its files go.
    pub fn files(&self) -> PathBuf {
        self.directory.join(FILES)
    }

    /// Makes everything durable in the present place: the files have been synced.
    pub fn write(&self, manifest: &BackupManifest) -> Result<()> {
        let vfs = &*self.folder.vfs;
        let write = || {
            vfs.sync_dir(&self.files())?;
            crashsafe::write_new(vfs, &self.directory.join(manifest::NAME), &manifest.encode())?;
            vfs.sync_dir(&self.directory)
        };
        write().map_err(|e| Error::io("cannot write", &self.directory, e))
    }

    /// Gives it its name, durably.
    pub fn put_in_place(self) -> Result<()> {
        let place = self.folder.location.join(&self.name);
        crashsafe::rename(&*self.folder.vfs, &self.directory, &place)
            .map_err(|e| Error::io("cannot rename", &self.directory, e))
    }
}

impl Drop for NewBackup<'_> {
    fn drop(&mut self) {
        // When it is in its place there is nothing.
        if let Err(e) = self.folder.remove(&self.directory) {
            log::warn!("{e}; the next run deletes it");
        }
    }
}

fn not_there(location: &Path) -> Error {
    Error::NotFound(format!("there is no directory {}", location.display()))
}

fn lock(vfs: &dyn Vfs, location: &Path, how: Lock) -> Result<Option<Box<dyn FileLock>>> {
    let path = location.join(LOCK);
    match vfs.lock(&path, how) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Held | LockError::HeldByReaders) => {
            Err(Error::Locked { directory: location.to_owned(), holder: holder(&path) })
        }
        // A medium without locks is changed by nobody.
        Err(LockError::Io(e)) if how == Lock::Shared => {
            log::warn!("{} cannot be locked: {e}", location.display());
            Ok(None)
        }
        Err(LockError::Io(e)) => Err(Error::io("cannot lock", &path, e)),
    }
}

/// The name of a backup: sorted by them, the oldest is first.
fn name_of(begun_at_ms: u64, epoch: Epoch) -> String {
    let at = rfc3339(UNIX_EPOCH + Duration::from_millis(begun_at_ms));
    let digits: String = at.chars().filter(char::is_ascii_digit).collect();
    let (date, time) = digits.split_at(8);
    format!("{date}T{time}Z-{epoch}")
}

/// The time in the name of a backup, in milliseconds since 1970.
fn time_of(name: &str) -> Option<u64> {
    let at = |from: usize, to: usize| name.get(from..to);
    let date = format!("{}-{}-{}", at(0, 4)?, at(4, 6)?, at(6, 8)?);
    let time = format!("{}:{}:{}.{}", at(9, 11)?, at(11, 13)?, at(13, 15)?, at(15, 18)?);
    let at = times::parse(&format!("{date}T{time}Z")).ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(at.as_millis()).ok()
}

/// Whether the name is one of a backup: `20260131T120000000Z-42`.
fn is_backup(name: &str) -> bool {
    let digits = |text: &str, len: usize| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
    let Some((at, epoch)) = name.split_once("Z-") else { return false };
    let Some((date, time)) = at.split_once('T') else { return false };
    digits(date, 8) && digits(time, 9) && digits(epoch, epoch.len().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_when_and_up_to_which_epoch() {
        let name = name_of(1_795_356_604_107, Epoch(42));
        assert_eq!(name, "20261122T141004107Z-42");
        assert!(is_backup(&name));
        assert_eq!(time_of(&name), Some(1_795_356_604_107));
        for other in ["20261122T141004107Z-", "20261122T141004107Z-x", "2026T141004107Z-1", "files", "", "Z-1", "TZ-1"]
        {
            assert!(!is_backup(other), "{other}");
        }
    }
}

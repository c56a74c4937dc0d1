// SPDX-License-Identifier: Apache-2.0
//! The manifest on the disk (disk format §§4, 4.4): read, checked, put right, migrated. It is overwritten in place
//! and never replaced by another inode, because the lock of the directory is on the inode.

use super::place::{cannot_lock, in_use};
use super::small_file::{read_file, Found, Source};
use crate::error::{Error, Result};
use crate::lock_order::{Mutex, Rank};
use crate::vfs::{crashsafe, Lock, LockError, Open, Vfs, VfsFile};
use crate::wal::journal::JournalId;
use crate::wal::manifest::{self, Manifest};
use crate::wal::names;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const GUIDE: &str = "see https://github.com/project-tsurugi/tsurugidb/blob/master/docs/upgrade-guide.md";

fn version_mismatch(location: &Path, detail: &str) -> Error {
    let manifest = location.join(names::MANIFEST);
    Error::UnsupportedVersion(format!(
        "/:limestone unsupported dbdir persistent format version: {GUIDE} (version mismatch: {detail}): {}",
        manifest.display()
    ))
}

/// What stands here is no data directory.
pub(crate) fn no_manifest(location: &Path) -> Error {
    version_mismatch(location, "version 0, server supports version 1")
}

/// Gives an empty directory its manifest, whole or not at all: a broken one is never what a crash left here. It is made
/// under a lock of its own, so that of several processes one does. `vfs` finds the directory by its name.
pub(super) fn create(vfs: &dyn Vfs, location: &Path) -> Result<()> {
    let (main, new) = (location.join(names::MANIFEST), location.join(names::MANIFEST_NEW));
    let failed = |e| Error::io("cannot write the manifest", &main, e);
    let file = vfs.open(&new, Open::Create).map_err(failed)?;
    let _lock = match vfs.lock(&new, Lock::Exclusive) {
        Ok(lock) => lock,
        Err(LockError::Held | LockError::HeldByReaders) => return Err(in_use(location, names::MANIFEST_NEW)),
        // Another process has just given it its place.
        Err(LockError::Io(e)) if e.kind() == ErrorKind::NotFound => return Err(in_use(location, names::MANIFEST)),
        Err(LockError::Io(e)) => return Err(cannot_lock(location, e)),
    };
    if vfs.kind(&main).map_err(failed)?.is_some() {
        return crashsafe::unlink(vfs, &new).map_err(failed);
    }
    let make = || {
        file.set_len(0)?;
        file.write_at(0, &Manifest::new().encode())?;
        file.sync()?;
        crashsafe::rename(vfs, &new, &main)
    };
    make().map_err(failed)
}

/// Whether the backup of a manifest that is missing can take its place.
pub(super) fn has_usable_backup(vfs: &dyn Vfs, location: &Path) -> bool {
    let backup = vfs.read(&location.join(names::MANIFEST_BACKUP), manifest::MAX_BYTES);
    backup.is_ok_and(|bytes| manifest::parse(&bytes).is_ok_and(|manifest| manifest.is_supported()))
}

/// A directory without a manifest is opened only when a crash of a migration left its backup.
pub(super) fn restore_missing(vfs: &dyn Vfs, location: &Path) -> Result<()> {
    let (main, backup) = (location.join(names::MANIFEST), location.join(names::MANIFEST_BACKUP));
    if !has_usable_backup(vfs, location) {
        return Err(no_manifest(location));
    }
    log::warn!("{} was missing and is restored from {}", main.display(), backup.display());
    crashsafe::rename(vfs, &backup, &main).map_err(|e| Error::io("cannot restore the manifest", &main, e))
}

/// Overwrites the manifest in place; its backup protects it meanwhile.
fn write(vfs: &dyn Vfs, location: &Path, file: &dyn VfsFile, manifest: &Manifest) -> Result<()> {
    let overwrite = || {
        let bytes = manifest.encode();
        file.set_len(0)?;
        file.write_at(0, &bytes)?;
        file.sync()?;
        vfs.sync_dir(location)
    };
    overwrite().map_err(|e| Error::io("cannot write the manifest", &location.join(names::MANIFEST), e))
}

/// Writes the manifest once more as it is: a process that died, or whose sync failed, may have left content that only
/// the cache of the system holds. The same bytes in place cannot tear.
fn confirm(vfs: &dyn Vfs, location: &Path, file: &dyn VfsFile) -> Result<()> {
    let path = location.join(names::MANIFEST);
    let write_again = || {
        let bytes = vfs.read(&path, manifest::MAX_BYTES)?;
        file.write_at(0, &bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync()?;
        vfs.sync_dir(location)
    };
    write_again().map_err(|e| Error::io("cannot write the manifest", &path, e))
}

/// Reads the manifest or its backup and checks the version (§4.4).
pub(crate) fn read(vfs: &dyn Vfs, location: &Path) -> Result<Found<Manifest>> {
    let (main, backup) = (location.join(names::MANIFEST), location.join(names::MANIFEST_BACKUP));
    let saved = read_file(vfs, &backup, manifest::MAX_BYTES, manifest::parse)?;
    let found = match (read_file(vfs, &main, manifest::MAX_BYTES, manifest::parse)?, saved) {
        // A backup that was not written whole is left over from a full disk or a crash: nothing needs it.
        (Some(Ok(content)), saved) => Found { content, source: Source::Main { backup: saved.is_some() } },
        (Some(Err(reason)), Some(Ok(content))) => Found { content, source: Source::Backup(reason) },
        (None, Some(Ok(content))) => Found { content, source: Source::Backup("it is missing".to_owned()) },
        (unusable, _) => {
            let reason = unusable.and_then(|manifest| manifest.err()).unwrap_or_default();
            return Err(Error::BrokenMetadata(format!(
                "Manifest file exists but is corrupted or cannot be parsed: {} ({reason})",
                main.display()
            )));
        }
    };
    if !found.content.is_supported() {
        let version = found.content.persistent_format_version;
        let (oldest, newest) = (manifest::OLDEST_VERSION, manifest::CURRENT_VERSION);
        let detail = format!("version {version}, server supports versions {oldest} through {newest}");
        return Err(version_mismatch(location, &detail));
    }
    Ok(found)
}

/// Writes the manifest when it came from the backup, and migrates an old one: at any time at least one of
/// manifest and backup is whole. Returns what the manifest then says.
pub(super) fn settle(vfs: &dyn Vfs, location: &Path, file: &dyn VfsFile, found: &Found<Manifest>) -> Result<Manifest> {
    let drop_backup = || drop_backup(vfs, location);
    match &found.source {
        Source::Main { backup } => {
            confirm(vfs, location, file)?;
            if *backup {
                drop_backup()?;
            }
        }
        Source::Backup(reason) => {
            let main = location.join(names::MANIFEST);
            log::warn!("{} is unusable ({reason}) and is restored from its backup", main.display());
            write(vfs, location, file, &found.content)?;
            drop_backup()?;
        }
        Source::New => {}
    }
    if found.content.persistent_format_version < manifest::CURRENT_VERSION {
        let migrated = found.content.migrated();
        replace(vfs, location, file, &migrated)?;
        return Ok(migrated);
    }
    Ok(found.content.clone())
}

/// The manifest of an open directory; it may be replaced by whoever has a part of it.
#[derive(Debug)]
pub(crate) struct ManifestOnDisk {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    /// Says which directory this is; kept for life.
    pub(super) file: Box<dyn VfsFile>,
    content: Mutex<Manifest>,
}

impl ManifestOnDisk {
    /// The manifest that was read from `file`.
    pub(super) fn new(vfs: Arc<dyn Vfs>, location: &Path, file: Box<dyn VfsFile>, content: Manifest) -> ManifestOnDisk {
        ManifestOnDisk { vfs, location: location.to_owned(), file, content: Mutex::new(Rank::Manifest, content) }
    }

    /// The instance UUID.
    pub(super) fn identity(&self) -> String {
        self.content.lock().instance_uuid.clone().unwrap_or_default()
    }

    /// It has been read anew.
    pub(super) fn set(&self, content: Manifest) {
        *self.content.lock() = content;
    }

    /// Gives the directory another instance UUID, durably.
    pub(super) fn set_identity(&self, uuid: &str) -> Result<()> {
        self.change(|manifest| Manifest { instance_uuid: Some(uuid.to_owned()), ..manifest.clone() })
    }

    /// Says durably which commit journal is in use, or that none is.
    pub(crate) fn set_journal(&self, journal: Option<&JournalId>) -> Result<()> {
        self.change(|manifest| manifest.with_journal(journal))
    }

    fn change(&self, change: impl FnOnce(&Manifest) -> Manifest) -> Result<()> {
        let mut content = self.content.lock();
        let changed = change(&content);
        replace(&*self.vfs, &self.location, &*self.file, &changed)?;
        *content = changed;
        Ok(())
    }
}

/// Overwrites a whole manifest with another one. The backup holds the new one meanwhile.
pub(super) fn replace(vfs: &dyn Vfs, location: &Path, file: &dyn VfsFile, manifest: &Manifest) -> Result<()> {
    let backup = location.join(names::MANIFEST_BACKUP);
    let save = || {
        crashsafe::write_new(vfs, &backup, &manifest.encode())?;
        vfs.sync_dir(location)
    };
    save().map_err(|e| Error::io("cannot write the manifest", &backup, e))?;
    write(vfs, location, file, manifest)?;
    drop_backup(vfs, location)
}

fn drop_backup(vfs: &dyn Vfs, location: &Path) -> Result<()> {
    let backup = location.join(names::MANIFEST_BACKUP);
    crashsafe::unlink(vfs, &backup).map_err(|e| Error::io("cannot delete", &backup, e))
}

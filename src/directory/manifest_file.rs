// SPDX-License-Identifier: Apache-2.0
//! The manifest on the disk (disk format §§4, 4.4): read, checked, put right, migrated. It is overwritten in place
//! and never replaced by another inode, because the lock of the directory is on the inode.

use super::small_file::{read_file, Found, Source};
use crate::error::{Error, Result};
use crate::vfs::{crashsafe, Vfs, VfsFile};
use crate::wal::manifest::{self, Manifest};
use crate::wal::names;
use std::path::Path;

const GUIDE: &str = "see https://github.com/project-tsurugi/tsurugidb/blob/master/docs/upgrade-guide.md";

pub(crate) fn version_mismatch(location: &Path, detail: &str) -> Error {
    let manifest = location.join(names::MANIFEST);
    Error::UnsupportedVersion(format!(
        "/:limestone unsupported dbdir persistent format version: {GUIDE} (version mismatch: {detail}): {}",
        manifest.display()
    ))
}

/// A directory without a manifest is opened only when a crash of a migration left its backup.
pub(super) fn restore_missing(vfs: &dyn Vfs, location: &Path) -> Result<()> {
    let (main, backup) = (location.join(names::MANIFEST), location.join(names::MANIFEST_BACKUP));
    match vfs.read(&backup, manifest::MAX_BYTES) {
        Ok(bytes) if manifest::parse(&bytes).is_ok_and(|manifest| manifest.is_supported()) => {
            log::warn!("{} was missing and is restored from {}", main.display(), backup.display());
            crashsafe::rename(vfs, &backup, &main).map_err(|e| Error::io("cannot restore the manifest", &main, e))
        }
        _ => Err(version_mismatch(location, "version 0, server supports version 1")),
    }
}

/// Overwrites the manifest in place; its backup or an otherwise empty directory protects it meanwhile.
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

/// Reads the manifest or its backup and checks the version (§4.4). `files` is what the directory held before it was
/// locked.
pub(crate) fn read(vfs: &dyn Vfs, location: &Path, files: &[String]) -> Result<Found<Manifest>> {
    let (main, backup) = (location.join(names::MANIFEST), location.join(names::MANIFEST_BACKUP));
    let saved = read_file(vfs, &backup, manifest::MAX_BYTES, manifest::parse)?;
    let found = match (read_file(vfs, &main, manifest::MAX_BYTES, manifest::parse)?, saved) {
        (Some(Ok(content)), saved) => Found { content, source: Source::Main { backup: matches!(saved, Some(Ok(_))) } },
        (Some(Err(reason)), Some(Ok(content))) => Found { content, source: Source::Backup(reason) },
        // Created by this call, or by one that a crash ended before anything else was written.
        _ if files.iter().all(|name| name == names::MANIFEST) => {
            Found { content: Manifest::new(), source: Source::New }
        }
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

/// Writes the manifest when it is new or came from the backup, and migrates an old one: at any time at least one of
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
        Source::New => write(vfs, location, file, &found.content)?,
    }
    if found.content.persistent_format_version < manifest::CURRENT_VERSION {
        let migrated = found.content.migrated();
        replace(vfs, location, file, &migrated)?;
        return Ok(migrated);
    }
    Ok(found.content.clone())
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

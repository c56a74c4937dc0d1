// SPDX-License-Identifier: Apache-2.0
//! The data directory itself: opened, locked, checked and migrated (disk format §§1.2, 4, 7.3).

use super::manifest_file::ManifestOnDisk;
use super::place::{create_or_open_once, lock_manifest, OwnLock};
use super::small_file::Source;
use super::{catalog_file, commit_journal, manifest_file};
use crate::backup::{self, swap};
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::{crashsafe, FileKind, FileLock, Open, Vfs, VfsFile};
use crate::wal::catalog::Catalog;
use crate::wal::entry::{marker, tag};
use crate::wal::epoch_file::EpochFile;
use crate::wal::history_file::Place;
use crate::wal::journal::redo;
use crate::wal::manifest::{self, Manifest};
use crate::wal::names;
use crate::wal::rotation;
use crate::wal::scanner::Edit;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open, locked data directory.
#[derive(Debug)]
pub(crate) struct Directory {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    pub(crate) catalog: Catalog,
    manifest: Arc<ManifestOnDisk>,
    /// The version before the migration.
    version: i32,
    /// Whether the catalog stood under its own name.
    catalog_intact: bool,
    /// A restore has put other content in place since this was read.
    replaced: bool,
    _lock: Box<dyn FileLock>,
}

/// What manifest and catalog say.
struct Loaded {
    catalog: Catalog,
    manifest: Manifest,
    version: i32,
    catalog_intact: bool,
}

impl Directory {
    pub(crate) fn open(vfs: Arc<dyn Vfs>, location: &Path) -> Result<Directory> {
        let by_name = vfs;
        let (vfs, location) = create_or_open_once(&by_name, location)?;
        let location = location.as_path();
        let files = file_names(&*vfs, location)?;
        if files.iter().all(|file| file == names::MANIFEST_NEW) {
            // The process that created the directory may have died before it synced the name.
            let parent = crashsafe::parent(location);
            vfs.sync_dir(parent).map_err(|e| Error::io("cannot sync the directory", parent, e))?;
            manifest_file::create(&*by_name, location)?;
        } else if !files.iter().any(|file| file == names::MANIFEST) {
            manifest_file::restore_missing(&*vfs, location)?;
        }
        let (manifest_file, OwnLock { lock, waited }) = lock_manifest(&*vfs, location)?;
        let completed = swap::resume(&*vfs, location, &*manifest_file)?;
        if completed {
            log::info!("{}: the content that a restore or a base sync brought is in place", location.display());
        }
        // During the wait another process may have had the directory.
        let files = if completed || waited { file_names(&*vfs, location)? } else { files };
        let Loaded { catalog, manifest, version, catalog_intact } =
            Directory::load(&vfs, location, &*manifest_file, &files)?;
        Ok(Directory {
            location: location.to_owned(),
            catalog,
            manifest: Arc::new(ManifestOnDisk::new(vfs.clone(), location, manifest_file, manifest)),
            version,
            catalog_intact,
            replaced: false,
            _lock: lock,
            vfs,
        })
    }

    /// Reads manifest and catalog of the locked directory and puts right what must be before anything else. `files` is
    /// what the locked directory holds.
    fn load(vfs: &Arc<dyn Vfs>, location: &Path, held: &dyn VfsFile, files: &[String]) -> Result<Loaded> {
        let path = |name: &str| location.join(name);
        // First both are checked, then both are put right: a refusal changes nothing.
        let manifest = manifest_file::read(&**vfs, location)?;
        let catalog = catalog_file::read(&**vfs, location)?;
        let unsettled = commit_journal::read(&**vfs, location, &manifest.content)?;
        let mut current = manifest_file::settle(&**vfs, location, held, &manifest)?;
        match unsettled {
            Some(unsettled) => current = commit_journal::settle(vfs, location, held, &current, &unsettled)?,
            // Left by one that was put away.
            None if files.iter().any(|name| names::is_journal_segment(name)) => redo::delete(&**vfs, location)?,
            None => {}
        }
        catalog_file::settle(&**vfs, location, &catalog)?;
        rotation::avoid_detached(&catalog.content);
        for leftover in [names::EPOCH_TEMPORARY, names::MANIFEST_NEW] {
            let removed = crashsafe::unlink(&**vfs, &path(leftover));
            removed.map_err(|e| Error::io("cannot delete", &path(leftover), e))?;
        }
        // A directory in which nothing was written gets its first record now, so that a missing or empty epoch file
        // always means that one was lost.
        if !files.iter().any(|file| names::is_epoch(file) || names::is_log(file)) {
            EpochFile::replace(vfs.clone(), location, Epoch(0))?;
        }
        if vfs.kind(&path(names::BLOB_DIR)).map_err(|e| Error::io("cannot open", &path(names::BLOB_DIR), e))?.is_none()
        {
            let created = crashsafe::create_dir(&**vfs, &path(names::BLOB_DIR));
            created.map_err(|e| Error::io("fail to create directory", &path(names::BLOB_DIR), e))?;
        }
        Ok(Loaded {
            catalog_intact: !matches!(catalog.source, Source::Backup(_)),
            catalog: catalog.content,
            version: manifest.content.persistent_format_version,
            manifest: current,
        })
    }

    /// Lets `restore` replace the content. The lock is held all the time: the manifest is overwritten in place (H11).
    pub(crate) fn replace(
        &mut self,
        progress: &backup::Progress,
        restore: impl FnOnce(&backup::Target<'_>) -> Result<()>,
    ) -> Result<()> {
        let (vfs, location) = (&*self.vfs, &*self.location);
        let result =
            restore(&backup::Target { vfs, location, held_manifest: &*self.manifest.file, progress, until: None });
        self.replaced |= progress.get().phase == backup::Phase::Completed;
        result
    }

    /// Reads the directory again when a restore has replaced its content. An old version is migrated here and not by
    /// the restore.
    pub(crate) fn reload(&mut self) -> Result<()> {
        if self.replaced {
            let files = file_names(&*self.vfs, &self.location)?;
            let loaded = Directory::load(&self.vfs, &self.location, &*self.manifest.file, &files)?;
            (self.catalog, self.catalog_intact, self.version) = (loaded.catalog, loaded.catalog_intact, loaded.version);
            self.manifest.set(loaded.manifest);
            self.replaced = false;
        }
        Ok(())
    }

    pub(crate) fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    pub(crate) fn location(&self) -> &Path {
        &self.location
    }

    /// The instance UUID.
    pub(crate) fn identity(&self) -> String {
        self.manifest.identity()
    }

    /// The manifest, for somebody who keeps it.
    pub(crate) fn manifest(&self) -> Arc<ManifestOnDisk> {
        self.manifest.clone()
    }

    /// Where the history of the directory is; `instance` is its identity.
    pub(crate) fn place<'a>(&'a self, instance: &'a str) -> Place<'a> {
        Place { vfs: &*self.vfs, location: &self.location, instance }
    }

    /// Gives the directory another instance UUID, durably.
    pub(crate) fn set_identity(&mut self, uuid: &str) -> Result<()> {
        self.manifest.set_identity(uuid)
    }

    /// Whether sessions were written with end markers.
    pub(crate) fn has_end_markers(&self) -> bool {
        self.version >= manifest::FIRST_WITH_END_MARKERS
    }

    /// Whether the log files came from a version without end markers and must not be appended to.
    pub(crate) fn needs_detach(&self) -> bool {
        !self.has_end_markers()
    }

    /// Carries out what the scan found to be needed and syncs it.
    pub(crate) fn apply(&self, edits: &[(PathBuf, Vec<Edit>)]) -> Result<()> {
        edits.iter().try_for_each(|(path, edits)| apply(&*self.vfs, path, edits))
    }

    /// Deletes what a finished recovery has made useless: rotated epoch files, a compacted file that was replaced,
    /// the work area of the original; and syncs the directory. To be called when the epoch file holds the durable
    /// epoch.
    pub(crate) fn tidy_up(&self) -> Result<()> {
        let files = file_names(&*self.vfs, &self.location)?;
        let superseded = self.catalog_intact && files.iter().any(|name| name == names::COMPACTED);
        for name in &files {
            if names::is_rotated_epoch(name) || (superseded && name == names::COMPACTED_PREVIOUS) {
                let path = self.location.join(name);
                crashsafe::unlink(&*self.vfs, &path).map_err(|e| Error::io("cannot delete", &path, e))?;
            }
        }
        let sorting = self.location.join(names::SORTING_DIR);
        let failed = |e| Error::io("cannot delete", &sorting, e);
        if self.vfs.kind(&sorting).map_err(failed)? == Some(FileKind::Directory) {
            self.vfs.remove_dir_all(&sorting).map_err(failed)?;
        }
        if files.iter().any(|name| name == names::COMPACTED) {
            catalog_file::complete(&*self.vfs, &self.location, &self.catalog)?;
        }
        // Names that a killed process made are durable from here on.
        self.vfs.sync_dir(&self.location).map_err(|e| Error::io("cannot sync the directory", &self.location, e))
    }
}

/// Makes the changes to one log file and syncs it.
pub(crate) fn apply(vfs: &dyn Vfs, path: &Path, edits: &[Edit]) -> Result<()> {
    let apply = || {
        let file = vfs.open(path, Open::Existing)?;
        let mut marked = Vec::new();
        for edit in edits {
            match *edit {
                Edit::Invalidate { offset } => {
                    file.write_at(offset as u64, &[tag::INVALIDATED])?;
                    marked.push(offset);
                }
                Edit::Confirm { offset, epoch } => file.write_at(offset as u64, &marker(tag::BEGIN, epoch))?,
                Edit::Void { offset } => {
                    let mut nothing = vec![0; (file.len()? as usize).saturating_sub(offset)];
                    if let Some(first) = nothing.first_mut() {
                        *first = tag::INVALIDATED;
                    }
                    file.write_at(offset as u64, &nothing)?;
                    marked.push(offset);
                }
                Edit::Cut { offset } => {
                    file.set_len(offset as u64)?;
                    log::info!("trimmed \"{}\" at offset {offset}", path.display());
                }
            }
        }
        match (&marked[..], path.display()) {
            ([], _) => {}
            ([offset], path) => log::info!("marked invalid \"{path}\" at offset {offset}"),
            ([first, .., last], path) => {
                log::info!("marked invalid \"{path}\" at {} offsets from {first} to {last}", marked.len());
            }
        }
        file.sync()
    };
    apply().map_err(|e| Error::io("cannot put right", path, e))
}

/// Names of all that is not a directory.
pub(crate) fn file_names(vfs: &dyn Vfs, location: &Path) -> Result<Vec<String>> {
    let listing = vfs.list(location).map_err(|e| Error::io("cannot list", location, e))?;
    let files = listing.into_iter().filter(|entry| entry.kind != FileKind::Directory);
    Ok(files.map(|entry| entry.name.to_string_lossy().into_owned()).collect())
}

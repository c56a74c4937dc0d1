// SPDX-License-Identifier: Apache-2.0
//! The data directory itself: created, locked, checked and migrated (disk format §§1.2, 4, 7.3). The manifest is
//! never replaced by another inode, because the lock is on the inode.

use crate::backup::{self, swap};
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::{crashsafe, FileKind, FileLock, LockError, Open, Vfs, VfsFile};
use crate::wal::catalog::{self, Catalog};
use crate::wal::entry::{marker, tag};
use crate::wal::epoch_file::EpochFile;
use crate::wal::manifest::{self, Manifest};
use crate::wal::names;
use crate::wal::rotation;
use crate::wal::scanner::Edit;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const GUIDE: &str = "see https://github.com/project-tsurugi/tsurugidb/blob/master/docs/upgrade-guide.md";

/// An open, locked data directory.
#[derive(Debug)]
pub(crate) struct Directory {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    pub(crate) catalog: Catalog,
    /// Says which directory this is; kept for life.
    manifest_file: Box<dyn VfsFile>,
    manifest: Manifest,
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
        create_location(&*vfs, location)?;
        let files = file_names(&*vfs, location)?;
        if files.is_empty() {
            // The process that created the directory may have died before it synced the name.
            let parent = crashsafe::parent(location);
            vfs.sync_dir(parent).map_err(|e| Error::io("cannot sync the directory", parent, e))?;
        }
        if !files.is_empty() && !files.iter().any(|file| file == names::MANIFEST) {
            restore_missing_manifest(&*vfs, location)?;
        }
        let (manifest_file, lock) = lock_manifest(&*vfs, location)?;
        let completed = swap::resume(&*vfs, location, &*manifest_file)?;
        let files = if completed {
            log::warn!("{}: a restore that was interrupted has been completed", location.display());
            file_names(&*vfs, location)?
        } else {
            files
        };
        let Loaded { catalog, manifest, version, catalog_intact } =
            Directory::load(&vfs, location, &*manifest_file, &files)?;
        Ok(Directory {
            location: location.to_owned(),
            catalog,
            manifest_file,
            manifest,
            version,
            catalog_intact,
            replaced: false,
            _lock: lock,
            vfs,
        })
    }

    /// Reads manifest and catalog of the locked directory and puts right what must be before anything else. `files` is
    /// what the directory held before it was locked.
    fn load(vfs: &Arc<dyn Vfs>, location: &Path, held: &dyn VfsFile, files: &[String]) -> Result<Loaded> {
        let path = |name: &str| location.join(name);
        // First both are checked, then both are put right: a refusal changes nothing.
        let manifest = read_manifest(&**vfs, location, files)?;
        let catalog = read_catalog(&**vfs, location)?;
        let current = settle_manifest(&**vfs, location, held, &manifest)?;
        settle_catalog(&**vfs, location, &catalog)?;
        rotation::avoid_detached(&catalog.content);
        let removed = crashsafe::unlink(&**vfs, &path(names::EPOCH_TEMPORARY));
        removed.map_err(|e| Error::io("cannot delete", &path(names::EPOCH_TEMPORARY), e))?;
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
        let result = restore(&backup::Target { vfs, location, held_manifest: &*self.manifest_file, progress });
        self.replaced |= progress.get().phase == backup::Phase::Completed;
        result
    }

    /// Reads the directory again when a restore has replaced its content. An old version is migrated here and not by the
    /// restore.
    pub(crate) fn reload(&mut self) -> Result<()> {
        if self.replaced {
            let files = file_names(&*self.vfs, &self.location)?;
            let loaded = Directory::load(&self.vfs, &self.location, &*self.manifest_file, &files)?;
            (self.catalog, self.catalog_intact, self.version) = (loaded.catalog, loaded.catalog_intact, loaded.version);
            self.manifest = loaded.manifest;
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
    pub(crate) fn identity(&self) -> &str {
        self.manifest.instance_uuid.as_deref().unwrap_or_default()
    }

    /// Gives the directory another instance UUID, durably.
    pub(crate) fn set_identity(&mut self, uuid: &str) -> Result<()> {
        let manifest = Manifest { instance_uuid: Some(uuid.to_owned()), ..self.manifest.clone() };
        replace_manifest(&*self.vfs, &self.location, &*self.manifest_file, &manifest)?;
        self.manifest = manifest;
        Ok(())
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
            self.list_compacted_file()?;
        }
        // Names that a killed process made are durable from here on.
        self.vfs.sync_dir(&self.location).map_err(|e| Error::io("cannot sync the directory", &self.location, e))
    }

    /// Enters the compacted file into a catalog that lost it: the original needs the line to keep removals of its keys
    /// effective.
    fn list_compacted_file(&self) -> Result<()> {
        let mut catalog = self.catalog.clone();
        if !catalog.compacted.insert((names::COMPACTED.to_owned(), 1)) {
            return Ok(());
        }
        let (path, temporary) = (self.location.join(names::CATALOG), self.location.join(names::CATALOG_TEMPORARY));
        log::warn!("{} does not list {} and is completed", path.display(), names::COMPACTED);
        let replaced = crashsafe::replace(&*self.vfs, &temporary, &path, &catalog.encode());
        replaced.map_err(|e| Error::io("cannot write the catalog", &path, e))
    }
}

/// Makes the changes to one log file and syncs it.
pub(crate) fn apply(vfs: &dyn Vfs, path: &Path, edits: &[Edit]) -> Result<()> {
    let apply = || {
        let file = vfs.open(path, Open::Existing)?;
        for edit in edits {
            match *edit {
                Edit::Invalidate { offset } => {
                    file.write_at(offset as u64, &[tag::INVALIDATED])?;
                    log::info!("marked invalid \"{}\" at offset {offset}", path.display());
                }
                Edit::Confirm { offset, epoch } => file.write_at(offset as u64, &marker(tag::BEGIN, epoch))?,
                Edit::Cut { offset } => {
                    file.set_len(offset as u64)?;
                    log::info!("trimmed \"{}\" at offset {offset}", path.display());
                }
            }
        }
        file.sync()
    };
    apply().map_err(|e| Error::io("cannot put right", path, e))
}

/// Creates the last component of the location when nothing is there.
fn create_location(vfs: &dyn Vfs, location: &Path) -> Result<()> {
    let kind = vfs.kind(location).map_err(|e| Error::io("cannot open the log directory", location, e))?;
    match kind {
        Some(FileKind::Directory) => Ok(()),
        Some(_) => {
            let not_a_directory = std::io::Error::from_raw_os_error(libc::ENOTDIR);
            Err(Error::io("cannot open the log directory", location, not_a_directory))
        }
        None => crashsafe::create_dir(vfs, location).map_err(|e| Error::io("fail to create directory", location, e)),
    }
}

/// Names of all that is not a directory.
pub(crate) fn file_names(vfs: &dyn Vfs, location: &Path) -> Result<Vec<String>> {
    let listing = vfs.list(location).map_err(|e| Error::io("cannot list", location, e))?;
    let files = listing.into_iter().filter(|entry| entry.kind != FileKind::Directory);
    Ok(files.map(|entry| entry.name.to_string_lossy().into_owned()).collect())
}

pub(crate) fn version_mismatch(location: &Path, detail: &str) -> Error {
    let manifest = location.join(names::MANIFEST);
    Error::UnsupportedVersion(format!(
        "/:limestone unsupported dbdir persistent format version: {GUIDE} (version mismatch: {detail}): {}",
        manifest.display()
    ))
}

/// A directory without a manifest is opened only when a crash of a migration left its backup.
fn restore_missing_manifest(vfs: &dyn Vfs, location: &Path) -> Result<()> {
    let (main, backup) = (location.join(names::MANIFEST), location.join(names::MANIFEST_BACKUP));
    match vfs.read(&backup, manifest::MAX_BYTES) {
        Ok(bytes) if manifest::parse(&bytes).is_ok_and(|manifest| manifest.is_supported()) => {
            log::warn!("{} was missing and is restored from {}", main.display(), backup.display());
            crashsafe::rename(vfs, &backup, &main).map_err(|e| Error::io("cannot restore the manifest", &main, e))
        }
        _ => Err(version_mismatch(location, "version 0, server supports version 1")),
    }
}

/// Takes the lock before anything is written, so that of two processes that create the directory only one does.
fn lock_manifest(vfs: &dyn Vfs, location: &Path) -> Result<(Box<dyn VfsFile>, Box<dyn FileLock>)> {
    let path = location.join(names::MANIFEST);
    let failed = |e| Error::io("failed to acquire lock for manifest in directory", location, e);
    let file = vfs.open(&path, Open::Create).map_err(failed)?;
    match vfs.lock(&path) {
        Ok(lock) => Ok((file, lock)),
        Err(LockError::Held) => Err(Error::Locked(location.to_owned())),
        Err(LockError::Io(e)) => Err(failed(e)),
    }
}

/// Overwrites the manifest in place; its backup or an otherwise empty directory protects it meanwhile.
fn write_manifest(vfs: &dyn Vfs, location: &Path, file: &dyn VfsFile, manifest: &Manifest) -> Result<()> {
    let write = || {
        let bytes = manifest.encode();
        file.set_len(0)?;
        file.write_at(0, &bytes)?;
        file.sync()?;
        vfs.sync_dir(location)
    };
    write().map_err(|e| Error::io("cannot write the manifest", &location.join(names::MANIFEST), e))
}

/// Writes the manifest once more as it is: a process that died, or whose sync failed, may have left content that only
/// the cache of the system holds. The same bytes in place cannot tear.
fn confirm_manifest(vfs: &dyn Vfs, location: &Path, file: &dyn VfsFile) -> Result<()> {
    let path = location.join(names::MANIFEST);
    let confirm = || {
        let bytes = vfs.read(&path, manifest::MAX_BYTES)?;
        file.write_at(0, &bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync()?;
        vfs.sync_dir(location)
    };
    confirm().map_err(|e| Error::io("cannot write the manifest", &path, e))
}

/// Where the content of the manifest or the catalog came from.
pub(crate) enum Source {
    /// Its own file; whether a backup lies beside it.
    Main { backup: bool },
    /// The backup, and why the file itself cannot be used.
    Backup(String),
    /// Neither exists: the directory is new, or older than the file.
    New,
}

pub(crate) struct Found<T> {
    pub(crate) content: T,
    pub(crate) source: Source,
}

/// Reads and parses a small file; `None` when there is none.
fn read_file<T>(
    vfs: &dyn Vfs,
    path: &Path,
    max_bytes: u64,
    parse: impl Fn(&[u8]) -> std::result::Result<T, String>,
) -> Result<Option<std::result::Result<T, String>>> {
    match vfs.read(path, max_bytes) {
        Ok(bytes) => Ok(Some(parse(&bytes))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => Ok(Some(Err(e.to_string()))),
        Err(e) => Err(Error::io("cannot read", path, e)),
    }
}

/// Reads the manifest or its backup and checks the version (§4.4). `files` is what the directory held before it was
/// locked.
pub(crate) fn read_manifest(vfs: &dyn Vfs, location: &Path, files: &[String]) -> Result<Found<Manifest>> {
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
fn settle_manifest(vfs: &dyn Vfs, location: &Path, file: &dyn VfsFile, found: &Found<Manifest>) -> Result<Manifest> {
    let drop_backup = || drop_backup(vfs, location);
    match &found.source {
        Source::Main { backup } => {
            confirm_manifest(vfs, location, file)?;
            if *backup {
                drop_backup()?;
            }
        }
        Source::Backup(reason) => {
            let main = location.join(names::MANIFEST);
            log::warn!("{} is unusable ({reason}) and is restored from its backup", main.display());
            write_manifest(vfs, location, file, &found.content)?;
            drop_backup()?;
        }
        Source::New => write_manifest(vfs, location, file, &found.content)?,
    }
    if found.content.persistent_format_version < manifest::CURRENT_VERSION {
        let migrated = found.content.migrated();
        replace_manifest(vfs, location, file, &migrated)?;
        return Ok(migrated);
    }
    Ok(found.content.clone())
}

/// Overwrites a whole manifest with another one. The backup holds the new one meanwhile.
fn replace_manifest(vfs: &dyn Vfs, location: &Path, file: &dyn VfsFile, manifest: &Manifest) -> Result<()> {
    let backup = location.join(names::MANIFEST_BACKUP);
    let save = || {
        crashsafe::write_new(vfs, &backup, &manifest.encode())?;
        vfs.sync_dir(location)
    };
    save().map_err(|e| Error::io("cannot write the manifest", &backup, e))?;
    write_manifest(vfs, location, file, manifest)?;
    drop_backup(vfs, location)
}

fn drop_backup(vfs: &dyn Vfs, location: &Path) -> Result<()> {
    let backup = location.join(names::MANIFEST_BACKUP);
    crashsafe::unlink(vfs, &backup).map_err(|e| Error::io("cannot delete", &backup, e))
}

/// Reads the catalog, or its backup when it is missing or torn; the values of a torn one are not kept (W7).
pub(crate) fn read_catalog(vfs: &dyn Vfs, location: &Path) -> Result<Found<Catalog>> {
    let (main, backup) = (location.join(names::CATALOG), location.join(names::CATALOG_BACKUP));
    let reason = match read_file(vfs, &main, catalog::MAX_BYTES, catalog::parse)? {
        Some(Ok(content)) => return Ok(Found { content, source: Source::Main { backup: false } }),
        Some(Err(reason)) => Some(reason),
        None => None,
    };
    match (read_file(vfs, &backup, catalog::MAX_BYTES, catalog::parse)?, reason) {
        (Some(Ok(content)), reason) => {
            let reason = reason.unwrap_or_else(|| "it is missing".to_owned());
            Ok(Found { content, source: Source::Backup(reason) })
        }
        (None, None) => Ok(Found { content: Catalog::default(), source: Source::New }),
        (saved, reason) => {
            let reason = reason.unwrap_or_else(|| "it is missing".to_owned());
            let backup = saved.and_then(|saved| saved.err()).unwrap_or_else(|| "there is none".to_owned());
            Err(Error::BrokenMetadata(format!(
                "Failed to load compaction catalog file and no backup available. ({}: {reason}; its backup: {backup})",
                main.display()
            )))
        }
    }
}

/// Puts the catalog under its name when it is new or came from the backup.
fn settle_catalog(vfs: &dyn Vfs, location: &Path, found: &Found<Catalog>) -> Result<()> {
    let (main, backup) = (location.join(names::CATALOG), location.join(names::CATALOG_BACKUP));
    let settled = match &found.source {
        Source::Main { .. } => Ok(()),
        Source::Backup(reason) => {
            log::warn!("{} is unusable ({reason}) and is restored from its backup", main.display());
            crashsafe::rename(vfs, &backup, &main)
        }
        Source::New => {
            crashsafe::replace(vfs, &location.join(names::CATALOG_TEMPORARY), &main, &found.content.encode())
        }
    };
    settled.map_err(|e| Error::io("cannot write the catalog", &main, e))
}

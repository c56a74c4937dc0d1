// SPDX-License-Identifier: Apache-2.0
//! A data directory that no data store runs on, for the tools: locked first, then read; nothing is migrated, created
//! or put right by opening it (H13).

use super::data_directory::{apply, file_names};
use super::place::{cannot_lock, in_use, lock_alone, open_once};
use super::settled_view::SettledView;
use super::small_file::{Found, Source};
use super::{catalog_file, commit_journal, manifest_file};
use crate::backup::swap;
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::{FileLock, Lock, LockError, Open, ReadOnly, Vfs};
use crate::wal::catalog::Catalog;
use crate::wal::history_file::{DirectoryHistory, Place};
use crate::wal::manifest::{self, Manifest};
use crate::wal::names;
use crate::wal::rotation;
use crate::wal::scanner::Edit;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a tool is going to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Several may at a time, also on a medium that cannot be written to. A directory with a commit journal that is not
    /// settled is seen as it is when it is.
    Read,
    /// One at a time.
    Change,
    /// To settle the commit journal first, and then as [`Access::Change`], which refuses a directory with one.
    Settle,
}

/// An existing directory under lock.
#[derive(Debug)]
pub struct OfflineDirectory {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    version: i32,
    /// The instance UUID; empty in a manifest of format 1.0.
    instance: String,
    catalog: Result<Catalog>,
    warnings: Vec<String>,
    settled: Option<usize>,
    _lock: Option<Box<dyn FileLock>>,
}

impl OfflineDirectory {
    /// Takes the lock and checks the manifest. To change something, a missing manifest is first put back from its
    /// backup; to read, nothing has to be writable.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::UnsupportedVersion`], [`Error::BrokenMetadata`] or [`Error::Io`];
    /// [`Error::WrongState`] when a start has to complete something first.
    pub fn open(vfs: Arc<dyn Vfs>, location: &Path, access: Access) -> Result<OfflineDirectory> {
        let (mut vfs, location) = open_once(&vfs, location)?;
        let location = location.as_path();
        let files = file_names(&*vfs, location)?;
        let mut warnings = Vec::new();
        let has_manifest = files.iter().any(|name| name == names::MANIFEST);
        let locked = file_to_lock(&*vfs, location, has_manifest, access)?;
        let lock = lock(&*vfs, location, locked, access, &mut warnings)?;
        if swap::is_decided(&*vfs, location)? {
            return Err(Error::WrongState(format!(
                "a restore into {} was interrupted: start the server once to complete it, or restore again",
                location.display()
            )));
        }
        let mut manifest = manifest_file::read(&*vfs, location)?;
        let settled = match (&manifest.content.journal, access) {
            (None, _) => None,
            (Some(_), Access::Settle) => Some(settle(&vfs, location, &mut manifest)?),
            (Some(_), Access::Read) => {
                vfs = look_at(vfs, location, &manifest.content, &mut warnings)?;
                None
            }
            (Some(_), Access::Change) => {
                return Err(Error::WrongState(format!(
                    "the commit journal in {} is not settled: run tglogutil settle, or start the server once",
                    location.display()
                )))
            }
        };
        let mut note = |name: &str, source: &Source| {
            if let Source::Backup(reason) = source {
                warnings.push(format!("{name} is unusable ({reason}); a start restores it from its backup"));
            }
        };
        note(names::MANIFEST, &manifest.source);
        let catalog = match catalog_file::read(&*vfs, location) {
            Ok(found) => {
                note(names::CATALOG, &found.source);
                Ok(found.content)
            }
            Err(broken @ Error::BrokenMetadata(_)) => Err(broken),
            Err(e) => return Err(e),
        };
        if let Ok(catalog) = &catalog {
            rotation::avoid_detached(catalog);
        }
        let compacted = files.iter().any(|name| name == names::COMPACTED);
        let listed = |catalog: &Catalog| catalog.compacted.iter().any(|(name, _)| name == names::COMPACTED);
        if compacted && catalog.as_ref().is_ok_and(|catalog| !listed(catalog)) {
            warnings.push(format!("{} does not list {}; a start completes it", names::CATALOG, names::COMPACTED));
        }
        let version = manifest.content.persistent_format_version;
        let instance = manifest.content.instance_uuid.unwrap_or_default();
        let location = location.to_owned();
        Ok(OfflineDirectory { location, version, instance, catalog, warnings, settled, _lock: lock, vfs })
    }

    /// The groups of the commit journal that were settled; `None` when no journal was in use.
    pub fn settled(&self) -> Option<usize> {
        self.settled
    }

    /// What a start would put right in manifest and catalog.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    pub fn location(&self) -> &Path {
        &self.location
    }

    /// Whether sessions were written with end markers.
    pub fn has_end_markers(&self) -> bool {
        self.version >= manifest::FIRST_WITH_END_MARKERS
    }

    /// The catalog or its backup, as a start would use it.
    pub fn catalog(&self) -> std::result::Result<&Catalog, &Error> {
        self.catalog.as_ref()
    }

    /// Which runs wrote what is here; `None` when nothing says so.
    ///
    /// # Errors
    /// [`Error::BrokenMetadata`] when the file is there and cannot be used; [`Error::Io`].
    pub fn history(&self) -> Result<Option<DirectoryHistory>> {
        DirectoryHistory::load(self.place())
    }

    /// Tells the history, durably, that what is here of the epochs from `first` on is about to be given up or guessed;
    /// see [`DirectoryHistory::disown`]. Whoever takes durable content away, or moves the durable epoch, calls it
    /// first.
    pub fn disown(&self, first: Epoch) -> Result<()> {
        log::info!(
            "{}: all from epoch {first} on is not taken for that of any other directory",
            self.location.display()
        );
        DirectoryHistory::disown(self.place(), first)
    }

    fn place(&self) -> Place<'_> {
        Place { vfs: &*self.vfs, location: &self.location, instance: &self.instance }
    }

    /// Gives every log file under an active name that has content and is `wanted` a rotated name, durably.
    pub fn rotate(&self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        rotation::rotate_idle(&*self.vfs, &self.location, wanted).map(drop)
    }

    /// Makes the changes to one log file and syncs it.
    pub fn apply(&self, path: &Path, edits: &[Edit]) -> Result<()> {
        apply(&*self.vfs, path, edits)
    }
}

/// The name of the file whose lock is that of the directory.
fn file_to_lock(vfs: &dyn Vfs, location: &Path, has_manifest: bool, access: Access) -> Result<&'static str> {
    match (has_manifest, access) {
        (true, _) => Ok(names::MANIFEST),
        (false, Access::Change | Access::Settle) => {
            manifest_file::restore_missing(vfs, location)?;
            Ok(names::MANIFEST)
        }
        // What a start would rename, and lock then.
        (false, Access::Read) if manifest_file::has_usable_backup(vfs, location) => Ok(names::MANIFEST_BACKUP),
        (false, Access::Read) => Err(manifest_file::no_manifest(location)),
    }
}

/// Settles the commit journal as a start does; returns the number of its groups.
fn settle(vfs: &Arc<dyn Vfs>, location: &Path, manifest: &mut Found<Manifest>) -> Result<usize> {
    let Some(unsettled) = commit_journal::read(&**vfs, location, &manifest.content)? else {
        return Ok(0);
    };
    let path = location.join(names::MANIFEST);
    let held = vfs.open(&path, Open::Existing).map_err(|e| Error::io("cannot open the manifest", &path, e))?;
    let current = manifest_file::settle(&**vfs, location, &*held, manifest)?;
    manifest.content = commit_journal::settle(vfs, location, &*held, &current, &unsettled)?;
    Ok(unsettled.groups())
}

/// The disk as it is when the commit journal is settled, for reading.
fn look_at(
    vfs: Arc<dyn Vfs>,
    location: &Path,
    manifest: &Manifest,
    warnings: &mut Vec<String>,
) -> Result<Arc<dyn Vfs>> {
    let Some(unsettled) = commit_journal::read(&*vfs, location, manifest)? else { return Ok(vfs) };
    let (groups, epoch) = (unsettled.groups(), unsettled.epoch());
    warnings.push(format!("the commit journal is not settled ({groups} groups, up to epoch {epoch}); a start does it"));
    Ok(Arc::new(ReadOnly(SettledView::new(vfs, location, manifest, &unsettled)?)))
}

/// Locks the file `name`. Who only reads goes on with a warning where files cannot be locked.
fn lock(
    vfs: &dyn Vfs,
    location: &Path,
    name: &str,
    access: Access,
    warnings: &mut Vec<String>,
) -> Result<Option<Box<dyn FileLock>>> {
    if access != Access::Read {
        return lock_alone(vfs, location, name).map(|own| Some(own.lock));
    }
    match vfs.lock(&location.join(name), Lock::Shared) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Held | LockError::HeldByReaders) => Err(in_use(location, name)),
        Err(LockError::Io(e)) if has_no_locks(&e) => {
            warnings.push(format!("{name} cannot be locked ({e}): nothing shows whether somebody writes meanwhile"));
            Ok(None)
        }
        Err(LockError::Io(e)) => Err(cannot_lock(location, e)),
    }
}

/// Whether the error says that there are no locks here.
fn has_no_locks(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::EROFS))
}

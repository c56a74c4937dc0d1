// SPDX-License-Identifier: Apache-2.0
//! A data directory that no data store runs on, for the tools: locked first, then read; nothing is migrated, created
//! or put right by opening it (H13).

use super::data_directory::{apply, file_names};
use super::place::open_once;
use super::small_file::Source;
use super::{catalog_file, manifest_file};
use crate::backup::swap;
use crate::error::{Error, Result};
use crate::vfs::{FileLock, Lock, LockError, Vfs};
use crate::wal::catalog::Catalog;
use crate::wal::rotation;
use crate::wal::scanner::Edit;
use crate::wal::{manifest, names};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An existing directory under lock.
#[derive(Debug)]
pub struct OfflineDirectory {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    version: i32,
    catalog: Result<Catalog>,
    warnings: Vec<String>,
    _lock: Box<dyn FileLock>,
}

impl OfflineDirectory {
    /// Takes the lock and checks the manifest.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::UnsupportedVersion`], [`Error::BrokenMetadata`] or [`Error::Io`];
    /// [`Error::WrongState`] when a start has to complete something first.
    pub fn open(vfs: Arc<dyn Vfs>, location: &Path) -> Result<OfflineDirectory> {
        let (vfs, location) = open_once(&vfs, location)?;
        let location = location.as_path();
        let files = file_names(&*vfs, location)?;
        if !files.iter().any(|name| name == names::MANIFEST) {
            return Err(manifest_file::version_mismatch(location, "version 0, server supports version 1"));
        }
        let failed = |e| Error::io("failed to acquire lock for manifest in directory", location, e);
        let lock = match vfs.lock(&location.join(names::MANIFEST), Lock::Exclusive) {
            Ok(lock) => lock,
            Err(LockError::Held) => return Err(Error::Locked(location.to_owned())),
            Err(LockError::Io(e)) => return Err(failed(e)),
        };
        if swap::is_decided(&*vfs, location)? {
            return Err(Error::WrongState(format!(
                "a restore into {} was interrupted: start the server once to complete it, or restore again",
                location.display()
            )));
        }
        let mut warnings = Vec::new();
        let mut note = |name: &str, source: &Source| {
            if let Source::Backup(reason) = source {
                warnings.push(format!("{name} is unusable ({reason}); a start restores it from its backup"));
            }
        };
        let manifest = manifest_file::read(&*vfs, location, &files)?;
        if matches!(manifest.source, Source::New) {
            return Err(Error::WrongState(format!(
                "the first start in {} was interrupted: start the server once to complete it",
                location.display()
            )));
        }
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
        Ok(OfflineDirectory { location: location.to_owned(), version, catalog, warnings, _lock: lock, vfs })
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

    /// Gives every log file under an active name that has content and is `wanted` a rotated name, durably.
    pub fn rotate(&self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        rotation::rotate_idle(&*self.vfs, &self.location, wanted)
    }

    /// Makes the changes to one log file and syncs it.
    pub fn apply(&self, path: &Path, edits: &[Edit]) -> Result<()> {
        apply(&*self.vfs, path, edits)
    }
}

// SPDX-License-Identifier: Apache-2.0
//! A data directory that no data store runs on, for the tools: locked first, then read; nothing is migrated, created
//! or put right by opening it (H13).

use super::directory::{apply, file_names, read_catalog, read_manifest, version_mismatch};
use super::rotation;
use crate::error::{Error, Result};
use crate::vfs::{FileLock, LockError, Vfs};
use crate::wal::catalog::Catalog;
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
    _lock: Box<dyn FileLock>,
}

impl OfflineDirectory {
    /// Takes the lock and checks the manifest.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::UnsupportedVersion`], [`Error::BrokenMetadata`] or [`Error::Io`].
    pub fn open(vfs: Arc<dyn Vfs>, location: &Path) -> Result<OfflineDirectory> {
        let files = file_names(&*vfs, location)?;
        if !files.iter().any(|name| name == names::MANIFEST) {
            return Err(version_mismatch(location, "version 0, server supports version 1"));
        }
        let failed = |e| Error::io("failed to acquire lock for manifest in directory", location, e);
        let lock = match vfs.lock(&location.join(names::MANIFEST)) {
            Ok(lock) => lock,
            Err(LockError::Held) => return Err(Error::Locked(location.to_owned())),
            Err(LockError::Io(e)) => return Err(failed(e)),
        };
        let version = read_manifest(&*vfs, location, &files)?.content.persistent_format_version;
        let catalog = read_catalog(&*vfs, location).map(|found| found.content);
        Ok(OfflineDirectory { location: location.to_owned(), version, catalog, _lock: lock, vfs })
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

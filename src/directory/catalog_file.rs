// SPDX-License-Identifier: Apache-2.0
//! The compaction catalog on the disk (disk format §7.3), as a start reads it and puts it right.

use super::small_file::{read_file, Found, Source};
use crate::error::{Error, Result};
use crate::vfs::{crashsafe, Vfs};
use crate::wal::catalog::{self, Catalog};
use crate::wal::names;
use std::path::Path;

/// Reads the catalog, or its backup when it is missing or torn; the values of a torn one are not kept (W7).
pub(crate) fn read(vfs: &dyn Vfs, location: &Path) -> Result<Found<Catalog>> {
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
pub(super) fn settle(vfs: &dyn Vfs, location: &Path, found: &Found<Catalog>) -> Result<()> {
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

/// Enters the compacted file into a catalog that lost it: the original needs the line to keep removals of its keys
/// effective.
pub(super) fn complete(vfs: &dyn Vfs, location: &Path, catalog: &Catalog) -> Result<()> {
    let mut catalog = catalog.clone();
    if !catalog.compacted.insert((names::COMPACTED.to_owned(), 1)) {
        return Ok(());
    }
    let (path, temporary) = (location.join(names::CATALOG), location.join(names::CATALOG_TEMPORARY));
    log::warn!("{} does not list {} and is completed", path.display(), names::COMPACTED);
    let replaced = crashsafe::replace(vfs, &temporary, &path, &catalog.encode());
    replaced.map_err(|e| Error::io("cannot write the catalog", &path, e))
}

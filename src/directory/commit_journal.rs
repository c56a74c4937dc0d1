// SPDX-License-Identifier: Apache-2.0
//! The commit journal that a process left which did not end in order: it is settled before anybody reads the log, and
//! then the directory is like any other.

use super::manifest_file;
use crate::error::Result;
use crate::vfs::{Vfs, VfsFile};
use crate::wal::journal::redo::{self, Unsettled};
use crate::wal::manifest::Manifest;
use std::path::Path;
use std::sync::Arc;

/// Reads and checks the journal that the manifest says is in use. Changes nothing.
pub(super) fn read(vfs: &dyn Vfs, location: &Path, manifest: &Manifest) -> Result<Option<Unsettled>> {
    manifest.journal.as_ref().map(|journal| redo::read(vfs, location, journal)).transpose()
}

/// Writes it to the log files and puts it away; returns what the manifest then says. `held` is the manifest's file.
pub(super) fn settle(
    vfs: &Arc<dyn Vfs>,
    location: &Path,
    held: &dyn VfsFile,
    manifest: &Manifest,
    unsettled: &Unsettled,
) -> Result<Manifest> {
    let (groups, epoch) = (unsettled.groups(), unsettled.epoch());
    log::info!("{}: settling the commit journal: {groups} groups, up to epoch {epoch}", location.display());
    unsettled.settle(vfs)?;
    let settled = manifest.with_journal(None);
    // Only now: until here the next start settles again.
    manifest_file::replace(&**vfs, location, held, &settled)?;
    redo::delete(&**vfs, location)?;
    Ok(settled)
}

// SPDX-License-Identifier: Apache-2.0
//! The catalog on the disk.

use crate::error::{Error, Result};
use crate::vfs::{crashsafe, Vfs};
use crate::wal::catalog::Catalog;
use crate::wal::names;
use std::path::Path;

/// Puts the catalog in place of the present one, and then in place of its backup: an older backup names files as parts
/// of the log that may be gone by the time it is needed.
pub fn replace(vfs: &dyn Vfs, location: &Path, catalog: &Catalog) -> Result<()> {
    let temporary = location.join(names::CATALOG_TEMPORARY);
    for name in [names::CATALOG, names::CATALOG_BACKUP] {
        let path = location.join(name);
        let replaced = crashsafe::replace(vfs, &temporary, &path, &catalog.encode());
        replaced.map_err(|e| Error::io("cannot write the catalog", &path, e))?;
    }
    Ok(())
}

/// Whether the catalog names the compacted file.
pub fn lists_compacted(catalog: &Catalog) -> bool {
    catalog.compacted.iter().any(|(name, _)| name == names::COMPACTED)
}

/// Enters the compacted file.
pub fn list_compacted(catalog: &mut Catalog) {
    catalog.compacted.insert((names::COMPACTED.to_owned(), 1));
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;
    use crate::vfs::{Loss, SimFs};
    use crate::wal::catalog;

    #[test]
    fn the_backup_says_the_same_as_the_catalog_and_both_are_on_the_disk() {
        let (fs, location) = (SimFs::new(), Path::new("/log"));
        fs.put(&location.join(names::CATALOG), &Catalog::default().encode()).unwrap();
        fs.put(&location.join(names::CATALOG_BACKUP), &Catalog::default().encode()).unwrap();
        let mut changed = Catalog { max_epoch: Epoch(7), ..Catalog::default() };
        changed.detached.insert("pwal_0000.01795356604107.0".to_owned());
        replace(&fs, location, &changed).unwrap();
        let after = fs.reboot(Loss::DropUnsynced);
        for name in [names::CATALOG, names::CATALOG_BACKUP] {
            let bytes = after.read(&location.join(name), catalog::MAX_BYTES).unwrap();
            assert_eq!(catalog::parse(&bytes).as_ref(), Ok(&changed), "{name}");
        }
    }
}

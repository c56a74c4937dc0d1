// SPDX-License-Identifier: Apache-2.0
//! Whether the BLOBs are there that the live entries refer to.

use crate::directory::OfflineDirectory;
use crate::error::{Error, Result};
use crate::recovery::Snapshot;
use crate::types::BlobId;
use crate::vfs::FileKind;
use crate::wal::names;
use std::collections::HashSet;
use std::path::PathBuf;

/// BLOBs are spread over this many directories.
const DIRECTORIES: u64 = 100;

/// References of the live entries.
#[derive(Debug, Default)]
pub struct References {
    pub count: u64,
    /// Ids without a file, ascending.
    pub missing: Vec<BlobId>,
}

/// Looks for the file of every reference.
pub fn check(directory: &OfflineDirectory, snapshot: &Snapshot) -> Result<References> {
    let mut references = References::default();
    let mut missing = HashSet::new();
    let mut cursor = snapshot.cursor();
    while let Some(row) = cursor.next()? {
        for id in row.blobs.iter() {
            references.count += 1;
            let path = path(directory, id);
            let kind = directory.vfs().kind(&path).map_err(|e| Error::io("cannot look for", &path, e))?;
            if kind != Some(FileKind::File) {
                missing.insert(id);
            }
        }
    }
    references.missing = missing.into_iter().collect();
    references.missing.sort_unstable();
    Ok(references)
}

/// The file of a BLOB.
pub fn path(directory: &OfflineDirectory, id: BlobId) -> PathBuf {
    let subdirectory = format!("dir_{:02}", id.0 % DIRECTORIES);
    directory.location().join(names::BLOB_DIR).join(subdirectory).join(format!("{:016x}.blob", id.0))
}

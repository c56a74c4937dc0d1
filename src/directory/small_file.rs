// SPDX-License-Identifier: Apache-2.0
//! A small file that is read whole and may have a backup beside it.

use crate::error::{Error, Result};
use crate::vfs::Vfs;
use std::path::Path;

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
pub(super) fn read_file<T>(
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

// SPDX-License-Identifier: Apache-2.0
//! How full a file system is.

use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file system that a directory is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub size_bytes: u64,
    /// For whoever is not root.
    pub free_bytes: u64,
}

impl Disk {
    /// That of `path`; `None` when it does not tell, as one that is only simulated.
    pub fn of(path: &Path) -> Option<Disk> {
        rustix::fs::statvfs(path).ok().map(|found| Disk {
            size_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }
}

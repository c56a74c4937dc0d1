// SPDX-License-Identifier: Apache-2.0
//! For those who want to know more of the log files than a start does: they look on while it reads them, instead of
//! reading them once more.

use crate::vfs::Mapping;
use crate::wal::entry::Entry;
use crate::wal::scanner::FileScan;
use std::path::Path;

/// Looks on while the log files of a directory are read. Several threads call it, each with a file of its own.
pub trait Onlooker: Sync {
    /// Called before a file is read.
    fn follow<'a>(&'a self, path: &Path, bytes: &Mapping) -> Box<dyn Follower + 'a>;
}

/// Looks on while one log file is read.
pub trait Follower: Send {
    /// Gets every entry of the durable sessions in file order, with its offset. Of a compacted file it gets everything,
    /// also the markers.
    fn entry(&mut self, offset: usize, entry: &Entry<'_>);

    /// The file was read to its end, and a start does not refuse it. Not called for any other.
    fn done(self: Box<Self>, scan: &FileScan);
}

// SPDX-License-Identifier: Apache-2.0
//! Where the local sockets of whoever serves a directory are: in its control directory, which nobody else looks at.

use crate::vfs::descriptor::above_standard_streams;
use crate::wal::names;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The name of a socket may have about a hundred bytes only; this one is short for any directory, and stays right when
/// the directory is moved. The file keeps the name valid.
#[derive(Debug)]
pub(super) struct SocketPlace {
    folder: File,
    name: &'static str,
}

impl SocketPlace {
    pub(super) fn open(location: &Path, name: &'static str) -> io::Result<SocketPlace> {
        let folder = above_standard_streams(OwnedFd::from(File::open(location.join(names::CONTROL_DIR))?))?;
        Ok(SocketPlace { folder: File::from(folder), name })
    }

    pub(super) fn name(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd())).join(self.name)
    }

    /// Deletes the name, if it is there.
    pub(super) fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(self.name()) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

/// Whether a call ended because its time was over.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

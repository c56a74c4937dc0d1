// SPDX-License-Identifier: Apache-2.0
//! A data store after its shutdown: it can be started again, and its directory opened for a backup or a restore.
//! Nothing of the former run is relied on, because somebody else may have had the directory meanwhile.

use super::store::{Datastore, Lifecycle, State};
use crate::directory::data_directory::Directory;
use crate::error::{Error, Result};
use std::io;
use std::path::{Path, PathBuf};

impl Datastore {
    /// Opens the directory again, for as long as the result lives. To be called after a shutdown.
    pub(super) fn directory_again(&self) -> Result<Directory> {
        self.check_there()?;
        Directory::open(self.settings.vfs.clone(), &self.settings.location)
    }

    /// Takes a data store that was shut down back to where [`Datastore::open`] left it. Pools and callbacks stay, and so
    /// do channels, which open with the start.
    ///
    /// # Errors
    /// As for [`Datastore::open`]; [`Error::Poisoned`] when a write or sync has failed: only another process may start.
    pub(super) fn open_again(&self, lifecycle: &mut Lifecycle) -> Result<()> {
        self.coordinator.check_failure()?;
        lifecycle.directory = Some(self.directory_again()?);
        self.coordinator.open_again();
        self.compactor.open_again();
        self.blobs.open_again();
        self.tags.reload();
        lifecycle.state = State::NotReady;
        Ok(())
    }

    /// Says so in plain words when the directory was deleted.
    pub(super) fn check_there(&self) -> Result<()> {
        let location = &self.settings.location;
        let failed = |e| Error::io("cannot open the log directory", location, e);
        match self.given.vfs.kind(location).map_err(failed)? {
            Some(_) => Ok(()),
            None => Err(failed(io::Error::from_raw_os_error(libc::ENOENT))),
        }
    }

    /// A path below the directory as a caller knows it: below the location that was given, which may be relative.
    pub fn as_given(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.settings.location) {
            Ok(below) => self.given.location.join(below),
            Err(_) => path.to_owned(),
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! A data store after its shutdown: it can be started again, and its directory opened for a backup or a restore.
//! Nothing of the former run is relied on, because somebody else may have had the directory meanwhile.

use super::store::{Datastore, Lifecycle, State};
use super::turns::{Turn, Work};
use crate::directory::data_directory::Directory;
use crate::error::{Error, Result};
use std::io;
use std::path::{Path, PathBuf};

impl Datastore {
    /// The turn to start. After a shutdown that was called within a callback it waits for the end of that callback,
    /// which still belongs to the former run.
    ///
    /// # Errors
    /// [`Error::WrongState`] within a callback.
    pub(crate) fn turn_to_start(&self) -> Result<Turn<'_>> {
        let callbacks = &self.coordinator.callbacks;
        loop {
            let turn = match callbacks.is_calling() {
                true => None,
                false => self.turns.take(Work::Start, None),
            };
            let Some(turn) = turn else {
                return Err(Error::WrongState("a start is not possible within a callback".to_owned()));
            };
            if self.lifecycle.lock().state != State::Shutdown || !callbacks.is_running() {
                return Ok(turn);
            }
            drop(turn);
            callbacks.wait();
        }
    }

    /// The turn to shut down; `None` when that was done, or when it is being done by somebody who waits for the
    /// callback that this is called from.
    pub(crate) fn turn_to_shut_down(&self) -> Option<Turn<'_>> {
        let callbacks = &self.coordinator.callbacks;
        let leaves_to = callbacks.is_calling().then_some(Work::Shutdown);
        let turn = self.turns.take(Work::Shutdown, leaves_to)?;
        if self.lifecycle.lock().state != State::Shutdown {
            return Some(turn);
        }
        drop(turn);
        // The one within which it was done may still run.
        callbacks.wait();
        None
    }

    /// Opens the directory again, for as long as the result lives. To be called after a shutdown.
    pub(super) fn directory_again(&self) -> Result<Directory> {
        self.check_there()?;
        Directory::open(self.settings.vfs.clone(), &self.settings.location)
    }

    /// Takes a data store that was shut down back to where [`Datastore::open`] left it. Pools and callbacks stay, and
    /// so do channels, which open with the start.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::Settings;
    use crate::vfs::SimFs;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_shutdown_waits_for_the_start_that_is_at_work() {
        let store = Datastore::open(Settings::new("/log").vfs(Arc::new(SimFs::new()))).unwrap();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let turn = store.turn_to_start().unwrap();
            let shutting_down = scope.spawn(|| {
                store.shutdown();
                ended.store(true, SeqCst);
            });
            let started = store.ready_in(&turn, |_| {
                std::thread::sleep(Duration::from_millis(30));
                assert!(!store.coordinator.is_shut_down() && !ended.load(SeqCst));
                Ok(())
            });
            started.unwrap();
            store.switch_epoch(crate::types::Epoch(2)).unwrap();
            drop(turn);
            shutting_down.join().unwrap();
        });
        assert_eq!(store.lifecycle.lock().state, State::Shutdown);
    }

    #[test]
    fn a_rotation_that_a_shutdown_overtakes_fails() {
        let store = Datastore::open(Settings::new("/log").vfs(Arc::new(SimFs::new()))).unwrap();
        let channel = store.create_channel().unwrap();
        store.ready().unwrap();
        // As far as a shutdown comes while somebody else holds the life cycle.
        store.coordinator.shut_down();
        channel.close();
        assert!(matches!(store.rotate(), Err(Error::WrongState(_))), "the file of the channel has its name still");
    }
}

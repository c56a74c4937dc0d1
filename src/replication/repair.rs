// SPDX-License-Identifier: Apache-2.0
//! Gives a replica's content up for that of its primary: for a directory that was found to differ. The log of a primary
//! is never given up.

use crate::directory::{cut, Access, Cut, Keep, LogDirectory, OfflineDirectory};
use crate::error::{Error, Result};
use crate::vfs::Vfs;
use crate::wal::epoch_marks::LogMarks;
use crate::wal::history_file::Role;
use std::path::Path;
use std::sync::Arc;

/// Saves what the directory has below `cut_off/`, of which so much is kept, and lets the next primary that comes
/// replace it by a base sync. Everything stays in place until that is whole; it counts for nothing from now on. Nobody
/// has the directory open.
///
/// # Errors [`Error::WrongState`] for a directory that is no replica's, or that waits for a base sync already;
/// [`Error::Corrupted`] for one that a start refuses; [`Error::Locked`]; [`Error::Io`] when it cannot be saved. Nothing
/// has changed then, but what a start puts right.
pub fn repair(vfs: &Arc<dyn Vfs>, location: &Path, keep: Keep) -> Result<Cut> {
    let directory = OfflineDirectory::open(vfs.clone(), location, Access::Read)?;
    let history = directory.history()?.filter(|history| history.role == Role::Replica);
    drop(directory);
    let refused = match history {
        None => "is not a replica's: nobody has its content to repair it from",
        Some(history) if history.is_given_up() => "waits for a base sync already",
        Some(_) => {
            let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
            let (directory, restored) = LogDirectory::open(vfs.clone(), location, threads)?;
            return cut(&directory, restored.epoch_file.recorded(), &LogMarks::default(), None, keep);
        }
    };
    Err(Error::WrongState(format!("{} {refused}", location.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::{Datastore, Settings};
    use crate::recovery::fixture::{put, session};
    use crate::replication::replica_store::StandbyStore;
    use crate::types::Epoch;
    use crate::vfs::{Loss, SimFs};
    use crate::wal::history::{History, Run, RunId};
    use crate::wal::history_file::DirectoryHistory;

    const DIR: &str = "/log";

    fn history(fs: &SimFs) -> DirectoryHistory {
        let directory = OfflineDirectory::open(Arc::new(fs.clone()), Path::new(DIR), Access::Read).unwrap();
        directory.history().unwrap().unwrap()
    }

    #[test]
    fn a_replica_s_content_is_saved_and_counts_for_nothing_also_after_a_power_cut() {
        let fs = SimFs::new();
        let store = StandbyStore::open(Arc::new(fs.clone()), Path::new(DIR)).unwrap();
        store.lane(0).append(Epoch(5), true, true, &session(5, &[put(b"k", 5, "v")])).unwrap();
        store.record(Epoch(5)).unwrap();
        let (identity, place) = (store.identity(), Path::new(DIR));
        store.close();
        let runs = vec![Run { id: RunId(1), term: 3, first_epoch: 0 }];
        let follows = DirectoryHistory::following(&identity, 3, History::new(runs, false).unwrap());
        follows.save(&fs, place).unwrap();
        assert!(!history(&fs).is_given_up());
        let cut = repair(&(Arc::new(fs.clone()) as _), place, Keep::default()).unwrap();
        assert!(cut.extent.is_all());
        let saved = cut.saved.unwrap();
        let rebooted = fs.reboot(Loss::DropUnsynced);
        assert!(history(&rebooted).is_given_up());
        let copy = OfflineDirectory::open(Arc::new(rebooted.clone()), &saved, Access::Read).unwrap();
        assert_eq!(copy.read_log(1, Some(1 << 20)).unwrap().snapshot.len(), 1);
        // No engine starts on it, and a second repair changes nothing.
        assert!(Datastore::open(Settings::new(DIR).vfs(Arc::new(rebooted.clone()))).and_then(|s| s.ready()).is_err());
        let before = rebooted.files();
        let again = repair(&(Arc::new(rebooted.clone()) as _), place, Keep::default());
        assert!(matches!(again, Err(Error::WrongState(text)) if text.contains("already")));
        assert_eq!(rebooted.files(), before);
    }

    #[test]
    fn a_primary_s_content_is_not_given_up() {
        let fs = SimFs::new();
        let store = Datastore::open(Settings::new(DIR).vfs(Arc::new(fs.clone()))).unwrap();
        store.ready().unwrap();
        let held = repair(&(Arc::new(fs.clone()) as _), Path::new(DIR), Keep::default());
        assert!(matches!(held, Err(Error::Locked { .. })));
        store.shutdown();
        let before = fs.files();
        let refused = repair(&(Arc::new(fs.clone()) as _), Path::new(DIR), Keep::default());
        assert!(matches!(refused, Err(Error::WrongState(text)) if text.contains("not a replica's")));
        assert_eq!(fs.files(), before);
    }
}

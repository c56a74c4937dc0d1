// SPDX-License-Identifier: Apache-2.0
//! A backup of a replica's directory while it follows its primary. Files that are appended to are copied up to the end
//! of what is durable, which nobody changes any more; a rotated epoch file says up to which epoch it all counts.

use super::store::StandbyStore;
use crate::backup::set;
use crate::backup::BackupFile;
use crate::error::{Error, Result};
use crate::replication::backup_socket::{Held, HeldFile};
use crate::vfs::FileKind;
use crate::wal::{epoch_file, names};
use std::path::Path;
use std::sync::{Arc, Weak};

/// Begins one. The directory may be replaced, closed, or have a file put aside while it is open, for which nobody
/// waits: it says so itself then.
///
/// # Errors
/// [`Error::Io`], and the failure that has ended the replica.
pub fn begin_backup(store: &Arc<StandbyStore>) -> Result<Held> {
    let pause = store.pause_journal()?;
    let renamed = store.renamed_files();
    let (vfs, location, epoch) = (&**store.vfs(), store.location(), store.durable());
    epoch_file::write_rotated(vfs, location, epoch, epoch)?;
    epoch_file::sync_names(vfs, location)?;
    let mut files: Vec<HeldFile> =
        set::settled_files(vfs, location, epoch, |_| false)?.iter().map(|file| whole(file, location)).collect();
    for (name, kind) in vfs.names(location).map_err(|e| Error::io("cannot list", location, e))? {
        let is_active = name.to_str().is_some_and(|name| names::is_log(name) && names::is_active_log(name));
        if kind == FileKind::File && is_active {
            let bytes = durable_bytes(store, &name.to_string_lossy())?;
            files.push(HeldFile { source: (&name).into(), destination: name.into(), bytes });
        }
    }
    let store = Arc::downgrade(store);
    let spoiled = move || {
        let _no_journal = &pause;
        spoiled(&store, renamed)
    };
    Ok(Held { epoch, files, spoiled: Box::new(spoiled) })
}

/// How much of a file under an active name is copied: of one that no lane has, all.
fn durable_bytes(store: &StandbyStore, name: &str) -> Result<Option<u64>> {
    match names::channel_of_log(name).filter(|lane| names::log_of_channel(*lane as usize) == name) {
        Some(lane) => store.lane(lane).durable_bytes().map(Some),
        None => Ok(None),
    }
}

fn whole(file: &BackupFile, location: &Path) -> HeldFile {
    let source = file.source.strip_prefix(location).unwrap_or(&file.source).to_owned();
    HeldFile { source, destination: file.destination.clone(), bytes: None }
}

fn spoiled(store: &Weak<StandbyStore>, renamed: u64) -> Option<String> {
    let again = "make it again";
    match store.upgrade() {
        Some(store) => match store.failure() {
            Some(failure) => Some(failure),
            None if store.is_closed() => Some(format!("the replica's directory was replaced: {again}")),
            None if store.renamed_files() != renamed => {
                Some(format!("the primary came again with other sessions, and a log file was put aside: {again}"))
            }
            None => None,
        },
        None => Some(format!("the replica's directory was closed: {again}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::Commit;
    use crate::recovery::fixture::session;
    use crate::types::Epoch;
    use crate::vfs::SimFs;
    use crate::wal::journal;

    fn contains(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    /// What is to be copied of the only log file that is appended to.
    fn copied(fs: &SimFs, held: &Held) -> Vec<u8> {
        let file = held.files.iter().find(|file| file.bytes.is_some()).unwrap();
        fs.files()[&Path::new("/log").join(&file.source)][..file.bytes.unwrap() as usize].to_vec()
    }

    #[test]
    fn only_what_is_durable_is_copied_and_what_a_primary_that_comes_again_changes_spoils_it() {
        let small = journal::Settings::default().bytes_max(0).idle(None).settles_ahead(false);
        for commit in [Commit::Direct, Commit::Journal(small)] {
            let fs = SimFs::new();
            let store = StandbyStore::open_with(Arc::new(fs.clone()), Path::new("/log"), commit).unwrap();
            let (store, log) = (Arc::new(store), 0);
            let append = |epoch: u64| store.lane(log).append(Epoch(epoch), true, true, &session(epoch, &[])).unwrap();
            append(5);
            store.record(Epoch(5)).unwrap();
            append(6);
            store.sync().unwrap();
            let unended = session(7, &[]);
            store.lane(log).append(Epoch(7), true, false, &unended[..9]).unwrap();
            let held = begin_backup(&store).unwrap();
            let before = copied(&fs, &held);
            assert_eq!(held.epoch, Epoch(5));
            let has = |epoch| contains(&before, &session(epoch, &[]));
            assert!(has(5) && !has(6), "{commit:?}: {before:?}");
            // What is cut off and comes anew is behind that.
            store.discard_beyond_durable().unwrap();
            append(8);
            append(7);
            store.record(Epoch(7)).unwrap();
            assert_eq!((copied(&fs, &held), (held.spoiled)()), (before, None), "{commit:?}");
            drop(held);
            let held = begin_backup(&store).unwrap();
            assert!(contains(&copied(&fs, &held), &session(7, &[])), "{commit:?}");
            // With a durable one behind it cannot be cut off: the file is put aside.
            store.discard_beyond_durable().unwrap();
            assert!((held.spoiled)().unwrap().contains("was put aside"), "{commit:?}");
            drop(held);
            let held = begin_backup(&store).unwrap();
            store.close();
            assert!((held.spoiled)().unwrap().contains("was replaced"), "{commit:?}");
        }
    }
}

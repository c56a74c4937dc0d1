// SPDX-License-Identifier: Apache-2.0
//! The takeover of a stopped replica's directory: refuses what is no replica's, empty, incomplete or known to be
//! behind, then begins a term, durably. The engine that starts on the directory goes on in it.

use crate::directory::LogDirectory;
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::Vfs;
use crate::wal::history::RunId;
use crate::wal::history_file::{DirectoryHistory, Place, Role};
use crate::wal::{manifest, names};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// Threads that read the log.
const THREADS: usize = 8;

/// What a directory has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// Everything up to this epoch is there: at least what the former primary reported PROPAGATED to this replica.
    pub durable: Epoch,
    /// The term that has begun.
    pub term: u64,
    /// The run that the term begins with; the engine's start takes its place.
    pub run: RunId,
}

/// Makes the replica's directory at `location` a primary's. `above` is given by whoever has compared the claims
/// ([`DirectoryHistory::claim`]) of so many directories that one of them has everything, and this one's is the largest:
/// the largest term that any of them was told of, which the new one is above. Then also a primary's directory is
/// promoted, fenced or not. With `force` also one that was fenced, is too old or empty, or is no replica's: what it
/// lacks is lost then.
///
/// # Errors [`Error::WrongState`] for what is refused; [`Error::NotFound`] when there is no data directory;
/// [`Error::Locked`] while somebody uses it; else as those of a start. The history is unchanged then.
pub fn promote(vfs: Arc<dyn Vfs>, location: &Path, force: bool, above: Option<u64>) -> Result<Promotion> {
    // What is forced is told once, when all is known.
    let allowed = |checked: Result<()>| if force { Ok(()) } else { checked };
    // What is refused for what it is stays untouched.
    let known = known(&*vfs, location)?;
    allowed(check_role(known.as_ref(), above, location))?;
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    let (directory, restored) = LogDirectory::open(vfs, location, THREADS.min(processors))?;
    let instance = directory.identity();
    let place = Place { vfs: &**directory.vfs(), location: directory.location(), instance: &instance };
    let found = DirectoryHistory::load(place)?;
    let durable = restored.epoch_file.recorded();
    let checked = check_role(found.as_ref(), above, location)
        .and_then(|()| check_content(durable, restored.entries, location))
        .and_then(|()| check_behind(found.as_ref().filter(|_| above.is_none()), durable, location));
    if let (Err(e), true) = (&checked, force) {
        log::warn!("{e}; it is forced");
    }
    allowed(checked)?;
    let mut file = found.unwrap_or_else(|| DirectoryHistory::unknown(place.instance, Role::Primary));
    let run = file.promote_above(durable, above.unwrap_or_default());
    file.save(place.vfs, place.location)?;
    log::info!("{} begins term {} with everything up to epoch {durable}", location.display(), file.term);
    Ok(Promotion { durable, term: file.term, run })
}

/// The history of a directory before it is opened.
fn known(vfs: &dyn Vfs, location: &Path) -> Result<Option<DirectoryHistory>> {
    let path = location.join(names::MANIFEST);
    let bytes = vfs.read(&path, manifest::MAX_BYTES).map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::NotFound(format!("{} is no data directory", location.display())),
        _ => Error::io("cannot read", &path, e),
    })?;
    // What is wrong with a manifest is said when the directory is opened.
    let instance = manifest::parse(&bytes).ok().and_then(|manifest| manifest.instance_uuid).unwrap_or_default();
    DirectoryHistory::load(Place { vfs, location, instance: &instance })
}

fn check_role(known: Option<&DirectoryHistory>, above: Option<u64>, location: &Path) -> Result<()> {
    match known {
        Some(file) if file.awaits_base_sync => {
            Err(refused(location, "a base sync into it has begun and is not complete"))
        }
        Some(file) if file.role == Role::Replica || above.is_some() => Ok(()),
        Some(DirectoryHistory { fenced: Some(reason), .. }) => {
            Err(refused(location, &format!("another primary has taken over from it ({reason})")))
        }
        _ => Err(refused(location, "it is no replica's")),
    }
}

fn check_content(durable: Epoch, entries: u64, location: &Path) -> Result<()> {
    match durable == Epoch(0) && entries == 0 {
        true => Err(refused(location, "nothing has ever been replicated into it")),
        false => Ok(()),
    }
}

/// Whoever has compared all knows whether what it lacks was PROPAGATED.
fn check_behind(found: Option<&DirectoryHistory>, durable: Epoch, location: &Path) -> Result<()> {
    match found.and_then(|file| file.known_lack(durable)) {
        Some(lack) => Err(refused(location, &lack)),
        None => Ok(()),
    }
}

fn refused(location: &Path, why: &str) -> Error {
    Error::WrongState(format!("{} is not promoted: {why}", location.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::{Datastore, Settings};
    use crate::replication::replica_store::StandbyStore;
    use crate::types::{StorageId, WriteVersion};
    use crate::vfs::{Loss, Open, SimFs};
    use crate::wal::entry::{encode_end, encode_put, marker, tag};
    use crate::wal::history::{History, Run};

    const DIR: &str = "/log";
    const UUID: &str = "00000000-0000-4000-8000-000000000001";

    fn follows(runs: &[(u128, u64)]) -> DirectoryHistory {
        let runs = runs.iter().map(|&(id, first_epoch)| Run { id: RunId(id), term: 3, first_epoch });
        DirectoryHistory::following(UUID, 3, History::new(runs.collect(), false).unwrap())
    }

    /// A replica with everything up to `epoch`.
    fn replica(epoch: u64, file: &DirectoryHistory) -> SimFs {
        let fs = SimFs::new();
        let store = StandbyStore::open(Arc::new(fs.clone()), Path::new(DIR)).unwrap();
        store.adopt_identity(UUID).unwrap();
        file.save(&fs, Path::new(DIR)).unwrap();
        if epoch > 0 {
            append(&store, epoch);
        }
        store.close();
        fs
    }

    fn append(store: &StandbyStore, epoch: u64) {
        let mut bytes = marker(tag::BEGIN, Epoch(epoch)).to_vec();
        encode_put(&mut bytes, StorageId(1), b"k", b"v", WriteVersion { major: epoch, minor: 0 }, &[]);
        encode_end(&mut bytes, Epoch(epoch));
        store.lane(0).append(Epoch(epoch), true, true, &bytes).unwrap();
        store.record(Epoch(epoch)).unwrap();
    }

    fn promoted(fs: &SimFs, force: bool) -> Result<Promotion> {
        promote(Arc::new(fs.clone()), Path::new(DIR), force, None)
    }

    fn start(fs: &SimFs) -> Result<DirectoryHistory> {
        let store = Datastore::open(Settings::new(DIR).vfs(Arc::new(fs.clone())))?;
        store.ready()?;
        let history = store.history();
        store.shutdown();
        Ok(history.expect("a store that is ready has a history"))
    }

    #[test]
    fn a_whole_replica_begins_a_term_that_outlives_a_power_cut_and_the_engine_goes_on_in_it() {
        let fs = replica(41, &follows(&[(1, 0), (2, 30)]));
        let done = promoted(&fs, false).unwrap();
        assert_eq!((done.durable, done.term), (Epoch(41), 4));
        let after = fs.reboot(Loss::DropUnsynced);
        let started = start(&after).unwrap();
        assert_eq!((started.role, started.term), (Role::Primary, 4));
        let again = promoted(&fs, false).unwrap_err().to_string();
        assert!(again.contains("no replica's"), "{again}");
    }

    #[test]
    fn what_is_incomplete_empty_behind_or_no_replica_is_refused_and_can_be_forced() {
        let whole = follows(&[(1, 0)]);
        let mut fenced = whole.clone();
        (fenced.role, fenced.fenced) = (Role::Primary, Some("by term 9".to_owned()));
        let of_an_engine = SimFs::new();
        start(&of_an_engine).unwrap();
        for (fs, why) in [
            (replica(41, &whole.clone().awaiting_base_sync()), "not complete"),
            (replica(0, &whole), "nothing has ever been replicated"),
            (replica(20, &follows(&[(1, 0), (2, 30)])), "up to 20 only, and the primary had 29"),
            (replica(41, &fenced), "by term 9"),
            (of_an_engine, "no replica's"),
        ] {
            let file = |fs: &SimFs| fs.files().get(&Path::new(DIR).join(names::HISTORY)).cloned();
            let before = file(&fs);
            let error = promoted(&fs, false).unwrap_err();
            assert!(matches!(&error, Error::WrongState(text) if text.contains(why)), "{error}, expected {why}");
            assert_eq!(file(&fs), before, "{why}");
            promoted(&fs, true).unwrap();
            start(&fs).unwrap();
        }
        assert!(matches!(promoted(&SimFs::new(), true), Err(Error::NotFound(_))));
    }

    #[test]
    fn whoever_has_compared_all_gets_a_term_above_theirs_also_on_a_primarys_directory() {
        let mut fenced = follows(&[(1, 0)]);
        (fenced.role, fenced.fenced) = (Role::Primary, Some("by term 9".to_owned()));
        for file in [follows(&[(1, 0)]), fenced] {
            let fs = replica(41, &file);
            let done = promote(Arc::new(fs.clone()), Path::new(DIR), false, Some(9)).unwrap();
            assert_eq!((done.durable, done.term), (Epoch(41), 10));
            assert_eq!(start(&fs).unwrap().term, 10);
        }
        let waits = replica(41, &follows(&[(1, 0)]).awaiting_base_sync());
        assert!(promote(Arc::new(waits), Path::new(DIR), false, Some(9)).is_err());
    }

    #[test]
    fn a_promotion_reads_also_what_a_replica_would_pass_over() {
        let fs = replica(41, &follows(&[(1, 0)]));
        let store = StandbyStore::open(Arc::new(fs.clone()), Path::new(DIR)).unwrap();
        (42..=300).for_each(|epoch| append(&store, epoch));
        store.leave();
        // On this disk nothing tells that the file was written to.
        let file = fs.open(&Path::new(DIR).join("pwal_0000"), Open::Existing).unwrap();
        file.write_at(file.len().unwrap() / 2, &[0xee; 60]).unwrap();
        drop(StandbyStore::open(Arc::new(fs.clone()), Path::new(DIR)).expect("it is not looked at"));
        assert!(matches!(promoted(&fs, true), Err(Error::Corrupted(_))));
    }

    #[test]
    fn an_engine_does_not_start_on_what_awaits_a_base_sync_or_is_behind() {
        let behind = follows(&[(1, 0), (2, 30)]);
        for (fs, why) in [
            (replica(41, &follows(&[(1, 0)]).awaiting_base_sync()), "not complete"),
            (replica(20, &behind), "up to 20 only, and the primary had 29"),
            (replica(20, &follows(&[(1, 0)]).filling(Epoch(30))), "not known to have all"),
        ] {
            let error = start(&fs).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("tgreplica promote --force /log"), "{error}");
        }
        start(&replica(29, &behind)).unwrap();
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The BLOB files of a data directory: gives out ids, creates files durably, and knows which of them running pools own.

mod files;

use super::garbage::{self, Collection, Found, Job};
use super::paths::{self, failed, Directories};
use crate::error::{Error, Result};
use crate::lock_order::{Mutex, Rank, ReadGuard, RwLock};
use crate::metrics::Metrics;
use crate::recovery::Snapshot;
use crate::types::BlobId;
use crate::vfs::{descriptor, FileKind, Vfs};
use crate::wal::names;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

/// Among the marks of a BLOB: a backup has listed it, so it stays until the next start whoever takes marks back.
const LISTED: u32 = 1 << 31;
/// Among the marks of a BLOB: its file is being written.
const CREATING: u32 = 1 << 30;
/// The bits that count entries.
const ENTRIES: u32 = CREATING - 1;

/// Where the content of a new BLOB comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    Data(&'a [u8]),
    /// A file that stays.
    Copy(&'a Path),
    /// A file that becomes the BLOB.
    Move(&'a Path),
    /// The content of another BLOB.
    Share(BlobId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    NotReady,
    Open,
    Closed,
}

/// The BLOB files of one data directory. All calls may be made from any thread.
#[derive(Debug)]
pub struct BlobStore {
    vfs: Arc<dyn Vfs>,
    root: PathBuf,
    /// 0 before the start.
    next: AtomicU64,
    /// Held for reading while files are created or deleted, so that a shutdown waits.
    phase: RwLock<Phase>,
    stopping: Arc<AtomicBool>,
    /// BLOBs of pools that were not released, and how many entries refer to them, with [`LISTED`]. Ids that no pool
    /// owns do not get in, so this is bounded by the running transactions (W38).
    owned: Mutex<HashMap<BlobId, u32>>,
    /// Directories whose names are durable.
    durable_directories: Mutex<[bool; paths::DIRECTORIES]>,
    /// Why the sync of a directory failed. Another one would succeed without making durable what this one lost, so
    /// there is none: names count as lost, and no session that refers to BLOBs, and no registration, succeeds any more.
    failed_sync: OnceLock<String>,
    /// The directories by number.
    unsynced: Box<[Names]>,
    collection: Collection,
    metrics: Arc<Metrics>,
}

/// Whether a directory has new names that are not durable yet.
#[derive(Debug)]
struct Names {
    unsynced: AtomicBool,
    /// Held while they are synced, so that whoever relies on them waits for who is at it.
    syncing: Mutex<()>,
}

/// BLOBs that a backup leaves out, because their files are not whole.
#[derive(Debug)]
pub struct Incomplete<'a> {
    store: &'a BlobStore,
    incomplete: HashSet<BlobId>,
    next: BlobId,
}

impl Incomplete<'_> {
    /// Whether this BLOB belongs to them; to be asked about files that were seen before the question.
    pub fn contains(&self, id: BlobId) -> bool {
        let issued_since = self.next..self.store.next_id();
        self.incomplete.contains(&id) || (self.next.0 > 0 && issued_since.contains(&id))
    }
}

impl BlobStore {
    /// The store of the data directory `location`, which counts in `metrics`.
    pub fn new(vfs: Arc<dyn Vfs>, location: &Path, metrics: Arc<Metrics>) -> BlobStore {
        let synced = |_| Names { unsynced: AtomicBool::new(false), syncing: Mutex::new(Rank::BlobNames, ()) };
        BlobStore {
            vfs,
            root: location.join(names::BLOB_DIR),
            next: AtomicU64::new(0),
            phase: RwLock::new(Rank::Blobs, Phase::NotReady),
            stopping: Arc::default(),
            owned: Mutex::default(),
            durable_directories: Mutex::new(Rank::BlobDirectories, [false; paths::DIRECTORIES]),
            failed_sync: OnceLock::new(),
            unsynced: (0..paths::DIRECTORIES).map(synced).collect(),
            collection: Collection::default(),
            metrics,
        }
    }

    /// Looks at all files that are there, before [`Self::start`].
    pub fn scan(&self) -> Result<Found> {
        garbage::find(&*self.vfs, &self.root, 0, u64::MAX)
            .map_err(|e| Error::io("cannot list the BLOB files in", &self.root, e))
    }

    /// Begins to give out ids: above `recovered`, the largest that the log, the compacted file and the catalog know,
    /// and above every file, because a file with a larger id may be a second name of a BLOB that is needed (W3c, W8).
    /// Files that no entry of `needed` refers to and no pool owns are deleted by a thread that this starts; without it
    /// all stay.
    pub fn start(&self, recovered: BlobId, found: Found, needed: Option<Snapshot>) {
        let largest = found.largest.max(recovered.0);
        self.next.fetch_max(largest.saturating_add(1), SeqCst);
        *self.phase.write() = Phase::Open;
        if let Some(needed) = needed {
            // Pools that outlived a shutdown go on.
            let owned = self.owned.lock().keys().map(|id| id.0).collect();
            self.collection.start(self.job(owned), found, largest, needed);
        }
    }

    /// The id that the next registration gets; 0 before the start.
    pub fn next_id(&self) -> BlobId {
        BlobId(self.next.load(SeqCst))
    }

    /// Lets no id below `next` be given out any more; a smaller value changes nothing.
    pub fn raise_next_id(&self, next: BlobId) {
        self.next.fetch_max(next.0, SeqCst);
    }

    /// Where the BLOB is or would be, and whether its id was given out and its file is there. An error of the disk is
    /// logged and counts as not there.
    pub fn file(&self, id: BlobId) -> (PathBuf, bool) {
        let path = paths::file(&self.root, id);
        let there = match self.vfs.kind(&path) {
            Ok(kind) => kind == Some(FileKind::File),
            Err(e) => {
                log::error!("{}", failed("cannot look at", &path, e));
                false
            }
        };
        (path, there && id < self.next_id())
    }

    /// Marks BLOBs as referred to by the log: the release of their pool keeps them.
    pub fn mark_persistent(&self, ids: &[BlobId]) {
        self.change_marks(ids, |marks| (marks & ENTRIES).saturating_add(1).min(ENTRIES) | marks & !ENTRIES);
    }

    /// Takes all marks of these BLOBs back.
    pub fn unmark_persistent(&self, ids: &[BlobId]) {
        self.change_marks(ids, |marks| marks & !ENTRIES);
    }

    /// Takes one mark back for each id: an entry that referred to it is gone. The release of its pool deletes it unless
    /// another entry needs it.
    pub fn forget_entries(&self, ids: &[BlobId]) {
        self.change_marks(ids, |marks| (marks & ENTRIES).saturating_sub(1) | marks & !ENTRIES);
    }

    fn change_marks(&self, ids: &[BlobId], change: impl Fn(u32) -> u32) {
        let mut owned = self.owned.lock();
        for id in ids {
            if let Some(marks) = owned.get_mut(id) {
                *marks = change(*marks);
            }
        }
    }

    fn enter(&self) -> Result<ReadGuard<'_, Phase>> {
        let phase = self.phase.read();
        match *phase {
            Phase::Open => Ok(phase),
            Phase::NotReady => Err(Error::WrongState("BLOBs can be registered only after ready()".to_owned())),
            Phase::Closed => Err(shut_down()),
        }
    }

    /// Creates a BLOB. When this returns, its content is on the disk, but for its name; see [`Self::sync_names`].
    pub(super) fn register(&self, content: Content<'_>) -> Result<BlobId> {
        let _phase = self.enter()?;
        self.check_syncs()?;
        self.check_source(content)?;
        let id = self.take_id();
        let created = self.create_from(content, id);
        match created {
            Ok(()) => {
                self.metrics.blobs.add(1);
                self.unsynced[paths::directory_number(id)].unsynced.store(true, SeqCst);
                self.change_marks(&[id], |marks| marks & !CREATING);
            }
            Err(_) => drop(self.owned.lock().remove(&id)),
        }
        created.map(|()| id)
    }

    fn create_from(&self, content: Content<'_>, id: BlobId) -> Result<()> {
        self.make_directory(id)?;
        let path = paths::file(&self.root, id);
        match content {
            Content::Data(bytes) => {
                self.create(&path, |file| file.write_at(0, bytes).map_err(|e| failed("cannot write", &path, e)))
            }
            Content::Copy(source) => self.copy(source, &path),
            Content::Move(source) => self.take_over(source, &path),
            Content::Share(reference) => self.share(&paths::file(&self.root, reference), &path),
        }
    }

    fn check_source(&self, content: Content<'_>) -> Result<()> {
        let (source, reference) = match content {
            Content::Data(_) => return Ok(()),
            Content::Copy(source) | Content::Move(source) => (source.to_owned(), None),
            Content::Share(reference) => (paths::file(&self.root, reference), Some(reference)),
        };
        match (self.vfs.kind(&source).map_err(|e| failed("cannot look at", &source, e))?, reference) {
            (Some(FileKind::File), _) => Ok(()),
            (_, Some(id)) => Err(Error::UnknownBlob { id, path: source }),
            (None, None) => {
                let missing = io::Error::from_raw_os_error(libc::ENOENT);
                Err(failed("Source file does not exist", &source, missing))
            }
            (Some(FileKind::Directory), None) => {
                let directory = io::Error::from_raw_os_error(libc::EISDIR);
                Err(failed("Source file is not a regular file", &source, directory))
            }
            (Some(FileKind::Other), None) => {
                let special = io::Error::from_raw_os_error(libc::EINVAL);
                Err(failed("Source file is not a regular file", &source, special))
            }
        }
    }

    /// Issues an id, which is owned from the first moment: see [`Self::incomplete`].
    fn take_id(&self) -> BlobId {
        let mut owned = self.owned.lock();
        let taken = self.next.fetch_update(SeqCst, SeqCst, |next| next.checked_add(1));
        let id = BlobId(taken.unwrap_or_else(|last| {
            log::error!("Blob ID overflow detected.");
            last
        }));
        owned.insert(id, CREATING);
        id
    }

    /// The next id, and all ids below it that pools own.
    pub fn next_and_owned(&self) -> (BlobId, HashSet<u64>) {
        let owned = self.owned.lock();
        (self.next_id(), owned.keys().map(|id| id.0).collect())
    }

    /// Whether unused files are being deleted.
    pub fn is_collecting(&self) -> bool {
        self.collection.is_running()
    }

    /// The files with ids below `next`.
    pub fn find_below(&self, next: BlobId) -> Result<Found> {
        garbage::find(&*self.vfs, &self.root, 0, next.0.saturating_sub(1))
            .map_err(|e| Error::io("cannot list the BLOB files in", &self.root, e))
    }

    /// Starts to delete what was found and files found later with ids below `next`, but for those that are `owned` or
    /// that an entry of `needed` refers to. After a shutdown nothing is begun.
    pub fn collect(&self, found: Found, next: BlobId, owned: HashSet<u64>, needed: Snapshot) {
        let phase = self.phase.read();
        if *phase == Phase::Open {
            self.collection.start(self.job(owned), found, next.0.saturating_sub(1), needed);
        }
    }

    fn job(&self, owned: HashSet<u64>) -> Job {
        let (stopping, metrics) = (self.stopping.clone(), self.metrics.clone());
        Job { vfs: self.vfs.clone(), root: self.root.clone(), stopping, owned, metrics }
    }

    /// The BLOBs that are not complete: those that are being written, and those that are issued from now on. A release
    /// keeps all others from here on, so that they can be copied.
    pub fn incomplete(&self) -> Incomplete<'_> {
        let mut owned = self.owned.lock();
        owned.values_mut().filter(|marks| **marks & CREATING == 0).for_each(|marks| *marks |= LISTED);
        let incomplete = owned.iter().filter(|(_, marks)| **marks & CREATING != 0).map(|(id, _)| *id).collect();
        Incomplete { store: self, incomplete, next: self.next_id() }
    }

    /// Makes the directory of a BLOB when it is missing. Even one that is there may have a name that is not durable: a
    /// process that was killed made it and synced nothing.
    fn make_directory(&self, id: BlobId) -> Result<()> {
        let mut durable = self.durable_directories.lock();
        let known = &mut durable[paths::directory_number(id)];
        if *known {
            return Ok(());
        }
        let directory = paths::directory(&self.root, id);
        match self.vfs.create_dir(&directory) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(|e| failed("cannot create the directory", &directory, e))?,
        }
        self.sync_directory(&self.root)?;
        *known = true;
        Ok(())
    }

    /// Makes the names of registered BLOBs durable. A session that refers to BLOBs calls this before it ends, once for
    /// all of them: a transaction with many BLOBs syncs each directory once.
    pub fn sync_names(&self, directories: Directories) -> Result<()> {
        for number in directories.numbers() {
            let names = &self.unsynced[number];
            let _syncing = names.syncing.lock();
            self.check_syncs()?;
            if names.unsynced.swap(false, SeqCst) {
                // A name that comes from here on sets the mark again.
                let synced = self.sync_directory(&paths::directory(&self.root, BlobId(number as u64)));
                if synced.is_err() {
                    names.unsynced.store(true, SeqCst);
                }
                synced?;
            }
        }
        Ok(())
    }

    /// Makes the names in a directory of BLOBs durable, unless that has failed before.
    fn sync_directory(&self, directory: &Path) -> Result<()> {
        self.check_syncs()?;
        self.vfs.sync_dir(directory).map_err(|e| {
            let attempted = !descriptor::is_exhausted(&e);
            let error = failed("cannot sync the directory", directory, e);
            if attempted {
                let _ = self.failed_sync.set(error.cause());
            }
            error
        })
    }

    fn check_syncs(&self) -> Result<()> {
        match self.failed_sync.get() {
            Some(failure) => Err(Error::Poisoned(failure.clone())),
            None => Ok(()),
        }
    }

    /// Ends the ownership of these BLOBs and deletes those that no entry refers to. After a shutdown nothing is
    /// deleted, because the directory may belong to somebody else; the next start finds them.
    pub(super) fn release(&self, ids: &[BlobId]) {
        let phase = self.phase.read();
        for id in ids {
            let marks = self.owned.lock().remove(id);
            if marks != Some(0) || *phase != Phase::Open {
                continue;
            }
            let path = paths::file(&self.root, *id);
            match self.vfs.unlink(&path) {
                Ok(()) => self.metrics.deleted_blobs.add(1),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => log::error!("{}", failed("cannot delete", &path, e)),
            }
        }
    }

    /// Ends the ownership of these BLOBs; their files stay until a start.
    pub(super) fn disown(&self, ids: &[BlobId]) {
        let mut owned = self.owned.lock();
        for id in ids {
            owned.remove(id);
        }
    }

    /// Number of BLOBs that running pools own.
    #[cfg(test)]
    pub(super) fn owned_count(&self) -> usize {
        self.owned.lock().len()
    }

    /// Waits until the files that were there at the start and that nothing refers to are deleted.
    pub fn wait_for_collection(&self) {
        self.collection.wait();
    }

    /// After [`Self::shut_down`], before the next [`Self::start`]. Names are synced again before anything relies on
    /// them.
    pub fn open_again(&self) {
        *self.durable_directories.lock() = [false; paths::DIRECTORIES];
        *self.phase.write() = Phase::NotReady;
        self.stopping.store(false, SeqCst);
    }

    /// Ends all work on files: waits for running calls, breaks the deletion of unused files off.
    pub fn shut_down(&self) {
        self.stopping.store(true, SeqCst);
        *self.phase.write() = Phase::Closed;
        self.collection.join();
    }
}

fn shut_down() -> Error {
    Error::WrongState("the data store was shut down".to_owned())
}

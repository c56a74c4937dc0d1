// SPDX-License-Identifier: Apache-2.0
//! The store as a whole: opened, recorded, put right, closed.

use super::blobs::{self, BlobReceiver};
use super::gate::Gate;
use super::held::HeldDirectory;
use super::journaling;
use super::lane::LaneLog;
use super::shared::{closed, Failure, Shared};
use super::staging::STAGING_DIR;
use super::versions::{self, SwitchedVersions};
use crate::datastore::{Commit, Committer};
use crate::directory::{LogDirectory, Restored};
use crate::error::{Error, Result};
use crate::lock_order::{Mutex, MutexGuard, Rank};
use crate::scrub::Known;
use crate::types::{BlobId, Epoch};
use crate::vfs::{crashsafe, Vfs};
use crate::wal::epoch_marks::LogMarks;
use crate::wal::file_sync::NameSync;
use crate::wal::journal::Pause;
use crate::wal::names;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;

/// Threads that read the log at a start, at most.
const RECOVERY_THREADS_MAX: usize = 8;

fn recovery_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get()).min(RECOVERY_THREADS_MAX)
}

/// The data directory of a replica. Calls may come from any thread.
#[derive(Debug)]
pub struct StandbyStore {
    pub(super) shared: Arc<Shared>,
    /// Locked by whoever records.
    committer: Mutex<Committer>,
    lanes: Mutex<BTreeMap<u32, Arc<LaneLog>>>,
    /// Nothing durable was in the directory when it was opened.
    opened_empty: bool,
    max_blob_id: BlobId,
    /// See [`Self::has_compacted`].
    compacted: Epoch,
    identity: Mutex<String>,
    versions: versions::Versions,
    /// What log files are known to hold since it was opened.
    known: Mutex<Option<Arc<Known>>>,
}

impl StandbyStore {
    /// Creates or opens the directory, locks it and puts it right: when this returns, it holds what was acknowledged
    /// and nothing else.
    ///
    /// # Errors
    /// As those of a start: [`Error::Locked`], [`Error::UnsupportedVersion`], [`Error::BrokenMetadata`],
    /// [`Error::Corrupted`] or [`Error::Io`].
    pub fn open(vfs: Arc<dyn Vfs>, location: &Path) -> Result<StandbyStore> {
        StandbyStore::open_with(vfs, location, Commit::Direct)
    }

    /// The same; `commit` is how what is recorded becomes durable.
    pub fn open_with(vfs: Arc<dyn Vfs>, location: &Path, commit: Commit) -> Result<StandbyStore> {
        StandbyStore::opened(LogDirectory::open_known(vfs, location, recovery_threads())?, commit)
    }

    /// Opens what was [held](Self::hold).
    ///
    /// # Errors
    /// As those of [`Self::open`]; the lock is given back then.
    pub fn open_held(held: HeldDirectory, commit: Commit) -> Result<StandbyStore> {
        StandbyStore::opened(held.directory.open_again(held.names.marks(), recovery_threads())?, commit)
    }

    fn opened((directory, restored): (LogDirectory, Restored), commit: Commit) -> Result<StandbyStore> {
        let (vfs, location) = (directory.vfs().clone(), directory.location().to_owned());
        let staging = location.join(STAGING_DIR);
        let failed = |e| Error::io("cannot open", &staging, e);
        if vfs.kind(&staging).map_err(failed)?.is_none() {
            crashsafe::create_dir(&*vfs, &staging).map_err(failed)?;
        }
        blobs::remove_leftovers(&*vfs, &staging)?;
        let durable = restored.epoch_file.recorded();
        let compacted = directory.catalog().max_epoch.min(durable);
        let identity = directory.identity();
        let versions = versions::Versions::new(versions::load(&*vfs, &location, &identity));
        let (failure, epoch_file) = (Failure::default(), Arc::new(Mutex::new(Rank::EpochFile, restored.epoch_file)));
        let journal = journaling::start(commit, &directory, epoch_file.clone(), failure.clone())?;
        let names = Arc::new(NameSync::new(vfs.clone(), &location));
        names.marks().replace(restored.marks);
        Ok(StandbyStore {
            committer: Mutex::new(Rank::Recorder, Committer::new(epoch_file, journal.clone())),
            shared: Arc::new(Shared {
                names,
                vfs,
                location,
                directory: Mutex::new(Rank::ReplicaDirectory, Some(directory)),
                recorded: AtomicU64::new(durable.0),
                covered: AtomicU64::new(durable.0),
                renamed: AtomicU64::new(0),
                gate: Gate::default(),
                failure,
                journal,
            }),
            lanes: Mutex::default(),
            opened_empty: durable == Epoch(0) && restored.entries == 0,
            max_blob_id: restored.max_blob_id,
            compacted,
            identity: Mutex::new(Rank::Identity, identity),
            versions,
            known: Mutex::default(),
        })
    }

    /// Takes note of what log files hold as long as it is open.
    pub fn know(&self, known: &Arc<Known>) {
        *self.known.lock() = Some(known.clone());
    }

    pub(super) fn known(&self) -> Option<Arc<Known>> {
        self.known.lock().clone()
    }

    /// The epoch up to which everything is on this disk.
    pub fn durable(&self) -> Epoch {
        self.shared.recorded()
    }

    /// Whether nothing durable is in the directory: it may become the replica of any primary.
    pub fn is_empty(&self) -> bool {
        self.opened_empty && self.durable() == Epoch(0)
    }

    /// Whether every session of this epoch that ever counts is in the directory already, and may be in its compacted
    /// file. One that comes again must not be appended: the log wins over the compacted file, which may hold what a
    /// later session wrote. In the last epoch that was compacted sessions may still begin.
    pub fn has_compacted(&self, epoch: Epoch) -> bool {
        epoch < self.compacted
    }

    /// The largest BLOB id that durable entries referred to when the directory was opened.
    pub fn max_blob_id(&self) -> BlobId {
        self.max_blob_id
    }

    /// The instance UUID.
    pub fn identity(&self) -> String {
        self.identity.lock().clone()
    }

    /// Makes an empty directory one of the instance `uuid`, durably.
    ///
    /// # Errors
    /// [`Error::WrongState`] when the directory has durable content of another instance.
    pub fn adopt_identity(&self, uuid: &str) -> Result<()> {
        self.shared.check()?;
        let mut identity = self.identity.lock();
        if *identity == uuid {
            return Ok(());
        }
        if !self.is_empty() {
            return Err(Error::WrongState(format!("the directory belongs to instance {identity}, not to {uuid}")));
        }
        let mut directory = self.shared.directory.lock();
        let set = directory.as_mut().ok_or_else(closed)?.set_identity(uuid);
        set.map_err(|e| self.shared.fail(e))?;
        self.versions.reset();
        *identity = uuid.to_owned();
        Ok(())
    }

    /// Lets everything that is durable be so in its own file, and the directory be without a journal, as long as what
    /// is returned lives. For whoever copies or replaces the directory. Without a journal there is nothing to do.
    pub fn pause_journal(&self) -> Result<Option<Pause>> {
        self.shared.check()?;
        let paused = self.shared.journal.as_ref().map(|journal| journal.pause()).transpose();
        paused.map_err(|e| self.shared.fail(e))
    }

    /// Puts the journal away and gives back the lock of the directory; nothing can be written any more. When that
    /// fails, which [`Self::failure`] says then, or the disk has failed before, the next start settles the journal.
    pub fn close(&self) {
        self.take_directory();
    }

    /// The same in good order: what need not be read again is written down for the next opening.
    pub fn leave(&self) {
        if let Some(held) = self.hold() {
            let written = held.directory.write_marks(held.names.marks());
            let _ = written.map_err(|e| self.shared.fail(e));
        }
    }

    /// The same, but for the lock of the directory, which what is returned has. `None` when it is closed already, and
    /// when something has failed, so that the directory is one for a start: then the lock is given back.
    pub fn hold(&self) -> Option<HeldDirectory> {
        let directory = self.take_directory()?;
        let (durable, names) = (self.durable(), self.shared.names.clone());
        Some(HeldDirectory { directory, durable, names }).filter(|_| self.failure().is_none())
    }

    fn take_directory(&self) -> Option<LogDirectory> {
        let mut directory = self.shared.directory.lock();
        if let (Some(_), Some(journal)) = (&*directory, &self.shared.journal) {
            // Kept as the failure, if there was none before.
            let _ = journal.close().map_err(|e| self.shared.fail(e));
        }
        directory.take()
    }

    /// Whether it gave back the lock of the directory.
    pub(super) fn is_closed(&self) -> bool {
        self.shared.directory.lock().is_none()
    }

    /// How many log files have got another name since it was opened.
    pub(super) fn renamed_files(&self) -> u64 {
        self.shared.renamed.load(SeqCst)
    }

    /// The log of a lane.
    pub fn lane(&self, number: u32) -> Arc<LaneLog> {
        let mut lanes = self.lanes.lock();
        lanes.entry(number).or_insert_with(|| Arc::new(LaneLog::new(self.shared.clone(), number))).clone()
    }

    /// How many bytes at the begin of the log file of this name are durable, and stay as they are while the directory
    /// is open; no bound where nobody appends. What the file did not have before the call does not count.
    pub fn settled_bytes(&self, name: &str) -> u64 {
        let number = names::channel_of_log(name).filter(|_| names::is_active_log(name));
        let lane = number.and_then(|number| self.lanes.lock().get(&number).cloned());
        lane.map_or(u64::MAX, |lane| lane.settled_bytes())
    }

    pub(super) fn lanes(&self) -> Vec<Arc<LaneLog>> {
        self.lanes.lock().values().cloned().collect()
    }

    /// Makes `epoch` the durable epoch: every session up to it that was appended is synced first, then the record; with
    /// a journal both are one group. All of them must have been appended and ended. An epoch that is covered already
    /// costs nothing.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when such a session is unended; [`Error::Io`] when the disk fails, and from then on
    /// [`Error::Poisoned`].
    pub fn record(&self, epoch: Epoch) -> Result<()> {
        self.shared.check()?;
        let mut committer = self.committer.lock();
        if epoch <= self.shared.recorded() {
            return Ok(());
        }
        self.shared.covered.store(epoch.0, SeqCst);
        let lanes = self.lanes();
        let mut record = || {
            lanes.iter().try_for_each(|lane| lane.sync_up_to(epoch))?;
            let recorded = match lanes.iter().any(|lane| lane.has_sessions_up_to(epoch)) {
                true => committer.commit(epoch),
                false => committer.record_without_sessions(epoch),
            };
            recorded.map_err(|e| self.shared.fail(e))
        };
        if let Err(e) = record() {
            self.shared.covered.store(self.shared.recorded().0, SeqCst);
            return Err(e);
        }
        self.shared.recorded.store(epoch.0, SeqCst);
        lanes.iter().for_each(|lane| lane.recorded(epoch));
        Ok(())
    }

    /// Lets nobody record an epoch as long as what is returned lives; `None` while somebody does.
    pub(super) fn pause_recording(&self) -> Option<MutexGuard<'_, Committer>> {
        self.committer.try_lock()
    }

    /// Syncs every session that has ended, whatever its epoch.
    pub fn sync(&self) -> Result<()> {
        let lanes = self.lanes();
        // With a journal they are in one group then.
        lanes.iter().try_for_each(|lane| lane.hand_over())?;
        lanes.iter().try_for_each(|lane| lane.sync())
    }

    /// Takes away everything beyond the durable epoch, durably: a primary that crashed may use an epoch again for other
    /// content. For each handshake, while no lane is being appended to.
    pub fn discard_beyond_durable(&self) -> Result<()> {
        self.shared.check()?;
        let lanes = self.lanes();
        // What a start would write again must not be cut off.
        self.settle()?;
        lanes.iter().try_for_each(|lane| lane.discard()).map_err(|e| self.shared.fail(e))
    }

    /// Makes everything that has ended durable in its own file, as far as a journal has it.
    pub(super) fn settle(&self) -> Result<()> {
        let settle = || {
            self.lanes().iter().try_for_each(|lane| lane.hand_over())?;
            self.shared.journal.as_ref().map_or(Ok(()), |journal| journal.settle())
        };
        settle().map_err(|e| self.shared.fail(e))
    }

    /// What the primary switched to last, as far as this directory knows.
    pub fn versions(&self) -> SwitchedVersions {
        self.versions.now()
    }

    /// Takes note of a switch of the primary; it is on the disk after [`Self::save_versions`].
    pub fn raise_versions(&self, to: SwitchedVersions) {
        self.versions.raise(to);
    }

    /// Makes the noted versions durable, if they have changed. A failure does not spoil the log.
    pub fn save_versions(&self) -> Result<()> {
        self.shared.check()?;
        self.versions.save(&*self.shared.vfs, &self.shared.location, &self.identity.lock())
    }

    /// Receives BLOBs, one at a time; each caller has its own.
    pub fn blob_receiver(&self) -> BlobReceiver {
        BlobReceiver::new(self.shared.clone())
    }

    /// The failure after which nothing is acknowledged any more.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.get().cloned()
    }

    /// Who appends to it, or records, has failed: nothing is acknowledged any more.
    pub fn fail(&self, error: &Error) {
        self.shared.failure.note(error);
        if let Some(journal) = &self.shared.journal {
            journal.refuse(&error.cause());
        }
    }

    /// Where to begin to read its log files.
    pub fn marks(&self) -> &LogMarks {
        self.shared.names.marks()
    }

    /// The disk that the directory is on.
    pub fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.shared.vfs
    }

    pub fn location(&self) -> &Path {
        &self.shared.location
    }
}

impl Drop for StandbyStore {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::{Datastore, Settings};
    use crate::types::{StorageId, WriteVersion};
    use crate::vfs::{Open, SimFs};
    use crate::wal::entry::{encode_end, encode_put, marker, tag};

    const DIR: &str = "/log";

    fn append(store: &StandbyStore, epoch: u64) {
        let mut bytes = marker(tag::BEGIN, Epoch(epoch)).to_vec();
        let version = WriteVersion { major: epoch, minor: 0 };
        encode_put(&mut bytes, StorageId(1), b"key", &[7; 400], version, &[]);
        encode_end(&mut bytes, Epoch(epoch));
        store.lane(0).append(Epoch(epoch), true, true, &bytes).unwrap();
        store.record(Epoch(epoch)).unwrap();
    }

    fn open(fs: &SimFs) -> Result<StandbyStore> {
        StandbyStore::open(Arc::new(fs.clone()), Path::new(DIR))
    }

    /// Makes a session in the middle unreadable. On this disk nothing else tells that the file was written to.
    fn damage(fs: &SimFs) {
        let file = fs.open(&Path::new(DIR).join("pwal_0000"), Open::Existing).unwrap();
        file.write_at(file.len().unwrap() / 2, &[0xee; 500]).unwrap();
    }

    #[test]
    fn a_replica_reads_only_what_is_new_and_whoever_takes_over_reads_all() {
        let fs = SimFs::new();
        let store = open(&fs).unwrap();
        (1..=40).for_each(|epoch| append(&store, epoch));
        store.leave();
        damage(&fs);
        let store = open(&fs).unwrap();
        assert_eq!((store.durable(), store.is_empty()), (Epoch(40), false));
        drop(store);
        assert!(matches!(LogDirectory::open(Arc::new(fs.clone()), Path::new(DIR), 1), Err(Error::Corrupted(_))));
        let engine = Datastore::open(Settings::new(DIR).vfs(Arc::new(fs.clone()))).unwrap();
        assert!(matches!(engine.ready(), Err(Error::Corrupted(_))));
        engine.shutdown();
        fs.unlink(&Path::new(DIR).join(names::MARKS)).unwrap();
        assert!(matches!(open(&fs), Err(Error::Corrupted(_))), "without it all is read");
    }

    #[test]
    fn the_log_of_an_engine_that_has_ended_in_good_order_is_known_to_the_replica_that_it_becomes() {
        let fs = SimFs::new();
        let engine = Datastore::open(Settings::new(DIR).vfs(Arc::new(fs.clone()))).unwrap();
        let channel = engine.create_channel().unwrap();
        engine.ready().unwrap();
        for epoch in 1..=40 {
            engine.switch_epoch(Epoch(epoch)).unwrap();
            channel.begin_session().unwrap();
            channel.add_entry(StorageId(1), b"key", &[7; 400], WriteVersion { major: epoch, minor: 0 }, &[]).unwrap();
            channel.end_session().unwrap();
        }
        engine.switch_epoch(Epoch(41)).unwrap();
        engine.shutdown();
        damage(&fs);
        assert_eq!(open(&fs).unwrap().durable(), Epoch(40));
    }
}

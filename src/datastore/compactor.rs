// SPDX-License-Identifier: Apache-2.0
//! Online compaction: cuts the log between two epochs, waits until the first is durable, and has all files before the
//! cut merged. One at a time; writers go on.
//!
//! The cut lies between epochs and not at a moment, because the entries of the compacted file have no versions: the log
//! wins over them, so it must hold nothing older. A session that is open when another one of a later epoch ends may be
//! older than that; it comes into the compacted file together with it, or not at all.

use super::channel::Channel;
use super::coordinator::Coordinator;
use super::file_names::FileNames;
use super::known_files::KnownFiles;
use super::retention::{HeldBack, Retained, Retention};
use super::settings::Settings;
use crate::backup::InProgress;
use crate::blob::{BlobStore, Found};
use crate::compaction::{self, own, Preparation, Prepared, Sizes};
use crate::error::{Error, Result};
use crate::lock_order::{Mutex, Rank, RwLock};
use crate::recovery::{Input, Snapshot};
use crate::types::{BlobId, Epoch, WriteVersion};
use crate::vfs::Vfs;
use crate::wal::catalog::Catalog;
use crate::wal::marks_file;
use crate::wal::rotation;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Who wants a compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Somebody who gets the files that it takes out of the log: the catalog lists them. Replicas that need the log may
    /// hold back all beyond `owed`; without that, nothing of what has ended by now.
    ByRequest { owed: Option<Epoch> },
    /// Nobody: the files are deleted, and replicas hold back what they need.
    ByItself,
}

/// What has become of a compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    NothingToDo,
    /// Somebody copies the files (a backup), or a replica still needs them. It is done when they have finished.
    Postponed,
}

#[derive(Debug)]
pub(super) struct Compactor {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    memory_bytes: u64,
    coordinator: Arc<Coordinator>,
    names: Arc<FileNames>,
    backups: Arc<InProgress>,
    channels: Arc<RwLock<Vec<Arc<Channel>>>>,
    blobs: Arc<BlobStore>,
    /// What the start found; held by a running compaction (W30).
    start: Mutex<Option<Start>>,
    stopping: AtomicBool,
    postponed: AtomicBool,
    boundary: Mutex<WriteVersion>,
    retention: Retention,
    /// Of sessions up to this epoch some may no longer be in the log; raised before they go.
    compacted: AtomicU64,
    known: KnownFiles,
}

const BACKUP: &str = "a backup";
/// For a replica to confirm what has just been stored.
const REPLICA_PATIENCE: Duration = Duration::from_secs(5);
const EARLY_SESSION: &str = "a session from before the first switch of epochs";

#[derive(Debug)]
struct Start {
    catalog: Catalog,
    end_markers: bool,
}

/// What a compaction may delete afterwards: BLOBs with smaller ids that nobody owned when it began.
struct BlobsBefore {
    next: BlobId,
    owned: HashSet<u64>,
    boundary: WriteVersion,
}

impl Compactor {
    pub(super) fn new(
        settings: &Settings,
        coordinator: &Arc<Coordinator>,
        names: &Arc<FileNames>,
        backups: &Arc<InProgress>,
        channels: &Arc<RwLock<Vec<Arc<Channel>>>>,
        blobs: &Arc<BlobStore>,
    ) -> Compactor {
        Compactor {
            vfs: settings.vfs.clone(),
            location: settings.location.clone(),
            memory_bytes: settings.compaction_memory_bytes,
            coordinator: coordinator.clone(),
            names: names.clone(),
            backups: backups.clone(),
            channels: channels.clone(),
            blobs: blobs.clone(),
            start: Mutex::new(Rank::Compaction, None),
            stopping: AtomicBool::new(false),
            postponed: AtomicBool::new(false),
            boundary: Mutex::default(),
            retention: Retention::default(),
            compacted: AtomicU64::new(0),
            known: KnownFiles::new(&settings.location),
        }
    }

    /// From here on compactions are possible.
    pub(super) fn start(&self, catalog: Catalog, end_markers: bool) {
        self.compacted.store(catalog.max_epoch.0, SeqCst);
        *self.start.lock() = Some(Start { catalog, end_markers });
    }

    /// Breaks a running compaction off.
    pub(super) fn give_up(&self) {
        self.stopping.store(true, SeqCst);
        self.coordinator.progress.wake();
    }

    /// Waits for the end of a running compaction; no other begins.
    pub(super) fn stop(&self) {
        self.give_up();
        *self.start.lock() = None;
        self.known.forget();
    }

    /// Whether a running compaction was told to break off.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// After a shutdown, before the next start.
    pub(super) fn open_again(&self) {
        self.postponed.store(false, SeqCst);
        self.retention.owe(None);
        self.stopping.store(false, SeqCst);
    }

    /// Whether a compaction was asked for that is not done.
    pub(super) fn is_postponed(&self) -> bool {
        self.postponed.load(SeqCst) || self.retention.owed().is_some()
    }

    /// Whether nobody needs the files as they are.
    pub(super) fn may_start(&self) -> bool {
        self.is_without_backup() && self.held_back().is_none() && !self.known.is_damaged()
    }

    pub(super) fn known(&self) -> &KnownFiles {
        &self.known
    }

    fn is_without_backup(&self) -> bool {
        self.backups.count() == 0
    }

    pub(super) fn boundary(&self) -> WriteVersion {
        *self.boundary.lock()
    }

    /// Raises the boundary; false when that would lower it.
    pub(super) fn raise_boundary(&self, version: WriteVersion) -> bool {
        let mut boundary = self.boundary.lock();
        let raises = version >= *boundary;
        if raises {
            *boundary = version;
        }
        raises
    }

    pub(super) fn retain(&self, retained: Option<Retained>) {
        self.retention.set(retained);
        self.coordinator.progress.wake();
    }

    pub(super) fn retained_epoch(&self) -> Option<Epoch> {
        self.retention.epoch()
    }

    /// Who holds back a compaction that was asked for.
    pub(super) fn held_back(&self) -> Option<HeldBack> {
        self.retention.held_back()
    }

    /// The log holds every session beyond this epoch.
    pub(super) fn compacted_epoch(&self) -> Epoch {
        Epoch(self.compacted.load(SeqCst))
    }

    /// Whether there is an epoch to cut behind.
    pub(super) fn has_epochs(&self) -> bool {
        self.coordinator.epochs().switched() > Epoch(0)
    }

    /// What the log and the compacted file take on the disk; `None` outside of the life of the store.
    pub(super) fn sizes(&self) -> Result<Option<Sizes>> {
        let start = self.start.lock();
        let Some(Start { catalog, .. }) = &*start else { return Ok(None) };
        Sizes::of(&*self.vfs, &self.location, |name| catalog.detached.contains(name)).map(Some)
    }

    fn delete_listed(&self, catalog: &Catalog) -> Result<()> {
        match own::delete(&*self.vfs, &self.location, catalog)? {
            0 => {}
            count => log::info!("{count} log files that were compacted are deleted"),
        }
        Ok(())
    }

    /// A compaction that somebody asks for now.
    pub(super) fn run(&self) -> Result<Outcome> {
        self.run_for(Wanted::ByRequest { owed: None })
    }

    /// The one that was asked for and is not done.
    pub(super) fn run_postponed(&self) -> Result<Outcome> {
        self.run_for(Wanted::ByRequest { owed: self.retention.owed() })
    }

    /// One that nobody asked for.
    pub(super) fn run_by_itself(&self) -> Result<Outcome> {
        self.run_for(Wanted::ByItself)
    }

    fn run_for(&self, wanted: Wanted) -> Result<Outcome> {
        let (metrics, begun) = (&self.coordinator.metrics, Instant::now());
        metrics.running_compactions.set(1);
        let result = self.compact(wanted);
        metrics.running_compactions.set(0);
        match result {
            Ok(Outcome::Done) => metrics.count_compaction(begun.elapsed()),
            Ok(Outcome::NothingToDo | Outcome::Postponed) => {}
            Err(_) => metrics.failed_compactions.add(1),
        }
        result
    }

    fn compact(&self, wanted: Wanted) -> Result<Outcome> {
        if self.coordinator.callbacks.is_calling() {
            // It would wait for an epoch that the callback holds up.
            return Err(Error::WrongState("a compaction is not possible within a callback".to_owned()));
        }
        let mut start = self.start.lock();
        self.check()?;
        let Some(Start { catalog, end_markers }) = &mut *start else {
            return Err(Error::WrongState("a compaction is possible only between ready() and shutdown()".to_owned()));
        };
        if self.coordinator.epochs().switched() == Epoch(0) {
            let message = "rotation requires epoch_id > 0, but got epoch_id = 0";
            return Err(Error::WrongState(message.to_owned()));
        }
        self.compact_log(catalog, *end_markers, wanted)
    }

    /// Compacts what is in the log up to now; `catalog` is the new one afterwards.
    fn compact_log(&self, catalog: &mut Catalog, end_markers: bool, wanted: Wanted) -> Result<Outcome> {
        let boundary = self.boundary();
        let unused = boundary.major > catalog.max_epoch.0 && !self.blobs.is_collecting();
        let (next, owned) = self.blobs.next_and_owned();
        let before = BlobsBefore { next, owned, boundary };

        let cut = match self.cut()? {
            Ok(cut) => cut,
            Err(obstacle) => return Ok(self.postpone(obstacle, wanted)),
        };
        let ended = cut.epoch.min(self.coordinator.epochs().recorded());
        let needed = match wanted {
            Wanted::ByRequest { owed } => owed.unwrap_or(ended),
            Wanted::ByItself => ended,
        };
        self.wait_for_replica(needed);
        let retained = self.retained_epoch();
        let input = self.input(catalog, end_markers);
        let prepared = match self.prepare(&input, cut.epoch, retained, wanted)? {
            Preparation::Done(prepared) => prepared,
            Preparation::AllRetained if self.hold_back(needed, wanted) => return Ok(Outcome::Postponed),
            Preparation::AllRetained | Preparation::NoLog => {
                self.postponed.store(false, SeqCst);
                self.retention.owe(None);
                log::info!("there is nothing to compact");
                return Ok(Outcome::NothingToDo);
            }
        };
        let collects = unused && !cut.moved_sessions && !prepared.leaves_files_out();
        let garbage = if collects { self.find_garbage(&prepared, &before) } else { None };
        if let Err(e) = self.check() {
            prepared.abandon();
            return Err(e);
        }
        let Some(_change) = self.backups.try_change() else {
            prepared.abandon();
            return Ok(self.postpone(BACKUP, wanted));
        };
        let compacted = retained.map_or(cut.epoch, |retained| retained.min(cut.epoch));
        let committed = self.commit(&prepared, catalog, compacted, wanted)?;
        log::info!("compaction finished");
        if let Some((found, needed)) = garbage {
            // Begun while nobody can begin a backup, so that a backup that begins now waits for its end.
            self.blobs.collect(found, before.next, before.owned, needed);
        }
        self.postponed.store(false, SeqCst);
        if !prepared.leaves_files_out() || !self.hold_back(needed, wanted) {
            self.retention.owe(None);
        }
        *catalog = committed;
        if wanted == Wanted::ByItself {
            self.delete_listed(catalog)?;
        }
        let marks = self.names.sync();
        let saved = marks_file::save(&*self.vfs, &self.location, marks.marks(), marks_file::Which::Complete);
        saved.map_err(|e| self.coordinator.poison(e))?;
        Ok(Outcome::Done)
    }

    /// One that was asked for is kept when a file is damaged: it is done when that is no more.
    fn prepare<'a>(
        &self,
        input: &'a Input<'a>,
        epoch: Epoch,
        retained: Option<Epoch>,
        wanted: Wanted,
    ) -> Result<Preparation<'a>> {
        let comparison = self.known.comparison(&*self.vfs, &self.stopping);
        let prepared = compaction::prepare(input, epoch, retained, &|name| comparison.check(name));
        if let Some(damage) = comparison.damage() {
            self.known.found(&damage);
            self.postponed.fetch_or(wanted != Wanted::ByItself, SeqCst);
        }
        prepared
    }

    fn input<'a>(&'a self, catalog: &'a Catalog, end_markers: bool) -> Input<'a> {
        Input {
            vfs: &*self.vfs,
            location: &self.location,
            catalog,
            end_markers,
            // One thread: the others belong to the writers.
            threads: 1,
            memory_bytes: self.memory_bytes,
            releases: true,
            stopping: Some(&self.stopping),
            pace: None,
            marks: None,
        }
    }

    /// Puts the compacted file in the place of the log up to the epoch `compacted`; returns the new catalog.
    fn commit(&self, prepared: &Prepared<'_>, catalog: &Catalog, compacted: Epoch, wanted: Wanted) -> Result<Catalog> {
        // What is written down from an earlier run would else be taken for what is detached now.
        self.delete_listed(catalog)?;
        if wanted == Wanted::ByItself {
            let logs: Vec<String> = prepared.logs().map(str::to_owned).collect();
            own::intend(&*self.vfs, &self.location, &logs)?;
        }
        self.compacted.fetch_max(compacted.0, SeqCst);
        let committed = prepared.commit()?;
        marks_file::note_compacted(&*self.vfs, &self.location, self.names.sync().marks());
        Ok(committed)
    }

    /// A replica that is connected confirms an epoch a little after it was stored.
    fn wait_for_replica(&self, needed: Epoch) {
        let deadline = Instant::now() + REPLICA_PATIENCE;
        let hopeful = || self.retention.may_reach(needed) && self.check().is_ok();
        self.coordinator.progress.wait_until(Some(deadline), || !hopeful());
    }

    /// Keeps the request for a compaction up to this epoch when a replica holds it back, and says so. One that nobody
    /// asked for is due again by itself.
    fn hold_back(&self, needed: Epoch, wanted: Wanted) -> bool {
        let Some(held_back) = self.retention.holds_back(needed).filter(|_| wanted != Wanted::ByItself) else {
            return false;
        };
        self.retention.owe(Some(needed));
        log::warn!("the compaction is {held_back}");
        true
    }

    /// One that nobody asked for is due again when it is looked at the next time.
    fn postpone(&self, obstacle: &str, wanted: Wanted) -> Outcome {
        if wanted != Wanted::ByItself && !self.postponed.swap(true, SeqCst) {
            log::warn!("{obstacle} is in progress: the compaction is done when it has ended");
        }
        Outcome::Postponed
    }

    fn check(&self) -> Result<()> {
        match self.stopping.load(SeqCst) {
            true => Err(Error::WrongState("the data store was shut down".to_owned())),
            false => self.coordinator.check(),
        }
    }
}

/// The log is cut behind this epoch, and everything before the cut is durable and in rotated files.
struct Cut {
    epoch: Epoch,
    /// Sessions of that epoch were open and lie behind the cut.
    moved_sessions: bool,
}

/// Ends the cut for beginning sessions however the compaction goes on.
struct EndsCut<'a>(&'a FileNames);

impl Drop for EndsCut<'_> {
    fn drop(&mut self) {
        self.0.end_cut();
    }
}

impl Compactor {
    /// Whoever compacts in the background has failed: nothing is acknowledged any more.
    pub(super) fn failed(&self, error: Error) {
        self.coordinator.poison(error);
    }

    /// Says what is in the way when it has to be done later.
    fn cut(&self) -> Result<std::result::Result<Cut, &'static str>> {
        let epoch = {
            let Some(_change) = self.backups.try_change() else { return Ok(Err(BACKUP)) };
            self.names.cut_behind_current(&self.coordinator)
        };
        let _ends = EndsCut(&self.names);
        let stored = || self.coordinator.epochs().stored() >= epoch;
        self.coordinator.progress.wait_until(None, || stored() || self.check().is_err() || !self.is_without_backup());
        self.check()?;
        let Some(_change) = self.backups.try_change() else { return Ok(Err(BACKUP)) };
        if !self.names.is_cut_behind(epoch) {
            // A backup began and has ended since: sessions of later epochs may be in the files of earlier ones.
            return Ok(Err(BACKUP));
        }
        let _changing = self.names.lock();
        let channels = self.channels.read();
        if channels.iter().any(|channel| channel.has_covered_session()) {
            // The cut does not wait for its epoch, which was recorded before. It may hold older versions than a session
            // of that epoch which has ended, and those must not come to stand in front of them.
            return Ok(Err(EARLY_SESSION));
        }
        let mut moved_sessions = false;
        for channel in channels.iter() {
            moved_sessions |= channel.cut(epoch)?;
        }
        if let Some(e) = self.names.take_failure() {
            return Err(e);
        }
        // Files of channels that this process does not have (W5, W6).
        let own = |name: &str| channels.iter().any(|channel| channel.path().ends_with(name));
        rotation::rotate_idle(&*self.vfs, &self.location, |name| !own(name))?;
        Ok(Ok(Cut { epoch, moved_sessions }))
    }

    /// The BLOB files that may be unused now, and the entries whose BLOBs are needed. BLOBs of running transactions are
    /// not looked at: somebody owned them when the compaction began, or has registered them since. The compaction is
    /// done whatever happens here.
    fn find_garbage(&self, prepared: &Prepared<'_>, before: &BlobsBefore) -> Option<(Found, Snapshot)> {
        let find = || {
            let found = self.blobs.find_below(before.next)?;
            match found.is_empty() {
                true => Ok(None),
                false => Ok(Some((found, prepared.readable_blob_entries(before.boundary)?))),
            }
        };
        find().unwrap_or_else(|e: Error| {
            log::error!("blob files garbage collection failed: {e}");
            None
        })
    }
}

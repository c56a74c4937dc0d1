// SPDX-License-Identifier: Apache-2.0
//! The data store as its callers see it: opened, started, asked, and shut down.

use super::callbacks::{NotifyCallback, PersistentCallback};
use super::channel::Channel;
use super::compactor::Compactor;
use super::coordinator::Coordinator;
use super::events::{EventCallback, EventKind};
use super::file_names::FileNames;
use super::maintenance::Maintenance;
use super::pauses::Pauses;
use super::progress::NotifyLevel;
use super::safe_snapshot::{SafeSnapshot, SafeSnapshots, SnapshotCallback};
use super::settings::Settings;
use super::tags::{EpochTag, Tags};
use super::turns::{Turn, Turns};
use crate::backup::{InProgress, Progress as RestoreProgress};
use crate::blob::{BlobPool, BlobStore};
use crate::directory::data_directory::Directory;
use crate::error::{Error, Result};
use crate::lock_order::{Mutex, Rank, RwLock};
use crate::metrics::Metrics;
use crate::recovery::Snapshot;
use crate::types::{BlobId, Epoch};
use crate::vfs::{MeteredFs, Vfs};
use crate::wal::file_sync::NameSync;
use crate::wal::history_file::DirectoryHistory;
use crate::wal::marks_file::{self, Which};
use crate::wal::names;
use crate::wal::rotation;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    NotReady,
    Ready,
    Shutdown,
}

/// A data store. All calls may be made from any thread; [`Datastore::switch_epoch`] is meant for one at a time.
#[derive(Debug)]
pub struct Datastore {
    pub(super) settings: Settings,
    pub(super) given: Given,
    pub(super) instance_uuid: String,
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) channels: Arc<RwLock<Vec<Arc<Channel>>>>,
    pub(super) names: Arc<FileNames>,
    pub(super) backups: Arc<InProgress>,
    pub(super) pauses: Pauses,
    pub(super) compactor: Arc<Compactor>,
    pub(super) maintenance: Maintenance,
    /// Serializes what changes the directory: start, rotation, backup, restore, and the end of a shutdown.
    pub(super) lifecycle: Mutex<Lifecycle>,
    pub(super) turns: Turns,
    pub(super) snapshot: RwLock<Option<Snapshot>>,
    pub(super) max_blob_id: RwLock<BlobId>,
    pub(super) blobs: Arc<BlobStore>,
    pub(super) tags: Tags,
    /// The runs of the directory, the present one last; none before [`Self::ready`].
    pub(super) history: Mutex<Option<DirectoryHistory>>,
    pub(super) safe_snapshots: SafeSnapshots,
    pub(super) restore_progress: RestoreProgress,
}

#[derive(Debug)]
pub(super) struct Lifecycle {
    pub(super) state: State,
    /// Holds the lock of the directory; gone after a shutdown.
    pub(super) directory: Option<Directory>,
}

/// Where the directory is as the settings said it, before it was opened.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) location: PathBuf,
}

impl Datastore {
    /// Creates or opens the directory, takes its lock, checks its version and migrates it. Reads no log.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::UnsupportedVersion`], [`Error::BrokenMetadata`] or [`Error::Io`];
    /// [`Error::InvalidArgument`] for settings that contradict each other.
    pub fn open(settings: Settings) -> Result<Arc<Datastore>> {
        if settings.notify_level == NotifyLevel::Propagated && !settings.replicated {
            let message = "the notify level is PROPAGATED but no replication is configured: no epoch would be notified";
            return Err(Error::InvalidArgument(message.to_owned()));
        }
        let metrics = Arc::<Metrics>::default();
        let settings = Settings { vfs: Arc::new(MeteredFs::new(settings.vfs, metrics.clone())), ..settings };
        let directory = Directory::open(settings.vfs.clone(), &settings.location)?;
        let given = Given { vfs: settings.vfs, location: settings.location };
        // From here on the directory is found through its descriptor only.
        let settings = Settings { vfs: directory.vfs().clone(), location: directory.location().to_owned(), ..settings };
        let blobs = Arc::new(BlobStore::new(settings.vfs.clone(), &settings.location, metrics.clone()));
        let coordinator = Arc::new(Coordinator::new(settings.notify_level, settings.replicated, metrics));
        let names = Arc::new(FileNames::new(NameSync::new(settings.vfs.clone(), &settings.location)));
        let backups: Arc<InProgress> = Arc::default();
        let channels = Arc::new(RwLock::new(Rank::Channels, Vec::new()));
        let compactor = Arc::new(Compactor::new(&settings, &coordinator, &names, &backups, &channels, &blobs));
        let tags = Tags::open(settings.vfs.clone(), &settings.location);
        Ok(Arc::new(Datastore {
            instance_uuid: directory.identity(),
            blobs,
            tags,
            history: Mutex::new(Rank::History, None),
            safe_snapshots: SafeSnapshots::default(),
            coordinator,
            settings,
            given,
            channels,
            names,
            backups,
            compactor,
            maintenance: Maintenance::default(),
            turns: Turns::default(),
            pauses: Pauses::default(),
            lifecycle: Mutex::new(Rank::Lifecycle, Lifecycle { state: State::NotReady, directory: Some(directory) }),
            snapshot: RwLock::default(),
            max_blob_id: RwLock::default(),
            restore_progress: RestoreProgress::default(),
        }))
    }

    /// The identity of the directory.
    pub fn instance_uuid(&self) -> &str {
        &self.instance_uuid
    }

    /// What is counted of it, from [`Self::open`] on, through shutdowns too.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.coordinator.metrics
    }

    /// The disk that the directory is on.
    pub fn vfs(&self) -> &dyn Vfs {
        &*self.settings.vfs
    }

    /// The same, for somebody who keeps it.
    pub fn shared_vfs(&self) -> Arc<dyn Vfs> {
        self.settings.vfs.clone()
    }

    /// Epochs up to this one are compacted: not all of their sessions are in the log any more. All later ones are. 0
    /// before [`Self::ready`].
    pub fn compacted_epoch(&self) -> Epoch {
        self.compactor.compacted_epoch()
    }

    /// The absolute path of the directory.
    pub fn location(&self) -> &Path {
        &self.settings.location
    }

    /// As set for listeners to events.
    pub fn instance_id(&self) -> &str {
        &self.settings.instance_id
    }

    /// As set for listeners to events.
    pub fn db_name(&self) -> &str {
        &self.settings.db_name
    }

    /// Makes the next log channel; no file is created before its first session. May be called at any time before
    /// [`Self::shutdown`].
    pub fn create_channel(&self) -> Result<Arc<Channel>> {
        let mut channels = self.channels.write();
        if self.coordinator.is_shut_down() {
            return Err(Error::WrongState("create_channel() called after shutdown()".to_owned()));
        }
        let path = self.settings.location.join(names::log_of_channel(channels.len()));
        let (vfs, number, names) = (self.settings.vfs.clone(), channels.len() as u32, self.names.clone());
        let (coordinator, blobs) = (self.coordinator.clone(), self.blobs.clone());
        let channel = Arc::new(Channel::new(vfs, path, number, coordinator, names, blobs));
        self.coordinator.sessions.register(channel.slot());
        channels.push(channel.clone());
        Ok(channel)
    }

    /// Whether it was shut down, or is being shut down now, and has not been started again.
    pub fn is_shut_down(&self) -> bool {
        self.coordinator.is_shut_down()
    }

    /// How many bytes at the begin of the log file of this name stay as they are while the directory is open: what is
    /// in a session that has not ended may be cut off. No bound where nobody appends. What the file did not have
    /// before the call does not count.
    pub fn settled_bytes(&self, name: &str) -> u64 {
        let number = names::channel_of_log(name).filter(|_| names::is_active_log(name));
        let channel = number.and_then(|number| self.channels.read().get(number as usize).cloned());
        channel.and_then(|channel| channel.settled_bytes()).unwrap_or(u64::MAX)
    }

    /// How many channels were made.
    pub fn channel_count(&self) -> usize {
        self.channels.read().len()
    }

    /// Declares `epoch` the current one: sessions begun from now on belong to it. Earlier epochs whose sessions have
    /// all ended become durable, and the callback is called for them: with a commit journal soon, by another thread,
    /// without one before this returns or on the thread that is busy with an earlier one. A value that is not larger
    /// than the current one changes nothing but a warning in the log.
    pub fn switch_epoch(&self, epoch: Epoch) -> Result<()> {
        self.coordinator.switch(epoch)
    }

    /// The largest epoch that has become durable; after [`Self::ready`], the largest that ever left a trace.
    pub fn last_epoch(&self) -> Epoch {
        self.coordinator.epochs().stored()
    }

    /// The current epoch.
    pub fn switched_epoch(&self) -> Epoch {
        self.coordinator.epochs().switched()
    }

    /// The largest epoch in the epoch file as far as this process knows; 0 before [`Self::ready`].
    pub fn recorded_epoch(&self) -> Epoch {
        self.coordinator.epochs().recorded()
    }

    /// Writes an epoch record although nothing asks for it.
    ///
    /// # Errors
    /// [`Error::WrongState`] when `epoch` has not ended (it is current, or a session holds it back), or before
    /// [`Self::ready`].
    pub fn record_epoch(&self, epoch: Epoch) -> Result<()> {
        self.coordinator.record(epoch)
    }

    /// Sets or removes the callback for durable epochs. When this returns, no call of the former one is running or
    /// will start, unless it is itself called from within it.
    pub fn set_persistent_callback(&self, callback: Option<PersistentCallback>) {
        self.coordinator.callbacks.set_persistent(callback);
    }

    /// Sets or removes the callback for epochs at the notify level, under the same rules.
    pub fn set_notify_callback(&self, callback: Option<NotifyCallback>) {
        self.coordinator.callbacks.set_notify(callback);
    }

    /// The largest BLOB id that the recovered entries and the catalog know; 0 before [`Self::ready`].
    pub fn max_blob_id(&self) -> BlobId {
        *self.max_blob_id.read()
    }

    /// The BLOB files: where they are, which are there, who needs them.
    pub fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// Makes a pool for the BLOBs of one transaction.
    pub fn blob_pool(&self) -> BlobPool {
        BlobPool::new(self.blobs.clone())
    }

    /// Moves the safe snapshot and tells replication and the snapshot callback. One below the present one changes
    /// nothing but an error in the log. When another thread is inside the callback, that one also tells this one.
    pub fn switch_safe_snapshot(&self, to: SafeSnapshot) {
        self.safe_snapshots.switch(to, |to| self.note_safe_snapshot(to.version));
    }

    /// Where the safe snapshot is; none before the first switch in this process.
    pub fn safe_snapshot(&self) -> Option<SafeSnapshot> {
        self.safe_snapshots.current()
    }

    /// Sets or removes the callback for the safe snapshot. A running call of the former one may outlast this.
    pub fn set_snapshot_callback(&self, callback: Option<SnapshotCallback>) {
        self.safe_snapshots.set_callback(callback);
    }

    /// Sets or removes who listens to events. When this returns, no call of the former one is running or will start.
    pub fn set_event_callback(&self, callback: Option<EventCallback>) {
        self.coordinator.events.set_callback(callback);
    }

    /// Tells the event callback that something happened.
    pub fn emit(&self, kind: EventKind, epoch: Epoch, success: bool) {
        self.coordinator.events.emit(kind, epoch, success);
    }

    /// All epoch tags in the order of their names.
    pub fn tags(&self) -> Vec<EpochTag> {
        self.tags.list()
    }

    /// The epoch tag with this name.
    pub fn find_tag(&self, name: &str) -> Option<EpochTag> {
        self.tags.find(name)
    }

    /// Gives the last durable epoch a name; false when there is a tag with this name already, which stays. The tag is
    /// durable when this returns. A failure leaves the data store as it was.
    pub fn register_tag(&self, name: &str, comments: &str) -> Result<bool> {
        self.tags.register(name, comments, self.last_epoch())
    }

    /// Removes an epoch tag, durably; false when there is none with this name.
    pub fn unregister_tag(&self, name: &str) -> Result<bool> {
        self.tags.unregister(name)
    }

    /// What [`Self::ready`] recovered.
    pub fn snapshot(&self) -> Result<Snapshot> {
        match &*self.snapshot.read() {
            Some(snapshot) => Ok(snapshot.share()),
            None => Err(Error::WrongState("the snapshot exists only after ready()".to_owned())),
        }
    }

    /// Gives every log file a rotated name. Files change at session boundaries: what an open session has already
    /// written moves to the new file, so that the rotated one holds ended sessions only (W2). Waits for nobody but a
    /// running sync.
    pub fn rotate(&self) -> Result<()> {
        let lifecycle = self.lifecycle.lock();
        self.rotate_logs(&lifecycle)?;
        self.write_marks(Which::Complete)
    }

    /// Writes down where whoever reads the log next may begin.
    fn write_marks(&self, which: Which) -> Result<()> {
        self.coordinator.check_failure()?;
        let saved = marks_file::save(self.vfs(), self.location(), self.names.sync().marks(), which);
        saved.map_err(|e| self.coordinator.poison(e))
    }

    pub(super) fn rotate_logs(&self, lifecycle: &Lifecycle) -> Result<()> {
        self.coordinator.check_failure()?;
        self.check_there()?;
        if lifecycle.state != State::Ready {
            return Err(Error::WrongState("rotation is possible only between ready() and shutdown()".to_owned()));
        }
        let _changing = self.names.lock();
        if let Some(journaling) = self.coordinator.journaling() {
            // At once for all channels, so that little is left to each.
            journaling.journal.settle().map_err(|e| self.coordinator.poison(e))?;
        }
        let channels = self.channels.read();
        for channel in channels.iter() {
            channel.rotate()?;
        }
        // What a shutdown has closed meanwhile was left as it is.
        self.coordinator.check()?;
        // Files of channels that this process does not have (W5).
        let own = |name: &str| channels.iter().any(|channel| channel.path().ends_with(name));
        rotation::rotate_idle(&*self.settings.vfs, &self.settings.location, |name| !own(name)).map(drop)
    }

    /// Waits until every epoch that has ended is stored and has been told; with a commit journal that is done by
    /// another thread. Returns at once inside a callback.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when a write or sync has failed.
    pub fn drain(&self) -> Result<()> {
        match self.coordinator.journaling() {
            Some(journaling) if !self.coordinator.callbacks.is_calling() => journaling.drain(),
            _ => {}
        }
        self.coordinator.check()
    }

    /// Ends the data store: no session can begin or end any more, the lock is given back. Open sessions are left
    /// unended, so the next start does not see them. Waits for running syncs, and for a running callback unless it is
    /// called from within it; with a commit journal, for what has ended to be stored and told, and for the journal to
    /// be put away. Calling it again does nothing. [`Self::ready`] opens the directory again.
    pub fn shutdown(&self) {
        if let Some(turn) = self.turn_to_shut_down() {
            self.shutdown_in(&turn);
        }
    }

    /// As [`Self::shutdown`], for somebody who has the turn.
    pub(crate) fn shutdown_in(&self, _turn: &Turn<'_>) {
        self.compactor.give_up();
        let _ = self.drain();
        self.coordinator.shut_down();
        self.coordinator.set_tap(None);
        for channel in self.channels.write().iter() {
            channel.close();
        }
        let mut lifecycle = self.lifecycle.lock();
        if let Some(Err(e)) = self.coordinator.set_journaling(None).map(|journaling| journaling.close()) {
            self.coordinator.poison(e);
        }
        // A compaction and the threads end while the directory is still locked.
        self.compactor.stop();
        self.maintenance.stop();
        self.blobs.shut_down();
        self.tags.close();
        if lifecycle.state == State::Ready {
            // Who would be told of a failure is gone; there is no other start in this process then.
            let _ = self.write_marks(Which::All);
            self.leave();
        }
        lifecycle.state = State::Shutdown;
        lifecycle.directory = None;
    }
}

impl Drop for Datastore {
    fn drop(&mut self) {
        self.shutdown();
    }
}

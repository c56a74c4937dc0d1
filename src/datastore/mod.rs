// SPDX-License-Identifier: Apache-2.0
//! A running data store: its directory, its log channels and the coordination of epochs. Owns the life cycle and the
//! order of syncs that makes an epoch durable (`docs/durability.md`); promises that no epoch is acknowledged before
//! everything of it is on disk, and that nothing is acknowledged after a failure. Knows nothing of C, C++ or replicas.

mod backup;
mod callbacks;
mod channel;
mod committer;
mod compaction;
mod compactor;
mod coordinator;
mod durability;
mod epochs;
mod events;
mod file_names;
mod maintenance;
mod open_sessions;
mod progress;
mod safe_snapshot;
mod subscription;
mod tags;
mod tap;

pub use crate::types::Durability;
pub use backup::Backup;
pub use callbacks::{EpochEvent, NotifyCallback, PersistentCallback};
pub use channel::Channel;
pub use compactor::Outcome;
pub use events::{Event, EventCallback, EventKind};
pub use progress::{EpochDurability, NotifyLevel};
pub use safe_snapshot::{SafeSnapshot, SnapshotCallback};
pub use subscription::Subscription;
pub use tags::EpochTag;
pub use tap::{EndedSession, Tap, WrittenLog};

use crate::backup::{InProgress, Progress as RestoreProgress};
use crate::blob::{BlobPool, BlobStore};
use crate::directory::data_directory::Directory;
use crate::directory::make_control_directory;
use crate::directory::start::{self, Found, Reading, Record, Started};
use crate::error::{Error, Result};
use crate::recovery::Snapshot;
use crate::types::{BlobId, Epoch};
use crate::vfs::{RealFs, Vfs};
use crate::wal::file_sync::NameSync;
use crate::wal::names;
use crate::wal::rotation;
use compactor::Compactor;
use coordinator::Coordinator;
use file_names::FileNames;
use maintenance::Maintenance;
use parking_lot::{Mutex, RwLock};
use safe_snapshot::SafeSnapshots;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tags::Tags;

/// Bound for the index of a recovery when none is set: 1 GiB.
const DEFAULT_RECOVERY_MEMORY_BYTES: u64 = 1 << 30;
/// A smaller bound is raised to this: 1 MiB.
const RECOVERY_MEMORY_BYTES_MIN: u64 = 1 << 20;
/// As in the original's configuration.
const DEFAULT_RECOVERY_THREADS: usize = 8;

/// How to open a data store.
#[derive(Clone, Debug)]
pub struct Settings {
    location: PathBuf,
    vfs: Arc<dyn Vfs>,
    recovery_threads: usize,
    recovery_memory_bytes: u64,
    notify_level: NotifyLevel,
    replicated: bool,
    sessions_above_recovered: bool,
    instance_id: String,
    db_name: String,
}

impl Settings {
    /// Settings for the directory `location`; its parent must exist.
    pub fn new(location: impl Into<PathBuf>) -> Settings {
        Settings {
            location: location.into(),
            vfs: Arc::new(RealFs),
            recovery_threads: DEFAULT_RECOVERY_THREADS,
            recovery_memory_bytes: DEFAULT_RECOVERY_MEMORY_BYTES,
            notify_level: NotifyLevel::default(),
            replicated: false,
            sessions_above_recovered: true,
            instance_id: String::new(),
            db_name: String::new(),
        }
    }

    /// The disk to work on. Default: the machine's.
    pub fn vfs(mut self, vfs: Arc<dyn Vfs>) -> Settings {
        self.vfs = vfs;
        self
    }

    /// Threads that read the log at a start; no more are used than there are processors. 0 means the default.
    /// Default: 8.
    pub fn recovery_threads(mut self, threads: usize) -> Settings {
        self.recovery_threads = if threads == 0 { DEFAULT_RECOVERY_THREADS } else { threads };
        self
    }

    /// Memory in bytes that the index of a recovery may take, at least 1 MiB; beyond it, sorted pieces go to
    /// temporary files in the directory. 0 means the default. Default: 1 GiB.
    pub fn recovery_memory_bytes(mut self, bytes: u64) -> Settings {
        let bytes = if bytes == 0 { DEFAULT_RECOVERY_MEMORY_BYTES } else { bytes };
        self.recovery_memory_bytes = bytes.max(RECOVERY_MEMORY_BYTES_MIN);
        self
    }

    /// What the notify callback waits for. [`NotifyLevel::Propagated`] needs [`Self::replicated`]. Default:
    /// [`NotifyLevel::Stored`].
    pub fn notify_level(mut self, level: NotifyLevel) -> Settings {
        self.notify_level = level;
        self
    }

    /// The instance id that listeners to events are told. Default: empty.
    pub fn instance_id(mut self, instance_id: impl Into<String>) -> Settings {
        self.instance_id = instance_id.into();
        self
    }

    /// The name of the database that listeners to events are told. Default: empty.
    pub fn db_name(mut self, db_name: impl Into<String>) -> Settings {
        self.db_name = db_name.into();
        self
    }

    /// With replication, whether sessions before the first switch of epochs belong to an epoch above the recovered one:
    /// a replica that is brought up to date epoch by epoch needs that. Default: yes.
    pub fn sessions_above_recovered(mut self, above: bool) -> Settings {
        self.sessions_above_recovered = above;
        self
    }

    /// Whether replicas will confirm epochs. Default: no.
    pub fn replicated(mut self, replicated: bool) -> Settings {
        self.replicated = replicated;
        self
    }
}

/// What a start found.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// The durable epoch of the directory before the start.
    pub durable_epoch: Epoch,
    /// What [`Datastore::last_epoch`] now gives.
    pub last_epoch: Epoch,
    /// Entries read, all versions.
    pub entries: u64,
    /// The largest BLOB id that a durable entry refers to or the catalog knows.
    pub max_blob_id: BlobId,
    /// What was cut off or otherwise put right, a line each; also logged.
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    NotReady,
    Ready,
    Shutdown,
}

/// A data store. All calls may be made from any thread; [`Datastore::switch_epoch`] is meant for one at a time.
#[derive(Debug)]
pub struct Datastore {
    settings: Settings,
    instance_uuid: String,
    coordinator: Arc<Coordinator>,
    channels: Arc<RwLock<Vec<Arc<Channel>>>>,
    names: Arc<FileNames>,
    backups: Arc<InProgress>,
    compactor: Arc<Compactor>,
    maintenance: Maintenance,
    /// Serializes ready, rotation and shutdown.
    lifecycle: Mutex<Lifecycle>,
    snapshot: RwLock<Option<Snapshot>>,
    max_blob_id: RwLock<BlobId>,
    blobs: Arc<BlobStore>,
    tags: Tags,
    safe_snapshots: SafeSnapshots,
    restore_progress: RestoreProgress,
}

#[derive(Debug)]
struct Lifecycle {
    state: State,
    /// Holds the lock of the directory; gone after a shutdown.
    directory: Option<Directory>,
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
        let directory = Directory::open(settings.vfs.clone(), &settings.location)?;
        let blobs = Arc::new(BlobStore::new(settings.vfs.clone(), &settings.location));
        let coordinator = Arc::new(Coordinator::new(settings.notify_level, settings.replicated));
        let names = Arc::new(FileNames::new(NameSync::new(settings.vfs.clone(), &settings.location)));
        let backups: Arc<InProgress> = Arc::default();
        let channels: Arc<RwLock<Vec<Arc<Channel>>>> = Arc::default();
        let compactor = Arc::new(Compactor::new(&settings, &coordinator, &names, &backups, &channels, &blobs));
        let tags = Tags::open(settings.vfs.clone(), &settings.location);
        Ok(Arc::new(Datastore {
            instance_uuid: directory.identity().to_owned(),
            blobs,
            tags,
            safe_snapshots: SafeSnapshots::default(),
            coordinator,
            settings,
            channels,
            names,
            backups,
            compactor,
            maintenance: Maintenance::default(),
            lifecycle: Mutex::new(Lifecycle { state: State::NotReady, directory: Some(directory) }),
            snapshot: RwLock::default(),
            max_blob_id: RwLock::default(),

            restore_progress: RestoreProgress::default(),
        }))
    }

    /// The identity of the directory.
    pub fn instance_uuid(&self) -> &str {
        &self.instance_uuid
    }

    /// The disk that the directory is on.
    pub fn vfs(&self) -> &dyn Vfs {
        &*self.settings.vfs
    }

    /// The same, for somebody who keeps it.
    pub fn shared_vfs(&self) -> Arc<dyn Vfs> {
        self.settings.vfs.clone()
    }

    /// Epochs up to this one are compacted: not all of their sessions are in the log any more. All later ones are. 0 before
    /// [`Self::ready`].
    pub fn compacted_epoch(&self) -> Epoch {
        self.compactor.compacted_epoch()
    }

    /// The directory as it was given.
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

    /// Recovers what was acknowledged, puts the directory right and starts the epochs. Once, after [`Self::open`].
    ///
    /// # Errors
    /// [`Error::Corrupted`] when acknowledged data is damaged: then no file has been changed.
    pub fn ready(&self) -> Result<RecoveryReport> {
        self.ready_with(|_| Ok(()))
    }

    /// As [`Self::ready`]; `before_change` is told the durable epoch before the directory is changed. When it fails,
    /// nothing is.
    pub fn ready_with(&self, before_change: impl FnOnce(Epoch) -> Result<()>) -> Result<RecoveryReport> {
        let result = self.recover(before_change);
        let epoch = result.as_ref().map_or(Epoch(0), |report| report.last_epoch);
        self.emit(EventKind::WalStarted, epoch, result.is_ok());
        result
    }

    fn recover(&self, before_change: impl FnOnce(Epoch) -> Result<()>) -> Result<RecoveryReport> {
        let mut lifecycle = self.lifecycle.lock();
        let Lifecycle { state, directory } = &mut *lifecycle;
        let directory = match (&state, directory) {
            (State::NotReady, Some(directory)) => directory,
            (State::Ready, _) => return Err(Error::WrongState("ready() was already called".to_owned())),
            _ => return Err(Error::WrongState("ready() called after shutdown()".to_owned())),
        };
        self.coordinator.check()?;
        let channels = self.channels.read();
        if let Some(channel) = channels.iter().find(|channel| channel.is_open()) {
            let name = channel.path().display();
            return Err(Error::WrongState(format!("ready() called while a session is open on {name}")));
        }
        directory.reload()?;
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let found = start::read(
            directory,
            Reading {
                threads: self.settings.recovery_threads.min(processors.max(2)),
                snapshot_memory_bytes: Some(self.settings.recovery_memory_bytes),
            },
        )?;
        let blob_files = self.blobs.scan()?;
        before_change(found.durable())?;
        let started = self.put_right(found).map_err(|e| self.coordinator.poison(e))?;
        for channel in channels.iter() {
            channel.forget_file();
        }
        let Started { epoch_file, durable, last_epoch, entries, max_blob_id, snapshot, warnings } = started;
        let report = RecoveryReport { durable_epoch: durable, last_epoch, entries, max_blob_id, warnings };
        *self.max_blob_id.write() = report.max_blob_id;
        let above_recovered = self.settings.replicated && self.settings.sessions_above_recovered;
        self.coordinator.start(epoch_file, report.last_epoch, above_recovered);
        self.blobs.start(report.max_blob_id, blob_files, snapshot.share());
        *self.snapshot.write() = Some(snapshot);
        self.compactor.start(directory.catalog.clone(), directory.has_end_markers());
        self.maintenance.start(self.settings.vfs.clone(), &self.settings.location, self.compactor.clone());
        *state = State::Ready;
        Ok(report)
    }

    fn put_right(&self, found: Found<'_>) -> Result<Started> {
        let started = found.put_right(Record::Last)?;
        make_control_directory(&*self.settings.vfs, &self.settings.location)?;
        Ok(started)
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

    /// Declares `epoch` the current one: sessions begun from now on belong to it. Earlier epochs whose sessions have
    /// all ended become durable, and the callback is called for them, before this returns or on the thread that is
    /// busy with an earlier one. A value that is not larger than the current one changes nothing but a warning in the log.
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

    /// Moves the safe snapshot and tells replication and the snapshot callback. One below the present one changes nothing but an error in
    /// the log. When another thread is inside the callback, that one also tells this one.
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
        self.rotate_logs(&self.lifecycle.lock())
    }

    fn rotate_logs(&self, lifecycle: &Lifecycle) -> Result<()> {
        if lifecycle.state != State::Ready {
            return Err(Error::WrongState("rotation is possible only between ready() and shutdown()".to_owned()));
        }
        let _changing = self.names.lock();
        let channels = self.channels.read();
        for channel in channels.iter() {
            channel.rotate()?;
        }
        // Files of channels that this process does not have (W5).
        let own = |name: &str| channels.iter().any(|channel| channel.path().ends_with(name));
        rotation::rotate_idle(&*self.settings.vfs, &self.settings.location, |name| !own(name))
    }

    /// Ends the data store: no session can begin or end any more, the lock is given back. Open sessions are left
    /// unended, so the next start does not see them. Waits for running syncs, and for a running callback unless it is
    /// called from within it. Calling it again does nothing.
    pub fn shutdown(&self) {
        self.compactor.give_up();
        self.coordinator.shut_down();
        self.coordinator.set_tap(None);
        for channel in self.channels.write().iter() {
            channel.close();
        }
        let mut lifecycle = self.lifecycle.lock();
        // A compaction and the threads end while the directory is still locked.
        self.compactor.stop();
        self.maintenance.stop();
        self.blobs.shut_down();
        self.tags.close();
        lifecycle.state = State::Shutdown;
        lifecycle.directory = None;
    }
}

impl Drop for Datastore {
    fn drop(&mut self) {
        self.shutdown();
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Drives a data store on a simulated disk through a script and keeps the model of what happened.

use crate::backups::OpenBackup;
use crate::faults::failed_writes;
use crate::model::{first_marker, last_marker, Change, Content, Model, Progress, SessionId, MARKERS};
use crate::script::{Script, Step};
use limestone_core::datastore::{Channel, Datastore, Durability, EpochEvent, Outcome, Settings};
use limestone_core::error;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{SimFs, Vfs};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};

pub const LOCATION: &str = "/log";

/// What to do when a call of the data store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Stop: nothing works any more.
    Stop,
    /// Carry on with the script, as an application that ignores errors would, as long as starts succeed.
    Ignore,
    /// The same; a start that fails is tried once more, as an operator would, and must then succeed.
    IgnoreAndStartAgain,
}

/// A data store in use, with all that is known about it.
pub struct Run {
    pub fs: SimFs,
    pub model: Model,
    /// What must never happen and did.
    pub violations: Arc<Mutex<Vec<String>>>,
    /// Errors that calls returned, in order.
    pub errors: Vec<String>,
    store: Option<Arc<Datastore>>,
    channels: Vec<Arc<Channel>>,
    open: Vec<Option<SessionId>>,
    refused: BTreeSet<SessionId>,
    switched: u64,
    minor: u64,
    observer: Arc<dyn Fn(EpochEvent) + Send + Sync>,
    pub(crate) backups: Vec<OpenBackup>,
    /// The acknowledged epoch when a write or sync failed.
    frozen: Option<u64>,
}

pub(crate) fn text(error: limestone_core::error::Error) -> String {
    error.to_string()
}

/// Prints how many states of the disk were tried when all tests are done. The runner of the tests has no place for that
/// and hides what they print.
fn say_states_at_exit() {
    extern "C" fn say() {
        // Nobody is left who could be told of a failure.
        let (tried, same) = (SimFs::images_made(), SimFs::images_skipped());
        let _ = writeln!(std::io::stdout(), "crash suite: {tried} states of the disk tried; {same} more were the same");
    }
    // SAFETY: the function is there as long as the program and panics nowhere. Without memory the line is not printed.
    unsafe { libc::atexit(say) };
}

impl Run {
    pub fn new(fs: &SimFs, model: Model) -> Run {
        static COUNT: Once = Once::new();
        COUNT.call_once(say_states_at_exit);
        Run {
            fs: fs.clone(),
            model,
            violations: Arc::default(),
            errors: Vec::new(),
            store: None,
            channels: Vec::new(),
            open: Vec::new(),
            refused: BTreeSet::new(),
            switched: 0,
            minor: 0,
            observer: Arc::new(|_| ()),
            backups: Vec::new(),
            frozen: None,
        }
    }

    /// Opens the directory and makes it ready; checks what is there against the model, which is final from then on.
    pub fn start(&mut self, channels: usize) -> Result<BTreeSet<SessionId>, String> {
        let settings = Settings::new(LOCATION).vfs(Arc::new(self.fs.clone())).commit(self.model.commit);
        let store = Datastore::open(settings).map_err(text)?;
        self.watch(&store);
        self.channels = (0..channels).map(|_| store.create_channel()).collect::<Result<_, _>>().map_err(text)?;
        self.open = vec![None; channels];
        self.frozen = None;
        store.ready().map_err(text)?;
        let content = read(&store)?;
        let last_epoch = store.last_epoch().0;
        self.switched = last_epoch;
        self.store = Some(store);
        let visible = self.model.check(&content, last_epoch).map_err(|wrong| self.violation(wrong))?;
        self.model.settle(&visible, last_epoch);
        Ok(visible)
    }

    /// Records every acknowledgement and whether their order is right.
    fn watch(&self, store: &Arc<Datastore>) {
        let acknowledged = self.model.acknowledged.clone();
        let violations = self.violations.clone();
        let observer = self.observer.clone();
        let last = AtomicU64::new(0);
        store.set_persistent_callback(Some(Arc::new(move |event: EpochEvent| {
            if event.state != Durability::Stored {
                violations.lock().unwrap().push(format!("{event:?} without replicas"));
            }
            let before = last.swap(event.epoch.0, Ordering::SeqCst);
            if before >= event.epoch.0 {
                violations.lock().unwrap().push(format!("epoch {} was reported after epoch {before}", event.epoch));
            }
            acknowledged.fetch_max(event.epoch.0, Ordering::SeqCst);
            observer(event);
        })));
    }

    /// Shows every event of the data store to `observer`, from the next start on.
    pub fn on_event(&mut self, observer: impl Fn(EpochEvent) + Send + Sync + 'static) {
        self.observer = Arc::new(observer);
    }

    /// What is there, without checking it.
    pub fn content(&self) -> Result<Content, String> {
        let store = Datastore::open(Settings::new(LOCATION).vfs(Arc::new(self.fs.clone()))).map_err(text)?;
        store.ready().map_err(text)?;
        read(&store)
    }

    pub(crate) fn violation(&self, what: String) -> String {
        self.violations.lock().unwrap().push(what.clone());
        what
    }

    /// Runs the script from the start of the data store to the end of the steps; the store stays open.
    pub fn play(&mut self, script: &Script, on_error: OnError) {
        if let Err(error) = self.start_or_retry(on_error, script.channels) {
            self.errors.push(error);
            return;
        }
        for step in &script.steps {
            let result = match step {
                Step::Restart => {
                    self.stop();
                    self.start_or_retry(on_error, script.channels)
                }
                _ => self.step(step),
            };
            if let Err(error) = result {
                self.errors.push(error);
                let is_upkeep = matches!(step, Step::Compact | Step::CompactAndDelete | Step::DeleteDetached);
                if is_upkeep && on_error != OnError::Stop {
                    // What fails is mostly not the log, which goes on.
                    continue;
                }
                if on_error == OnError::Stop || self.store.is_none() {
                    return;
                }
                self.freeze();
            }
            self.check_frozen();
        }
    }

    fn start_or_retry(&mut self, on_error: OnError, channels: usize) -> Result<(), String> {
        let Err(error) = self.start(channels) else {
            return Ok(());
        };
        if on_error != OnError::IgnoreAndStartAgain {
            return Err(error);
        }
        self.errors.push(error);
        self.stop();
        let again = self.start(channels).map(drop);
        again.map_err(|error| self.violation(format!("the second start failed as well: {error}")))
    }

    /// After a failed write or sync nothing may be acknowledged until the next start.
    fn freeze(&mut self) {
        if self.frozen.is_some() {
            return;
        }
        // On the epoch file of a backup nothing depends but the backup.
        let trace = self.fs.trace();
        let last = trace.iter().rev().find(|call| call.contains(" -> "));
        let counts = |call: &String| failed_writes(&trace).next_back() == Some(call) && !call.contains("/log/epoch.");
        if last.is_some_and(counts) {
            self.frozen = Some(self.model.acknowledged());
        }
    }

    fn check_frozen(&self) {
        match (self.frozen, self.model.acknowledged()) {
            (Some(frozen), now) if now != frozen => {
                self.violation(format!("epoch {now} was acknowledged after a failed write or sync, {frozen} before"));
            }
            _ => {}
        }
    }

    /// Shuts down and lets go of everything.
    pub fn stop(&mut self) {
        self.channels.clear();
        self.open.clear();
        self.backups.clear();
        if let Some(store) = self.store.take() {
            let failed = self.fs.has_failed();
            store.shutdown();
            if self.fs.has_failed() && !failed {
                // Nobody is told but the log: nothing depends on it.
                self.errors.push("a call failed in the shutdown".to_owned());
            }
        }
    }

    /// Makes a step and waits until its epochs are told, so that the calls to the disk have one order.
    fn step(&mut self, step: &Step) -> Result<(), String> {
        let made = self.make_step(step);
        let drained = self.store().drain().map_err(text);
        made.and(drained)
    }

    fn make_step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Begin(channel) => self.begin(*channel),
            Step::Put { channel, storage, key, value_len } => {
                let mut value = format!("{key} {} ", self.minor).into_bytes();
                value.resize(value.len().max(*value_len), b'.');
                self.change(*channel, Change::Put { storage: *storage, key: key.clone().into_bytes(), value })
            }
            Step::Remove { channel, storage, key } => {
                self.change(*channel, Change::Remove { storage: *storage, key: key.clone().into_bytes() })
            }
            Step::Clear { channel, storage } => self.change(*channel, Change::Clear { storage: *storage }),
            Step::End(channel) => self.end(*channel),
            Step::Abort(channel) => self.abort(*channel),
            Step::Switch => self.switch(),
            Step::Rotate => self.store().rotate().map_err(text),
            Step::Compact => self.compact(Datastore::compact),
            Step::CompactAndDelete => self.compact(Datastore::compact_and_delete),
            Step::DeleteDetached => self.delete_detached(),
            Step::BeginBackup => self.begin_backup(),
            Step::EndBackup => self.end_backup(),
            Step::Restart => Ok(()),
        }
    }

    pub fn store(&self) -> &Arc<Datastore> {
        self.store.as_ref().expect("the data store is open")
    }

    pub fn switch(&mut self) -> Result<(), String> {
        self.switched += 1;
        self.store().switch_epoch(Epoch(self.switched)).map_err(text)
    }

    /// Nothing has been written since the last switch, so that the switches meanwhile make no calls to the disk: the
    /// calls are the same in every run.
    fn compact(&mut self, how: fn(&Datastore) -> error::Result<Outcome>) -> Result<(), String> {
        let store = self.store().clone();
        let compaction = std::thread::spawn(move || how(&store).map(drop).map_err(text));
        while !compaction.is_finished() {
            // A failure ends the compaction as well, which reports it.
            let _ = self.switch();
            std::thread::yield_now();
        }
        compaction.join().map_err(|_| "the compaction panicked".to_owned())?
    }

    fn delete_detached(&mut self) -> Result<(), String> {
        let location = Path::new(LOCATION);
        let catalog = self.fs.read(&location.join("compaction_catalog"), 1 << 20).map_err(|e| e.to_string())?;
        let catalog = limestone_core::wal::catalog::parse(&catalog)?;
        // As the script does: a power cut may take back a catalog whose sync has failed.
        self.fs.sync_dir(location).map_err(|e| e.to_string())?;
        for name in &catalog.detached {
            match self.fs.unlink(&location.join(name)) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                other => other.map_err(|e| e.to_string())?,
            }
        }
        Ok(())
    }

    pub fn begin(&mut self, channel: usize) -> Result<(), String> {
        let epoch = self.channels[channel].begin_session().map_err(text)?;
        let id = self.model.begin(epoch.0);
        self.open[channel] = Some(id);
        self.change(channel, Change::Put { storage: MARKERS, key: first_marker(id), value: b"1".to_vec() })
    }

    fn change(&mut self, channel: usize, change: Change) -> Result<(), String> {
        let Some(id) = self.open[channel] else { return Ok(()) };
        self.minor += 1;
        let (major, minor) = (self.model.sessions[id].epoch, self.minor);
        let version = WriteVersion { major, minor };
        let to = &self.channels[channel];
        let result = match &change {
            Change::Put { storage, key, value } => to.add_entry(StorageId(*storage), key, value, version, &[]),
            Change::Remove { storage, key } => to.remove_entry(StorageId(*storage), key, version),
            Change::Clear { storage } => to.truncate_storage(StorageId(*storage), version),
        };
        self.model.sessions[id].changes.push(((major, minor), change));
        if result.is_err() {
            self.refused.insert(id);
        }
        result.map_err(text)
    }

    fn abort(&mut self, channel: usize) -> Result<(), String> {
        let Some(id) = self.open[channel].take() else { return Ok(()) };
        // From the call on: whether it succeeds or not, the session has not ended.
        self.model.sessions[id].progress = Progress::Discarded;
        self.channels[channel].abort_session().map_err(text)
    }

    pub fn end(&mut self, channel: usize) -> Result<(), String> {
        let Some(id) = self.open[channel] else { return Ok(()) };
        // An error has marked the session already.
        let marked = self.change(channel, Change::Put { storage: MARKERS, key: last_marker(id), value: b"2".to_vec() });
        self.open[channel] = None;
        if !self.refused.contains(&id) {
            self.model.sessions[id].progress = Progress::Ending;
        }
        self.channels[channel].end_session().map_err(text)?;
        if self.refused.contains(&id) {
            return Err(self.violation(format!("session {id} ended well though one of its entries was refused")));
        }
        self.model.sessions[id].progress = Progress::Ended;
        marked
    }
}

impl Run {
    /// Writes a session in an epoch of its own, which must be acknowledged.
    pub fn write_one_session(&mut self) -> Result<(), String> {
        self.switch()?;
        let epoch = self.switched;
        self.begin(0)?;
        self.end(0)?;
        self.switch()?;
        self.store().drain().map_err(text)?;
        match self.model.acknowledged() {
            acknowledged if acknowledged < epoch => {
                Err(format!("epoch {epoch} has ended, but only {acknowledged} was acknowledged"))
            }
            _ => Ok(()),
        }
    }
}

/// Everything that a cursor shows.
pub fn read(store: &Arc<Datastore>) -> Result<Content, String> {
    let mut content = Content::new();
    let mut cursor = store.snapshot().map_err(text)?.cursor();
    while let Some(row) = cursor.next().map_err(text)? {
        if content.insert((row.storage.0, row.key.to_vec()), row.value.to_vec()).is_some() {
            return Err("a cursor shows a key twice".to_owned());
        }
    }
    Ok(content)
}

/// The last calls of a run, to be shown with a failure.
pub fn tail(fs: &SimFs) -> String {
    let trace = fs.trace();
    trace[trace.len().saturating_sub(15)..].join("\n  ")
}

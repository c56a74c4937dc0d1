// SPDX-License-Identifier: Apache-2.0
//! What the connections of a replica share: its store, its terms, the session of the one primary, and whether it goes on.

use super::board::Board;
use super::recorder::Recorder;
use crate::error::{Error, Result};
use crate::replication::native::protocol::handshake::Standing;
use crate::replication::native::protocol::message::{Code, Message, Outcome, PrimaryIdentity, Reason};
use crate::replication::native::protocol::replica_session::{ReplicaAction, ReplicaSession};
use crate::replication::native::protocol::Millis;
use crate::replication::net::transport;
use crate::replication::replica_store::{BaseStaging, StandbyStore, SwitchedVersions};
use crate::replication::secret::Secret;
use crate::replication::state_file::{ReplicationState, Term};
use crate::replication::status::{Side, Status};
use crate::types::Epoch;
use crate::vfs::Vfs;
use parking_lot::{Condvar, Mutex, RwLock};
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a replica serves.
#[derive(Clone, Debug)]
pub struct Options {
    /// For a handshake, for a peer that takes nothing, for a primary that is silent. Default: 10 s.
    pub timeout: Duration,
    pub secret: Secret,
    /// Whether a peer elsewhere is accepted without a secret.
    pub allow_no_secret: bool,
    /// End with the first session of a primary.
    pub once: bool,
}

/// The replica as a whole.
#[derive(Debug)]
pub(super) struct Node {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    pub(super) options: Options,
    /// Gone while a base sync is put in place, and during a compaction.
    store: RwLock<Option<Arc<StandbyStore>>>,
    terms: Mutex<Option<ReplicationState>>,
    /// The session of the primary.
    active: Mutex<Option<Arc<Active>>>,
    /// Held while a primary is accepted: one at a time.
    pub(super) accepting: Mutex<()>,
    pub(super) board: Board,
    started: Instant,
    stopping: AtomicBool,
    stopped: Mutex<bool>,
    stop_signal: Condvar,
    failure: Mutex<Option<String>>,
    /// How the first session ended, with `once`.
    outcome: Mutex<Option<std::result::Result<(), String>>>,
}

/// The session of a primary and its connections.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) session: Mutex<ReplicaSession>,
    pub(super) store: Arc<StandbyStore>,
    pub(super) primary: PrimaryIdentity,
    control: Mutex<TcpStream>,
    streams: Mutex<Vec<TcpStream>>,
    /// Why it ended; the first reason counts.
    ended: Mutex<Option<End>>,
    /// Threads of its connections, but for the control connection's.
    threads: Mutex<usize>,
    idle: Condvar,
    /// When something came last, on the clock of the node.
    heard: AtomicU64,
    pub(super) recorder: Recorder,
}

/// Why a session ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// The primary took its leave.
    Bye,
    /// This side ends it, and says why.
    Told(Reason),
    /// The link was lost, or the primary said why it ends.
    Lost(String),
}

impl Node {
    pub(super) fn new(vfs: Arc<dyn Vfs>, location: &Path, options: Options) -> Result<Node> {
        let store = StandbyStore::open(vfs, location)?;
        // From here on the directory is found through its descriptor only.
        let (vfs, location) = (store.vfs().clone(), store.location().to_owned());
        let terms = ReplicationState::load(&*vfs, &location)?;
        Ok(Node {
            location,
            options,
            store: RwLock::new(Some(Arc::new(store))),
            terms: Mutex::new(terms),
            active: Mutex::default(),
            accepting: Mutex::default(),
            board: Board::new(),
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            stopped: Mutex::new(false),
            stop_signal: Condvar::new(),
            failure: Mutex::default(),
            outcome: Mutex::default(),
            vfs,
        })
    }

    pub(super) fn now(&self) -> Millis {
        self.started.elapsed().as_millis() as Millis
    }

    pub(super) fn timeout_ms(&self) -> Millis {
        self.options.timeout.as_millis() as Millis
    }

    /// The store; an error while a base sync is being put in place, and during a compaction.
    pub(super) fn store(&self) -> std::result::Result<Arc<StandbyStore>, Reason> {
        self.store.read().clone().ok_or_else(|| Reason::new(Code::BUSY, "the directory is being replaced or compacted"))
    }

    pub(super) fn standing(&self, store: &StandbyStore) -> Standing {
        let term = self.terms.lock().as_ref().map_or(0, |state| state.term);
        Standing { uuid: store.identity(), empty: store.is_empty(), term, durable: store.durable() }
    }

    /// Takes over who the primary is, before it is accepted. A base sync brings it with the files.
    pub(super) fn adopt(&self, store: &StandbyStore, primary: &PrimaryIdentity, outcome: Outcome) -> Result<()> {
        if outcome == Outcome::BaseSync {
            return Ok(());
        }
        store.adopt_identity(&primary.uuid)?;
        let state = terms_of(primary)?;
        let mut terms = self.terms.lock();
        if terms.as_ref() != Some(&state) {
            state.save(&*self.vfs, &self.location)?;
            *terms = Some(state);
        }
        Ok(())
    }

    /// Where a base sync is gathered.
    pub(super) fn staging(&self) -> Result<BaseStaging> {
        BaseStaging::open(self.vfs.clone(), &self.location)
    }

    /// Puts a base sync in place of the directory's content and opens it anew.
    pub(super) fn install(&self, active: &Active, staging: &mut BaseStaging, files: u64) -> Result<()> {
        let state = terms_of(&active.primary)?;
        let mut slot = self.store.write();
        staging.install(files, &state)?;
        let own = slot.take();
        // The lock of the directory is given back when nobody holds the store any more; sessions hold theirs.
        if let Some(store) = &own {
            store.close();
        }
        drop(own);
        let store = StandbyStore::open(self.vfs.clone(), &self.location)?;
        log::info!("replication: the base sync is in place, {files} files, durable epoch {}", store.durable());
        *slot = Some(Arc::new(store));
        *self.terms.lock() = Some(state);
        Ok(())
    }

    /// Gives back the lock of the directory; until [`Self::open_store`] primaries are told to come again.
    pub(super) fn close_store(&self) {
        if let Some(store) = self.store.write().take() {
            store.close();
        }
    }

    /// Opens the directory anew.
    pub(super) fn open_store(&self) -> Result<()> {
        let mut slot = self.store.write();
        *slot = Some(Arc::new(StandbyStore::open(self.vfs.clone(), &self.location)?));
        Ok(())
    }

    pub(super) fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    pub(super) fn location(&self) -> &Path {
        &self.location
    }

    /// Waits, at most until the replica is stopped.
    pub(super) fn sleep(&self, time: Duration) {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.stop_signal.wait_for(&mut stopped, time);
        }
    }

    pub(super) fn active(&self) -> Option<Arc<Active>> {
        self.active.lock().clone()
    }

    pub(super) fn set_active(&self, active: Option<Arc<Active>>) {
        *self.active.lock() = active;
    }

    /// Stops accepting and ends the session.
    pub(super) fn stop(&self) {
        self.stopping.store(true, SeqCst);
        *self.stopped.lock() = true;
        self.stop_signal.notify_all();
        if let Some(active) = self.active() {
            active.end(End::Told(Reason::new(Code::SHUTDOWN, "the replica is being stopped")));
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Takes note of an error of the store and says how to tell the primary. A disk that failed ends the replica.
    pub(super) fn failed(&self, error: &Error) -> Reason {
        if let Error::InvalidArgument(text) | Error::WrongState(text) = error {
            return Reason::new(Code::PROTOCOL, text.clone());
        }
        let mut failure = self.failure.lock();
        if failure.is_none() {
            log::error!("replication: {error}; nothing is acknowledged any more, the program ends");
            *failure = Some(error.to_string());
        }
        Reason::new(Code::DISK, error.to_string())
    }

    /// Makes the versions that the primary switched to durable. They are told anew when that fails.
    pub(super) fn save_versions(&self, store: &StandbyStore) {
        if let Err(e @ Error::Io { .. }) = store.save_versions() {
            log::warn!("replication: {e}");
        }
    }

    /// The failure that ends the program.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    pub(super) fn session_ended(&self, end: &End) {
        let result = match end {
            End::Bye => Ok(()),
            End::Told(reason) => Err(reason.to_string()),
            End::Lost(reason) => Err(reason.clone()),
        };
        self.outcome.lock().get_or_insert(result);
    }

    /// How the first session ended.
    pub(super) fn outcome(&self) -> Option<std::result::Result<(), String>> {
        self.outcome.lock().clone()
    }

    pub(super) fn status(&self) -> Status {
        let store = self.store.read().clone();
        let durable = store.as_ref().map_or(Epoch(0), |store| store.durable());
        let view = self.board.view(durable);
        let versions = store.as_ref().map(|store| store.versions()).unwrap_or_default();
        let terms = self.terms.lock();
        Status {
            role: Side::Replica,
            protocol: "native".to_owned(),
            state: view.state,
            state_ms: view.state_ms,
            peer: view.peer,
            instance_uuid: store.map_or(String::new(), |store| store.identity()),
            term: terms.as_ref().map_or(0, |state| state.term),
            switched_epoch: view.switched.0,
            stored_epoch: view.stored.0,
            propagated_epoch: durable.0,
            lag: view.lag,
            policy: None,
            degraded_since: None,
            boundary: versions.boundary,
            safe_snapshot: versions.safe_snapshot,
            last_error: view.last_error,
        }
    }
}

/// The state file of a replica of this primary.
fn terms_of(primary: &PrimaryIdentity) -> Result<ReplicationState> {
    let mut history: Vec<Term> =
        primary.history.iter().map(|term| Term { term: term.term, first_epoch: term.first_epoch.0 }).collect();
    if history.is_empty() {
        history.push(Term { term: primary.term, first_epoch: 0 });
    }
    ReplicationState::replica_of(history)
        .map_err(|reason| Error::InvalidArgument(format!("the terms of the primary cannot be used: {reason}")))
}

impl Active {
    pub(super) fn new(
        session: ReplicaSession,
        store: Arc<StandbyStore>,
        primary: PrimaryIdentity,
        control: TcpStream,
        now: Millis,
    ) -> std::io::Result<Active> {
        let streams = vec![control.try_clone()?];
        Ok(Active {
            session: Mutex::new(session),
            store,
            primary,
            control: Mutex::new(control),
            streams: Mutex::new(streams),
            ended: Mutex::default(),
            threads: Mutex::default(),
            idle: Condvar::new(),
            heard: AtomicU64::new(now),
            recorder: Recorder::default(),
        })
    }

    /// Something came from the primary.
    pub(super) fn heard(&self, now: Millis) {
        self.heard.store(now, SeqCst);
        self.session.lock().heard(now);
    }

    pub(super) fn silent_ms(&self, now: Millis) -> Millis {
        now.saturating_sub(self.heard.load(SeqCst))
    }

    /// Takes a connection into the session: it is closed with it. False when the session has ended.
    pub(super) fn join(&self, stream: &TcpStream) -> std::io::Result<bool> {
        let ended = self.ended.lock();
        if ended.is_some() {
            return Ok(false);
        }
        self.streams.lock().push(stream.try_clone()?);
        *self.threads.lock() += 1;
        Ok(true)
    }

    /// The thread of a connection that joined ends.
    pub(super) fn leave(&self) {
        *self.threads.lock() -= 1;
        self.idle.notify_all();
    }

    /// Waits for the threads of all connections that joined, and until what they were told to commit is recorded. Nothing
    /// is appended, synced or recorded for the session after that.
    pub(super) fn wait(&self) {
        let mut threads = self.threads.lock();
        while *threads > 0 {
            self.idle.wait(&mut threads);
        }
        drop(threads);
        self.recorder.finish();
    }

    /// Ends the session with its first reason; all its connections are closed.
    pub(super) fn end(&self, end: End) {
        let mut ended = self.ended.lock();
        if ended.is_some() {
            return;
        }
        if let End::Told(reason) = &end {
            // Who does not listen any more does not hear it.
            let _ = self.send(&Message::Error(reason.clone()));
        }
        *ended = Some(end);
        for stream in self.streams.lock().iter() {
            transport::close(stream);
        }
    }

    pub(super) fn ended(&self) -> Option<End> {
        self.ended.lock().clone()
    }

    /// Sends on the control connection.
    pub(super) fn send(&self, message: &Message) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.control.lock().write_all(&bytes)
    }

    /// Everything up to `epoch` that came on the lane is synced, and a COMMIT asked for it.
    pub(super) fn lane_synced(&self, lane: u32, epoch: Epoch, blob_seq: u64) -> std::result::Result<(), End> {
        let action = self.session.lock().lane_synced(lane, epoch, blob_seq);
        self.carry_out(action)
    }

    /// Carries out what the session asks for, in its order; epochs are recorded by a thread of their own.
    pub(super) fn carry_out(&self, actions: impl IntoIterator<Item = ReplicaAction>) -> std::result::Result<(), End> {
        for action in actions {
            match action {
                ReplicaAction::Send(message) => {
                    self.send(&message).map_err(|e| End::Lost(format!("the primary cannot be told: {e}")))?;
                }
                ReplicaAction::Record(epoch) => self.recorder.record(epoch),
                ReplicaAction::Boundary(version) => {
                    self.store.raise_versions(SwitchedVersions { boundary: Some(version), ..Default::default() });
                }
                ReplicaAction::SafeSnapshot(version) => {
                    self.store.raise_versions(SwitchedVersions { safe_snapshot: Some(version), ..Default::default() });
                }
                ReplicaAction::Ended => return Err(End::Bye),
            }
        }
        Ok(())
    }
}

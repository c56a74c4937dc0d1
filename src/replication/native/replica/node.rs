// SPDX-License-Identifier: Apache-2.0
//! What the connections of a replica share: its store, its history, the session of the one primary, and whether it goes
//! on.

use super::board::Board;
use super::end::End;
use super::options::Options;
use super::rewinds::Rewinds;
use super::session::Session;
use crate::backup::InProgress;
use crate::error::{Error, Result};
use crate::lock_order::{Condvar, Mutex, Rank, ReadGuard, RwLock};
use crate::replication::native::protocol::handshake::{check_term, followed, history_of, Standing, Terms};
use crate::replication::native::protocol::message::{Code, Outcome, PrimaryIdentity, Reason};
use crate::replication::native::protocol::Millis;
use crate::replication::replica_store::{
    directory_id, BaseStaging, Fault, HeldDirectory, StandbyStore, SwitchedVersions,
};
use crate::replication::secret::Secret;
use crate::replication::status::{Known, LinkState, Status};
use crate::scrub::Scrubbed;
use crate::types::Epoch;
use crate::vfs::Vfs;
use crate::wal::claim::Claim;
use crate::wal::history_file::{DirectoryHistory, Place, Role};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long somebody who checks the directory while it is given back is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);
const LOCK_POLL: Duration = Duration::from_millis(50);
/// How long a primary at most has to wait for its answer while the directory is away: it must not give up meanwhile.
const STORE_PATIENCE: Duration = Duration::from_secs(1);

/// The replica as a whole.
#[derive(Debug)]
pub(super) struct Node {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    /// The identity of the directory, for primaries.
    pub(super) directory: u64,
    pub(super) options: Options,
    secret: RwLock<Secret>,
    /// Gone while a base sync is put in place, and during a rewind.
    store: RwLock<Option<Arc<StandbyStore>>>,
    /// Grows when somebody who waits for the store should look again.
    returns: Mutex<u64>,
    returned: Condvar,
    /// What the directory has, and the largest term that it has been told of.
    history: Mutex<DirectoryHistory>,
    /// The session of the primary.
    session: Mutex<Option<Arc<Session>>>,
    /// Held while a primary is accepted: one at a time.
    pub(super) accepting: Mutex<()>,
    pub(super) board: Board,
    pub(super) rewinds: Rewinds,
    pub(super) scrubbed: Scrubbed,
    /// Which backups are open; a compaction waits for them.
    pub(super) backups: Arc<InProgress>,
    /// What the store said last, for the status while it is being replaced.
    seen: Mutex<Seen>,
    started: Instant,
    stopping: AtomicBool,
    stopped: Mutex<bool>,
    stop_signal: Condvar,
    fault: Fault,
    /// How the first session ended, with `once`.
    outcome: Mutex<Option<std::result::Result<(), String>>>,
}

/// What the status tells of the store.
#[derive(Clone, Debug)]
struct Seen {
    durable: Epoch,
    identity: String,
    versions: SwitchedVersions,
    /// The term that the directory has been told of, and what it claims.
    known: Option<(u64, Claim)>,
}

impl Seen {
    /// `history` is that of the directory, when it can be had; `None` leaves what was `known` of it.
    fn of(store: &StandbyStore, history: Option<&DirectoryHistory>, known: Option<(u64, Claim)>) -> Seen {
        let durable = store.durable();
        let known = history.map_or(known, |history| history.run().map(|_| (history.term, history.claim(durable))));
        Seen { durable, identity: store.identity(), versions: store.versions(), known }
    }
}

impl Node {
    pub(super) fn new(vfs: Arc<dyn Vfs>, location: &Path, options: Options) -> Result<Node> {
        let store = StandbyStore::open_with(vfs, location, options.commit)?;
        // From here on the directory is found through its descriptor only.
        let (vfs, location) = (store.vfs().clone(), store.location().to_owned());
        let history = read_history(&*vfs, &location, &store.identity())?;
        let timeout_ms = options.timeout.as_millis() as u64;
        let seen = Seen::of(&store, Some(&history), None);
        let directory = directory_id::load_or_make(&*vfs, &location);
        Ok(Node {
            location,
            directory,
            secret: RwLock::new(Rank::Leaf, options.secret.clone()),
            options,
            store: RwLock::new(Rank::ReplicaStore, Some(Arc::new(store))),
            returns: Mutex::new(Rank::Leaf, 0),
            returned: Condvar::new(),
            history: Mutex::new(Rank::ReplicaHistory, history),
            session: Mutex::new(Rank::Serving, None),
            accepting: Mutex::new(Rank::Accepting, ()),
            board: Board::new(timeout_ms),
            rewinds: Rewinds::default(),
            scrubbed: Scrubbed::default(),
            backups: Arc::default(),
            seen: Mutex::new(Rank::Seen, seen),
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            stopped: Mutex::new(Rank::Leaf, false),
            stop_signal: Condvar::new(),
            fault: Fault::default(),
            outcome: Mutex::default(),
            vfs,
        })
    }

    /// What peers have to know.
    pub(super) fn secret(&self) -> Secret {
        self.secret.read().clone()
    }

    /// What a handshake goes by.
    pub(super) fn terms(&self) -> Terms {
        Terms { secret: self.secret(), version_min: self.options.version_min, is_protected: self.options.tls.is_some() }
    }

    pub(super) fn set_secret(&self, secret: Secret) {
        *self.secret.write() = secret;
    }

    pub(super) fn now(&self) -> Millis {
        self.started.elapsed().as_millis() as Millis
    }

    pub(super) fn timeout_ms(&self) -> Millis {
        self.options.timeout.as_millis() as Millis
    }

    /// The store; an error while a base sync is being put in place, and during a rewind.
    pub(super) fn store(&self) -> std::result::Result<Arc<StandbyStore>, Reason> {
        self.store.read().clone().ok_or_else(|| Reason::new(Code::BUSY, "the directory is being replaced"))
    }

    /// The same; it stays what it is as long as the result lives.
    pub(super) fn store_slot(&self) -> ReadGuard<'_, Option<Arc<StandbyStore>>> {
        self.store.read()
    }

    /// Waits while the store is away, for a time that a primary has: a rewind is soon over.
    pub(super) fn await_store(&self) {
        let deadline = Instant::now() + STORE_PATIENCE.min(self.options.timeout / 4);
        let look = || *self.returns.lock();
        let mut seen = look();
        while self.store().is_err() && !self.is_stopping() && self.failure().is_none() && Instant::now() < deadline {
            let (mut returns, left) = (self.returns.lock(), deadline.saturating_duration_since(Instant::now()));
            self.returned.wait_while_for(&mut returns, |returns| *returns == seen, left);
            seen = *returns;
        }
    }

    fn let_look_for_store(&self) {
        *self.returns.lock() += 1;
        self.returned.notify_all();
    }

    pub(super) fn standing(&self, store: &StandbyStore) -> Standing {
        let known = self.history.lock();
        let (term, history) = (known.term, known.history.clone());
        // What was given up counts for nothing.
        let durable = if known.is_given_up() { Epoch(0) } else { store.durable() };
        Standing { uuid: store.identity(), empty: store.is_empty(), term, history, durable }
    }

    /// Refuses a primary that another one has taken over from, whatever goes on here.
    pub(super) fn check_term(&self, primary: &PrimaryIdentity) -> std::result::Result<(), Reason> {
        if let Some(session) = self.session() {
            check_term(primary, &session.primary.uuid, session.primary.term)?;
        }
        let known = self.history.lock();
        check_term(primary, &known.instance, known.term)
    }

    /// Takes over the history of the primary, before it is accepted.
    pub(super) fn adopt(
        &self,
        store: &StandbyStore,
        standing: &Standing,
        primary: &PrimaryIdentity,
        outcome: Outcome,
    ) -> Result<()> {
        // Also before a base sync, so that nobody of an earlier term is accepted in between.
        store.adopt_identity(&primary.uuid)?;
        let mut known = self.history.lock();
        let next =
            followed(standing, known.claim(standing.durable), primary, outcome).going_on_from(&known, standing.durable);
        if *known != next {
            next.save(&*self.vfs, &self.location)?;
            *known = next;
        }
        Ok(())
    }

    /// Takes note of what a session's primary has told, unless the directory is being closed or replaced; see
    /// [`DirectoryHistory::told`].
    pub(super) fn note_told(&self, session: &Session) -> Result<()> {
        let told = session.machine.lock().told();
        let durable = session.store.durable();
        let slot = self.store.try_read();
        let is_open = slot.as_deref().is_some_and(Option::is_some);
        let mut known = self.history.lock();
        if let Some(next) = known.told(told, durable).filter(|_| is_open) {
            next.save(&*self.vfs, &self.location)?;
            *known = next;
        }
        Ok(())
    }

    /// Where a base sync is gathered.
    pub(super) fn staging(&self) -> Result<BaseStaging> {
        BaseStaging::open(self.vfs.clone(), &self.location)
    }

    /// Puts a base sync in place of the directory's content and opens it anew.
    pub(super) fn install(&self, session: &Session, staging: &mut BaseStaging, files: u64) -> Result<()> {
        // The primary says something twice in that time; later it is lost, and would not be told why.
        let stored = |epoch| session.stored_by_primary(epoch, self.options.timeout / 2);
        staging.verify(files, &session.primary.uuid, stored)?;
        let mut slot = self.store.write();
        let had = slot.as_ref().map_or(Epoch(0), |store| store.durable());
        let known = self.history.lock().clone();
        let history = history_of(&session.primary, known.claim(had)).going_on_from(&known, had);
        let _paused = slot.as_ref().map(|store| store.pause_journal()).transpose()?;
        staging.install(files, &history)?;
        let own = slot.take();
        // The lock of the directory is given back when nobody holds the store any more; sessions hold theirs.
        if let Some(store) = &own {
            store.close();
        }
        drop(own);
        let store = self.open_directory()?;
        log::info!("replication: the base sync is in place, {files} files, durable epoch {}", store.durable());
        *slot = Some(Arc::new(store));
        *self.history.lock() = history;
        self.rewinds.forget_count();
        self.scrubbed.healed();
        Ok(())
    }

    /// Gives back the lock of the directory: primaries are told to come again.
    pub(super) fn close_store(&self) {
        self.look();
        let Some(store) = self.store.write().take() else { return };
        // What was given up is replaced, and not read again.
        if self.awaits_base_sync() {
            store.close()
        } else {
            store.leave()
        }
        self.fault.note_of_store(store.failure());
    }

    /// The same until [`Self::open_held`], but nobody else gets the lock meanwhile. `None` when the directory is closed
    /// already or has failed.
    pub(super) fn hold_store(&self) -> Option<HeldDirectory> {
        self.look();
        let store = self.store.write().take()?;
        let held = store.hold();
        self.fault.note_of_store(store.failure());
        held
    }

    /// Opens a directory that was held.
    pub(super) fn open_held(&self, held: HeldDirectory) -> Result<()> {
        // Who asks for the store meanwhile is told that it is away, and does not wait.
        self.take_store(StandbyStore::open_held(held, self.options.commit)?)
    }

    fn take_store(&self, store: StandbyStore) -> Result<()> {
        let mut slot = self.store.write();
        *self.history.lock() = read_history(&*self.vfs, &self.location, &store.identity())?;
        self.rewinds.forget_count();
        *slot = Some(Arc::new(store));
        drop(slot);
        self.let_look_for_store();
        Ok(())
    }

    /// Somebody who only looks may have the lock since it was given back.
    fn open_directory(&self) -> Result<StandbyStore> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match StandbyStore::open_with(self.vfs.clone(), &self.location, self.options.commit) {
                Err(Error::Locked { .. }) if !self.is_stopping() && Instant::now() < deadline => self.sleep(LOCK_POLL),
                opened => return opened,
            }
        }
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

    pub(super) fn session(&self) -> Option<Arc<Session>> {
        self.session.lock().clone()
    }

    /// Forgets a session that has ended, unless another has taken its place; `then` runs before another can.
    pub(super) fn release(&self, session: &Arc<Session>, then: impl FnOnce()) {
        let mut current = self.session.lock();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *current = None;
            then();
        }
    }

    pub(super) fn set_session(&self, session: Option<Arc<Session>>) {
        *self.session.lock() = session;
    }

    /// Ends the session for something that is done to the directory. Nobody is being accepted meanwhile.
    pub(super) fn end_session(&self, why: &str) {
        if let Some(session) = self.session() {
            session.end(End::Told(Reason::new(Code::BUSY, why)));
            session.wait();
            self.set_session(None);
            self.board.disconnected(LinkState::Connecting, why, false);
        }
    }

    /// Lets the next primary replace all that is here by a base sync. Until that is whole everything stays in place,
    /// and counts for nothing. Nobody is being accepted meanwhile, and no session is open.
    pub(super) fn give_up(&self) -> Result<()> {
        let mut known = self.history.lock();
        let given_up = known.clone().given_up();
        given_up.save(&*self.vfs, &self.location)?;
        *known = given_up;
        Ok(())
    }

    /// Whether the directory awaits a base sync.
    pub(super) fn awaits_base_sync(&self) -> bool {
        self.history.lock().awaits_base_sync
    }

    /// Stops accepting and ends the session.
    pub(super) fn stop(&self) {
        self.stopping.store(true, SeqCst);
        *self.stopped.lock() = true;
        self.stop_signal.notify_all();
        self.let_look_for_store();
        if let Some(session) = self.session() {
            session.end(End::Told(Reason::new(Code::SHUTDOWN, "the replica is being stopped")));
        }
    }

    /// Becomes true when the replica is stopped.
    pub(super) fn stopping(&self) -> &AtomicBool {
        &self.stopping
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Takes note of an error of the store and says how to tell the primary. A disk that failed ends the replica.
    pub(super) fn failed(&self, error: &Error) -> Reason {
        if let Error::InvalidArgument(text) | Error::WrongState(text) = error {
            return Reason::new(Code::PROTOCOL, text.clone());
        }
        self.fault.note(error);
        self.let_look_for_store();
        Reason::new(Code::DISK, error.cause())
    }

    /// A thread has panicked that a session or the directory relies on: the replica ends as when its disk has failed.
    pub(super) fn panicked(&self, panic: &Error) {
        let reason = self.failed(panic);
        if let Some(session) = self.session() {
            session.end(End::Told(reason));
        }
    }

    /// Makes the versions that the primary switched to durable. They are told anew when that fails.
    pub(super) fn save_versions(&self, store: &StandbyStore) {
        if let Err(e @ Error::Io { .. }) = store.save_versions() {
            log::warn!("replication: {e}");
        }
    }

    /// The failure that ends the program; it may have come in the background.
    pub(super) fn failure(&self) -> Option<String> {
        self.fault
            .get()
            .or_else(|| self.store.try_read().as_deref().and_then(Option::as_ref).and_then(|store| store.failure()))
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

    fn look(&self) -> Seen {
        let mut seen = self.seen.lock();
        if let Some(store) = self.store.try_read().as_deref().and_then(Option::as_ref) {
            let history = self.history.try_lock();
            *seen = Seen::of(store, history.as_deref(), seen.known);
        }
        seen.clone()
    }

    /// The last epoch that is durable, as far as the store can be asked.
    pub(super) fn durable(&self) -> Epoch {
        self.look().durable
    }

    /// Never waits for the disk or for a session.
    pub(super) fn status(&self) -> Status {
        let Seen { durable, identity, versions, known: told } = self.look();
        let known = self.board.view(durable);
        Known {
            instance_uuid: identity,
            term: told.map(|(term, _)| term),
            claim: told.map(|(_, claim)| claim),
            boundary: versions.boundary,
            safe_snapshot: versions.safe_snapshot,
            last_error: self.failure().or(known.last_error.clone()),
            scrub: self.scrubbed.status(self.options.scrubbing),
            ..known
        }
        .document()
    }
}

/// That of the directory, which is open.
fn read_history(vfs: &dyn Vfs, location: &Path, instance: &str) -> Result<DirectoryHistory> {
    let found = DirectoryHistory::load(Place { vfs, location, instance })?;
    Ok(found.unwrap_or_else(|| DirectoryHistory::unknown(instance, Role::Replica)))
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;

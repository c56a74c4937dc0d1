// SPDX-License-Identifier: Apache-2.0
//! A data store and its replication as they go through life together: what has to be set before the one is opened, what
//! a start does to the directory's role, and what ends before it does.

use crate::datastore::{Channel, Datastore, NotifyLevel, RecoveryReport, Settings};
use crate::error::{Error, Result};
use crate::replication::native::primary::Primary;
use crate::replication::policy::degraded_intervals;
use crate::replication::policy::keeper::PolicyKeeper;
use crate::replication::settings::{Mode, Protocol, ReplicationSettings};
use crate::replication::status::{Known, LinkState, Status};
use crate::replication::status_socket::StatusSocket;
use crate::replication::upstream::primary as upstream;
use crate::types::Epoch;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A data store with its replication, through its whole life. Everything that opens one for a program does it with
/// this. All calls may be made from any thread.
#[derive(Debug)]
pub struct Engine {
    store: Arc<Datastore>,
    replication: Option<Arc<Replication>>,
    /// Between ready and shutdown.
    status: Mutex<Option<StatusSocket>>,
}

impl Engine {
    /// Opens the data store; `replication` as [`ReplicationSettings::from_environment`] gives it.
    ///
    /// # Errors
    /// As for [`Datastore::open`].
    pub fn open(settings: Settings, replication: Option<ReplicationSettings>) -> Result<Engine> {
        let replication = replication.map(Replication::new).map(Arc::new);
        let settings = match &replication {
            Some(replication) => replication.apply_to(settings),
            None => settings,
        };
        let engine = Engine { store: Datastore::open(settings)?, replication, status: Mutex::default() };
        if let Some(replication) = &engine.replication {
            replication.opened(&engine.store)?;
        }
        Ok(engine)
    }

    /// The data store. It is started and shut down through the engine only.
    pub fn store(&self) -> &Arc<Datastore> {
        &self.store
    }

    /// As [`Datastore::create_channel`]; with the upstream protocol the channel is connected, which takes the time-out
    /// at most.
    pub fn create_channel(&self) -> Result<Arc<Channel>> {
        let channel = self.store.create_channel()?;
        if let Some(replication) = &self.replication {
            replication.channel_created(channel.number() as usize);
        }
        Ok(channel)
    }

    /// Starts the data store, and then replication. After a shutdown both begin again.
    ///
    /// # Errors
    /// As for [`Datastore::ready`].
    pub fn ready(&self) -> Result<RecoveryReport> {
        if let Some(replication) = &self.replication {
            replication.begin_again(&self.store)?;
        }
        let report = ready(&self.store, self.replication.as_deref())?;
        *self.status.lock() = serve_status(&self.store, self.replication.as_ref());
        Ok(report)
    }

    /// What is going on, with replication and without.
    pub fn status(&self) -> Status {
        match &self.replication {
            Some(replication) => replication.status(&self.store),
            None => idle(&self.store),
        }
    }

    /// Ends replication, while epochs can still be reported, and then the data store. Calling it again does nothing.
    pub fn shutdown(&self) {
        // Replicas get what has ended by now; a failure has poisoned the data store, which says so itself.
        let _ = self.store.drain();
        if let Some(replication) = &self.replication {
            replication.shutdown();
        }
        // Before others can have the directory.
        drop(self.status.lock().take());
        self.store.shutdown();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Replication of one data store.
#[derive(Debug)]
pub struct Replication {
    settings: ReplicationSettings,
    role: Mutex<Role>,
    /// It has been shut down since it began.
    ended: AtomicBool,
}

#[derive(Clone, Debug)]
enum Role {
    NotStarted,
    Native(Arc<Primary>),
    Upstream(Arc<upstream::Primary>, Arc<Reporter>),
}

/// Passes on what the upstream protocol finds out.
#[derive(Debug)]
struct Reporter {
    store: Weak<Datastore>,
    policy: PolicyKeeper,
}

impl upstream::Observer for Arc<Reporter> {
    fn propagated(&self, epoch: Epoch) {
        if let Some(store) = self.store.upgrade() {
            store.set_retained_epoch(Some(epoch));
            // After a shutdown or a failure nothing is acknowledged any more.
            let _ = store.confirm_propagated(epoch);
        }
    }

    fn given_up(&self) {
        if let Some(store) = self.store.upgrade() {
            store.set_retained_epoch(None);
        }
    }

    fn look(&self, connected: bool, problem: Option<&str>) -> Option<Duration> {
        self.policy.look(&*self.store.upgrade()?, connected, problem);
        self.policy.wait()
    }
}

impl Replication {
    /// Replication that begins with [`ready`].
    pub fn new(settings: ReplicationSettings) -> Replication {
        Replication { settings, role: Mutex::new(Role::NotStarted), ended: AtomicBool::new(false) }
    }

    /// Sets what a data store has to know of it.
    pub fn apply_to(&self, settings: Settings) -> Settings {
        let level = match self.settings.mode {
            Mode::Strict | Mode::Degrade(_) => NotifyLevel::Propagated,
            Mode::Async => NotifyLevel::Stored,
        };
        // The original lets sessions begin in the recovered epoch.
        let above_recovered = self.settings.protocol == Protocol::Native;
        settings.replicated(true).notify_level(level).sessions_above_recovered(above_recovered)
    }

    /// To be called when the data store is open. The upstream protocol connects with each channel, which takes the
    /// time-out at most.
    pub fn opened(&self, store: &Arc<Datastore>) -> Result<()> {
        if self.settings.protocol == Protocol::Native {
            return Ok(());
        }
        let settings = &self.settings;
        let options = upstream::Options {
            endpoints: settings.endpoints.clone(),
            timeout: settings.timeout,
            async_session_close: settings.async_session_close,
            async_group_commit: settings.async_group_commit,
            retain_bytes: settings.retain_bytes,
            vfs: store.shared_vfs(),
            location: store.location().to_owned(),
        };
        let reporter = Arc::new(Reporter { store: Arc::downgrade(store), policy: PolicyKeeper::new(settings.mode) });
        let primary = upstream::Primary::new(options, Box::new(reporter.clone()))
            .map_err(|source| Error::Io { message: "cannot start replication".to_owned(), source })?;
        *self.role.lock() = Role::Upstream(Arc::new(primary), reporter);
        Ok(())
    }

    /// To be called before the data store starts. After a shutdown it is as [`Self::opened`] and the channels left it.
    fn begin_again(&self, store: &Arc<Datastore>) -> Result<()> {
        if self.ended.swap(false, SeqCst) {
            *self.role.lock() = Role::NotStarted;
            self.opened(store)?;
            (0..store.channel_count()).for_each(|channel| self.channel_created(channel));
        }
        Ok(())
    }

    /// To be called for each channel that was made, without locks of the data store.
    pub fn channel_created(&self, channel: usize) {
        if let Role::Upstream(primary, _) = self.role() {
            primary.add_channel(channel);
        }
    }

    /// What is going on.
    pub fn status(&self, store: &Datastore) -> Status {
        let known = Known { policy: Some(self.settings.mode.to_string()), ..Known::of_store(store) };
        match self.role() {
            Role::Native(primary) => primary.status(),
            Role::NotStarted => Known { protocol: Some("native"), state: LinkState::Connecting, ..known }.document(),
            Role::Upstream(primary, reporter) => {
                let degraded_since = reporter.policy.degraded_since();
                Known { degraded_since, ..primary.describe(known) }.document()
            }
        }
    }

    fn role(&self) -> Role {
        self.role.lock().clone()
    }

    /// Ends replication in bounded time. To be called before the data store is shut down.
    pub fn shutdown(&self) {
        self.ended.store(true, SeqCst);
        match self.role() {
            Role::NotStarted => {}
            Role::Native(primary) => primary.shutdown(),
            Role::Upstream(primary, reporter) => {
                primary.shutdown(self.settings.shutdown_patience());
                if let Some(store) = reporter.store.upgrade() {
                    reporter.policy.finish(&store);
                }
            }
        }
    }
}

/// Starts the data store of an engine. A directory that followed a primary is taken over, whether replication is
/// configured or not; then the replica is connected, which nobody waits for with the native protocol.
pub fn ready(store: &Arc<Datastore>, replication: Option<&Replication>) -> Result<RecoveryReport> {
    let report = store.ready_with(|durable| {
        match degraded_intervals::of_earlier_runs(store.vfs(), store.location(), durable) {
            Ok(intervals) => store.restore_degraded(intervals),
            Err(e) => log::error!("replication: degraded intervals of earlier runs are not known: {e}"),
        }
        Ok(())
    })?;
    let (Some(replication), Some(history)) = (replication, store.history()) else {
        return Ok(report);
    };
    match replication.role() {
        Role::Upstream(primary, _) => {
            let subscription = store.subscribe(primary.clone())?;
            primary.ready(report.last_epoch, subscription)?;
        }
        Role::NotStarted | Role::Native(_) => {
            let primary = Primary::start(store.clone(), replication.settings.clone(), history)?;
            *replication.role.lock() = Role::Native(Arc::new(primary));
        }
    }
    Ok(report)
}

/// The status of a data store without replication.
pub fn idle(store: &Datastore) -> Status {
    Known { state: LinkState::NotReplicated, ..Known::of_store(store) }.document()
}

/// Answers in the directory for the data store until the result is dropped. An engine works without it, too.
pub fn serve_status(store: &Arc<Datastore>, replication: Option<&Arc<Replication>>) -> Option<StatusSocket> {
    let (served, replicated) = (Arc::downgrade(store), replication.map(Arc::downgrade));
    let answer = move || {
        let replication = replicated.as_ref().and_then(Weak::upgrade);
        match (served.upgrade(), replication) {
            (Some(store), Some(replication)) => replication.status(&store),
            (Some(store), None) => idle(&store),
            (None, _) => Known::default().document(),
        }
    };
    StatusSocket::start(store.location(), answer)
        .inspect_err(|e| log::warn!("questions for the status of {} are not answered: {e}", store.location().display()))
        .ok()
}

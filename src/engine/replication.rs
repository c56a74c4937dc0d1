// SPDX-License-Identifier: Apache-2.0
//! Replication of an engine's data store: what has to be set before that is opened, what begins with it, and what ends
//! before it does.

use super::digests::OwnDigests;
use crate::datastore::{Datastore, NotifyLevel, RecoveryReport, Retained, Settings};
use crate::error::{Error, Result};
use crate::lock_order::{Mutex, Rank};
use crate::replication::native::primary::Primary;
use crate::replication::policy::keeper::PolicyKeeper;
use crate::replication::settings::{Mode, Protocol, ReplicationSettings};
use crate::replication::status::{Known, LinkState, Status};
use crate::replication::upstream::primary as upstream;
use crate::types::Epoch;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Replication of one data store.
#[derive(Debug)]
pub(super) struct Replication {
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
            store.retain(Some(Retained { beyond: epoch, by: "the replica".to_owned(), moves: true }));
            // After a shutdown or a failure nothing is acknowledged any more.
            let _ = store.confirm_propagated(epoch);
        }
    }

    fn given_up(&self) {
        if let Some(store) = self.store.upgrade() {
            store.retain(None);
        }
    }

    fn look(&self, connected: bool, problem: Option<&str>) -> Option<Duration> {
        self.policy.look(&*self.store.upgrade()?, connected, problem);
        self.policy.wait()
    }

    fn failed(&self, panic: Error) {
        if let Some(store) = self.store.upgrade() {
            store.fail(panic);
        }
    }
}

impl Replication {
    pub(super) fn new(settings: ReplicationSettings) -> Replication {
        Replication { settings, role: Mutex::new(Rank::Leaf, Role::NotStarted), ended: AtomicBool::new(false) }
    }

    /// Sets what a data store has to know of it.
    pub(super) fn apply_to(&self, settings: Settings) -> Settings {
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
    pub(super) fn opened(&self, store: &Arc<Datastore>) -> Result<()> {
        if self.settings.protocol == Protocol::Native {
            return Ok(());
        }
        let settings = &self.settings;
        let reporter = Arc::new(Reporter { store: Arc::downgrade(store), policy: PolicyKeeper::new(settings.mode) });
        let primary =
            upstream::Primary::new(settings.clone(), store.shared_vfs(), store.location(), Box::new(reporter.clone()))
                .map_err(|source| Error::Io { message: "cannot start replication".to_owned(), source })?;
        // The start must not delete BLOBs of sessions that are sent later.
        let retained = |beyond| Retained { beyond, by: "the replica".to_owned(), moves: false };
        store.retain(primary.confirmed_earlier().map(retained));
        self.set_role(Role::Upstream(Arc::new(primary), reporter));
        Ok(())
    }

    /// To be called before the data store starts. After a shutdown, which it tells, nothing of the former run is left
    /// and all is as [`Self::opened`] and the channels left it.
    pub(super) fn begin_again(&self, store: &Arc<Datastore>) -> Result<bool> {
        let again = self.ended.load(SeqCst);
        if again {
            // Called on one of its threads, the shutdown could not wait for all of them.
            self.end();
            self.set_role(Role::NotStarted);
            self.opened(store)?;
            (0..store.channel_count()).for_each(|channel| self.channel_created(channel));
            self.ended.store(false, SeqCst);
        }
        Ok(again)
    }

    /// Begins to replicate, when the data store has started.
    pub(super) fn start(&self, store: &Arc<Datastore>, report: &RecoveryReport) -> Result<()> {
        let Some(history) = store.history() else { return Ok(()) };
        match self.role() {
            Role::Upstream(primary, _) => {
                let subscription = store.subscribe(primary.clone())?;
                primary.ready(report.last_epoch, subscription)
            }
            Role::NotStarted | Role::Native(_) => {
                // Until the end nobody notes what the replicas have, and they may be others than before.
                upstream::note_confirmed(store.vfs(), store.location(), Epoch(0))?;
                let primary = Primary::start(store.clone(), self.settings.clone(), history, OwnDigests::of(store))?;
                self.set_role(Role::Native(Arc::new(primary)));
                Ok(())
            }
        }
    }

    /// To be called for each channel that was made, without locks of the data store.
    pub(super) fn channel_created(&self, channel: usize) {
        if let Role::Upstream(primary, _) = self.role() {
            primary.add_channel(channel);
        }
    }

    /// What can be told to have other replicas.
    ///
    /// # Errors
    /// [`Error::WrongState`] says why nothing can.
    pub(super) fn native(&self) -> Result<Arc<Primary>> {
        match self.role() {
            Role::Native(primary) => Ok(primary),
            Role::NotStarted if self.settings.protocol == Protocol::Native => {
                Err(Error::WrongState("replicas can be changed only after ready()".to_owned()))
            }
            Role::NotStarted | Role::Upstream(..) => {
                Err(Error::WrongState("the upstream protocol knows one replica, which cannot be changed".to_owned()))
            }
        }
    }

    /// What is going on.
    pub(super) fn status(&self, store: &Datastore) -> Status {
        let known = Known { policy: Some(self.settings.mode.to_string()), ..Known::of_store(store) };
        match self.role() {
            Role::Native(primary) => primary.status(),
            Role::NotStarted => Known { protocol: Some("native"), state: LinkState::Connecting, ..known }.document(),
            Role::Upstream(primary, reporter) => {
                let (degraded_since, lag_for) = (reporter.policy.degraded_since(), Some(reporter.policy.behind()));
                Known { degraded_since, lag_for, ..primary.describe(known) }.document()
            }
        }
    }

    /// The end of a former one waits for its threads, which may ask for the role.
    fn set_role(&self, role: Role) {
        let former = std::mem::replace(&mut *self.role.lock(), role);
        drop(former);
    }

    fn role(&self) -> Role {
        self.role.lock().clone()
    }

    /// Ends replication in bounded time. To be called before the data store is shut down.
    pub(super) fn shutdown(&self, store: &Datastore) {
        self.end();
        if let Role::Native(primary) = self.role() {
            // The epoch record of this side does not cover epochs without writes.
            let confirmed = primary.confirmed_by_all().min(store.recorded_epoch());
            if let Err(e) = upstream::note_confirmed(store.vfs(), store.location(), confirmed) {
                log::warn!("replication: a next run by the upstream protocol does not know what the replica has: {e}");
            }
        }
        self.ended.store(true, SeqCst);
    }

    fn end(&self) {
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

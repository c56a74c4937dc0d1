// SPDX-License-Identifier: Apache-2.0
//! A data store and its replication as they go through life together: what has to be set before the one is opened, what
//! a start does to the directory's role, and what ends before it does.

mod replication;

use crate::datastore::{Channel, Datastore, RecoveryReport, Settings};
use crate::error::Result;
use crate::replication::policy::degraded_intervals;
use crate::replication::settings::ReplicationSettings;
use crate::replication::status::{Known, LinkState, Status};
use crate::replication::status_socket::StatusSocket;
use parking_lot::Mutex;
use replication::Replication;
use std::sync::{Arc, Weak};

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

    /// Starts the data store: a directory that followed a primary is taken over, whether replication is configured or
    /// not. Then the replica is connected, which nobody waits for with the native protocol, and whoever asks in the
    /// directory is told the status. After a shutdown all begins again.
    ///
    /// # Errors
    /// As for [`Datastore::ready`].
    pub fn ready(&self) -> Result<RecoveryReport> {
        let turn = self.store.turn_to_start()?;
        let replication = self.replication.as_ref();
        let again = replication.map(|replication| replication.begin_again(&self.store)).transpose()?;
        let started = self.store.ready_in(&turn, |durable| {
            let store = &self.store;
            match degraded_intervals::of_earlier_runs(store.vfs(), store.location(), durable) {
                Ok(intervals) => store.restore_degraded(intervals),
                Err(e) => log::error!("replication: degraded intervals of earlier runs are not known: {e}"),
            }
            Ok(())
        });
        let report = started.inspect_err(|_| {
            if let (Some(replication), Some(true)) = (replication, again) {
                replication.shutdown();
            }
        })?;
        if let Some(replication) = replication {
            replication.start(&self.store, &report)?;
        }
        *self.status.lock() = self.serve_status();
        Ok(report)
    }

    /// What is going on, with replication and without.
    pub fn status(&self) -> Status {
        status(&self.store, self.replication.as_deref())
    }

    /// Answers in the directory until the result is dropped. An engine works without it, too.
    fn serve_status(&self) -> Option<StatusSocket> {
        let (store, replication) = (Arc::downgrade(&self.store), self.replication.as_ref().map(Arc::downgrade));
        let answer = move || match store.upgrade() {
            Some(store) => status(&store, replication.as_ref().and_then(Weak::upgrade).as_deref()),
            None => Known::default().document(),
        };
        let location = self.store.location();
        StatusSocket::start(location, answer)
            .inspect_err(|e| log::warn!("questions for the status of {} are not answered: {e}", location.display()))
            .ok()
    }

    /// Ends replication, while epochs can still be reported, and then the data store. Calling it again does nothing;
    /// within a callback that a shutdown elsewhere waits for it leaves all to that one.
    pub fn shutdown(&self) {
        let Some(turn) = self.store.turn_to_shut_down() else { return };
        // Replicas get what has ended by now; a failure has poisoned the data store, which says so itself.
        let _ = self.store.drain();
        if let Some(replication) = &self.replication {
            replication.shutdown();
        }
        // Before others can have the directory.
        drop(self.status.lock().take());
        self.store.shutdown_in(&turn);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn status(store: &Datastore, replication: Option<&Replication>) -> Status {
    match replication {
        Some(replication) => replication.status(store),
        None => Known { state: LinkState::NotReplicated, ..Known::of_store(store) }.document(),
    }
}

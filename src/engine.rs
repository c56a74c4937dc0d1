// SPDX-License-Identifier: Apache-2.0
//! A data store and its replication as they go through life together: what has to be set before the one is opened, what
//! a start does to the directory's role, and what ends before it does.

mod backups;
mod digests;
mod replicas;
mod replication;
mod scrubber;

use crate::datastore::{Channel, Datastore, RecoveryReport, Settings};
use crate::error::Result;
use crate::lock_order::Mutex;
use crate::monitoring::settings::MetricsEndpoint;
use crate::monitoring::Monitoring;
use crate::replication::backup_socket::BackupSocket;
use crate::replication::control_socket::ControlSocket;
use crate::replication::policy::degraded_intervals;
use crate::replication::report::Report;
use crate::replication::settings::ReplicationSettings;
use crate::replication::status::{Known, LinkState, Status};
use crate::scrub::Scrubbing;
use replication::Replication;
use scrubber::Scrubber;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

/// A data store with its replication, through its whole life. Everything that opens one for a program does it with
/// this. All calls may be made from any thread.
#[derive(Debug)]
pub struct Engine {
    store: Arc<Datastore>,
    replication: Option<Arc<Replication>>,
    metrics_endpoint: Option<MetricsEndpoint>,
    /// Between ready and shutdown, as are those that take commands and let backups be made.
    monitoring: Mutex<Option<Monitoring>>,
    control: Mutex<Option<ControlSocket>>,
    backups: Mutex<Option<BackupSocket>>,
    /// When log files are read again, and who does it between ready and shutdown.
    scrubbing: Option<Scrubbing>,
    scrubber: Mutex<Option<Scrubber>>,
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
        let store = Datastore::open(settings)?;
        let (monitoring, control, backups) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (scrubbing, scrubber) = (None, Mutex::default());
        let engine =
            Engine { store, replication, metrics_endpoint: None, monitoring, control, backups, scrubbing, scrubber };
        if let Some(replication) = &engine.replication {
            replication.opened(&engine.store)?;
        }
        Ok(engine)
    }

    /// Serves metrics over HTTP between ready and shutdown. Default: it does not.
    pub fn metrics_endpoint(mut self, endpoint: Option<MetricsEndpoint>) -> Engine {
        self.metrics_endpoint = endpoint;
        self
    }

    /// Reads log files again between ready and shutdown, and says when one does not hold any more what it held.
    /// Default: it does not.
    pub fn scrubbing(mut self, scrubbing: Option<Scrubbing>) -> Engine {
        self.scrubbing = scrubbing;
        self
    }

    /// Where metrics are served now; `None` when they are not.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.monitoring.lock().as_ref().and_then(Monitoring::address)
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
                replication.shutdown(&self.store);
            }
        })?;
        if let Some(replication) = replication {
            replication.start(&self.store, &report)?;
        }
        *self.monitoring.lock() = Some(self.monitor());
        *self.control.lock() = self.listen();
        *self.backups.lock() = backups::listen(&self.store);
        *self.scrubber.lock() = self.scrub();
        Ok(report)
    }

    /// Has one more replica, `name=tcp://host:port` as `TSURUGI_REPLICATION_REPLICAS` has it or the address alone, from
    /// now until the shutdown. It gets what it lacks and counts to the quorum when it has said what it has; how many
    /// are needed stays as it was. Never waits for it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::error::Error) when it is not understood, or cannot be told from another one;
    /// [`Error::WrongState`](crate::error::Error) without replication, with the upstream protocol, before
    /// [`Self::ready`] and after the end.
    pub fn add_replica(&self, replica: &str) -> Result<()> {
        replicas::add(self.replication.as_deref(), replica)
    }

    /// Has the replica of this name no more, from now until the shutdown: what it has does not count, and no log is
    /// kept for it. Never waits for it.
    ///
    /// # Errors
    /// As for [`Self::add_replica`]; [`Error::WrongState`](crate::error::Error) also when those that are left could
    /// never be as many as are needed.
    pub fn remove_replica(&self, name: &str) -> Result<()> {
        replicas::remove(self.replication.as_deref(), name)
    }

    /// What is going on, with replication and without.
    pub fn status(&self) -> Status {
        let status = status(&self.store, self.replication.as_deref());
        Status { scrub: self.store.scrubbed().status(self.scrubbing), ..status }
    }

    /// Scrubs until the result is dropped; the engine works without.
    fn scrub(&self) -> Option<Scrubber> {
        let scrubber = Scrubber::start(&self.store, self.scrubbing?);
        scrubber.inspect_err(|e| log::error!("{e}; the log files are not scrubbed")).ok()
    }

    /// Answers for the directory until the result is dropped.
    fn monitor(&self) -> Monitoring {
        let (store, replication) = (Arc::downgrade(&self.store), self.replication.as_ref().map(Arc::downgrade));
        let (location, metrics) = (self.store.location().to_owned(), self.store.metrics().clone());
        let scrubbing = self.scrubbing;
        let report = move || {
            let status = match store.upgrade() {
                Some(store) => {
                    let status = status(&store, replication.as_ref().and_then(Weak::upgrade).as_deref());
                    Status { scrub: store.scrubbed().status(scrubbing), ..status }
                }
                None => Known::default().document(),
            };
            Report::new(status, metrics.snapshot(), &location)
        };
        Monitoring::start(self.store.location(), self.metrics_endpoint.as_ref(), report)
    }

    /// Takes commands for the directory until the result is dropped; it is served all the same without.
    fn listen(&self) -> Option<ControlSocket> {
        let replication = self.replication.as_ref().map(Arc::downgrade);
        let location = self.store.location();
        ControlSocket::start(location, move |line| replicas::carry_out(line, replication.as_ref()))
            .inspect_err(|e| log::warn!("{} takes no commands about replicas: {e}", location.display()))
            .ok()
    }

    /// Ends replication, while epochs can still be reported, and then the data store. Calling it again does nothing;
    /// within a callback that a shutdown elsewhere waits for it leaves all to that one.
    pub fn shutdown(&self) {
        let Some(turn) = self.store.turn_to_shut_down() else { return };
        let scrubber = self.scrubber.lock().take();
        drop(scrubber);
        // Replicas get what has ended by now; a failure has poisoned the data store, which says so itself.
        let _ = self.store.drain();
        if let Some(replication) = &self.replication {
            replication.shutdown(&self.store);
        }
        // Who copies does not hold it up, and begins nothing of a directory that is given back.
        let backups = self.backups.lock().take();
        drop(backups);
        self.store.shutdown_in(&turn);
        // Whoever asks meanwhile is told that it ends, and not that nobody is there.
        let control = self.control.lock().take();
        let monitoring = self.monitoring.lock().take();
        drop((control, monitoring));
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
        None if store.is_shut_down() => Known::of_store(store).document(),
        None => Known { state: LinkState::NotReplicated, ..Known::of_store(store) }.document(),
    }
}

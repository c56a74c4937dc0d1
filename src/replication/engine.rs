// SPDX-License-Identifier: Apache-2.0
//! Replication as the engine's data store goes through its life: what has to be set before it is opened, what a start
//! does to the directory's role, and what ends before it does.

use super::primary::Primary;
use super::settings::{Mode, Protocol, ReplicationSettings};
use super::state_file;
use super::status::{Lag, LinkState, Side, Status};
use crate::datastore::{Datastore, NotifyLevel, RecoveryReport, Settings};
use crate::error::{Error, Result};
use parking_lot::Mutex;
use std::sync::Arc;

/// Replication of one data store.
#[derive(Debug)]
pub struct Replication {
    settings: ReplicationSettings,
    primary: Mutex<Option<Arc<Primary>>>,
}

impl Replication {
    /// Replication that begins with [`ready`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for settings that this version cannot carry out.
    pub fn new(settings: ReplicationSettings) -> Result<Replication> {
        if settings.protocol == Protocol::Upstream {
            let message = "TSURUGI_REPLICATION_PROTOCOL is \"upstream\": an engine can replicate with \"native\" only";
            return Err(Error::InvalidArgument(message.to_owned()));
        }
        Ok(Replication { settings, primary: Mutex::default() })
    }

    /// Sets what a data store has to know of it.
    pub fn apply_to(&self, settings: Settings) -> Settings {
        let level = match self.settings.mode {
            Mode::Strict | Mode::Degrade(_) => NotifyLevel::Propagated,
            Mode::Async => NotifyLevel::Stored,
        };
        settings.replicated(true).notify_level(level)
    }

    /// What is going on.
    pub fn status(&self, store: &Datastore) -> Status {
        let primary = self.primary.lock().clone();
        match primary {
            Some(primary) => primary.status(),
            None => idle(store, "native", Some(self.settings.mode.to_string())),
        }
    }

    /// Ends replication in bounded time. To be called before the data store is shut down.
    pub fn shutdown(&self) {
        let primary = self.primary.lock().clone();
        if let Some(primary) = primary {
            primary.shutdown();
        }
    }
}

/// Starts the data store of an engine. A directory that followed a primary is taken over, whether replication is
/// configured or not; then the replica is connected, which nobody waits for.
pub fn ready(store: &Arc<Datastore>, replication: Option<&Replication>) -> Result<RecoveryReport> {
    let mut state = None;
    let report = store.ready_with(|durable| {
        state = Some(state_file::start_engine(store.vfs(), store.location(), durable)?);
        Ok(())
    })?;
    if let (Some(replication), Some(state)) = (replication, state) {
        let primary = Primary::start(store.clone(), replication.settings.clone(), state)?;
        *replication.primary.lock() = Some(Arc::new(primary));
    }
    Ok(report)
}

/// The status of a data store without a connection to a replica.
pub fn idle(store: &Datastore, protocol: &str, policy: Option<String>) -> Status {
    let stored = store.last_epoch().0;
    Status {
        role: Side::Primary,
        protocol: protocol.to_owned(),
        state: LinkState::Stopped,
        state_ms: 0,
        peer: None,
        instance_uuid: store.instance_uuid().to_owned(),
        term: 0,
        switched_epoch: store.switched_epoch().0,
        stored_epoch: stored,
        propagated_epoch: store.propagated_epoch().0,
        lag: Lag { epochs: stored.saturating_sub(store.propagated_epoch().0), bytes: 0, ms: 0 },
        policy,
        degraded_since: None,
        last_error: None,
    }
}

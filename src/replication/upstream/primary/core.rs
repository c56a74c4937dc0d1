// SPDX-License-Identifier: Apache-2.0
//! What the threads of the primary share, and what becomes of it when a connection is made, fails, or is given up.

use super::connection::{Exchange, LinkError};
use super::queue::Queue;
use crate::error::{catch_panic, Error};
use crate::lock_order::{Condvar, Mutex};
use crate::replication::net::connection::Closer;
use crate::replication::net::dial::Dialer;
use crate::replication::settings::ReplicationSettings;
use crate::types::Epoch;
use crate::vfs::Vfs;
use crate::wal::confirmed::{self, Kept};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Told how far the replica is. Calls come from threads of the primary without any lock held.
pub trait Observer: Send + Sync {
    /// The replica has everything up to `epoch`; epochs increase.
    fn propagated(&self, epoch: Epoch);
    /// Nothing of the log need be kept for the replica any more.
    fn given_up(&self);
    /// To look at the epochs, and whether callers are still kept waiting for the replica. `connected`: it gets every
    /// session as it ends. `problem` is what it suffers from. Returns when to look again although nothing happens.
    fn look(&self, connected: bool, problem: Option<&str>) -> Option<Duration>;
    /// A thread of replication has panicked: nothing may be acknowledged any more.
    fn failed(&self, panic: Error);
}

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before [`Primary::ready`].
    Starting,
    Connected,
    /// The connections failed; it is tried again.
    Lost,
    /// The replica cannot be brought up to date any more.
    GivenUp,
    Closed,
}

pub(super) struct Shared {
    /// The addresses of the one replica, for messages.
    pub(super) name: String,
    /// Held while an attempt goes through them.
    pub(super) dialer: Mutex<Dialer>,
    /// Each wait has its time-out: for a connection, for an answer, for the replica to take what is sent.
    pub(super) settings: ReplicationSettings,
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) location: PathBuf,
    pub(super) kept: Mutex<Kept>,
    pub(super) blobs: PathBuf,
    pub(super) observer: Box<dyn Observer>,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

pub(super) struct State {
    pub(super) phase: Phase,
    /// When the phase began.
    pub(super) since: Instant,
    /// Counts the times that all connections were made; threads of an earlier time end.
    pub(super) link: u64,
    pub(super) queue: Queue,
    pub(super) stored: Epoch,
    /// The last stored epoch that is on this side's disk: those behind it wrote nothing and left no trace.
    pub(super) recorded: Epoch,
    /// No group commit of a later epoch was ever sent.
    pub(super) asked: Epoch,
    /// Whether the control connection was made in this link.
    pub(super) had_control: bool,
    /// The id of channel 0: a replica of the original that never had a control connection may know smaller ones.
    pub(super) first_id: u64,
    pub(super) channels: usize,
    pub(super) ready: bool,
    /// The replica that has accepted the control connection.
    pub(super) peer: Option<SocketAddr>,
    pub(super) control: Option<Closer>,
    pub(super) logs: BTreeMap<usize, Closer>,
    pub(super) threads: Vec<JoinHandle<()>>,
    /// When the replica acknowledged something last.
    pub(super) heard: Option<Instant>,
    pub(super) last_error: Option<String>,
}

impl State {
    pub(super) fn is_over(&self, link: u64) -> bool {
        self.link != link || matches!(self.phase, Phase::Closed | Phase::GivenUp)
    }

    /// Closes the connections in the order of the original.
    pub(super) fn close(&mut self) {
        self.peer = None;
        for closer in self.control.take().iter().chain(std::mem::take(&mut self.logs).values()) {
            closer.close();
        }
    }

    fn enter(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            self.since = Instant::now();
        }
    }

    pub(super) fn end(&mut self, phase: Phase) {
        self.enter(phase);
        self.link += 1;
        self.close();
    }
}

impl Shared {
    pub(super) fn spawn(
        self: &Arc<Shared>,
        name: &str,
        work: impl FnOnce(&Arc<Shared>) + Send + 'static,
    ) -> std::io::Result<()> {
        let (shared, what) = (self.clone(), format!("the thread {name}"));
        let body = move || {
            if let Err(panic) = catch_panic(&what, || work(&shared)) {
                shared.observer.failed(panic);
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
        let mut state = self.state.lock();
        state.threads.retain(|thread| !thread.is_finished());
        state.threads.push(thread);
        Ok(())
    }

    /// A log channel is connected: its thread sends from now on.
    pub(super) fn start_log(self: &Arc<Shared>, link: u64, channel: usize, log: Exchange) -> Result<(), LinkError> {
        {
            let mut state = self.state.lock();
            if state.is_over(link) {
                return Ok(());
            }
            state.logs.insert(channel, log.closer());
        }
        self.spawn(&format!("replication-{channel}"), move |shared| {
            let sent = shared.send(link, channel, log);
            shared.settle(link, sent);
        })?;
        Ok(())
    }

    /// The control connection is there: the replica is connected.
    pub(super) fn start_control(self: &Arc<Shared>, link: u64, control: Exchange) -> Result<(), LinkError> {
        {
            let mut state = self.state.lock();
            if state.is_over(link) {
                return Ok(());
            }
            state.control = Some(control.closer());
            state.peer = Some(control.peer());
            state.had_control = true;
            state.enter(Phase::Connected);
            state.heard = Some(Instant::now());
            state.last_error = None;
            self.changed.notify_all();
        }
        log::info!("replication: connected to the replica at {}", self.name);
        self.spawn("replication-commit", move |shared| {
            let sent = shared.commit(link, control);
            shared.settle(link, sent);
        })?;
        Ok(())
    }

    /// Takes note of what became of a connection.
    pub(super) fn settle(&self, link: u64, result: Result<(), LinkError>) {
        let Err(error) = result else { return };
        let mut state = self.state.lock();
        if state.is_over(link) {
            // It was closed here, or another connection failed before.
            return;
        }
        if let LinkError::Source(reason) = error {
            self.give_up(&mut state, &reason);
        } else {
            self.lose(&mut state, &error);
        }
        self.changed.notify_all();
    }

    pub(super) fn lose(&self, state: &mut State, error: &LinkError) {
        let first = state.phase != Phase::Lost;
        let text = error.to_string();
        if first || state.last_error.as_ref() != Some(&text) {
            let remedy = match error.is_control_taken() {
                true => "the replica process serves connections that are gone; restart it",
                false => "restart the replica if it does not run or is one of the original, which takes nobody back",
            };
            let complete = state.queue.complete();
            log::error!(
                "replication: the replica at {} is lost: {text}; epochs above {complete} are not propagated; {remedy}, \
                 then it is connected again and gets what it misses",
                self.name
            );
        }
        // A replica of the original that accepts a control connection again is another process and knows no id.
        state.first_id = if state.had_control { 0 } else { state.first_id + state.channels as u64 };
        state.had_control = false;
        state.last_error = Some(text);
        state.end(Phase::Lost);
        state.queue.rewind();
    }

    pub(super) fn give_up(&self, state: &mut State, reason: &str) {
        log::error!(
            "replication: the replica at {} is given up: {reason}; epochs above {} are not propagated any more: stop \
             both sides, copy the data directory to the replica, delete {} here, and start the replica first",
            self.name,
            state.queue.complete(),
            confirmed::NAME
        );
        state.last_error = Some(reason.to_owned());
        state.end(Phase::GivenUp);
        // Lets go of the log files.
        let complete = state.queue.complete();
        state.queue = Queue::default();
        state.queue.start(complete, complete, Epoch(0), (0, []));
    }
}

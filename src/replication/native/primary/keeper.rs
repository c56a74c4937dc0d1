// SPDX-License-Identifier: Apache-2.0
//! Keeps a session with the replica: one after the other, watched over while it lasts, and ended in good order.

use super::attempt;
use super::core::Core;
use super::end::End;
use super::session::{self, Session};
use crate::replication::native::protocol::heartbeat_interval;
use crate::replication::net::backoff::Backoff;
use crate::replication::policy::keeper::PolicyKeeper;
use crate::replication::status::{Known, Status};
use crate::types::Epoch;
use crate::wal::names;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often at least the epochs are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Attempts that follow each other at once because each prepares the next, before the time between grows all the same.
const PLANNED_MAX: u32 = 3;

/// The sessions of a primary.
pub(super) struct Keeper {
    pub(super) core: Arc<Core>,
    session: Mutex<Option<Arc<Session>>>,
    policy: PolicyKeeper,
    draining: AtomicBool,
}

impl Keeper {
    pub(super) fn new(core: Core) -> Keeper {
        let policy = PolicyKeeper::new(core.settings.mode);
        Keeper { core: Arc::new(core), session: Mutex::default(), policy, draining: AtomicBool::new(false) }
    }

    fn session(&self) -> Option<Arc<Session>> {
        self.session.lock().clone()
    }

    /// One session after the other until replication ends.
    pub(super) fn keep_connected(&self) {
        let core = &self.core;
        let mut backoff = Backoff::new(core.settings.timeout);
        let mut planned = 0;
        while !core.is_stopping() {
            core.attempts();
            let begun = Instant::now();
            let (end, progressed) = match Session::new(core.clone()) {
                Ok(session) => self.run(Arc::new(session)),
                Err(end) => (end, false),
            };
            core.failed(&end, begun.elapsed());
            if progressed {
                backoff.reset();
            }
            match &end {
                End::NotShippable { oldest, .. } => core.raise_oldest_shippable(*oldest),
                End::Stopped => break,
                End::Refused(reason) if end.is_fenced() => {
                    core.store.fence(&reason.text);
                    return;
                }
                _ => {}
            }
            planned = if end.is_part_of_the_plan() { planned + 1 } else { PLANNED_MAX };
            if planned >= PLANNED_MAX {
                planned = 0;
                core.sleep(backoff.next());
            }
        }
        core.drop_base_set();
        core.stopped();
    }

    /// Returns why the session ended, and whether the replica made any progress in it.
    fn run(&self, session: Arc<Session>) -> (End, bool) {
        *self.session.lock() = Some(session.clone());
        // Whoever stops replication sees the session, or this sees that it is stopped.
        let end = if self.core.is_stopping() { End::Stopped } else { attempt::run(&session) };
        *self.session.lock() = None;
        (end, session.has_progressed())
    }

    /// Ends everything; the threads end soon.
    pub(super) fn stop(&self) {
        self.core.stop();
        if let Some(session) = self.session() {
            session.say_goodbye();
        }
        self.core.wake();
    }

    /// What the watching thread does.
    pub(super) fn watch(&self) {
        let core = &self.core;
        let timeout = core.settings.timeout.as_millis() as u64;
        let heartbeat = Duration::from_millis(heartbeat_interval(timeout));
        let (mut seen, mut replica, mut retained) = (0, None, Instant::now());
        while !core.is_stopping() {
            let session = self.session();
            if let Some(session) = &session {
                session.tick();
            }
            if let Some(confirmed) = session.as_ref().and_then(|session| session.confirmed()) {
                // Also for a replica that is away for a while.
                replica = Some(confirmed);
            }
            if let Some(confirmed) = replica.filter(|_| retained.elapsed() >= WATCH_INTERVAL) {
                self.retain(confirmed);
                retained = Instant::now();
            }
            core.drop_stale_base_set();
            let streaming = session.is_some_and(|session| session.is_streaming());
            let problem = core.link().last_error;
            self.policy.look(&core.store, streaming, problem.as_deref());
            let wait = self.policy.wait().unwrap_or(WATCH_INTERVAL).min(WATCH_INTERVAL).min(heartbeat);
            core.set_awaited(self.draining.load(SeqCst) || self.policy.degraded_since().is_some());
            seen = core.wait_for_event(seen, Instant::now() + wait);
        }
        core.store.set_retained_epoch(None);
        self.policy.finish(&core.store);
    }

    /// Keeps the log beyond what the replica has from being compacted, as far as that is allowed.
    fn retain(&self, confirmed: Epoch) {
        let store = &self.core.store;
        let entries = store.vfs().list(store.location()).unwrap_or_default();
        let is_log = |name: &str| names::is_log(name) && !names::is_compacted(name);
        let logs = entries.iter().filter(|entry| entry.name.to_str().is_some_and(is_log));
        let bytes: u64 = logs.map(|entry| entry.len).sum();
        store.set_retained_epoch((bytes <= self.core.settings.retain_bytes).then_some(confirmed));
    }

    /// Gives a replica that is connected, or being connected to, time to confirm what is stored now, and says what is
    /// known of it then. The thread that hears the confirmations does not wait for them.
    pub(super) fn drain(&self, patience: Duration) {
        let core = &self.core;
        let stored = core.store.last_epoch();
        let deadline = Instant::now() + if session::is_own_thread() { Duration::ZERO } else { patience };
        self.draining.store(true, SeqCst);
        core.set_awaited(true);
        let mut seen = 0;
        loop {
            let propagated = self.session().and_then(|session| session.propagated());
            // Without an attempt under way the replica cannot confirm anything soon.
            let hopeless = propagated.is_none() && !core.link().attempting;
            if propagated >= Some(stored) || hopeless || Instant::now() >= deadline {
                break;
            }
            seen = core.wait_for_event(seen, deadline);
        }
        let propagated = self.session().and_then(|session| session.propagated()).unwrap_or_default();
        let propagated = propagated.max(core.store.propagated_epoch());
        let link = core.link();
        let error = link.last_error.as_ref().map_or_else(String::new, |error| format!(" ({error})"));
        match (propagated >= stored, link.heard.is_some()) {
            (true, _) => log::info!("replication: shut down with everything up to epoch {stored} PROPAGATED"),
            (false, true) => log::warn!(
                "replication: shut down with epochs {} to {stored} STORED only: the replica has not confirmed \
                 them{error}",
                propagated.0 + 1
            ),
            (false, false) => log::warn!(
                "replication: shut down with everything up to epoch {stored} STORED; what the replica has of it is not \
                 known: there was no session with it since the start{error}"
            ),
        }
    }

    /// What is going on.
    pub(super) fn status(&self) -> Status {
        let core = &self.core;
        // What is not streamed yet is nowhere counted.
        let streaming = self.session().filter(|session| session.is_streaming());
        let known = Known::of_store(&core.store);
        let link = core.link();
        Known {
            protocol: Some("native"),
            state: link.state,
            state_for: Some(link.since.elapsed()),
            peer: link.peer.map(|peer| peer.to_string()),
            heard: link.heard,
            term: Some(core.state.term),
            lag_heard: link.heard,
            lag_bytes: streaming.map(|session| session.unconfirmed_bytes()),
            lag_for: Some(self.policy.behind()),
            policy: Some(core.settings.mode.to_string()),
            degraded_since: self.policy.degraded_since(),
            last_error: link.last_error,
            ..known
        }
        .document()
    }
}

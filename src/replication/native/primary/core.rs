// SPDX-License-Identifier: Apache-2.0
//! What the threads of a primary share, and what it tells about itself: one log line for each change of state.

use super::end::End;
use super::session::Session;
use crate::datastore::Datastore;
use crate::replication::native::protocol::heartbeat_interval;
use crate::replication::policy::keeper::PolicyKeeper;
use crate::replication::settings::ReplicationSettings;
use crate::replication::state_file::ReplicationState;
use crate::replication::status::{Lag, LinkState, Side, Status};
use crate::types::{Epoch, WriteVersion};
use crate::wal::names;
use parking_lot::{Condvar, Mutex};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often at least the epochs are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Core {
    pub(super) store: Arc<Datastore>,
    pub(super) settings: ReplicationSettings,
    pub(super) state: ReplicationState,
    stopping: AtomicBool,
    draining: AtomicBool,
    /// Beyond what the catalog says, because the log has something that cannot be sent.
    oldest_shippable: AtomicU64,
    session: Mutex<Option<Arc<Session>>>,
    link: Mutex<Link>,
    policy: Mutex<PolicyKeeper>,
    /// Counts what the watching thread has to look at.
    events: Mutex<u64>,
    event: Condvar,
}

struct Link {
    state: LinkState,
    since: Instant,
    peer: Option<SocketAddr>,
    /// Whether the present session has got through the catch-up.
    streamed: bool,
    last_error: Option<String>,
    sent_bytes: u64,
}

impl Core {
    pub(super) fn new(store: Arc<Datastore>, settings: ReplicationSettings, state: ReplicationState) -> Core {
        let link = Link {
            state: LinkState::Connecting,
            since: Instant::now(),
            peer: None,
            streamed: false,
            last_error: None,
            sent_bytes: 0,
        };
        Core {
            policy: Mutex::new(PolicyKeeper::new(settings.mode)),
            store,
            settings,
            state,
            stopping: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            oldest_shippable: AtomicU64::new(0),
            session: Mutex::default(),
            link: Mutex::new(link),
            events: Mutex::default(),
            event: Condvar::new(),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Ends everything; the threads end soon.
    pub(super) fn stop(&self) {
        self.stopping.store(true, SeqCst);
        let session = self.session.lock().clone();
        if let Some(session) = session {
            session.say_goodbye();
        }
        self.wake();
    }

    /// Makes a session known; false when replication ends.
    pub(super) fn begin(&self, session: &Arc<Session>) -> bool {
        *self.session.lock() = Some(session.clone());
        !self.is_stopping()
    }

    /// Notes the end of a session; returns whether it had got through the catch-up.
    pub(super) fn end(&self, session: &Arc<Session>, end: &End, lasted: Duration) -> bool {
        *self.session.lock() = None;
        let mut link = self.link.lock();
        link.sent_bytes += session.sent_bytes.load(SeqCst);
        let streamed = std::mem::take(&mut link.streamed);
        drop(link);
        self.failed(end, lasted);
        streamed
    }

    /// Says why there is no session, once for each reason.
    pub(super) fn failed(&self, end: &End, lasted: Duration) {
        let text = end.to_string();
        let state = match end {
            End::Stalled(_) => LinkState::Stalled,
            end if end.is_refusal() => LinkState::Refused,
            _ => LinkState::Connecting,
        };
        let had_peer = self.link.lock().peer.take().is_some();
        let repeated = !had_peer && self.link.lock().last_error.as_deref() == Some(&text);
        self.set_state(state);
        if *end == End::Stopped {
            return;
        }
        if !end.is_part_of_the_plan() {
            self.link.lock().last_error = Some(text.clone());
        }
        if !repeated {
            let (stored, propagated) = (self.store.last_epoch(), self.store.propagated_epoch());
            let lasted = lasted.as_millis();
            let line = format!(
                "replication: {state}: {text} (after {lasted} ms; epochs: stored {stored}, propagated {propagated})"
            );
            match end {
                end if end.is_refusal() => log::error!("{line}"),
                end if end.is_part_of_the_plan() => log::info!("{line}"),
                _ => log::warn!("{line}"),
            }
        }
    }

    pub(super) fn stopped(&self) {
        self.set_state(LinkState::Stopped);
    }

    pub(super) fn set_state(&self, state: LinkState) {
        let mut link = self.link.lock();
        if link.state != state {
            link.state = state;
            link.since = Instant::now();
        }
    }

    /// The control connection is open.
    pub(super) fn connected(&self, peer: SocketAddr) {
        self.link.lock().peer = Some(peer);
    }

    /// The replica lacks nothing that is not under way.
    pub(super) fn streaming(&self, from: Epoch, bytes: u64, took: Duration) {
        let mut link = self.link.lock();
        link.streamed = true;
        link.last_error = None;
        let peer = link.peer.map_or_else(String::new, |peer| peer.to_string());
        drop(link);
        self.set_state(LinkState::Streaming);
        log::info!(
            "replication: streaming to {peer}: it had epoch {from}, {} is stored; {bytes} bytes of log were sent in {} ms",
            self.store.last_epoch(),
            took.as_millis()
        );
        self.wake();
    }

    /// The oldest epoch of which all sessions are still in the log.
    pub(super) fn oldest_shippable(&self) -> Epoch {
        let compacted = self.store.compacted_epoch();
        Epoch((compacted.0 + 1).max(self.oldest_shippable.load(SeqCst)))
    }

    pub(super) fn raise_oldest_shippable(&self, oldest: Epoch) {
        self.oldest_shippable.fetch_max(oldest.0, SeqCst);
    }

    /// Lets the watching thread, and whoever waits in [`Self::drain`], look again.
    pub(super) fn wake(&self) {
        *self.events.lock() += 1;
        self.event.notify_all();
    }

    /// The replica has confirmed more.
    pub(super) fn progressed(&self) {
        let waiting = self.draining.load(SeqCst) || self.policy.lock().degraded_since().is_some();
        if waiting {
            self.wake();
        }
    }

    /// Waits, at most as long, unless replication ends.
    pub(super) fn sleep(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut events = self.events.lock();
        while !self.is_stopping() && !self.event.wait_until(&mut events, deadline).timed_out() {}
    }

    /// What the watching thread does.
    pub(super) fn watch(&self) {
        let timeout = self.settings.timeout.as_millis() as u64;
        let heartbeat = Duration::from_millis(heartbeat_interval(timeout));
        let (mut seen, mut replica, mut retained) = (0, None, Instant::now());
        while !self.is_stopping() {
            let session = self.session.lock().clone();
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
            let streaming = session.is_some_and(|session| session.is_streaming());
            let problem = self.link.lock().last_error.clone();
            let mut policy = self.policy.lock();
            let degraded = policy.update(&self.store, streaming, problem.as_deref());
            let wait = policy.wait().unwrap_or(WATCH_INTERVAL).min(WATCH_INTERVAL).min(heartbeat);
            drop(policy);
            if let Some(degraded) = degraded {
                // After a shutdown or a failure nothing is notified any more.
                let _ = self.store.set_degraded(degraded);
            }
            let deadline = Instant::now() + wait;
            let mut events = self.events.lock();
            while *events == seen && !self.is_stopping() {
                if self.event.wait_until(&mut events, deadline).timed_out() {
                    break;
                }
            }
            seen = *events;
        }
        self.store.set_retained_epoch(None);
        self.policy.lock().finish(&self.store);
    }

    /// Keeps the log beyond what the replica has from being compacted, as far as that is allowed.
    fn retain(&self, confirmed: Epoch) {
        let entries = self.store.vfs().list(self.store.location()).unwrap_or_default();
        let is_log = |name: &str| names::is_log(name) && !names::is_compacted(name);
        let logs = entries.iter().filter(|entry| entry.name.to_str().is_some_and(is_log));
        let bytes: u64 = logs.map(|entry| entry.len).sum();
        self.store.set_retained_epoch((bytes <= self.settings.retain_bytes).then_some(confirmed));
    }

    /// Gives a replica that is connected time to confirm what is stored now, and says what it has not confirmed then.
    pub(super) fn drain(&self, patience: Duration) {
        let stored = self.store.last_epoch();
        let deadline = Instant::now() + patience;
        self.draining.store(true, SeqCst);
        let mut events = self.events.lock();
        loop {
            let session = self.session.lock().clone();
            let propagated = session.as_ref().and_then(|session| session.propagated());
            // Without a connection the replica cannot confirm anything soon.
            let hopeless = propagated.is_none();
            if propagated >= Some(stored) || hopeless || self.event.wait_until(&mut events, deadline).timed_out() {
                break;
            }
        }
        drop(events);
        let session = self.session.lock().clone();
        let propagated = session.and_then(|session| session.propagated()).unwrap_or_default();
        let propagated = propagated.max(self.store.propagated_epoch());
        if propagated < stored {
            log::warn!(
                "replication: shut down with epochs {} to {stored} STORED only: the replica has not confirmed them{}",
                propagated.0 + 1,
                self.link.lock().last_error.as_ref().map_or_else(String::new, |error| format!(" ({error})"))
            );
        } else {
            log::info!("replication: shut down with everything up to epoch {stored} PROPAGATED");
        }
    }

    pub(super) fn status(&self) -> Status {
        let session = self.session.lock().clone();
        let (propagated, stored) = (self.store.propagated_epoch(), self.store.last_epoch());
        let (behind, degraded_since) = {
            let policy = self.policy.lock();
            (policy.behind(), policy.degraded_since())
        };
        let bytes = session.map_or(0, |session| session.unconfirmed_bytes());
        let link = self.link.lock();
        Status {
            role: Side::Primary,
            protocol: "native".to_owned(),
            state: link.state,
            state_ms: link.since.elapsed().as_millis() as u64,
            peer: link.peer.map(|peer| peer.to_string()),
            instance_uuid: self.store.instance_uuid().to_owned(),
            term: self.state.term,
            switched_epoch: self.store.switched_epoch().0,
            stored_epoch: stored.0,
            propagated_epoch: propagated.0,
            lag: Lag { epochs: stored.0.saturating_sub(propagated.0), bytes, ms: behind.as_millis() as u64 },
            policy: Some(self.settings.mode.to_string()),
            degraded_since,
            boundary: Some(self.store.available_boundary_version())
                .filter(|version| *version > WriteVersion::default()),
            safe_snapshot: self.store.safe_snapshot().map(|snapshot| snapshot.version),
            last_error: link.last_error.clone(),
        }
    }
}

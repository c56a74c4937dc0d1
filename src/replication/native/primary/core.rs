// SPDX-License-Identifier: Apache-2.0
//! What the threads of a primary share, and what it says about the link: one log line for each change of state.

use super::end::End;
use crate::datastore::Datastore;
use crate::replication::settings::ReplicationSettings;
use crate::replication::state_file::ReplicationState;
use crate::replication::status::LinkState;
use crate::types::Epoch;
use parking_lot::{Condvar, Mutex};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) struct Core {
    pub(super) store: Arc<Datastore>,
    pub(super) settings: ReplicationSettings,
    pub(super) state: ReplicationState,
    stopping: AtomicBool,
    /// Somebody waits for what the replica confirms.
    awaited: AtomicBool,
    /// Beyond what the catalog says, because the log has something that cannot be sent.
    oldest_shippable: AtomicU64,
    link: Mutex<Link>,
    /// Counts what the watching thread has to look at.
    events: Mutex<u64>,
    event: Condvar,
}

#[derive(Clone)]
pub(super) struct Link {
    pub(super) state: LinkState,
    pub(super) since: Instant,
    pub(super) peer: Option<SocketAddr>,
    /// The first attempt has not ended, or another is under way or follows at once.
    pub(super) attempting: bool,
    /// When the replica said something last in this run.
    pub(super) heard: Option<Instant>,
    /// Whether the present session has got through the catch-up.
    streamed: bool,
    pub(super) last_error: Option<String>,
}

impl Core {
    pub(super) fn new(store: Arc<Datastore>, settings: ReplicationSettings, state: ReplicationState) -> Core {
        let link = Link {
            state: LinkState::Connecting,
            since: Instant::now(),
            peer: None,
            attempting: true,
            heard: None,
            streamed: false,
            last_error: None,
        };
        Core {
            store,
            settings,
            state,
            stopping: AtomicBool::new(false),
            awaited: AtomicBool::new(false),
            oldest_shippable: AtomicU64::new(0),
            link: Mutex::new(link),
            events: Mutex::default(),
            event: Condvar::new(),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Nothing begins any more.
    pub(super) fn stop(&self) {
        self.stopping.store(true, SeqCst);
        self.wake();
    }

    /// What is known of the link.
    pub(super) fn link(&self) -> Link {
        self.link.lock().clone()
    }

    /// An attempt to have a session begins.
    pub(super) fn attempts(&self) {
        self.link.lock().attempting = true;
    }

    /// Whether the session that ended had got through the catch-up.
    pub(super) fn take_streamed(&self) -> bool {
        std::mem::take(&mut self.link.lock().streamed)
    }

    /// Says why there is no session, once for each reason.
    pub(super) fn failed(&self, end: &End, lasted: Duration) {
        let text = end.to_string();
        let state = match end {
            End::Stalled(_) => LinkState::Stalled,
            end if end.is_refusal() => LinkState::Refused,
            _ => LinkState::Connecting,
        };
        let had_peer = {
            let mut link = self.link.lock();
            link.attempting = end.is_part_of_the_plan();
            link.peer.take().is_some()
        };
        let repeated = !had_peer && self.link.lock().last_error.as_deref() == Some(&text);
        self.set_state(state);
        self.wake();
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

    /// The control connection is open, and the replica has said what it has.
    pub(super) fn connected(&self, peer: SocketAddr) {
        let mut link = self.link.lock();
        (link.peer, link.heard) = (Some(peer), Some(Instant::now()));
    }

    /// The replica has said something.
    pub(super) fn heard(&self) {
        self.link.lock().heard = Some(Instant::now());
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

    /// Lets whoever waits for an event look again.
    pub(super) fn wake(&self) {
        *self.events.lock() += 1;
        self.event.notify_all();
    }

    /// The replica has confirmed more.
    pub(super) fn progressed(&self) {
        if self.awaited.load(SeqCst) {
            self.wake();
        }
    }

    /// Whether somebody waits for what the replica confirms.
    pub(super) fn set_awaited(&self, awaited: bool) {
        self.awaited.store(awaited, SeqCst);
    }

    /// Waits until [`Self::wake`] is called after `seen` of its calls, or the deadline; returns the number of calls by
    /// now.
    pub(super) fn wait_for_event(&self, seen: u64, deadline: Instant) -> u64 {
        let mut events = self.events.lock();
        while *events == seen && !self.event.wait_until(&mut events, deadline).timed_out() {}
        *events
    }

    /// Waits, at most as long, unless replication ends.
    pub(super) fn sleep(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut events = self.events.lock();
        while !self.is_stopping() && !self.event.wait_until(&mut events, deadline).timed_out() {}
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What the threads share that serve one replica, and what is said about its link: one log line for each change of
//! state.

use super::base_set::BaseSet;
use super::end::End;
use super::events::Events;
use super::group::Group;
use crate::datastore::Datastore;
use crate::lock_order::{Mutex, Rank};
use crate::replication::net::dial::Dialer;
use crate::replication::net::tls::TlsError;
use crate::replication::settings::{Replica, ReplicationSettings};
use crate::replication::status::LinkState;
use crate::types::Epoch;
use crate::wal::history_file::DirectoryHistory;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One replica, of one or several.
pub(super) struct Core {
    pub(super) group: Arc<Group>,
    pub(super) store: Arc<Datastore>,
    pub(super) settings: ReplicationSettings,
    pub(super) state: DirectoryHistory,
    /// The place of the replica.
    pub(super) slot: usize,
    pub(super) name: String,
    /// The addresses of the replica; locked while an attempt goes through them.
    pub(super) dialer: Mutex<Dialer>,
    /// Beyond what the catalog says, because the log has something that cannot be sent.
    oldest_shippable: AtomicU64,
    link: Mutex<Link>,
    /// The set of a base sync that broke off, and since when there is none because nobody took anything of the last
    /// one.
    base_set: Mutex<Option<BaseSet>>,
    base_set_dropped: Mutex<Option<Instant>>,
    /// Why certificates that were renewed are not used.
    certificates_problem: Mutex<Option<TlsError>>,
    /// What the thread that watches over the link has to look at.
    pub(super) events: Events,
    /// It is no replica of this primary any more.
    dismissed: AtomicBool,
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
    pub(super) last_error: Option<String>,
}

impl Core {
    pub(super) fn new(group: Arc<Group>, slot: usize, replica: Replica) -> Core {
        let link = Link {
            state: LinkState::Connecting,
            since: Instant::now(),
            peer: None,
            attempting: true,
            heard: None,
            last_error: None,
        };
        let Replica { name, endpoints } = replica;
        Core {
            store: group.store.clone(),
            settings: group.settings.clone(),
            state: group.state.clone(),
            group,
            slot,
            name,
            dialer: Mutex::new(Rank::Dialer, Dialer::new(endpoints)),
            oldest_shippable: AtomicU64::new(0),
            link: Mutex::new(Rank::Leaf, link),
            base_set: Mutex::new(Rank::BaseSet, None),
            base_set_dropped: Mutex::new(Rank::BaseSetDropped, None),
            certificates_problem: Mutex::default(),
            events: Events::default(),
            dismissed: AtomicBool::new(false),
        }
    }

    /// Whether no session may begin any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_leaving() || self.group.is_fenced()
    }

    /// Whether sessions end in good order: replication ends, or it does for this replica.
    pub(super) fn is_leaving(&self) -> bool {
        self.group.is_stopping() || self.dismissed.load(SeqCst)
    }

    /// No session with the replica begins any more.
    pub(super) fn dismiss(&self) {
        self.dismissed.store(true, SeqCst);
    }

    /// What log lines begin with: the replica, when there are several.
    pub(super) fn label(&self) -> String {
        match self.group.has_several() {
            false => "replication".to_owned(),
            true => format!("replication: replica {}", self.name),
        }
    }

    /// What was renewed holds for the sessions that follow. Why it cannot be used is said once.
    pub(super) fn read_certificates_again(&self) {
        let Some(certificates) = &self.settings.tls else { return };
        let problem = certificates.read_again().err();
        let former = std::mem::replace(&mut *self.certificates_problem.lock(), problem.clone());
        if let Some(problem) = problem.filter(|problem| former.as_ref() != Some(problem)) {
            log::error!("{}: the former certificates stay in force: {problem}", self.label());
        }
        self.store.metrics().certificate_expires.set(certificates.expires());
    }

    /// What is known of the link.
    pub(super) fn link(&self) -> Link {
        self.link.lock().clone()
    }

    /// An attempt to have a session begins.
    pub(super) fn attempts(&self) {
        self.link.lock().attempting = true;
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
        if *end != End::Stopped && !end.is_part_of_the_plan() {
            // Before the state: who sees that it is refused sees why.
            self.link.lock().last_error = Some(text.clone());
        }
        self.set_state(state);
        self.wake();
        if *end == End::Stopped {
            return;
        }
        if !repeated {
            let (stored, propagated) = (self.store.last_epoch(), self.store.propagated_epoch());
            let lasted = lasted.as_millis();
            let label = self.label();
            let line = format!(
                "{label}: {state}: {text} (after {lasted} ms; epochs: stored {stored}, propagated {propagated})"
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
        link.last_error = None;
        let peer = link.peer.map_or_else(String::new, |peer| peer.to_string());
        drop(link);
        self.set_state(LinkState::Streaming);
        log::info!(
            "{}: streaming to {peer}: it had epoch {from}, {} is stored; {bytes} bytes of log were sent in \
             {} ms",
            self.label(),
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
        self.events.wake();
        self.group.events.wake();
    }

    /// What a base sync is to go on with, if there is something. An error: for how long none is to be begun.
    pub(super) fn take_base_set(&self) -> std::result::Result<Option<BaseSet>, Duration> {
        self.drop_stale_base_set();
        match (self.base_set.lock().take(), self.base_set_dropped.lock().take()) {
            (Some(set), _) => Ok(Some(set)),
            (None, Some(since)) => Err(self.settings.timeout.saturating_sub(since.elapsed())),
            (None, None) => Ok(None),
        }
    }

    /// Keeps the set of a base sync that broke off for the next attempt.
    pub(super) fn keep_base_set(&self, set: BaseSet) {
        *self.base_set.lock() = Some(set);
        self.drop_stale_base_set();
    }

    /// Lets a set go that a replica has not taken anything of for long: it holds up compactions.
    pub(super) fn drop_stale_base_set(&self) {
        if let Some(set) = self.base_set.lock().take_if(|set| set.is_stale(self.settings.timeout)) {
            drop(set);
            log::info!(
                "{}: the files of the base sync are not held any more: nobody took anything of them",
                self.label()
            );
            *self.base_set_dropped.lock() = Some(Instant::now());
        }
    }

    /// Whether the next base sync begins with other files than the last one.
    pub(super) fn has_dropped_base_set(&self) -> bool {
        self.base_set_dropped.lock().is_some()
    }

    /// Lets the set of a base sync go, whatever its state.
    pub(super) fn drop_base_set(&self) {
        *self.base_set.lock() = None;
    }

    /// Waits, at most as long, unless there is no use in it any more.
    pub(super) fn sleep(&self, time: Duration) {
        self.events.wait_until(Instant::now() + time, || self.is_over());
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The replicas of a primary together: what the policy makes of how many have an epoch, the log that is kept for those
//! that are late, the end, and the status.

use super::core::Core;
use super::group::Group;
use super::keeper::Keeper;
use super::session;
use crate::datastore::Retained;
use crate::error::Result;
use crate::lock_order::{Mutex, Rank};
use crate::replication::addresses::Replica;
use crate::replication::policy::keeper::PolicyKeeper;
use crate::replication::status::{Known, KnownReplica, ListedReplica, Status};
use crate::types::Epoch;
use crate::wal::names;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often at least the epochs are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// All replicas: those that are set, and those that came and went since.
pub(super) struct Members {
    pub(super) group: Arc<Group>,
    all: Mutex<Vec<Arc<Keeper>>>,
    policy: PolicyKeeper,
    draining: AtomicBool,
}

impl Members {
    pub(super) fn new(group: Group) -> Members {
        let policy = PolicyKeeper::new(group.settings.mode);
        let group = Arc::new(group);
        let keeper = |(slot, replica)| Arc::new(Keeper::new(Core::new(group.clone(), slot, replica)));
        let all = group.roster().into_iter().map(keeper).collect();
        Members { all: Mutex::new(Rank::Leaf, all), group, policy, draining: AtomicBool::new(false) }
    }

    /// The replicas as they are now.
    pub(super) fn all(&self) -> Vec<Arc<Keeper>> {
        self.all.lock().clone()
    }

    /// Takes one more replica in; whoever calls this has its sessions kept.
    ///
    /// # Errors
    /// As for [`Group::admit`].
    pub(super) fn add(&self, replica: Replica) -> Result<Arc<Keeper>> {
        let slot = self.group.admit(&replica)?;
        let member = Arc::new(Keeper::new(Core::new(self.group.clone(), slot, replica)));
        self.all.lock().push(member.clone());
        Ok(member)
    }

    /// Lets a replica go: it does not count from now on, no log is kept for it, and its threads end soon.
    ///
    /// # Errors
    /// As for [`Group::dismiss`].
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        let slot = self.group.dismiss(name)?;
        let mut all = self.all.lock();
        let place = all.iter().position(|member| member.core.slot == slot);
        let member = place.map(|place| all.remove(place));
        drop(all);
        if let Some(member) = member {
            member.dismiss();
        }
        self.group.events.wake();
        Ok(())
    }

    /// What the watching thread does.
    pub(super) fn watch(&self) {
        let group = &self.group;
        let (mut seen, mut retained) = (0, Instant::now());
        while !group.is_stopping() {
            if group.is_fenced() {
                self.all().iter().for_each(|member| member.stop());
            }
            if retained.elapsed() >= WATCH_INTERVAL {
                self.retain();
                group.settings.tls.iter().for_each(|certificates| certificates.warn_of_the_end());
                retained = Instant::now();
            }
            self.policy.look(&group.store, self.is_streaming(), self.problem().as_deref());
            let wait = self.policy.wait().unwrap_or(WATCH_INTERVAL).min(WATCH_INTERVAL);
            group.set_awaited(self.draining.load(SeqCst) || self.policy.degraded_since().is_some());
            seen = group.events.wait(seen, Instant::now() + wait);
        }
        group.store.retain(None);
        self.policy.finish(&group.store);
    }

    /// Whether as many replicas as are needed get every session as it ends.
    fn is_streaming(&self) -> bool {
        let streaming = |member: &&Arc<Keeper>| member.session().is_some_and(|session| session.is_streaming());
        self.all().iter().filter(streaming).count() >= self.group.quorum.needed()
    }

    /// What the first replica suffers from that does.
    fn problem(&self) -> Option<String> {
        self.all().iter().find_map(|member| {
            let error = member.core.link().last_error?;
            Some(if self.all().len() == 1 { error } else { format!("{}: {error}", member.core.name) })
        })
    }

    /// Keeps the log beyond what the replicas have from being compacted, as far as that is allowed: one bound for what
    /// all of them lack.
    fn retain(&self) {
        let all = self.all();
        let told = all.iter().filter_map(|member| Some((member.needs_log_above()?, member)));
        let needed = told.min_by_key(|(epoch, _)| *epoch);
        let allowed = needed.filter(|_| self.log_bytes() <= self.group.settings.retain_bytes);
        let retained = allowed.map(|(beyond, member)| {
            let moves = member.session().is_some_and(|session| session.confirmed().is_some());
            Retained { beyond, by: format!("replica {}", member.core.name), moves }
        });
        self.group.store.retain(retained);
    }

    /// The size of all log files.
    fn log_bytes(&self) -> u64 {
        let store = &self.group.store;
        let entries = store.vfs().list(store.location()).unwrap_or_default();
        let is_log = |name: &str| names::is_log(name) && !names::is_compacted(name);
        let logs = entries.iter().filter(|entry| entry.name.to_str().is_some_and(is_log));
        logs.map(|entry| entry.len).sum()
    }

    /// Ends everything; the threads end soon.
    pub(super) fn stop(&self) {
        self.group.stop();
        self.all().iter().for_each(|member| member.stop());
    }

    /// Gives the replicas that are connected, or being connected to, time to confirm what is stored now, until as many
    /// as are needed have; says what is known of it then. The thread that hears the confirmations does not wait for
    /// them.
    pub(super) fn drain(&self, patience: Duration) {
        let group = &self.group;
        let stored = group.store.last_epoch();
        let deadline = Instant::now() + if session::is_own_thread() { Duration::ZERO } else { patience };
        self.draining.store(true, SeqCst);
        group.set_awaited(true);
        let mut seen = 0;
        loop {
            // Without an attempt under way a replica cannot confirm anything soon.
            let hopeful = |member: &&Arc<Keeper>| {
                let known = member.session().and_then(|session| session.propagated());
                known.is_some()
                    || member.core.link().attempting
                    || group.quorum.confirmed(member.core.slot) >= Some(stored)
            };
            let hopeful = self.all().iter().filter(hopeful).count();
            if self.propagated() >= stored || hopeful < group.quorum.needed() || Instant::now() >= deadline {
                break;
            }
            seen = group.events.wait(seen, deadline);
        }
        self.say_what_was_propagated(stored);
    }

    /// Up to where enough replicas have everything.
    fn propagated(&self) -> Epoch {
        for member in self.all() {
            if let Some((seat, propagated)) = member.session().and_then(|session| session.standing()) {
                self.group.quorum.confirm(seat, propagated);
            }
        }
        self.group.quorum.reached().max(self.group.store.propagated_epoch())
    }

    /// What all of them have, as far as they have said.
    pub(super) fn confirmed_by_all(&self) -> Epoch {
        let confirmed = |member: &Arc<Keeper>| self.group.quorum.confirmed(member.core.slot).unwrap_or_default();
        self.all().iter().map(confirmed).min().unwrap_or_default()
    }

    fn say_what_was_propagated(&self, stored: Epoch) {
        let (propagated, error) = (self.propagated(), self.problem());
        let error = error.map_or_else(String::new, |error| format!(" ({error})"));
        let heard = self.all().iter().any(|member| member.core.link().heard.is_some());
        match (propagated >= stored, heard) {
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
        if self.all().len() > 1 {
            let all = self.all();
            let known = all.iter().map(|member| match self.group.quorum.confirmed(member.core.slot) {
                Some(epoch) => format!("{} has epoch {epoch}", member.core.name),
                None => format!("what {} has is not known", member.core.name),
            });
            log::info!("replication: of the replicas {}", known.collect::<Vec<_>>().join(", "));
        }
    }

    /// The replicas, and how many of them must have an epoch.
    pub(super) fn list(&self) -> (Vec<ListedReplica>, usize) {
        let roster = self.group.roster();
        let listed = |member: &Arc<Keeper>| {
            let addresses = roster.get(&member.core.slot)?.addresses();
            let KnownReplica { name, state, propagated, last_error, .. } = self.known(member);
            Some(ListedReplica {
                name,
                addresses,
                state,
                propagated_epoch: propagated.map(|epoch| epoch.0),
                last_error,
            })
        };
        (self.all().iter().filter_map(listed).collect(), self.group.quorum.needed())
    }

    /// The same for the log.
    pub(super) fn describe(&self) -> String {
        let names: Vec<String> = self.all().iter().map(|member| member.core.name.clone()).collect();
        format!("{} of these must have an epoch: {}", self.group.quorum.needed(), names.join(", "))
    }

    /// What is going on. The link that is shown first is that of the replica that completes the quorum.
    pub(super) fn status(&self) -> Status {
        let group = &self.group;
        let all = self.all();
        let mut replicas: Vec<KnownReplica> = all.iter().map(|member| self.known(member)).collect();
        let mut order: Vec<&KnownReplica> = replicas.iter().collect();
        order.sort_by_key(|replica| std::cmp::Reverse((replica.lag_bytes.is_some(), replica.propagated)));
        let deciding = order[group.quorum.needed() - 1].clone();
        if replicas.len() == 1 {
            // All of it is in the document.
            replicas.clear();
        }
        Known {
            protocol: Some("native"),
            state: deciding.state,
            state_for: Some(deciding.state_for),
            peer: deciding.peer,
            heard: deciding.heard,
            term: Some(group.state.term),
            lag_heard: deciding.heard,
            lag_bytes: deciding.lag_bytes,
            lag_for: Some(self.policy.behind()),
            policy: Some(group.settings.mode.to_string()),
            degraded_since: self.policy.degraded_since(),
            last_error: deciding.last_error,
            quorum: (all.len() > 1).then_some(group.quorum.needed()),
            replicas,
            ..Known::of_store(&group.store)
        }
        .document()
    }

    fn known(&self, member: &Keeper) -> KnownReplica {
        let link = member.core.link();
        // What is not streamed yet is nowhere counted.
        let streaming = member.session().filter(|session| session.is_streaming());
        let group = &self.group;
        let instead = group.quorum.counted_instead(member.core.slot).map(|other| group.counts_as_one(other));
        KnownReplica {
            name: member.core.name.clone(),
            state: link.state,
            state_for: link.since.elapsed(),
            peer: link.peer.map(|peer| peer.to_string()),
            heard: link.heard,
            propagated: group.quorum.confirmed(member.core.slot),
            lag_bytes: streaming.map(|session| session.unconfirmed_bytes()),
            last_error: link.last_error.or(instead),
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Reads the log files of a running replica, but for what may still be cut off, again and again, behind everything else
//! that is done on the machine. One that does not hold any more what it held is replaced by what the primary has: the
//! directory is given up for a base sync, as `tgreplica repair` does, but that nothing is saved beside: all stays in
//! place until the base sync is whole. Until then the replica has nothing that counts, and is not promoted without
//! force.

use super::node::Node;
use crate::compaction::step_back;
use crate::error::Error;
use crate::replication::replica_store::StandbyStore;
use crate::scrub::{Damage, Reading, Round, Scrub, Scrubbing, Which};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often new files are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Scrubs until the replica is stopped.
pub(super) fn work(node: &Arc<Node>, scrubbing: Scrubbing) {
    step_back();
    let mut scrub = Scrub::open(node.vfs().clone(), node.location());
    let (mut seen, mut due, mut failure) = (Weak::new(), Instant::now(), None);
    while !node.is_stopping() {
        node.sleep(LOOK_EVERY.min(scrubbing.period));
        // While it is away somebody changes the directory.
        let Ok(store) = node.store().map(|store| Arc::downgrade(&store)) else { continue };
        if !seen.ptr_eq(&store) {
            scrub.reopened();
            seen = store;
        }
        let which = if Instant::now() >= due { Which::All } else { Which::New };
        let settled = |name: &str| node.store().map_or(0, |store| store.settled_bytes(name));
        let mut go_on = |bytes, rest| {
            node.scrubbed.read(bytes);
            node.sleep(rest);
            node.is_open_as(&seen)
        };
        let round = scrub.round(which, Reading { rate: scrubbing.rate, settled: &settled, go_on: &mut go_on });
        let Round { damaged, is_complete } = match round {
            Ok(round) => round,
            Err(e) => {
                note(&mut failure, &e);
                continue;
            }
        };
        failure = None;
        damaged.iter().for_each(|damage| node.heal(damage, &seen));
        if is_complete && which == Which::All {
            node.scrubbed.round();
            due = Instant::now() + scrubbing.period;
        }
    }
}

/// Says what has failed, once.
fn note(failure: &mut Option<String>, error: &Error) {
    let text = error.to_string();
    if failure.as_ref() != Some(&text) {
        log::warn!("replication: the log files are not scrubbed: {text}");
    }
    *failure = Some(text);
}

impl Node {
    /// Whether the directory has been open without a break since it was opened as this store, and is to stay so.
    fn is_open_as(&self, seen: &Weak<StandbyStore>) -> bool {
        !self.is_stopping() && self.store().is_ok_and(|store| seen.ptr_eq(&Arc::downgrade(&store)))
    }

    /// Has the content of the directory replaced by that of the primary, unless somebody has done so since it was
    /// `seen`.
    fn heal(&self, damage: &Damage, seen: &Weak<StandbyStore>) {
        let _accepting = self.accepting.lock();
        if !self.is_open_as(seen) {
            return;
        }
        let (is_new, may_heal) = self.scrubbed.damaged(damage);
        if is_new {
            let Damage { name, wrong } = damage;
            let what = match may_heal {
                true => "a base sync replaces what is here, and until then nothing of it counts",
                false => "it happens again and again, so the file stays as it is: the disk has to be replaced",
            };
            log::error!("replication: {} is damaged: {wrong}; {what}", self.location().join(name).display());
        }
        if !may_heal {
            return;
        }
        if self.awaits_base_sync() {
            return;
        }
        self.end_session("a log file of the replica is damaged");
        // The session may have been one that replaced it.
        if self.is_open_as(seen) {
            if let Err(e) = self.give_up() {
                self.failed(&e);
            }
        }
    }
}

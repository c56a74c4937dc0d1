// SPDX-License-Identifier: Apache-2.0
//! Reads the log files of a running replica, but for what may still be cut off, again and again, behind everything else
//! that is done on the machine. One that does not hold any more what it held is replaced by what the primary has: the
//! directory is given up for a base sync, as `tgreplica repair` does, but that nothing is saved beside: all stays in
//! place until the base sync is whole. Until then the replica has nothing that counts, and is not promoted without
//! force.

use super::node::Node;
use crate::compaction::step_back;
use crate::replication::replica_store::StandbyStore;
use crate::scrub::{keep, Damage, Host, Known, Scrubbed, Scrubbing};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Scrubs until the replica is stopped.
pub(super) fn work(node: &Arc<Node>, scrubbing: Scrubbing) {
    step_back();
    keep(&**node, (node.vfs().clone(), node.location()), scrubbing);
}

impl Host for Node {
    type Opening = Weak<StandbyStore>;

    fn opening(&self) -> Option<Weak<StandbyStore>> {
        self.store().ok().map(|store| Arc::downgrade(&store))
    }

    fn is_open_as(&self, seen: &Weak<StandbyStore>) -> bool {
        !Node::is_stopping(self) && self.store().is_ok_and(|store| seen.ptr_eq(&Arc::downgrade(&store)))
    }

    fn is_stopping(&self) -> bool {
        Node::is_stopping(self)
    }

    fn sleep(&self, time: Duration) {
        Node::sleep(self, time);
    }

    fn settled_bytes(&self, name: &str) -> u64 {
        self.store().map_or(0, |store| store.settled_bytes(name))
    }

    fn scrubbed(&self) -> &Scrubbed {
        &self.scrubbed
    }

    fn knows(&self, known: &Arc<Known>, opening: &Weak<StandbyStore>) {
        if let Some(store) = opening.upgrade() {
            store.know(known);
        }
    }

    /// Has the content of the directory replaced by that of the primary, unless somebody has done so since it was
    /// `seen`.
    fn damaged(&self, damage: &Damage, seen: &Weak<StandbyStore>) {
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
        if !may_heal || self.awaits_base_sync() {
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

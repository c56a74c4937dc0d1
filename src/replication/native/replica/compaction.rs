// SPDX-License-Identifier: Apache-2.0
//! Compaction of a replica: when `ctrl/start_compaction` asks for it, as on a primary, and when the log has grown and
//! the settings say so. The session with the primary goes on.

use super::node::Node;
use crate::compaction::Policy;
use crate::directory::{make_control_directory, CompactionRequest};
use crate::error::{Error, Result};
use crate::replication::replica_store::{Outcome, Work};
use crate::scrub::Host;
use crate::vfs::Disk;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// An epoch whose sessions are on their way ends sooner.
const PATIENCE: Duration = Duration::from_millis(500);
const DAMAGED: &str = "a log file is damaged";
/// After one that could not be done now: looking for a cut holds sessions back.
const REST: Duration = Duration::from_secs(5);

/// Compacts whenever somebody asks or it is due, until the replica is stopped.
pub(super) fn work(node: &Arc<Node>) {
    let (vfs, location) = (node.vfs(), node.location());
    if let Err(e) = make_control_directory(&**vfs, location) {
        log::error!("replication: compaction cannot be asked for: {e}");
    }
    let mut request = CompactionRequest::new(vfs.clone(), location);
    let mut policy = node.options.compaction.by_itself.map(Policy::new);
    let (mut is_asked, mut put_off) = (false, None);
    while !node.is_stopping() {
        is_asked |= request.take();
        let outcome = match (is_asked, &mut policy) {
            (true, _) => node.compact().map(Some),
            (false, Some(policy)) => node.compact_if_due(policy),
            (false, None) => Ok(None),
        };
        let obstacle = match outcome {
            Ok(Some(Outcome::Postponed(what))) => Some(what),
            // What has failed before is said elsewhere.
            Err(e) if !node.is_stopping() && !matches!(e, Error::Poisoned(_)) => {
                log::error!("failed to compact: {e}; the replica goes on with its directory as it is");
                None
            }
            Ok(_) | Err(_) => None,
        };
        is_asked &= obstacle.is_some();
        if let Some(what) = obstacle.filter(|_| put_off != obstacle) {
            log::info!("the compaction is put off, and tried again: {what}");
        }
        put_off = obstacle;
        node.sleep(if put_off.is_some() { REST } else { LOOK_EVERY });
    }
}

impl Node {
    /// Compacts what is durable.
    fn compact(&self) -> Result<Outcome> {
        // While a directory is replaced its log is nobody's business.
        let Some(store) = self.store().ok().filter(|_| !self.awaits_base_sync()) else {
            return Ok(Outcome::Postponed("the directory is being replaced"));
        };
        if self.scrubbed.is_damaged() {
            return Ok(Outcome::Postponed(DAMAGED));
        }
        let (metrics, begun) = (&self.options.metrics, Instant::now());
        metrics.running_compactions.set(1);
        let outcome = store.compact(self.work(), || {
            let slot = self.store_slot();
            slot.as_ref().is_some_and(|now| Arc::ptr_eq(now, &store)).then_some(slot)
        });
        metrics.running_compactions.set(0);
        match &outcome {
            Ok(Outcome::Done) => metrics.count_compaction(begun.elapsed()),
            Ok(Outcome::NothingToDo) => log::info!("there is nothing to compact"),
            Ok(Outcome::Postponed(_)) => {}
            Ok(Outcome::Damaged(_)) | Err(_) => metrics.failed_compactions.add(1),
        }
        let Ok(Outcome::Damaged(damage)) = &outcome else { return outcome };
        self.damaged(damage, &Arc::downgrade(&store));
        Ok(Outcome::Postponed(DAMAGED))
    }

    fn work(&self) -> Work<'_> {
        let memory_bytes = self.options.compaction.memory_bytes;
        Work { backups: &self.backups, memory_bytes, patience: PATIENCE, stopping: self.stopping() }
    }

    /// Compacts when the log has grown enough.
    fn compact_if_due(&self, policy: &mut Policy) -> Result<Option<Outcome>> {
        let Some(sizes) = self.store().ok().map(|store| store.sizes()).transpose()? else { return Ok(None) };
        if !policy.is_due(sizes, Disk::of(self.location()), self.location()) {
            return Ok(None);
        }
        let begun = Instant::now();
        let outcome = self.compact();
        if !matches!(outcome, Ok(Outcome::Postponed(_))) {
            // After a failure as after a success: not again at once.
            let left = self.store().ok().and_then(|store| store.sizes().ok()).unwrap_or_default();
            policy.ended(begun.elapsed(), left.log, outcome.is_ok());
        }
        outcome.map(Some)
    }
}

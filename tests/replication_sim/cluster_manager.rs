// SPDX-License-Identifier: Apache-2.0
//! What the cluster manager does, by the rules of docs/high-availability.md.

use crate::cluster::{Cluster, Node};
use crate::machine::Process;
use crate::model::{read, Fate, Model, Session, LOCATION};
use crate::primary::{Primary, Start};
use crate::setup::Sabotage;
use limestone_core::error::Error;
use limestone_core::replication::promotion::promote;
use limestone_core::types::Epoch;
use limestone_core::wal::claim::Claim;
use std::path::Path;
use std::sync::Arc;

impl Cluster {
    /// What the cluster manager does: when the primary is gone or cannot go on, the one that has the most is promoted,
    /// if so many were heard that one of them has everything that was PROPAGATED.
    pub(super) fn manage(&mut self, faults: bool) -> Result<(), String> {
        if let Some((at, primary)) = self.primary() {
            let is_over = primary.shared.fenced.is_some();
            if !(is_over || faults && self.random.once_in(20)) {
                return Ok(());
            }
            self.kill(at);
        }
        let early = self.setup.sabotage == Some(Sabotage::ClaimUnknownTerm);
        let claim = |(at, node): (usize, &Node)| match &node.process {
            Some(Process::Replica(replica)) => {
                let mut history = replica.history()?;
                if early {
                    history.become_known();
                }
                // Of equal ones the one that can be promoted.
                Some((history.claim(replica.store.durable()), !history.awaits_base_sync, at))
            }
            _ => None,
        };
        let mut heard: Vec<(Claim, bool, usize)> = self.nodes.iter().enumerate().filter_map(claim).collect();
        // With all there nothing is missing; of less, an empty directory may be a new disk, and says nothing.
        let are_all_there = heard.len() == self.nodes.len();
        let is_beginning = are_all_there && heard.iter().all(|(claim, ..)| claim.is_nothing());
        let new_disks_count = self.setup.sabotage == Some(Sabotage::CountNewDisk);
        heard.retain(|(claim, ..)| is_beginning || claim.counts() || new_disks_count && !claim.is_nothing());
        let needed =
            self.nodes.len() - self.setup.quorum - usize::from(self.setup.sabotage == Some(Sabotage::HearTooFew));
        if heard.is_empty() || (heard.len() < needed && !are_all_there) {
            return Ok(());
        }
        let by_epoch = self.setup.sabotage == Some(Sabotage::ScoreByEpoch);
        let rank = |(claim, is_whole, at): &(Claim, bool, usize)| {
            (if by_epoch { 0 } else { claim.term }, claim.epoch, *is_whole, self.nodes.len() - at)
        };
        let Some((.., at)) = heard.into_iter().max_by_key(rank) else { return Ok(()) };
        let told = |node: &Node| match &node.process {
            Some(Process::Replica(replica)) => replica.history().map(|history| history.term),
            _ => None,
        };
        let above = self.nodes.iter().filter_map(told).max().unwrap_or_default();
        match is_beginning {
            true => self.start_primary(at),
            false => self.promote(at, above),
        }
    }

    pub(super) fn promote(&mut self, at: usize, above: u64) -> Result<(), String> {
        if let Some(Process::Replica(replica)) = &self.nodes[at].process {
            replica.store.close();
        }
        self.end(at);
        if self.nodes[at].disk.has_failed() {
            return Ok(());
        }
        self.nodes[at].disk.heal();
        match promote(Arc::new(self.nodes[at].disk.clone()), Path::new(LOCATION), false, Some(above)) {
            Ok(done) => match self.terms.keys().next_back() {
                Some(last) if done.term <= *last => {
                    Err(format!("machine {at} is promoted to term {}, {last} has acknowledged", done.term))
                }
                _ => {
                    self.events.promotions += 1;
                    self.start_primary(at)
                }
            },
            // A base sync into it is not complete, or it got a history and not yet what belongs to it.
            Err(Error::WrongState(_)) => Ok(()),
            Err(e) => Err(format!("machine {at} cannot be promoted: {e}")),
        }
    }

    pub(super) fn start_primary(&mut self, at: usize) -> Result<(), String> {
        let compact = self.random.once_in(4);
        let peers: Vec<usize> = (0..self.nodes.len()).filter(|&peer| peer != at).collect();
        self.end(at);
        if self.nodes[at].disk.has_failed() {
            return Ok(());
        }
        self.nodes[at].disk.heal();
        let (primary, durable) = match Primary::start(&self.nodes[at].disk, self.setup, &peers, compact)? {
            Start::Runs(primary, durable) => (primary, durable),
            Start::Refused(why) => return Err(format!("machine {at} does not start after its promotion: {why}")),
        };
        let found = read(primary.store(), durable)?;
        let lost: Vec<_> = self.acknowledged.difference(&found.sessions).collect();
        if !lost.is_empty() {
            return Err(format!("machine {at} is the primary, and sessions {lost:?} that were PROPAGATED are lost"));
        }
        let alive = |id: &usize| (*id, Session { epoch: self.epochs[id], fate: Fate::Alive });
        self.lives += 1;
        let node = &mut self.nodes[at];
        node.model = Model { sessions: found.sessions.iter().map(alive).collect() };
        (node.propagated, node.life) = (Epoch(0), self.lives);
        node.process = Some(Process::Primary(primary));
        Ok(())
    }
}

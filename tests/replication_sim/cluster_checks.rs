// SPDX-License-Identifier: Apache-2.0
//! What must hold in a cluster after each step, and in the end.

use crate::cluster::{Cluster, Node};
use crate::machine::Process;
use crate::model::{Fate, Session};
use limestone_core::types::Epoch;
use limestone_core::vfs::Loss;
use std::collections::BTreeSet;

impl Cluster {
    /// What must hold after every step.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let Some((at, primary)) = self.primary() else { return Ok(()) };
        let store = primary.store();
        let (stored, propagated, fenced) = (store.last_epoch(), store.propagated_epoch(), primary.shared.fenced);
        let term = store.history().map_or(0, |history| history.term);
        if propagated > stored || fenced.is_some_and(|before| before != (stored, propagated)) {
            return Err(format!("stored {stored}, propagated {propagated}, fenced with {fenced:?}"));
        }
        if propagated > self.nodes[at].propagated {
            self.nodes[at].propagated = propagated;
            self.confirmed(at, term, propagated)?;
        }
        Ok(())
    }

    /// A primary has reported more PROPAGATED. If all machines lost their power now, so many others as the quorum says
    /// would have all of it; a new disk that does not count yet, with what the former one had confirmed.
    pub(super) fn confirmed(&mut self, at: usize, term: u64, epoch: Epoch) -> Result<(), String> {
        let model = &self.nodes[at].model;
        let has = |(_, session): &(&usize, &Session)| session.fate == Fate::Alive && session.epoch <= epoch;
        let all: BTreeSet<usize> = model.sessions.iter().filter(has).map(|(id, _)| *id).collect();
        if all.is_subset(&self.acknowledged) {
            return Ok(());
        }
        self.events.propagated += 1;
        if *self.terms.entry(term).or_insert(at) != at || self.terms.keys().next_back() != Some(&term) {
            return Err(format!("machine {at} acknowledges in term {term}, after {:?}", self.terms));
        }
        let loss = self.random.loss();
        if self.random.once_in(4) {
            let had = |other: usize| {
                let mut sessions = self.recover(other, loss)?.sessions;
                let node = &self.nodes[other];
                sessions.extend(node.lost.iter().filter(|_| !node.counts()));
                Ok(sessions)
            };
            let others = (0..self.nodes.len()).filter(|other| *other != at).map(had);
            let others = others.collect::<Result<Vec<_>, String>>()?;
            let having = others.iter().filter(|sessions| all.is_subset(sessions)).count();
            if having < self.setup.quorum {
                return Err(format!(
                    "{having} replicas have {epoch} of machine {at}, {} are needed",
                    self.setup.quorum
                ));
            }
        }
        self.acknowledged.extend(all);
        Ok(())
    }

    /// The primary, when both others have everything.
    pub(super) fn agreeing(&self) -> Option<usize> {
        let (at, primary) = self.primary()?;
        let stored = primary.store().last_epoch();
        let last = self.nodes[at].model.last_written(stored);
        let has_all = |node: &Node| match &node.process {
            Some(Process::Replica(replica)) => replica.store.durable() >= last,
            _ => false,
        };
        let count = self.nodes.iter().filter(|node| has_all(node)).count();
        let links = primary.links.iter().filter(|link| link.is_open()).count();
        (count == self.nodes.len() - 1 && links == self.nodes.len() - 1 && primary.store().propagated_epoch() == stored)
            .then_some(at)
    }

    /// All directories recover to the same content, which has everything that was acknowledged.
    pub(super) fn compare(&self, primary: usize) -> Result<(), String> {
        let found =
            (0..self.nodes.len()).map(|at| self.recover(at, Loss::DropUnsynced)).collect::<Result<Vec<_>, _>>()?;
        let ours = &found[primary];
        if !self.acknowledged.is_subset(&ours.sessions) {
            return Err("at last something that was PROPAGATED is lost".to_owned());
        }
        match found.iter().all(|found| found.sessions == ours.sessions && found.data == ours.data) {
            true => Ok(()),
            false => {
                Err(format!("the directories differ: {:?}", found.iter().map(|it| &it.sessions).collect::<Vec<_>>()))
            }
        }
    }

    pub(super) fn describe(&self) -> String {
        let one = |(at, node): (usize, &Node)| match &node.process {
            Some(Process::Primary(primary)) => {
                let (store, term) = (primary.store(), primary.store().history().map(|known| known.term));
                let epochs = (store.last_epoch(), store.propagated_epoch());
                format!("{at}: primary of term {term:?} with {epochs:?}, fenced {:?}", primary.shared.fenced)
            }
            Some(Process::Replica(replica)) => {
                let (known, durable) = (replica.history(), replica.store.durable());
                format!("{at}: replica at {durable}, {:?}", known.map(|known| (known.term, known.awaits_base_sync)))
            }
            None => format!("{at}: down"),
        };
        self.nodes.iter().enumerate().map(one).collect::<Vec<_>>().join("; ")
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Failures one after the other, in the order in which terms and epochs alone would mislead.

use crate::cluster::Cluster;
use crate::machine::Process;
use crate::setup::{Random, Sabotage};
use limestone_core::types::Epoch;
use limestone_core::vfs::SimFs;

/// Orders of what goes on at a time.
const SEEDS: u64 = 10;
/// Enough that what one side has of them tells the sides apart.
const EPOCHS: u64 = 12;
/// In so many without faults whoever can be promoted is.
const STEPS: u64 = 1000;

impl Cluster {
    /// These are killed and stay down, all others are started again.
    fn down(&mut self, machines: &[usize]) {
        self.down = machines.iter().copied().collect();
        machines.iter().for_each(|&at| self.kill(at));
    }

    fn is_primary(&self, at: usize) -> bool {
        self.primary().is_some_and(|(primary, _)| primary == at)
    }

    fn propagated(&self) -> Epoch {
        self.primary().map_or(Epoch(0), |(_, primary)| primary.store().propagated_epoch())
    }

    fn durable(&self, at: usize) -> Epoch {
        match &self.nodes[at].process {
            Some(Process::Replica(replica)) => replica.store.durable(),
            _ => Epoch(0),
        }
    }

    fn is_known(&self) -> bool {
        let history = |primary: &crate::primary::Primary| primary.store().history();
        self.primary().and_then(|(_, primary)| history(primary)).is_some_and(|history| !history.is_unknown())
    }

    /// The primary writes until so many more epochs are stored, and nothing else happens. The last one with writes.
    fn store(&mut self, epochs: u64) -> Result<Epoch, String> {
        let stored =
            |cluster: &Cluster| cluster.primary().map_or(Epoch(0), |(_, primary)| primary.store().last_epoch());
        let before = stored(self);
        while stored(self).0 < before.0 + epochs {
            (0..20).try_for_each(|_| self.write())?;
            self.primaries().for_each(|primary| primary.switch());
        }
        let at = self.primary().map_or(0, |(at, _)| at);
        Ok(self.nodes[at].model.last_written(stored(self)))
    }

    fn begin(&mut self) -> Result<(), String> {
        self.start_primary(0)?;
        let written = self.store(3)?;
        self.until("all have what is stored", |cluster| {
            (1..cluster.nodes.len()).all(|at| cluster.durable(at) >= written) && cluster.propagated() >= written
        })
    }
}

/// The first primary and the second one have written what nobody else has, and the third has not even what the second
/// began with. The first one is promoted again and gives the third what it has. As soon as any of that is PROPAGATED,
/// the second comes back in its place.
fn twice_promoted(seed: u64, sabotage: Option<Sabotage>) -> Result<(), String> {
    let mut cluster = Cluster::of(3, 1, Random(seed), sabotage);
    cluster.begin()?;
    cluster.down(&[2]);
    let written = cluster.store(EPOCHS)?;
    cluster.until("machine 1 has that", |cluster| cluster.durable(1) >= written && cluster.propagated() >= written)?;
    cluster.down(&[1, 2]);
    let before = cluster.propagated();
    cluster.store(EPOCHS)?;
    cluster.down(&[0]);
    cluster.until("machine 1 is promoted", |cluster| cluster.is_primary(1) && cluster.is_known())?;
    cluster.down(&[0, 2]);
    cluster.store(2)?;
    cluster.down(&[1]);
    cluster.until("machine 0 is promoted", |cluster| cluster.is_primary(0))?;
    cluster.until("more is PROPAGATED", |cluster| cluster.propagated() > before)?;
    cluster.down(&[0]);
    cluster.until("another one is promoted", |cluster| cluster.primary().is_some_and(|(at, _)| at > 0))?;
    cluster.agree()
}

/// One is promoted and lost before anybody has heard of its term, after it has written more than all others. Another
/// one is promoted to the same term.
fn never_heard_of(seed: u64, sabotage: Option<Sabotage>) -> Result<(), String> {
    let mut cluster = Cluster::of(3, 1, Random(seed), sabotage);
    cluster.begin()?;
    cluster.down(&[0]);
    cluster.until("machine 1 is promoted", |cluster| cluster.is_primary(1))?;
    cluster.down(&[0, 2]);
    cluster.store(EPOCHS)?;
    cluster.down(&[1]);
    cluster.until("another one is promoted", |cluster| cluster.primary().is_some() && cluster.is_known())?;
    let written = cluster.store(2)?;
    cluster.until("it is PROPAGATED", |cluster| cluster.propagated() >= written)?;
    let at = cluster.primary().map_or(0, |(at, _)| at);
    cluster.down(&[at]);
    cluster.until("a third one is promoted", |cluster| cluster.primary().is_some())?;
    cluster.agree()
}

/// One of five is promoted and lost together with the only one that has followed it; another one is promoted to the
/// same term. The one that followed has more epochs of that term than those have in which something was PROPAGATED.
fn same_term(seed: u64, sabotage: Option<Sabotage>) -> Result<(), String> {
    let mut cluster = Cluster::of(5, 2, Random(seed), sabotage);
    cluster.begin()?;
    cluster.down(&[0, 4]);
    cluster.until("machine 1 is promoted", |cluster| cluster.is_primary(1))?;
    cluster.down(&[0, 3, 4]);
    let written = cluster.store(EPOCHS)?;
    cluster.until("machine 2 has that", |cluster| cluster.durable(2) >= written)?;
    cluster.down(&[1, 2]);
    cluster.until("machine 0 is promoted", |cluster| cluster.is_primary(0) && cluster.is_known())?;
    let written = cluster.store(2)?;
    cluster.until("it is PROPAGATED", |cluster| cluster.propagated() >= written)?;
    cluster.down(&[0, 1]);
    cluster.until("another one is promoted", |cluster| cluster.primary().is_some_and(|(at, _)| at > 1))?;
    cluster.agree()
}

/// One of the two that have what was PROPAGATED gets a new disk, and the other one is lost while it fills that. The
/// third one has less than both.
fn new_disk(seed: u64, sabotage: Option<Sabotage>) -> Result<(), String> {
    let mut cluster = Cluster::of(3, 1, Random(seed), sabotage);
    cluster.begin()?;
    cluster.down(&[2]);
    let written = cluster.store(EPOCHS)?;
    cluster.until("machine 1 has that", |cluster| cluster.durable(1) >= written && cluster.propagated() >= written)?;
    cluster.kill(1);
    cluster.nodes[1].disk = SimFs::new();
    cluster.until("the new disk has something", |cluster| cluster.durable(1) > Epoch(0))?;
    let is_full = cluster.durable(1) >= written;
    cluster.down(&[0]);
    // Whoever is promoted now has all, or the promotion is an error.
    (0..STEPS).try_for_each(|_| cluster.step(false))?;
    match cluster.primary() {
        Some(_) if !is_full => Err("somebody is promoted without all that was PROPAGATED".to_owned()),
        _ => cluster.agree(),
    }
}

type Case = fn(u64, Option<Sabotage>) -> Result<(), String>;

fn holds(case: Case) {
    (0..SEEDS).for_each(|seed| case(seed, None).unwrap_or_else(|e| panic!("seed {seed}: {e}")));
}

fn finds(case: Case, sabotage: Sabotage) {
    let found = (0..SEEDS).find_map(|seed| case(seed, Some(sabotage)).err());
    println!("{sabotage:?}: {}", found.unwrap_or_else(|| panic!("{sabotage:?} went unnoticed")));
}

#[test]
fn what_counts_in_a_later_term_is_not_lost_to_an_earlier_one_that_nobody_followed() {
    holds(twice_promoted);
}

#[test]
fn a_new_disk_does_not_stand_for_what_the_former_one_had() {
    holds(new_disk);
}

#[test]
fn a_new_disk_that_counts_too_early_is_found() {
    finds(new_disk, Sabotage::CountNewDisk);
}

#[test]
fn what_was_written_in_a_term_that_nobody_heard_of_takes_nothing_from_others() {
    holds(never_heard_of);
}

#[test]
fn what_counts_before_the_term_is_known_is_found() {
    finds(never_heard_of, Sabotage::ClaimUnknownTerm);
}

#[test]
fn what_two_wrote_in_the_same_term_is_not_mistaken_for_the_same() {
    holds(same_term);
}

#[test]
fn what_former_terms_left_and_the_present_one_does_not_protect_is_found() {
    finds(twice_promoted, Sabotage::CountFormerTerms);
}

#[test]
fn replicas_that_are_not_told_of_an_unknown_term_are_found() {
    finds(same_term, Sabotage::NotToldUnknown);
}

// SPDX-License-Identifier: Apache-2.0
//! Runs of a cluster. `REPLICATION_SIM_SEED=n` repeats one, `REPLICATION_SIM_CLUSTER_SEEDS=n` runs more than usual.

use crate::cluster::{Cluster, Events};
use crate::setup::Sabotage;
use crate::{number, run_all, Outcome};

const SEEDS: u64 = 2000;
const STEPS: u64 = 1500;

fn run(seeds: std::ops::Range<u64>, sabotage: Option<Sabotage>) -> Outcome<Events> {
    run_all(seeds, Events::add, |seed| {
        let mut cluster = Cluster::new(seed, sabotage);
        cluster.run(STEPS).map(|()| cluster.events)
    })
}

#[test]
fn whatever_fails_in_a_cluster_nothing_propagated_is_lost_and_all_agree_in_the_end() {
    let seeds = match number("REPLICATION_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("REPLICATION_SIM_CLUSTER_SEEDS").unwrap_or(SEEDS),
    };
    let many = seeds.end - seeds.start >= SEEDS;
    match run(seeds, None) {
        Err((seed, what)) => panic!("seed {seed} (repeat with REPLICATION_SIM_SEED={seed}): {what}"),
        Ok(events) => {
            println!("{events:?}");
            assert!(!many || events.is_eventful(), "too little happened to show anything: {events:?}");
        }
    }
}

fn finds(sabotage: Sabotage) {
    match run(0..SEEDS, Some(sabotage)) {
        Ok(events) => panic!("{sabotage:?} went unnoticed in {SEEDS} runs: {events:?}"),
        Err((seed, what)) => println!("{sabotage:?} was found with seed {seed}: {what}"),
    }
}

#[test]
fn one_replica_that_counts_for_two_is_found() {
    finds(Sabotage::CountTwice);
}

#[test]
fn a_rewind_that_leaves_an_epoch_is_found() {
    finds(Sabotage::RewindShort);
}

#[test]
fn a_rewind_that_takes_an_epoch_too_much_is_found() {
    finds(Sabotage::RewindTooFar);
}

#[test]
fn a_choice_by_epochs_without_terms_is_found() {
    finds(Sabotage::ScoreByEpoch);
}

#[test]
fn a_promotion_with_one_heard_too_few_is_found() {
    finds(Sabotage::HearTooFew);
}

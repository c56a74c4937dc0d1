// SPDX-License-Identifier: Apache-2.0
//! A deterministic simulation of replication: the session logic of both sides on real stores over simulated disks, a
//! network that delays, cuts and loses, processes that die and machines that lose their power, and people who turn
//! primary and replica, copy directories and restore backups. Invariants are checked after every step.
//! `REPLICATION_SIM_SEED=n cargo test --test replication_sim` repeats one run, `REPLICATION_SIM_SEEDS=n` runs more than
//! usual.

mod base;
mod checks;
mod cluster;
mod cluster_cases;
mod cluster_checks;
mod cluster_manager;
mod cluster_runs;
#[path = "../commits/mod.rs"]
#[allow(dead_code)]
mod commits;
mod feeder;
mod link;
mod machine;
mod model;
mod operator;
mod primary;
mod replica;
mod setup;
mod tap;
mod world;

use setup::{Sabotage, Tally};
use world::World;

const SEEDS: u64 = 300;
const STEPS: u64 = 5000;
/// A mistake has to show within this many seeds.
const SEEDS_TO_FIND: u64 = 1000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}

/// What happened in one run, or in several: with the seed, why the first one failed.
type Outcome<T> = Result<T, (u64, String)>;

/// Runs the seeds on all processors; the first failure, by seed.
fn run_all<T: Default + Send>(
    seeds: std::ops::Range<u64>,
    add: impl Fn(&mut T, &T) + Sync,
    one: impl Fn(u64) -> Result<T, String> + Sync,
) -> Outcome<T> {
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let results: Vec<Outcome<T>> = std::thread::scope(|scope| {
        let (add, one) = (&add, &one);
        let part = |worker: u64| {
            let seeds = seeds.clone().filter(move |seed| seed % workers == worker);
            scope.spawn(move || {
                let mut sum = T::default();
                for seed in seeds {
                    add(&mut sum, &one(seed).map_err(|what| (seed, what))?);
                }
                Ok(sum)
            })
        };
        let parts: Vec<_> = (0..workers).map(part).collect();
        parts.into_iter().map(|part| part.join().expect("a run panicked")).collect()
    });
    let mut sum = T::default();
    let mut failures = Vec::new();
    for result in results {
        match result {
            Ok(tally) => add(&mut sum, &tally),
            Err(failure) => failures.push(failure),
        }
    }
    failures.into_iter().min().map_or(Ok(sum), Err)
}

fn run(seeds: std::ops::Range<u64>, sabotage: Option<Sabotage>) -> Outcome<Tally> {
    run_all(seeds, Tally::add, |seed| {
        let mut world = World::new(seed, sabotage);
        world.run(STEPS).map(|()| world.tally)
    })
}

#[test]
fn whatever_fails_nothing_propagated_is_lost_and_both_sides_agree_in_the_end() {
    let seeds = match number("REPLICATION_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("REPLICATION_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let many = seeds.end - seeds.start >= SEEDS;
    match run(seeds, None) {
        Err((seed, what)) => panic!("seed {seed} (repeat with REPLICATION_SIM_SEED={seed}): {what}"),
        Ok(tally) => {
            println!("{tally:?}");
            assert!(!many || tally.is_eventful(), "too little happened to show anything: {tally:?}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let tallies: Vec<String> = (0..2)
        .map(|_| {
            let mut world = World::new(42, None);
            let result = world.run(STEPS);
            format!("{result:?} {:?}", world.tally)
        })
        .collect();
    assert_eq!(tallies[0], tallies[1]);
}

fn finds(sabotage: Sabotage) {
    match run(0..SEEDS_TO_FIND, Some(sabotage)) {
        Ok(tally) => panic!("{sabotage:?} went unnoticed in {SEEDS_TO_FIND} runs: {tally:?}"),
        Err((seed, what)) => println!("{sabotage:?} was found with seed {seed}: {what}"),
    }
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    finds(Sabotage::AcknowledgeBeforeSync);
}

#[test]
fn a_replica_that_discards_nothing_at_the_handshake_is_found() {
    finds(Sabotage::NoDiscard);
}

#[test]
fn a_commit_ahead_of_its_session_is_found() {
    finds(Sabotage::CommitBeforeSession);
}

#[test]
fn a_commit_before_the_primary_has_stored_the_epoch_is_found() {
    finds(Sabotage::CommitBeforeStored);
}

#[test]
fn a_commit_of_an_epoch_that_the_primary_may_use_again_is_found() {
    finds(Sabotage::CommitWithoutRecord);
}

#[test]
fn a_catch_up_that_is_left_out_is_found() {
    finds(Sabotage::SkipCatchUp);
}

#[test]
fn an_epoch_that_is_propagated_without_confirmation_is_found() {
    finds(Sabotage::PropagateWhatIsStored);
}

#[test]
fn an_acknowledgement_that_waits_for_no_blob_is_found() {
    finds(Sabotage::IgnoreBlobs);
}

#[test]
fn a_comparison_of_numbers_instead_of_runs_is_found() {
    finds(Sabotage::CompareNumbersOnly);
}

#[test]
fn a_run_that_is_on_the_disk_after_its_first_session_only_is_found() {
    finds(Sabotage::LateRun);
}

#[test]
fn a_fenced_primary_that_goes_on_is_found() {
    finds(Sabotage::FencedGoesOn);
}

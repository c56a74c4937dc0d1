// SPDX-License-Identifier: Apache-2.0
//! Everything at once, in random order, against a model in memory: sessions, BLOBs, aborts, rotations, compactions,
//! backups and restores, restarts with other numbers of channels, failing calls, dying processes and power cuts. After
//! every start the directory shows exactly what was acknowledged or, beyond that, whole sessions only.
//!
//! `LIMESTONE_TEST_SEED` replays one case or, as `clock`, takes others than usual; `LIMESTONE_TEST_FACTOR` multiplies
//! their number.

mod backups;
mod blobs;
#[path = "../commits/mod.rs"]
#[allow(dead_code)]
mod commits;
mod compactions;
mod disk;
mod lives;
#[path = "../crash/model.rs"]
#[allow(dead_code)]
mod model;
#[path = "../crash/random.rs"]
mod random;
mod steps;
#[path = "../crash/sweep.rs"]
mod sweep;
mod threads;
mod world;
mod writer;

#[path = "../golden_data/mod.rs"]
mod golden_data;
#[path = "../upstream_checker/mod.rs"]
mod upstream_checker;

use disk::Disk;
use random::{seeds, Random};
use std::collections::BTreeMap;
use std::sync::Mutex;
use sweep::sweep;
use world::World;

/// `count` times the factor from the environment.
pub fn cases(count: u64) -> Vec<u64> {
    let factor = std::env::var("LIMESTONE_TEST_FACTOR").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1.0);
    seeds((count as f64 * factor).ceil() as u64)
}

/// Runs many cases; what nobody ever does in any of them is not tested.
fn run(seeds: &[u64], disk: impl Fn() -> Disk + Sync, wanted: &[&'static str]) {
    println!("LIMESTONE_TEST_SEED={} to {}", seeds[0], seeds[seeds.len() - 1]);
    let counts: Mutex<BTreeMap<&str, u64>> = Mutex::default();
    sweep(seeds, |&seed| {
        let mut world = World::new(disk(), Random::new(seed));
        let played = world.play();
        for (what, count) in &world.counts {
            *counts.lock().unwrap().entry(what).or_default() += count;
        }
        played.map_err(|reason| format!("LIMESTONE_TEST_SEED={seed}: {reason}\n{}", world.report()))
    });
    let counts = counts.into_inner().unwrap();
    println!("{} cases: {counts:?}", seeds.len());
    if seeds.len() > 1 {
        let missing: Vec<_> = wanted.iter().filter(|what| !counts.contains_key(*what)).collect();
        assert!(missing.is_empty(), "never done: {missing:?}");
    }
}

const DONE: [&str; 8] = [
    "compactions",
    "BLOBs deleted after a compaction",
    "offline compactions",
    "copies that an offline compaction kept",
    "plain backups",
    "detailed backups",
    "restores in place",
    "restores elsewhere",
];

#[test]
fn whatever_happens_on_a_disk_that_fails_nothing_acknowledged_is_lost_and_no_session_is_there_in_part() {
    let wanted = [&DONE[..], &["calls that failed", "starts after an interrupted restore"]].concat();
    run(&cases(600), Disk::simulated, &wanted);
}

#[test]
fn whatever_happens_on_the_real_disk_nothing_acknowledged_is_lost_and_no_session_is_there_in_part() {
    run(&cases(16), Disk::real, &["compactions", "detailed backups", "plain backups"]);
}

// SPDX-License-Identifier: Apache-2.0
//! Faults of the processes and of the replica's disk.

use crate::journal::check;
use crate::nodes::{wait_until, Pair, Setup, TIMEOUT};
use std::time::Duration;

/// Repeatable pseudo-random numbers (xorshift64*); the seed is printed.
struct Random(u64);

impl Random {
    fn from_clock() -> Random {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |since| since.as_micros());
        let seed = std::env::var("LIMESTONE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(now as u64);
        eprintln!("LIMESTONE_TEST_SEED={seed}");
        Random(seed | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
}

#[test]
fn either_side_is_killed_or_stopped_at_random() {
    let mut random = Random::from_clock();
    let mut pair = Pair::start("strict");
    pair.wait_for_propagated();
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(random.below(150)));
        match random.below(4) {
            0 => {
                pair.kill_primary();
                pair.start_primary();
            }
            1 => {
                pair.kill_replica();
                std::thread::sleep(Duration::from_millis(random.below(100)));
                pair.start_replica();
            }
            2 => {
                pair.signal_replica(libc::SIGSTOP);
                std::thread::sleep(Duration::from_millis(random.below(2 * TIMEOUT.as_millis() as u64)));
                pair.signal_replica(libc::SIGCONT);
            }
            _ => {
                pair.signal_primary(libc::SIGSTOP);
                std::thread::sleep(Duration::from_millis(random.below(2 * TIMEOUT.as_millis() as u64)));
                pair.signal_primary(libc::SIGCONT);
            }
        }
        if random.below(2) == 0 {
            pair.wait_for_propagated();
        }
    }
    pair.wait_for_propagated();
    pair.check();
}

#[test]
fn a_replica_that_comes_back_empty_gets_everything() {
    let mut pair = Pair::start("strict");
    pair.wait_for_propagated();
    pair.kill_replica();
    pair.empty_replica();
    pair.wait_for_stored();
    pair.start_replica();
    pair.wait_for_propagated();
    pair.check();
}

#[test]
fn the_replica_takes_over_and_the_former_primary_is_refused() {
    let mut pair = Pair::start("strict");
    pair.wait_for_propagated();
    pair.kill_primary();
    assert_eq!(pair.end_replica(), Some(0));
    pair.end_watch();
    let journal = pair.journal();
    // The check starts an engine on the directory, which takes over.
    check(&journal, &pair.replica_directory(), &journal.propagated_sessions);
    pair.start_replica();
    pair.start_primary();
    wait_until("the former primary is fenced: its sessions fail, and with them the process", || !pair.primary_runs());
    let stored = pair.journal().stored;
    assert_eq!(pair.journal().propagated_sessions, journal.propagated_sessions, "it must not go on here");
    pair.start_primary();
    wait_until("it does not start again", || !pair.primary_runs());
    assert_eq!(pair.journal().stored, stored, "nothing is acknowledged after the mark");
}

#[test]
fn a_shutdown_without_the_replica_is_bounded() {
    let mut pair = Pair::start("strict");
    pair.wait_for_propagated();
    pair.signal_replica(libc::SIGSTOP);
    pair.wait_for_stored();
    let time = pair.end_primary();
    assert!(time < TIMEOUT * 5, "the shutdown took {time:?}");
    pair.signal_replica(libc::SIGCONT);
    pair.check();
}

#[test]
fn a_shutdown_propagates_what_is_stored() {
    let mut pair = Pair::start("strict");
    pair.wait_for_propagated();
    pair.end_primary();
    let journal = pair.journal();
    assert_eq!(journal.propagated, journal.stored);
    assert_eq!(pair.end_replica(), Some(0), "tgreplica ends in good order");
    check(&journal, &pair.replica_directory(), &journal.propagated_sessions);
}

#[test]
fn a_full_disk_of_the_replica_confirms_nothing() {
    let mut pair = Pair::start("strict");
    pair.wait_for_propagated();
    pair.kill_replica();
    // No file of the replica may grow beyond what is there by now: writes fail as on a full disk.
    let largest = std::fs::read_dir(pair.replica_directory())
        .unwrap()
        .filter_map(|entry| entry.unwrap().metadata().ok())
        .map(|metadata| metadata.len())
        .max()
        .unwrap_or_default();
    pair.limit_replica_files(largest + 200_000);
    pair.start_replica();
    wait_until("the replica gives up", || !pair.replica_runs());
    let stuck = pair.journal().propagated;
    pair.wait_for_stored();
    assert!(pair.journal().propagated <= stuck + 1, "nobody is there to confirm");
    pair.lift_replica_limit();
    pair.start_replica();
    pair.wait_for_propagated();
    pair.check();
}

#[test]
fn a_replica_whose_disk_was_full_goes_on_by_itself_when_it_is_started_and_there_is_room() {
    for mode in ["strict", "degrade 200"] {
        let mut pair = Pair::start_with(Setup { mode, replica_disk: Some(512 << 20), ..Setup::default() });
        if pair.replica_disk().is_none() {
            println!("NOT RUN: this machine does not allow to mount a disk");
            return;
        }
        pair.wait_for_propagated();
        pair.replica_disk().unwrap().fill_up();
        assert_eq!(pair.replica_gives_up(), Some(4));
        let about = |text: &str| pair.replica_said().into_iter().filter(|line| line.contains(text)).collect::<Vec<_>>();
        assert!(about("No space left").len() == 1 && about("ERROR").len() == 1, "{:#?}", about(""));
        let stuck = pair.journal().propagated;
        pair.wait_for_stored();
        assert!(pair.journal().propagated <= stuck + 1, "nobody is there to confirm");
        // As long as there is no room it ends with the same code, so that whoever starts it tries again.
        assert_eq!((pair.replica_refuses(), pair.replica_refuses()), (Some(4), Some(4)), "{:#?}", pair.replica_said());
        pair.wait_for_stored();
        pair.replica_disk().unwrap().empty();
        pair.start_replica();
        pair.wait_for_propagated();
        pair.check();
    }
}

#[test]
fn a_sync_that_fails_on_the_replica_ends_it_and_nothing_after_it_is_confirmed() {
    let mut pair = Pair::start("strict");
    pair.wait_for_propagated();
    // The first ones belong to the start, the others to lanes and epochs as it happens.
    for number in [9, 12, 13, 20, 31, 60] {
        pair.kill_replica();
        pair.fail_replica_sync(Some(number));
        let lines = pair.replica_said().len();
        pair.start_replica();
        assert_eq!(pair.replica_gives_up(), Some(4), "sync {number}");
        let said = pair.replica_said().split_off(lines);
        let failed: Vec<_> = said.iter().filter(|line| line.contains("Input/output error")).collect();
        assert!(failed.len() == 1 && failed[0].contains("ERROR"), "{said:#?}");
        pair.fail_replica_sync(None);
        // What was confirmed before may still be on its way.
        pair.wait_for_stored();
        let confirmed = pair.journal().propagated;
        pair.wait_for_stored();
        assert_eq!(pair.journal().propagated, confirmed, "nobody is there to confirm");
        pair.start_replica();
        pair.wait_for_propagated();
    }
    pair.check();
}

/// Asks the replica for a compaction, as the script for operators does.
fn ask_for_compaction(pair: &Pair) -> std::path::PathBuf {
    let control = pair.replica_directory().join("ctrl");
    wait_until("the replica can be asked", || control.is_dir());
    let request = control.join("start_compaction");
    std::fs::write(&request, "").unwrap();
    request
}

#[test]
fn a_replica_compacts_when_told_and_goes_on() {
    let mut pair = Pair::start("strict");
    pair.wait_for_propagated();
    let mut random = Random::from_clock();
    for _ in 0..6 {
        let request = ask_for_compaction(&pair);
        wait_until("the request is taken", || !request.exists());
        // In the middle of it, or a little before or after.
        std::thread::sleep(Duration::from_millis(random.below(40)));
        pair.kill_replica();
        pair.start_replica();
        pair.wait_for_propagated();
    }
    let compacted = pair.replica_directory().join("pwal_0000.compacted");
    let written = || compacted.metadata().and_then(|metadata| metadata.modified()).ok();
    let before = written();
    ask_for_compaction(&pair);
    wait_until("the replica has compacted", || written().is_some_and(|time| Some(time) != before));
    pair.wait_for_propagated();
    assert_eq!(pair.end_replica(), Some(0));
    let rest = std::fs::read_dir(pair.replica_directory().join("replica_staging")).unwrap().count();
    assert_eq!(rest, 0, "nothing is left of an interrupted compaction");
    pair.check();
}

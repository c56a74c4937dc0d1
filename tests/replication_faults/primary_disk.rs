// SPDX-License-Identifier: Apache-2.0
//! Faults of the primary's disk: nothing is acknowledged from then on, one line says why, the engine ends in good order
//! without waiting for anybody, and the next start has everything that was acknowledged.

use crate::journal::check;
use crate::nodes::{wait_until, Pair, Setup, PATIENCE};
use std::time::Duration;

/// What is said once when the disk has failed.
const VERDICT: &str = "nothing is acknowledged from now on";

/// What of the disk fails in which way to commit: see `disk.c`.
const FAULTS: [(&str, &str); 12] = [
    ("journal", "write 5 1 /limestone-journal"),
    ("journal", "sync 5 1 /limestone-journal"),
    ("journal", "write 5 1000000 /limestone-journal"),
    ("journal", "write 28 1000000 /limestone-journal"),
    ("journal", "write 5 1 /pwal_"),
    ("journal", "sync 5 1 /pwal_"),
    ("direct", "write 5 1 /pwal_"),
    ("direct", "sync 5 1 /pwal_"),
    ("direct", "write 5 1 /epoch"),
    ("direct", "sync 5 1 /epoch"),
    ("direct", "sync 5 1000000 /pwal_"),
    ("direct", "write 28 1000000 /pwal_"),
];

/// The engine's disk has failed. It ends by itself, and soon.
fn ends_after_fault(pair: &mut Pair, fault: &str) {
    // Whoever has heard of it ends with 101, and first in good order.
    assert_eq!(pair.primary_gives_up(), Some(101), "{fault}");
    let took = pair.journal().ended_ms.map(Duration::from_millis);
    assert!(took.is_some_and(|took| took < PATIENCE / 4), "{fault}: the shutdown took {took:?}");
    let said: Vec<String> = pair.primary_said().into_iter().filter(|line| line.contains(VERDICT)).collect();
    assert!(said.len() == 1, "{fault}: {said:#?}");
    let reason = if fault.split(' ').nth(1) == Some("28") { "No space left on device" } else { "Input/output error" };
    assert!(said[0].contains(reason) && said[0].contains("/primary/"), "{fault}: {said:?}");
    assert_eq!(said[0].matches("acknowledge").count(), 1, "{fault}: {said:?}");
}

#[test]
fn a_call_to_the_disk_that_fails_under_an_engine_ends_acknowledgement_and_nothing_acknowledged_is_lost() {
    for (commit, fault) in FAULTS {
        let setup = Setup { replicated: false, commit: Some(commit), ..Setup::default() };
        let mut pair = Pair::start_with(setup);
        pair.wait_for_stored();
        pair.fail_primary_disk(fault);
        ends_after_fault(&mut pair, fault);
        let before = pair.journal();
        pair.heal_primary_disk();
        // It starts by itself and goes on.
        pair.start_primary();
        wait_until("it goes on", || pair.journal().stored > before.stored + 5);
        pair.kill_primary();
        check(&pair.journal(), &pair.primary_directory(), &before.stored_sessions);
    }
}

#[test]
fn a_primary_whose_disk_failed_reports_nothing_that_its_replica_lacks_and_goes_on_with_it_after_a_restart() {
    for (mode, (commit, fault)) in ["strict", "async", "degrade 200"].into_iter().cycle().zip(FAULTS) {
        let mut pair = Pair::start_with(Setup { mode, commit: Some(commit), ..Setup::default() });
        pair.wait_for_propagated();
        pair.fail_primary_disk(fault);
        ends_after_fault(&mut pair, fault);
        pair.heal_primary_disk();
        let (told, runs) = (pair.journal(), pair.replica_runs());
        assert!(runs, "{fault}: the replica is served on");
        pair.start_primary();
        pair.wait_for_propagated();
        assert!(pair.journal().stored > told.stored, "{fault}");
        pair.check();
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What is slow, long or many: nothing grows without bound, nothing waits without end, and replication goes on.

use crate::nodes::{wait_until, Pair, Setup, PATIENCE};
use crate::proxy::{Behaviour, Direction};
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// Bytes of log files.
fn log_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().filter_map(Result::ok);
    let logs = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with("pwal_")));
    logs.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[test]
fn what_waits_for_a_slow_link_is_no_memory_of_the_primary() {
    let pair = Pair::start("strict");
    pair.wait_for_propagated();
    pair.proxy.behave(Direction::ToReplica, Behaviour::Trickle(20_000));
    pair.wait_for_stored();
    let (memory, logged) = (pair.primary().memory(), log_bytes(&pair.primary_directory()));
    let written = || log_bytes(&pair.primary_directory()).saturating_sub(logged);
    wait_until("much is written", || written() > 64 * MIB);
    let grown = pair.primary().memory().saturating_sub(memory);
    assert!(grown < 16 * MIB, "{grown} bytes more for {} bytes of log", written());
    let journal = pair.journal();
    assert!(journal.propagated + 5 < journal.stored, "the link is not slow: {}", journal.propagated);
    pair.proxy.heal();
    pair.wait_for_propagated();
    pair.check();
}

#[test]
fn slow_syncs_of_blobs_delay_propagated_and_end_no_session() {
    let setup = Setup { timeout: Duration::from_secs(2), ..Setup::default() };
    let mut pair = Pair::start_with(setup);
    pair.wait_for_propagated();
    pair.kill_replica();
    pair.let_replica_be_slow();
    pair.start_replica();
    pair.wait_for_propagated();
    let connections = pair.proxy.accepted();
    pair.slow_blob_syncs(true);
    let begun = Instant::now();
    // More BLOBs come than are synced, so that the replica falls behind by more and more; it is never taken for lost.
    while begun.elapsed() < 3 * setup.timeout {
        let before = pair.journal().propagated;
        wait_until("further epochs are propagated, slowly", || pair.journal().propagated > before);
        pair.wait_for_stored();
    }
    let journal = pair.journal();
    assert!(journal.propagated + 20 < journal.stored, "the syncs are not slow: {}", journal.propagated);
    assert_eq!(pair.proxy.accepted(), connections, "the session has ended");
    pair.slow_blob_syncs(false);
    pair.wait_for_propagated();
    pair.check();
}

#[test]
fn epochs_are_on_their_way_together_on_64_lanes_of_90_ms() {
    const THERE_AND_BACK: Duration = Duration::from_millis(90);
    const EPOCHS: u64 = 40;
    let pair =
        Pair::start_with(Setup { timeout: Duration::from_secs(10), channels: 64, lanes: 64, ..Setup::default() });
    pair.wait_for_propagated();
    for direction in [Direction::ToReplica, Direction::ToPrimary] {
        pair.proxy.behave(direction, Behaviour::Latency(THERE_AND_BACK / 2));
    }
    pair.proxy.cut_all();
    pair.wait_for_propagated();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (before, begun) = (pair.journal().propagated, Instant::now());
        wait_until("epochs are propagated", || pair.journal().propagated >= before + EPOCHS);
        // One after the other each would take at least that long.
        if begun.elapsed() < THERE_AND_BACK * EPOCHS as u32 / 2 {
            break;
        }
        assert!(Instant::now() < deadline, "{EPOCHS} epochs took {:?}", begun.elapsed());
    }
    pair.check();
}

#[test]
fn a_base_sync_that_hangs_holds_no_compaction_up_for_long() {
    let mut pair = Pair::start("strict");
    pair.wait_for_propagated();
    let control = pair.primary_directory().join("ctrl");
    let compacted = pair.primary_directory().join("pwal_0000.compacted");
    let written = || compacted.metadata().and_then(|metadata| metadata.modified()).ok();
    let ask = || std::fs::write(control.join("start_compaction"), "").unwrap();
    // Afterwards the log does not reach back, and an empty replica needs all files.
    ask();
    wait_until("the primary has compacted", || written().is_some());
    pair.kill_replica();
    pair.empty_replica();
    pair.proxy.behave(Direction::ToReplica, Behaviour::Trickle(20_000));
    pair.start_replica();
    let staged = pair.replica_directory().join("replica_staging").join("base");
    wait_until("the base sync has begun", || std::fs::read_dir(&staged).is_ok_and(|files| files.count() > 0));
    pair.proxy.behave(Direction::ToReplica, Behaviour::Stall);
    let before = written();
    ask();
    wait_until("the compaction is done all the same", || written() != before);
    pair.wait_for_stored();
    pair.proxy.heal();
    pair.wait_for_propagated();
    pair.check();
}

/// This process needs a descriptor for each stranger, and the proxy some.
fn raise_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain system calls with a structure that lives through them.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
}

#[test]
fn twelve_hundred_strangers_cost_a_replica_next_to_nothing() {
    raise_descriptors();
    let pair = Pair::start("strict");
    pair.wait_for_propagated();
    let (memory, lines) = (pair.replica().memory(), pair.replica_said().len());
    let (mut strangers, mut descriptors, mut most) = (Vec::new(), 0, 0);
    for number in 0..1200 {
        // One that finds no place is a stranger as well.
        let Ok(mut stream) = TcpStream::connect_timeout(&pair.replica_address(), PATIENCE) else { continue };
        match number % 3 {
            0 => _ = stream.write_all(b"\x89TSGRP\r\n"),
            1 => _ = stream.write_all(&[0xff; 64]),
            _ => {}
        }
        strangers.push(stream);
        if number % 100 == 99 {
            pair.wait_for_propagated();
            descriptors = descriptors.max(pair.replica().descriptors());
            most = most.max(pair.replica().memory());
        }
    }
    assert!(descriptors < 400, "{descriptors} descriptors");
    assert!(most < memory + 64 * MIB, "{most} bytes, {memory} before");
    let said = pair.replica_said().len() - lines;
    assert!(said < 60, "{said} lines about strangers");
    drop(strangers);
    pair.wait_for_propagated();
    pair.check();
}

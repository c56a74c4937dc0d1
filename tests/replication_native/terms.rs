// SPDX-License-Identifier: Apache-2.0
//! A new term with several replicas: what they claim, and when it counts.

use super::pair::{all_settings, free_port, replica, settings, write_before_replication, Engine};
use super::several::{is_propagated_soon, wait_row};
use super::streaming::none;
use crate::unlocked::unlocked;
use limestone_core::replication::promotion::promote;
use limestone_core::types::Epoch;
use limestone_core::vfs::RealFs;
use limestone_core::wal::claim::Claim;
use limestone_core::wal::history_file::DirectoryHistory;
use limestone_core::wal::names;
use std::path::Path;
use std::sync::Arc;

fn claim(dir: &Path, durable: Epoch) -> Claim {
    let file = DirectoryHistory::parse(&std::fs::read(dir.join(names::HISTORY)).unwrap()).unwrap();
    file.claim(durable)
}

#[test]
fn a_term_is_claimed_and_counts_when_as_many_replicas_as_are_needed_have_noted_it() {
    let [first, second, third] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let servers = [&second, &third].map(|dir| replica(dir.path(), 0, &none()));
    let list = |ports: [u16; 2]| format!("a=tcp://127.0.0.1:{},b=tcp://127.0.0.1:{}", ports[0], ports[1]);
    let ports = [servers[0].address().port(), servers[1].address().port()];
    let of_two = |list: &str| all_settings(&[("REPLICAS", list), ("QUORUM", "2")]);
    let mut engine = Engine::start(first.path(), of_two(&list(ports)));
    let before = engine.write(&["before"]);
    engine.wait_propagated(before);
    engine.shutdown();
    drop(servers);
    let promotion = unlocked(|| promote(Arc::new(RealFs), second.path(), false, None));
    assert_eq!(claim(second.path(), before), Claim { term: 1, epoch: before.0 });

    let former = replica(first.path(), 0, &none());
    let port = former.address().port();
    drop(former);
    let other = replica(third.path(), 0, &none());
    let mut engine = Engine::start(second.path(), of_two(&list([port, other.address().port()])));
    let written = engine.write(&["in the new term"]);
    wait_row(&engine, "b", written);
    assert!(!is_propagated_soon(&engine, before), "one of two has noted the term");
    for dir in [&second, &third] {
        assert_eq!(claim(dir.path(), written), Claim { term: 1, epoch: before.0 });
    }
    let former = replica(first.path(), port, &none());
    engine.wait_propagated(written);
    for dir in [&first, &second, &third] {
        assert_eq!(claim(dir.path(), written), Claim { term: promotion.term, epoch: written.0 });
    }
    for server in [&former, &other] {
        assert_eq!(server.status().claim, Some(Claim { term: promotion.term, epoch: written.0 }));
    }
    engine.shutdown();
    drop((former, other));
}

#[test]
fn one_that_was_empty_counts_as_soon_as_all_is_propagated() {
    for round in 0..4 {
        // The log reaches back, or there is a base sync first; and something is written meanwhile, or not.
        let (needs_base_sync, is_idle) = (round % 2 == 1, round < 2);
        let [primary, standby] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        if needs_base_sync {
            write_before_replication(primary.path());
        }
        let port = free_port();
        let mut engine = Engine::start(primary.path(), settings(port, &[]));
        let mut written = engine.write(&["a"]);
        let server = replica(standby.path(), port, &none());
        if !is_idle {
            written = engine.write(&["b"]);
        }
        engine.wait_propagated(written);
        // Whether or not the primary ever says another word.
        let claim = claim(standby.path(), written);
        assert!(claim.counts() && claim.epoch == written.0, "round {round}: {claim:?}");
        engine.shutdown();
        drop(server);
    }
}

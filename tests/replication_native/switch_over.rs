// SPDX-License-Identifier: Apache-2.0
//! Primary and replica change places in good order, as the page on operations says, and back.

use crate::pair::{content, replica, settings, Engine};
use crate::unlocked::unlocked;
use limestone_core::replication::promotion::promote;
use limestone_core::replication::secret::Secret;
use limestone_core::replication::status::LinkState;
use limestone_core::vfs::RealFs;
use limestone_core::wal::epoch_file;
use std::path::Path;
use std::sync::Arc;

fn durable_epoch(dir: &Path) -> u64 {
    let path = dir.join("epoch");
    epoch_file::parse(&std::fs::read(&path).unwrap(), &path).unwrap().max.unwrap().0
}

#[test]
fn primary_and_replica_change_places_and_nothing_is_lost_cut_off_or_copied() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut expected = Vec::new();
    for round in 0..4 {
        let (old, new) = (dirs[round % 2].path(), dirs[(round + 1) % 2].path());
        let server = replica(new, 0, &Secret::default());
        // The end waits for the replica as long as this, however slow the disk is.
        let mut engine = Engine::start(old, settings(server.address().port(), &[("TIMEOUT_MS", "60000")]));
        engine.wait_state(LinkState::Streaming);
        for n in 0..5 {
            let key = format!("{round}.{n}");
            engine.write(&[&key]);
            expected.push(key);
        }
        // Nothing is waited for but the orderly end, which comes while the last sessions are on their way.
        (0..round).for_each(|_| engine.next_epoch());
        engine.shutdown();
        drop(server);
        let promotion = unlocked(|| promote(Arc::new(RealFs), new, false, None));
        assert_eq!(promotion.durable.0, durable_epoch(old), "round {round}: both have the same epoch");
        assert_eq!(promotion.term, round as u64 + 2);
        for dir in &dirs {
            assert!(!dir.path().join("cut_off").exists());
            assert!(!dir.path().join("replica_staging/base").exists(), "there was no base sync");
        }
    }
    let last = dirs[0].path();
    assert_eq!(content(last).into_keys().collect::<Vec<_>>(), expected);
}

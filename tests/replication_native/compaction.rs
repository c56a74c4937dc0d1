// SPDX-License-Identifier: Apache-2.0
//! A replica that compacts its log by itself while its primary goes on.

use super::pair::{content, free_port, options, replica_with, settings, Engine, PATIENCE};
use limestone_core::datastore::{Channel, SelfCompaction};
use limestone_core::replication::native::replica::{Compaction, Options};
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::wal::names;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Bytes of log that make a replica compact by itself here; the smallest possible.
const GROWN: u64 = 1 << 20;

fn log_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let logs = files.filter(|file| names::is_log(&file.file_name().to_string_lossy()));
    logs.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

fn compacted(dir: &Path) -> Option<SystemTime> {
    dir.join(names::COMPACTED).metadata().ok()?.modified().ok()
}

/// Writes the keys in two sessions. The second one ends when the next epoch has begun and wrote something.
fn overlapping(engine: &mut Engine, keys: &[&str]) -> Epoch {
    let (epoch, [first, second]) = (engine.epoch, [0, 1].map(|number| engine.channels[number].clone()));
    let add = |channel: &Channel, epoch: u64, keys: &[&str]| {
        for key in keys {
            let version = WriteVersion { major: epoch, minor: 0 };
            channel.add_entry(StorageId(1), key.as_bytes(), epoch.to_string().as_bytes(), version, &[]).unwrap();
        }
    };
    first.begin_session().unwrap();
    add(&first, epoch, &keys[..keys.len() / 2]);
    first.end_session().unwrap();
    second.begin_session().unwrap();
    engine.next_epoch();
    first.begin_session().unwrap();
    add(&first, epoch + 1, &["next"]);
    first.end_session().unwrap();
    add(&second, epoch, &keys[keys.len() / 2..]);
    second.end_session().unwrap();
    engine.next_epoch();
    Epoch(epoch)
}

#[test]
fn a_log_that_has_grown_is_compacted_and_deleted_while_the_session_goes_on() {
    let (primary, standby) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = free_port();
    let rule = SelfCompaction::default().log_bytes_min(GROWN).pause(Duration::ZERO);
    let compaction = Compaction { by_itself: Some(rule), ..Compaction::default() };
    let server = replica_with(standby.path(), port, Options { compaction, ..options() });
    let mut engine = Engine::start(primary.path(), settings(port, &[]));
    let names: Vec<String> = (0..3000).map(|number| format!("key {number}")).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut written, mut last, mut compactions) = (0, None, 0);
    let deadline = Instant::now() + 2 * PATIENCE;
    while compactions < 3 {
        let log = log_bytes(standby.path());
        assert!(Instant::now() < deadline, "{compactions} compactions, {log} bytes of log");
        if log > 40 * GROWN {
            // Nothing is gained by more.
            std::thread::sleep(Duration::from_millis(20));
        }
        // As fast as the replica takes it, with several epochs on their way, and sessions of two of them in turn on
        // one lane.
        let epoch = overlapping(&mut engine, &keys);
        written += 1;
        if written > 8 {
            engine.wait_propagated(Epoch(epoch.0 - 8));
        }
        let now = compacted(standby.path());
        if now != last {
            (last, compactions) = (now, compactions + 1);
        }
    }
    let epoch = engine.write(&keys[..10]);
    engine.wait_propagated(epoch);
    assert_eq!(server.first_session(), None, "the session has never ended");
    engine.shutdown();
    drop(server);
    assert_eq!(content(primary.path()), content(standby.path()));
    assert_eq!(content(standby.path())["key 0"], epoch.to_string());
    assert_eq!(content(standby.path())["key 2999"], (epoch.0 - 2).to_string());
}

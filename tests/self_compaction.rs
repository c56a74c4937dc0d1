// SPDX-License-Identifier: Apache-2.0
//! A data store that compacts its log without being asked, on the machine's disk.

use limestone_core::datastore::{Datastore, SelfCompaction, Settings};
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use std::time::{Duration, Instant};

/// Bytes of log that make a data store compact by itself in these tests; the smallest possible.
const GROWN: usize = 1 << 20;

#[test]
fn a_log_that_has_grown_is_compacted_and_deleted_without_being_asked() {
    let home = tempfile::tempdir().unwrap();
    let rule = SelfCompaction::default().log_bytes_min(GROWN as u64).pause(Duration::ZERO);
    let open = || {
        let store = Datastore::open(Settings::new(home.path()).self_compaction(Some(rule))).unwrap();
        let channel = store.create_channel().unwrap();
        store.ready().unwrap();
        (store, channel)
    };
    let (store, channel) = open();
    let mut epoch = 0;
    let value = vec![b'v'; 10_000];
    let log_bytes = || -> u64 {
        let files = std::fs::read_dir(home.path()).unwrap().map(Result::unwrap);
        let logs = files.filter(|file| file.file_name().to_string_lossy().starts_with("pwal_"));
        logs.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    };
    // One key, written again and again: all but the last is garbage.
    let mut written = 0;
    let mut largest = 0;
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut compactions = 0;
    while compactions < 3 {
        assert!(Instant::now() < deadline, "{written} bytes were written, {} are there", log_bytes());
        epoch += 1;
        store.switch_epoch(Epoch(epoch)).unwrap();
        if log_bytes() < 2 * GROWN as u64 {
            channel.begin_session().unwrap();
            channel.add_entry(StorageId(1), b"k", &value, WriteVersion { major: epoch, minor: 0 }, &[]).unwrap();
            channel.end_session().unwrap();
            written += value.len() as u64;
        }
        let now = log_bytes();
        if now < largest / 2 {
            (largest, compactions) = (0, compactions + 1);
        }
        largest = largest.max(now);
    }
    assert!(written > 3 * GROWN as u64);
    store.shutdown();
    drop((channel, store));
    let (store, _channel) = open();
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.len(), 1);
    assert_eq!(snapshot.cursor().next().unwrap().unwrap().value, value);
    store.shutdown();
}

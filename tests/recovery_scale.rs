// SPDX-License-Identifier: Apache-2.0
//! Recoveries with more entries, or more alike ones, than memory or a comparison should have to take at once.

use limestone_core::datastore::{Datastore, Settings};
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use std::collections::BTreeMap;
use std::path::Path;

type Key = Vec<u8>;

/// Writes `keys` one after the other over two channels, the n-th with version n and its number as value, and gives what
/// must be there.
fn write(location: &Path, keys: impl Iterator<Item = Key>) -> BTreeMap<Key, u64> {
    let store = Datastore::open(Settings::new(location)).unwrap();
    let channels = [store.create_channel().unwrap(), store.create_channel().unwrap()];
    store.ready().unwrap();
    store.switch_epoch(Epoch(1)).unwrap();
    let mut expected = BTreeMap::new();
    for channel in &channels {
        channel.begin_session().unwrap();
    }
    for (number, key) in keys.enumerate() {
        let number = number as u64;
        let version = WriteVersion { major: 1, minor: number };
        channels[number as usize % 2].add_entry(StorageId(1), &key, &number.to_le_bytes(), version, &[]).unwrap();
        expected.insert(key, number);
    }
    channels.iter().for_each(|channel| channel.end_session().unwrap());
    store.switch_epoch(Epoch(2)).unwrap();
    store.shutdown();
    expected
}

fn check(keys: impl Iterator<Item = Key>, memory_bytes: u64) {
    let dir = tempfile::tempdir().unwrap();
    let expected = write(dir.path(), keys);
    let store = Datastore::open(Settings::new(dir.path()).recovery_memory_bytes(memory_bytes)).unwrap();
    store.ready().unwrap();
    let snapshot = store.snapshot().unwrap();
    let mut cursor = snapshot.cursor();
    for (key, number) in &expected {
        let row = cursor.next().unwrap().expect("an entry for every key");
        assert!(row.key == key && row.value == number.to_le_bytes(), "key {key:02x?}: found {row:02x?}");
    }
    assert!(cursor.next().unwrap().is_none());
    let parts = snapshot.partitioned_cursors(7).unwrap();
    let counts = parts.into_iter().map(|mut cursor| std::iter::from_fn(|| cursor.next().unwrap().map(drop)).count());
    assert_eq!(counts.sum::<usize>(), expected.len());
}

/// Numbers below `n` in an order that looks random, each several times.
fn shuffled(n: u64, times: u64) -> impl Iterator<Item = u64> {
    (0..n * times).map(move |i| i.wrapping_mul(7_919) % n)
}

#[test]
fn an_index_beyond_the_memory_bound_goes_to_temporary_files_and_comes_back_in_order() {
    check(shuffled(150_000, 2).map(|n| format!("{n:016}").into_bytes()), 1 << 20);
}

#[test]
fn keys_that_share_a_long_prefix_are_put_in_order() {
    let prefix = "/warehouse/0001/district/0001/customer/";
    check(shuffled(60_000, 2).map(move |n| format!("{prefix}{n}").into_bytes()), 0);
}

#[test]
fn keys_that_differ_in_zeros_at_the_end_only_are_kept_apart() {
    check(shuffled(64, 300).map(|n| vec![0; n as usize]), 0);
    check(shuffled(40, 300).map(|n| [vec![7; 32], vec![0; n as usize]].concat()), 0);
}

#[test]
fn many_versions_of_few_keys_leave_the_newest_of_each() {
    check(shuffled(1, 50_000).map(|_| b"the key".to_vec()), 0);
    check(shuffled(3, 20_000).map(|n| format!("the same first sixteen bytes {n}").into_bytes()), 0);
}

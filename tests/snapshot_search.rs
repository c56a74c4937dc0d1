// SPDX-License-Identifier: Apache-2.0
//! Looking up keys and ranges in a snapshot, against a plain sorted map, with the index in memory and on disk.

use limestone_core::datastore::{Datastore, Settings};
use limestone_core::recovery::{Cursor, Snapshot};
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use tempfile::TempDir;

/// Ordered as a snapshot is: by the bytes of the storage id.
type Model = BTreeMap<([u8; 8], Vec<u8>), Vec<u8>>;

const STORAGES: [u64; 6] = [0, 1, 2, 256, 0x0100_0000, u64::MAX];

fn write(keys: impl Iterator<Item = (u64, Vec<u8>)>) -> (TempDir, Model) {
    let dir = tempfile::tempdir().unwrap();
    let store = Datastore::open(Settings::new(dir.path())).unwrap();
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    store.switch_epoch(Epoch(1)).unwrap();
    channel.begin_session().unwrap();
    let mut model = Model::new();
    for (number, (storage, key)) in keys.enumerate() {
        let value = number.to_string().into_bytes();
        let version = WriteVersion { major: 1, minor: number as u64 };
        channel.add_entry(StorageId(storage), &key, &value, version, &[]).unwrap();
        model.insert((storage.to_le_bytes(), key), value);
    }
    channel.end_session().unwrap();
    store.switch_epoch(Epoch(2)).unwrap();
    store.shutdown();
    (dir, model)
}

fn recover(dir: &TempDir, memory_bytes: u64) -> (Arc<Datastore>, Snapshot) {
    let store = Datastore::open(Settings::new(dir.path()).recovery_memory_bytes(memory_bytes)).unwrap();
    store.ready().unwrap();
    let snapshot = store.snapshot().unwrap();
    (store, snapshot)
}

/// At most `limit` rows of a cursor that are of one storage.
fn take(mut cursor: Cursor, storage: u64, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    while let (true, Some(row)) = (rows.len() < limit, cursor.next().unwrap()) {
        assert_eq!(row.storage, StorageId(storage));
        rows.push((row.key.to_vec(), row.value.to_vec()));
    }
    rows
}

fn check(snapshot: &Snapshot, model: &Model, storage: u64, key: &[u8], limit: usize) {
    let at = (storage.to_le_bytes(), key.to_vec());
    let found = take(snapshot.find(StorageId(storage), key).unwrap(), storage, usize::MAX);
    let expected: Vec<_> = model.get(&at).map(|value| (key.to_vec(), value.clone())).into_iter().collect();
    assert_eq!(found, expected, "find {storage} {key:02x?}");
    for inclusive in [true, false] {
        let from = if inclusive { Bound::Included(at.clone()) } else { Bound::Excluded(at.clone()) };
        let of_storage = model.range((from, Bound::Unbounded)).take_while(|((of, _), _)| *of == at.0);
        let expected: Vec<_> = of_storage.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect();
        let found = take(snapshot.scan(StorageId(storage), key, inclusive).unwrap(), storage, limit);
        assert_eq!(found, expected, "scan {storage} {key:02x?} inclusive {inclusive}");
    }
}

#[test]
fn every_key_and_every_gap_is_found_in_every_storage() {
    let keys: [&[u8]; 9] = [b"", b"\0", b"\0\0", b"a", b"a\0", b"ab", b"b", &[0xff; 15], &[0xff; 40]];
    let of_storages =
        [0, 1, 256, u64::MAX].into_iter().flat_map(|s| keys.iter().step_by(2).map(move |k| (s, k.to_vec())));
    let (dir, model) = write(of_storages);
    let (_store, snapshot) = recover(&dir, 0);
    for storage in STORAGES {
        for key in keys {
            check(&snapshot, &model, storage, key, usize::MAX);
        }
    }
}

#[test]
fn an_empty_snapshot_has_nothing() {
    check(&Snapshot::empty(), &Model::new(), 1, b"", 10);
    let (dir, model) = write(std::iter::empty());
    let (_store, snapshot) = recover(&dir, 0);
    check(&snapshot, &model, 1, b"key", 10);
}

#[test]
fn a_large_snapshot_whose_index_is_on_disk_is_searched_and_not_read() {
    const COUNT: u64 = 150_000;
    // Keys that agree in more bytes than the index holds of them.
    let key = |number: u64| format!("a common prefix of keys {number:08}").into_bytes();
    let scattered = (0..COUNT).map(|n| n * 7919 % COUNT);
    let (dir, model) = write(scattered.map(|n| (STORAGES[(n % 3) as usize], key(2 * n))));
    let (_store, snapshot) = recover(&dir, 1 << 20);
    assert_eq!(snapshot.len() as u64, COUNT);
    // A pass over the entries for each of these would take minutes.
    for number in (0..2 * COUNT).step_by(41) {
        check(&snapshot, &model, STORAGES[(number / 2 % 3) as usize], &key(number), 3);
    }
    for storage in STORAGES {
        check(&snapshot, &model, storage, b"", 2);
        check(&snapshot, &model, storage, b"z", 2);
    }
}

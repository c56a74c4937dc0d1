// SPDX-License-Identifier: Apache-2.0
//! What rotation leaves in the file that it puts aside.

use limestone_core::datastore::{Datastore, Settings};
use limestone_core::types::{Epoch, StorageId, WriteVersion};

#[test]
fn a_rotated_file_ends_with_an_ended_session_even_when_the_next_one_was_partly_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = Datastore::open(Settings::new(dir.path())).unwrap();
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    store.switch_epoch(Epoch(1)).unwrap();
    let add = |key: &[u8], len: usize| {
        let version = WriteVersion { major: 1, minor: 0 };
        channel.add_entry(StorageId(1), key, &vec![b'v'; len], version, &[]).unwrap();
    };
    channel.begin_session().unwrap();
    add(b"ended", 10);
    channel.end_session().unwrap();
    let ended = std::fs::read(channel.path()).unwrap();

    channel.begin_session().unwrap();
    add(b"open", 1 << 20);
    assert!(std::fs::metadata(channel.path()).unwrap().len() > ended.len() as u64, "a part was written");
    store.rotate().unwrap();
    let rotated = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let rotated: Vec<_> = rotated.filter(|path| path.to_string_lossy().contains("pwal_0000.")).collect();
    assert_eq!(rotated.len(), 1, "{rotated:?}");
    assert!(std::fs::read(&rotated[0]).unwrap() == ended, "only the ended session is in the rotated file");

    add(b"more", 10);
    channel.end_session().unwrap();
    store.switch_epoch(Epoch(2)).unwrap();
    store.shutdown();
    let store = Datastore::open(Settings::new(dir.path())).unwrap();
    assert_eq!(store.ready().unwrap().warnings, Vec::<String>::new());
    assert_eq!(store.snapshot().unwrap().len(), 3);
}

// SPDX-License-Identifier: Apache-2.0

use super::paths::Directories;
use super::*;
use crate::error::Error;
use crate::recovery::Snapshot;
use crate::types::BlobId;
use crate::vfs::{Fault, Loss, SimFs, Vfs};
use std::path::Path;
use std::sync::Arc;

fn started(fs: &SimFs, recovered: u64) -> Arc<BlobStore> {
    fs.put(Path::new("/l/manifest"), b"").unwrap();
    if fs.kind(Path::new("/l/blob")).unwrap().is_none() {
        fs.create_dir(Path::new("/l/blob")).unwrap();
        fs.sync_dir(Path::new("/l")).unwrap();
    }
    let store = Arc::new(BlobStore::new(Arc::new(fs.clone()), Path::new("/l"), Arc::default()));
    let found = store.scan().unwrap();
    store.start(BlobId(recovered), found, Some(Snapshot::empty()));
    store.wait_for_collection();
    store
}

fn content(fs: &SimFs, store: &BlobStore, id: BlobId) -> Option<Vec<u8>> {
    fs.read(&store.file(id).0, 1 << 20).ok()
}

#[test]
fn ids_begin_above_what_was_recovered_and_above_every_file() {
    let fs = SimFs::new();
    assert_eq!(started(&fs, 0).next_id(), BlobId(1));
    assert_eq!(started(&fs, 7).next_id(), BlobId(8));
    fs.put(Path::new("/l/blob/odd/000000000000000F.blob"), b"").unwrap();
    let store = started(&fs, 7);
    assert_eq!(store.next_id(), BlobId(16));
    store.raise_next_id(BlobId(5));
    store.raise_next_id(BlobId(20));
    assert_eq!(BlobPool::new(store.clone()).register_data(b"").unwrap(), BlobId(20));
}

#[test]
fn every_kind_of_registration_is_durable_when_its_names_are_synced() {
    let fs = SimFs::new();
    let store = started(&fs, 0);
    for file in ["/in/a", "/in/b", "/far/c"] {
        fs.put(Path::new(file), file.as_bytes()).unwrap();
    }
    fs.mount(Path::new("/far"));
    let pool = BlobPool::new(store.clone());
    let mut expected = vec![(pool.register_data(b"data").unwrap(), b"data".to_vec())];
    for (file, temporary) in [("/in/a", false), ("/in/b", true), ("/far/c", true)] {
        expected.push((pool.register_file(Path::new(file), temporary).unwrap(), file.as_bytes().to_vec()));
    }
    expected.push((pool.duplicate(BlobId(1)).unwrap(), b"data".to_vec()));
    assert!(fs.reboot(Loss::KeepUnsynced).files().len() > fs.reboot(Loss::DropUnsynced).files().len());
    let ids: Vec<BlobId> = expected.iter().map(|(id, _)| *id).collect();
    store.sync_names(Directories::of(&ids)).unwrap();
    let before = fs.operations();
    store.sync_names(Directories::of(&ids)).unwrap();
    assert_eq!(fs.operations(), before, "what is synced is not synced again");
    let after = fs.reboot(Loss::DropUnsynced);
    for (n, (id, bytes)) in expected.into_iter().enumerate() {
        assert_eq!(id, BlobId(n as u64 + 1));
        assert_eq!(content(&after, &store, id), Some(bytes));
        assert!(store.file(id).1);
    }
    let left = |name: &str| fs.kind(Path::new(name)).unwrap().is_some();
    assert_eq!(["/in/a", "/in/b", "/far/c"].map(left), [true, false, false]);
}

#[test]
fn after_a_failed_sync_of_a_directory_no_names_count_as_durable_any_more() {
    for makes_directory in [false, true] {
        let fs = SimFs::new();
        let store = started(&fs, 0);
        let pool = BlobPool::new(store.clone());
        let ids = [pool.register_data(b"a").unwrap(), pool.register_data(b"b").unwrap()];
        let before = fs.operations();
        let failed = match makes_directory {
            true => {
                // The directory is made, and its name is synced after that.
                fs.fail_at(before + 2, Fault::IoError);
                pool.register_data(b"c").map(drop)
            }
            false => {
                fs.fail_at(before + 1, Fault::IoError);
                store.sync_names(Directories::of(&ids[..1]))
            }
        };
        assert!(matches!(failed, Err(Error::Blob { .. })), "{failed:?} {:?}", fs.trace());
        fs.heal();
        for ids in [&ids[..1], &ids[1..]] {
            let tried = store.sync_names(Directories::of(ids));
            assert!(matches!(&tried, Err(Error::Poisoned(text)) if text.contains("cannot sync")), "{tried:?}");
        }
        assert!(matches!(pool.register_data(b"d"), Err(Error::Poisoned(_))));
    }
}

#[test]
fn a_registration_without_a_descriptor_fails_alone() {
    let fs = SimFs::new();
    let store = started(&fs, 0);
    let pool = BlobPool::new(store.clone());
    let first = [pool.register_data(b"a").unwrap()];
    fs.fail_from(fs.operations() + 1, Fault::NoDescriptors);
    assert!(matches!(pool.register_data(b"b"), Err(Error::Blob { .. })));
    // A directory is synced with a descriptor that is kept for that.
    store.sync_names(Directories::of(&first)).unwrap();
    fs.heal();
    pool.register_data(b"d").unwrap();
}

#[test]
fn a_release_deletes_what_no_entry_refers_to() {
    let fs = SimFs::new();
    let store = started(&fs, 0);
    let pool = BlobPool::new(store.clone());
    let ids: Vec<BlobId> = (0..3).map(|_| pool.register_data(b"x").unwrap()).collect();
    store.mark_persistent(&ids);
    store.unmark_persistent(&ids[2..]);
    store.mark_persistent(&[BlobId(100)]);
    pool.duplicate(ids[0]).unwrap();
    pool.release();
    pool.release();
    assert_eq!([1, 2, 3, 4].map(|id| store.file(BlobId(id)).1), [true, true, false, false]);
    assert_eq!(store.owned_count(), 0);
    assert!(
        matches!(pool.register_data(b""), Err(Error::WrongState(text)) if text == "This pool is already released.")
    );
}

#[test]
fn what_a_backup_may_have_listed_outlives_the_release_of_its_pool() {
    let fs = SimFs::new();
    let store = started(&fs, 0);
    let pool = BlobPool::new(store.clone());
    let listed = pool.register_data(b"x").unwrap();
    let backup = store.incomplete();
    let later = pool.register_data(b"y").unwrap();
    assert_eq!([listed, later].map(|id| backup.contains(id)), [false, true]);
    store.mark_persistent(&[listed]);
    store.forget_entries(&[listed]);
    store.unmark_persistent(&[listed]);
    pool.release();
    assert_eq!([listed, later].map(|id| store.file(id).1), [true, false]);
}

#[test]
fn a_pool_that_is_dropped_leaves_its_files_and_no_marks() {
    let fs = SimFs::new();
    let store = started(&fs, 0);
    let pool = BlobPool::new(store.clone());
    let id = pool.register_data(b"x").unwrap();
    store.mark_persistent(&[id]);
    drop(pool);
    assert_eq!((store.file(id).1, store.owned_count()), (true, 0));
}

#[test]
fn a_release_after_the_shutdown_deletes_nothing() {
    let fs = SimFs::new();
    let store = started(&fs, 0);
    let pool = BlobPool::new(store.clone());
    let id = pool.register_data(b"x").unwrap();
    store.shut_down();
    pool.release();
    assert!(content(&fs, &store, id).is_some());
    assert!(matches!(BlobPool::new(store.clone()).register_data(b""), Err(Error::WrongState(_))));
}

#[test]
fn errors_have_the_texts_of_the_original() {
    let fs = SimFs::new();
    let store = started(&fs, 0);
    let pool = BlobPool::new(store.clone());
    for temporary in [false, true] {
        let error = pool.register_file(Path::new("/none"), temporary).unwrap_err();
        let text = "Blob Error (No such file or directory): Source file does not exist: /none (errno = 2)";
        assert_eq!((error.to_string(), error.errno()), (text.to_owned(), libc::ENOENT));
    }
    let error = pool.duplicate(BlobId(9)).unwrap_err();
    let text = "Invalid blob_id: 9. Blob file does not exist: /l/blob/dir_09/0000000000000009.blob";
    assert_eq!((error.to_string(), error.errno()), (text.to_owned(), 0));
    assert_eq!(pool.register_file(Path::new("/l"), true).unwrap_err().errno(), libc::EISDIR);
}

#[test]
fn the_last_id_sticks_and_never_replaces_a_file() {
    let fs = SimFs::new();
    let store = started(&fs, u64::MAX - 2);
    let pool = BlobPool::new(store.clone());
    assert_eq!(pool.register_data(b"a").unwrap(), BlobId(u64::MAX - 1));
    let last = pool.register_data(b"b").unwrap();
    assert_eq!(last, BlobId(u64::MAX));
    assert_eq!(pool.register_data(b"c").unwrap_err().errno(), libc::EEXIST);
    assert_eq!(pool.duplicate(BlobId(u64::MAX - 1)).unwrap_err().errno(), libc::EEXIST);
    assert_eq!(content(&fs, &store, last).unwrap(), b"b");
}

#[test]
fn a_failed_registration_leaves_nothing_and_gives_a_moved_file_back() {
    for fault in [Fault::IoError, Fault::NoSpace, Fault::SyncLoses] {
        for n in 1.. {
            let fs = SimFs::new();
            let store = started(&fs, 0);
            fs.put(Path::new("/in/m"), b"m").unwrap();
            let pool = BlobPool::new(store.clone());
            fs.fail_at(fs.operations() + n, fault);
            let data = pool.register_data(b"d").is_ok();
            let moved = pool.register_file(Path::new("/in/m"), true).is_ok();
            let failed = fs.has_failed();
            fs.heal();
            let blobs = fs.files().keys().filter(|path| path.starts_with("/l/blob")).count();
            assert_eq!(blobs, usize::from(data) + usize::from(moved), "call {n}: {:?}", fs.trace());
            assert_eq!(fs.kind(Path::new("/in/m")).unwrap().is_none(), moved, "call {n}: {:?}", fs.trace());
            if !failed {
                break;
            }
        }
    }
}

#[test]
fn registrations_from_many_threads_get_ids_of_their_own() {
    let fs = SimFs::new();
    let store = started(&fs, 0);
    let pool = BlobPool::new(store.clone());
    let mut ids: Vec<u64> = std::thread::scope(|scope| {
        let register = |_| scope.spawn(|| (0..50).map(|_| pool.register_data(b"x").unwrap().0).collect::<Vec<_>>());
        let threads: Vec<_> = (0..4).map(register).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    ids.sort_unstable();
    assert_eq!(ids, (1..=200).collect::<Vec<_>>());
    pool.release();
    assert_eq!(fs.files().keys().filter(|path| path.starts_with("/l/blob")).count(), 0);
}

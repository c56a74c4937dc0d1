// SPDX-License-Identifier: Apache-2.0
//! A directory that is moved, deleted or replaced under a running engine or replica: what was reported before is in the
//! directory that was opened, and nothing is reported any more.

mod unlocked;

use limestone_core::datastore::{Channel, Datastore, Settings};
use limestone_core::directory::{Access, OfflineDirectory};
use limestone_core::error::Error;
use limestone_core::replication::replica_store::StandbyStore;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Open, RealFs, SimFs, Vfs};
use limestone_core::wal::entry::{encode_end, encode_put, marker, tag};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};
use unlocked::unlocked;

/// What happens to the directory.
#[derive(Clone, Copy, Debug)]
enum Change {
    MovedAway,
    ReplacedByEmpty,
    ReplacedByAnother,
    Deleted,
    LockFileReplaced,
    /// On the machine's disk only, in a mount namespace of the test.
    MountedOver,
}

const CHANGES: [Change; 5] =
    [Change::MovedAway, Change::ReplacedByEmpty, Change::ReplacedByAnother, Change::Deleted, Change::LockFileReplaced];

/// Makes the change; returns where the directory that was opened is then.
fn change(vfs: &Arc<dyn Vfs>, location: &Path, change: Change) -> Option<PathBuf> {
    let moved = location.with_extension("moved");
    match change {
        Change::MovedAway => vfs.rename(location, &moved).unwrap(),
        Change::ReplacedByEmpty => {
            vfs.rename(location, &moved).unwrap();
            vfs.create_dir(location).unwrap();
        }
        Change::ReplacedByAnother => {
            vfs.rename(location, &moved).unwrap();
            // The directory of somebody else, with the same names in it.
            let other = Datastore::open(Settings::new(location).vfs(vfs.clone())).unwrap();
            other.ready().unwrap();
            other.shutdown();
        }
        Change::Deleted => {
            vfs.remove_dir_all(location).unwrap();
            return None;
        }
        Change::LockFileReplaced => {
            let manifest = location.join("limestone-manifest.json");
            let bytes = vfs.read(&manifest, 1 << 20).unwrap();
            vfs.unlink(&manifest).unwrap();
            vfs.open(&manifest, Open::New).unwrap().write_at(0, &bytes).unwrap();
            return Some(location.to_owned());
        }
        Change::MountedOver => {
            mounts::cover(location);
            return Some(location.to_owned());
        }
    }
    Some(moved)
}

/// Mounts that nobody else sees.
mod mounts {
    use std::ffi::CString;
    use std::io;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    fn checked(result: libc::c_int) -> io::Result<()> {
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn mount(source: &str, target: &Path, flags: libc::c_ulong) -> io::Result<()> {
        let (source, target) = (CString::new(source)?, CString::new(target.as_os_str().as_bytes())?);
        // SAFETY: all texts live until the call returns.
        checked(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), source.as_ptr(), flags, std::ptr::null()) })
    }

    /// Runs `test` on a thread that has a mount namespace of its own, as have the threads that it starts. Says so where
    /// that is not allowed.
    pub fn of_its_own(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            let run = || {
                // SAFETY: concerns this thread only, which has nothing from before.
                let own = checked(unsafe { libc::unshare(libc::CLONE_NEWNS) });
                match own.and_then(|()| mount("none", Path::new("/"), libc::MS_REC | libc::MS_PRIVATE)) {
                    Ok(()) => test(),
                    Err(e) => eprintln!("NOT TESTED: a directory that is mounted over, which needs privileges: {e}"),
                }
            };
            scope.spawn(run).join().expect("see above");
        });
    }

    pub fn cover(directory: &Path) {
        mount("tmpfs", directory, 0).expect("a file system in memory");
    }

    pub fn uncover(directory: &Path) {
        let path = CString::new(directory.as_os_str().as_bytes()).unwrap();
        // SAFETY: the text lives until the call returns.
        checked(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }).expect("it was mounted");
    }
}

/// Runs a test on the simulated and on the real disk.
fn on_both_disks(test: impl Fn(Arc<dyn Vfs>, &Path, Change) + Sync) {
    mounts::of_its_own(|| {
        let folder = tempfile::tempdir().unwrap();
        test(Arc::new(RealFs), &folder.path().join("log"), Change::MountedOver);
    });
    for change in CHANGES {
        test(Arc::new(SimFs::new()), Path::new("/log"), change);
        let folder = tempfile::tempdir().unwrap();
        test(Arc::new(RealFs), &folder.path().join("log"), change);
    }
}

fn write(store: &Datastore, channel: &Channel, epoch: u64) -> Result<(), Error> {
    store.switch_epoch(Epoch(epoch))?;
    channel.begin_session()?;
    let version = WriteVersion { major: epoch, minor: 0 };
    channel.add_entry(StorageId(1), &epoch.to_le_bytes(), b"value", version, &[])?;
    channel.end_session()?;
    store.switch_epoch(Epoch(epoch + 1))
}

/// Entries in the directory that was opened, which is at `location` now.
fn entries(vfs: Arc<dyn Vfs>, location: &Path, what: Change) -> usize {
    if matches!(what, Change::MountedOver) {
        mounts::uncover(location);
    }
    let store = Datastore::open(Settings::new(location).vfs(vfs)).unwrap();
    store.ready().unwrap();
    let snapshot = store.snapshot().unwrap();
    let rows = snapshot.len();
    store.shutdown();
    rows
}

#[test]
fn an_engine_reports_nothing_any_more_and_lost_nothing_that_it_reported() {
    on_both_disks(|vfs, location, what| {
        let store = Datastore::open(Settings::new(location).vfs(vfs.clone())).unwrap();
        let reported = Arc::new(AtomicU64::new(0));
        let last = reported.clone();
        store.set_persistent_callback(Some(Arc::new(move |event| last.store(event.epoch.0, SeqCst))));
        let channel = store.create_channel().unwrap();
        store.ready().unwrap();
        for epoch in 1..=3 {
            write(&store, &channel, epoch).unwrap();
        }
        assert_eq!(reported.load(SeqCst), 3);

        let place = change(&vfs, location, what);
        let failed = write(&store, &channel, 4).unwrap_err();
        assert!(failed.to_string().contains("is not what was opened"), "{what:?}: {failed}");
        assert!(matches!(write(&store, &channel, 5), Err(Error::Poisoned(_))), "{what:?}");
        assert_eq!(reported.load(SeqCst), 3, "{what:?}");
        store.shutdown();
        if let Some(place) = place {
            assert!(entries(vfs, &place, what) >= 3, "{what:?}");
        }
    });
}

#[test]
fn an_epoch_without_writes_is_not_reported_either() {
    on_both_disks(|vfs, location, what| {
        let store = Datastore::open(Settings::new(location).vfs(vfs.clone())).unwrap();
        store.ready().unwrap();
        store.switch_epoch(Epoch(1)).unwrap();
        change(&vfs, location, what);
        let failed = store.switch_epoch(Epoch(2)).unwrap_err();
        assert!(failed.to_string().contains("is not what was opened"), "{what:?}: {failed}");
        assert_eq!(store.last_epoch(), Epoch(0), "{what:?}");
        if matches!(what, Change::MountedOver) {
            mounts::uncover(location);
        }
    });
}

#[test]
fn a_replica_confirms_nothing_any_more_and_lost_nothing_that_it_confirmed() {
    let session = |epoch: u64| {
        let mut bytes = marker(tag::BEGIN, Epoch(epoch)).to_vec();
        let version = WriteVersion { major: epoch, minor: 0 };
        encode_put(&mut bytes, StorageId(1), &epoch.to_le_bytes(), b"value", version, &[]);
        encode_end(&mut bytes, Epoch(epoch));
        bytes
    };
    on_both_disks(|vfs, location, what| {
        let store = StandbyStore::open(vfs.clone(), location).unwrap();
        let lane = store.lane(0);
        for epoch in 1..=3 {
            lane.append(Epoch(epoch), true, true, &session(epoch)).unwrap();
            store.record(Epoch(epoch)).unwrap();
        }
        let place = change(&vfs, location, what);
        let taken = lane.append(Epoch(4), true, true, &session(4));
        let failed = taken.and_then(|()| store.record(Epoch(4))).unwrap_err();
        assert!(failed.to_string().contains("is not what was opened"), "{what:?}: {failed}");
        assert!(matches!(store.record(Epoch(5)), Err(Error::Poisoned(_))), "{what:?}");
        assert_eq!(store.durable(), Epoch(3), "{what:?}");
        store.close();
        if let Some(place) = place {
            assert!(entries(vfs, &place, what) >= 3, "{what:?}");
        }
    });
}

#[test]
fn new_files_go_to_the_directory_that_was_opened() {
    on_both_disks(|vfs, location, what| {
        let store = Datastore::open(Settings::new(location).vfs(vfs.clone())).unwrap();
        let channels = [store.create_channel().unwrap(), store.create_channel().unwrap()];
        store.ready().unwrap();
        write(&store, &channels[0], 1).unwrap();
        if matches!(what, Change::LockFileReplaced) {
            return;
        }
        change(&vfs, location, what);
        // The second channel has no file yet, and a BLOB would be new as well.
        let _ = write(&store, &channels[1], 2);
        let _ = store.blob_pool().register_data(b"blob");
        let _ = store.register_tag("tag", "");
        store.shutdown();
        for name in ["pwal_0001", "blob/dir_01", "limestone-tags.json"] {
            assert_eq!(vfs.kind(&location.join(name)).unwrap(), None, "{what:?}: {name}");
        }
        if matches!(what, Change::MountedOver) {
            mounts::uncover(location);
        }
    });
}

#[test]
fn a_start_waits_for_a_tool_that_reads_and_says_who_it_is_when_that_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Datastore::open(Settings::new(dir.path()));
    unlocked(open).shutdown();
    let read = || unlocked(|| OfflineDirectory::open(Arc::new(RealFs), dir.path(), Access::Read));
    let reading = read();
    let begun = Instant::now();
    let refused = open().unwrap_err();
    assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(matches!(refused, Error::Locked { .. }) && refused.to_string().ends_with(" (this process)"), "{refused}");
    drop(reading);

    unlocked(open).shutdown();
    let reading = read();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| unlocked(open));
        // Long enough to meet the lock; when it is not, nothing is tested here.
        std::thread::sleep(Duration::from_millis(200));
        drop(reading);
        opening.join().unwrap().shutdown();
    });
}

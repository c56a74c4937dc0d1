// SPDX-License-Identifier: Apache-2.0
//! What this project wrote and acknowledged is never taken for a torn session that the original left: a start refuses
//! damage in it, and the tool says so and takes nothing away by itself.

use crate::engine_run::{quick_dir, start};
use crate::golden_data::tree;
use crate::tool::on;
use limestone_core::datastore::{Commit, Datastore, Settings};
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::wal::entry::END_LEN;
use std::path::Path;
use tempfile::TempDir;

/// The second channel's: the first is made with the directory.
const LOG: &str = "pwal_0001";

/// A directory in which one channel ended two sessions in the same epoch, which was acknowledged; and the offset at
/// which the entries of the second begin.
fn acknowledged(orderly: bool) -> (TempDir, usize, usize) {
    let dir = quick_dir();
    // A commit journal that is not settled would mend the damage.
    let store = Datastore::open(Settings::new(dir.path()).commit(Commit::Direct)).unwrap();
    let [_, channel] = [(); 2].map(|()| store.create_channel().unwrap());
    store.ready().unwrap();
    store.switch_epoch(Epoch(1)).unwrap();
    let mut range = (0, 0);
    for session in ["first", "second"] {
        channel.begin_session().unwrap();
        for entry in 0..20 {
            let (key, version) = (format!("{session} {entry}"), WriteVersion { major: 1, minor: entry });
            channel.add_entry(StorageId(1), key.as_bytes(), &[b'v'; 50], version, &[]).unwrap();
        }
        channel.end_session().unwrap();
        range = (range.1, std::fs::metadata(channel.path()).unwrap().len() as usize);
    }
    store.switch_epoch(Epoch(2)).unwrap();
    assert_eq!(store.recorded_epoch(), Epoch(1));
    if orderly {
        store.shutdown();
        return (dir, range.0, range.1);
    }
    // As after the death of the process: nothing more is written, and the lock stays with the other directory.
    let copy = quick_dir();
    for (path, bytes) in tree(dir.path()) {
        let target = copy.path().join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, bytes).unwrap();
    }
    store.shutdown();
    (copy, range.0, range.1)
}

fn check(dir: &Path, damaged: &[u8], what: &str) {
    std::fs::write(dir.join(LOG), damaged).unwrap();
    let before = tree(dir);
    assert!(start(dir, 1).is_err(), "{what}: opened");
    let run = on(dir, &["inspect"]);
    assert_eq!((run.exit, run.status()), (2, "status: unrepairable"), "{what}: {run:?}");
    assert_eq!(tree(dir)[Path::new(LOG)], before[Path::new(LOG)], "{what}: changed");
}

#[test]
fn damage_in_the_second_session_of_an_epoch_that_was_acknowledged_is_refused_wherever_it_is() {
    for orderly in [false, true] {
        let (dir, from, to) = acknowledged(orderly);
        let whole = std::fs::read(dir.path().join(LOG)).unwrap();
        assert_eq!(start(dir.path(), 1).unwrap().rows.len(), 40);
        std::fs::write(dir.path().join(LOG), &whole).unwrap();
        let first_entry = from + whole[from..].windows(6).position(|bytes| bytes == b"second").unwrap();
        for at in (first_entry..to).step_by(7).chain([to - END_LEN, to - 1]) {
            check(dir.path(), &whole[..at], &format!("cut at {at} of {to}"));
            // Of an end marker only the tag and the epoch's first byte are not zero, and the rest is not looked at.
            if at > to - END_LEN {
                continue;
            }
            let zeros = [&whole[..at], &vec![0; whole.len() - at][..]].concat();
            check(dir.path(), &zeros, &format!("zeros from {at} of {to}"));
        }
    }
}

#[test]
fn a_repair_gives_such_a_session_up_only_when_it_is_told_to() {
    let (dir, _, to) = acknowledged(false);
    let whole = std::fs::read(dir.path().join(LOG)).unwrap();
    std::fs::write(dir.path().join(LOG), &whole[..to - 30]).unwrap();
    let run = on(dir.path(), &["repair"]);
    assert_eq!((run.exit, run.status()), (16, "status: unrepairable"), "{run:?}");
    assert!(start(dir.path(), 1).is_err());
    let run = on(dir.path(), &["repair", "--give_up_damaged"]);
    assert_eq!(run.exit, 0, "{run:?}");
    assert_eq!(start(dir.path(), 1).unwrap().rows.len(), 20, "the other session is there");
}

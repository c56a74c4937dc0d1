// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::types::{StorageId, WriteVersion};
use crate::vfs::{Loss, RealFs, SimFs};
use crate::wal::entry::{encode_end, encode_put, marker, tag};

const LOG: &str = "/log";
const NAME: &str = "pwal_0000";

fn sessions(epochs: std::ops::RangeInclusive<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for epoch in epochs {
        bytes.extend(marker(tag::BEGIN, Epoch(epoch)));
        encode_put(&mut bytes, StorageId(1), b"key", &[7; 300], WriteVersion { major: epoch, minor: 0 }, &[]);
        encode_end(&mut bytes, Epoch(epoch));
    }
    bytes
}

fn simulated(files: &[(&str, &[u8])]) -> SimFs {
    let (fs, location) = (SimFs::new(), Path::new(LOG));
    fs.create_dir(location).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    for (name, bytes) in files {
        fs.open(&location.join(name), Open::New).unwrap().write_at(0, bytes).unwrap();
    }
    fs.sync_dir(location).unwrap();
    fs
}

fn save_all(vfs: &dyn Vfs, location: &Path) {
    save(vfs, location, &LogMarks::default(), Which::All).unwrap();
}

/// Whether all of the file need not be read.
fn is_known(vfs: &dyn Vfs, location: &Path, name: &str) -> bool {
    let bytes = vfs.open(&location.join(name), Open::Read).unwrap().map().unwrap();
    load(vfs, location).of(name).now().covers(&bytes)
}

#[test]
fn what_is_written_down_is_read_again_also_after_a_power_cut_and_the_files_are_on_the_disk_before() {
    let (bytes, location) = (sessions(1..=40), Path::new(LOG));
    let fs = simulated(&[(NAME, &bytes), ("pwal_0001.1.0", &bytes)]);
    save_all(&fs, location);
    let after = fs.reboot(Loss::DropUnsynced);
    assert!(is_known(&after, location, NAME) && is_known(&after, location, "pwal_0001.1.0"));
    assert_eq!(after.files()[&location.join(NAME)], bytes, "it would be missed by nobody");
    let marks = load(&after, location).of(NAME).now();
    assert!(marks.behind(&bytes, Epoch(20)).is_some_and(|mark| mark.last <= Epoch(20)), "also for less than all");
}

#[test]
fn of_files_that_grow_none_is_written_down_while_they_do() {
    let (bytes, location) = (sessions(1..=40), Path::new(LOG));
    let fs = simulated(&[(NAME, &bytes), ("pwal_0001.1.0", &bytes)]);
    save(&fs, location, &LogMarks::default(), Which::Complete).unwrap();
    assert!(!is_known(&fs, location, NAME) && is_known(&fs, location, "pwal_0001.1.0"));
}

#[test]
fn what_stands_behind_the_last_whole_session_is_to_be_read() {
    let location = Path::new(LOG);
    let whole = sessions(1..=40);
    let unended = [&whole[..], &marker(tag::BEGIN, Epoch(41))].concat();
    let fs = simulated(&[(NAME, &unended)]);
    save_all(&fs, location);
    let marks = load(&fs, location).of(NAME).now();
    assert!(marks.reach() > 0 && marks.reach() <= whole.len() && !marks.covers(&unended));
}

#[test]
fn a_compacted_file_is_known_when_somebody_has_read_or_written_all_of_it() {
    let location = Path::new(LOG);
    let fs = simulated(&[(names::COMPACTED, &[7; 9000])]);
    save_all(&fs, location);
    assert!(!is_known(&fs, location, names::COMPACTED));
    let marks = LogMarks::default();
    note_compacted(&fs, location, &marks);
    save(&fs, location, &marks, Which::Complete).unwrap();
    assert!(is_known(&fs, location, names::COMPACTED));
}

#[test]
fn nothing_is_believed_of_a_damaged_file_and_none_is_an_error() {
    let about = About::from_numbers([10, 11, 12, 13]);
    let marks = EpochMarks::default().completed(&sessions(1..=9), &mut u64::MAX.clone());
    let record = Record { about, marks };
    let records: Records = [("pwal_0000".to_owned(), record.clone()), ("pwal_0001.1.0".to_owned(), record)].into();
    let bytes = encode(&records);
    assert_eq!(parse(&bytes), Some(records));
    for len in 0..bytes.len() {
        assert_eq!(parse(&bytes[..len]), None, "cut at {len}");
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert_eq!(parse(&damaged), None, "at {at}");
    }
    // With a checksum that fits.
    for len in 0..bytes.len() {
        let mut short = bytes[..len].to_vec();
        short.extend(crc32fast::hash(&short).to_le_bytes());
        parse(&short);
    }
}

/// A directory on the real disk with one log file, which is written down.
fn real() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(NAME), sessions(1..=40)).unwrap();
    save_all(&RealFs, dir.path());
    assert!(is_known(&RealFs, dir.path(), NAME));
    dir
}

#[test]
fn of_a_file_that_was_changed_in_whatever_way_nothing_is_believed() {
    use std::os::unix::fs::FileExt;
    let change: [&dyn Fn(&Path); 4] = [
        &|path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&[8], 20).unwrap();
        },
        &|path| std::fs::write(path, sessions(1..=40)).unwrap(),
        &|path| std::fs::write(path, sessions(1..=41)).unwrap(),
        &|path| {
            let other = path.with_extension("other");
            std::fs::copy(path, &other).unwrap();
            std::fs::rename(other, path).unwrap();
        },
    ];
    for (number, change) in change.iter().enumerate() {
        // At once: also within a step of the clock.
        for _ in 0..20 {
            let dir = real();
            change(&dir.path().join(NAME));
            let marks = load(&RealFs, dir.path()).of(NAME).now();
            assert_eq!(marks, EpochMarks::default(), "change {number}");
        }
    }
}

#[test]
fn a_file_that_was_written_to_in_this_step_of_the_clock_is_not_written_down() {
    assert!(tells_changes(13, 14) && tells_changes(13, 0));
    assert!(!tells_changes(13, 13) && !tells_changes(13, 12));
}

#[test]
fn in_a_copy_of_the_directory_nothing_is_believed() {
    let (dir, copy) = (real(), tempfile::tempdir().unwrap());
    for name in [NAME, names::MARKS] {
        let (from, to) = (dir.path().join(name), copy.path().join(name));
        std::fs::copy(&from, &to).unwrap();
        let modified = std::fs::metadata(&from).unwrap().modified().unwrap();
        std::fs::File::options().write(true).open(&to).unwrap().set_modified(modified).unwrap();
    }
    assert_eq!(load(&RealFs, copy.path()).of(NAME).now(), EpochMarks::default());
}

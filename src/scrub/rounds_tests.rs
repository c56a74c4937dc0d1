// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::scrub::Comparison;
use crate::vfs::{Fault, Loss, RealFs, SimFs};
use crate::wal::catalog::Catalog;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;
use tempfile::TempDir;

const ROTATED: &str = "pwal_0000.01795356604107.0";
const SLOW: Rate = Rate { bytes_per_s: 1000 };

/// A directory on the machine's disk with one closed file.
struct Dir {
    home: TempDir,
    scrub: Scrub,
}

impl Dir {
    fn new() -> Dir {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(ROTATED), vec![7; 3000]).unwrap();
        let scrub = Scrub::open(Arc::new(RealFs), home.path());
        let mut dir = Dir { home, scrub };
        assert_eq!(dir.damaged(), Vec::<String>::new(), "the first round records");
        dir
    }

    fn path(&self) -> PathBuf {
        self.home.path().join(ROTATED)
    }

    /// What a disk does that rots: neither the size nor any time changes.
    fn rot(&self) {
        let file = std::fs::File::options().write(true).open(self.path()).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[8], 1000).unwrap();
        file.set_modified(modified).unwrap();
    }

    fn damaged(&mut self) -> Vec<String> {
        damaged(&mut self.scrub)
    }

    /// Another process opens the directory.
    fn restart(&mut self) {
        self.scrub = Scrub::open(Arc::new(RealFs), self.home.path());
    }
}

fn round(scrub: &mut Scrub, which: Which) -> Result<Round> {
    scrub.round(which, Reading { rate: SLOW, settled: &|_| u64::MAX, go_on: &mut |_, _| true })
}

fn damaged(scrub: &mut Scrub) -> Vec<String> {
    let round = round(scrub, Which::All).unwrap();
    assert!(round.is_complete);
    round.damaged.into_iter().map(|damage| damage.name).collect()
}

#[test]
fn a_byte_that_changed_is_found_in_each_round_also_by_the_next_process() {
    let mut dir = Dir::new();
    assert!(dir.damaged().is_empty());
    dir.rot();
    assert_eq!(dir.damaged(), [ROTATED]);
    assert!(round(&mut dir.scrub, Which::New).unwrap().damaged.is_empty(), "it is not new");
    dir.restart();
    assert_eq!(dir.damaged(), [ROTATED]);
}

#[test]
fn what_a_program_writes_is_damage_while_the_directory_is_open_and_not_while_it_is_closed() {
    for reopen in [|dir: &mut Dir| dir.restart(), |dir: &mut Dir| dir.scrub.reopened()] {
        let written = |dir: &Dir, seconds| {
            dir.rot();
            let later = SystemTime::now() + Duration::from_secs(seconds);
            std::fs::File::options().write(true).open(dir.path()).unwrap().set_modified(later).unwrap();
        };
        let mut dir = Dir::new();
        written(&dir, 60);
        assert_eq!(dir.damaged(), [ROTATED]);
        reopen(&mut dir);
        assert_eq!(dir.damaged(), [ROTATED], "nobody has put it right");
        written(&dir, 120);
        reopen(&mut dir);
        assert!(dir.damaged().is_empty(), "whoever wrote to it then knew what he did");
    }
}

#[test]
fn a_file_that_was_replaced_renamed_or_deleted_gives_no_alarm() {
    type Change = fn(&Dir);
    let changes: [Change; 4] = [
        |dir| {
            let other = dir.home.path().join("other");
            std::fs::write(&other, vec![9; 3000]).unwrap();
            std::fs::rename(other, dir.path()).unwrap();
        },
        |dir| {
            // The number of the file may be used again at once.
            std::fs::remove_file(dir.path()).unwrap();
            std::fs::write(dir.path(), vec![9; 3000]).unwrap();
        },
        |dir| {
            std::fs::rename(dir.path(), dir.path().with_extension("1")).unwrap();
            std::fs::write(dir.path(), vec![9; 3001]).unwrap();
        },
        |dir| std::fs::remove_file(dir.path()).unwrap(),
    ];
    for change in changes {
        let mut dir = Dir::new();
        change(&dir);
        assert!(dir.damaged().is_empty());
        assert!(dir.damaged().is_empty());
    }
}

#[test]
fn a_file_is_the_same_under_another_name() {
    const OTHER: &str = "pwal_0001.01795356604107.0";
    for reopen in [|_: &mut Dir| (), |dir: &mut Dir| dir.restart(), |dir: &mut Dir| dir.scrub.reopened()] {
        let mut dir = Dir::new();
        dir.rot();
        std::fs::rename(dir.path(), dir.home.path().join(OTHER)).unwrap();
        std::fs::write(dir.path(), "another one").unwrap();
        reopen(&mut dir);
        assert_eq!(dir.damaged(), [OTHER]);
    }
}

/// What somebody is told who makes another file of this one.
fn compared(dir: &Dir, seen: Option<Arc<Known>>, name: &str) -> Option<Wrong> {
    let comparison = Comparison::new(&RealFs, dir.home.path(), seen, None);
    let checked = comparison.check(name);
    let damage = comparison.damage();
    assert_eq!(checked.is_err(), damage.is_some(), "{checked:?}");
    damage.map(|damage| damage.wrong)
}

#[test]
fn whoever_makes_another_file_of_one_is_told_what_has_changed_in_it_also_when_it_got_another_name() {
    let mut dir = Dir::new();
    let seen = Some(dir.scrub.known().clone());
    std::fs::rename(dir.path(), dir.path().with_extension("9")).unwrap();
    std::fs::write(dir.path(), "another one").unwrap();
    let name = "pwal_0000.01795356604107.9";
    let both = |dir: &Dir| [compared(dir, None, name).is_some(), compared(dir, seen.clone(), name).is_some()];
    assert_eq!(both(&dir), [false, false]);
    std::fs::rename(dir.path().with_extension("9"), dir.path()).unwrap();
    dir.rot();
    std::fs::rename(dir.path(), dir.path().with_extension("9")).unwrap();
    assert_eq!(both(&dir), [true, true]);
    // With what was seen since the directory was opened also when somebody wrote to it.
    let written = std::fs::File::options().write(true).open(dir.path().with_extension("9")).unwrap();
    written.set_modified(SystemTime::now() + Duration::from_secs(60)).unwrap();
    assert_eq!(both(&dir), [false, true]);
    dir.scrub.reopened();
    assert!(dir.damaged().is_empty(), "whoever wrote to it meanwhile knew what he did");
    assert_eq!(compared(&dir, Some(dir.scrub.known().clone()), name), None);
}

#[test]
fn what_the_disk_does_not_give_is_damage_and_not_the_end_of_whoever_reads_it() {
    let fs = sim(&[3000]);
    let location = Path::new("/log");
    let name = "pwal_0000.00000000000001.0";
    let check = |stopping: Option<&AtomicBool>| {
        let comparison = Comparison::new(&fs, location, None, stopping);
        fs.fail_from(fs.operations() + 1, Fault::IoError);
        let checked = comparison.check(name);
        fs.heal();
        (checked, comparison.damage())
    };
    let (checked, damage) = check(None);
    assert!(matches!(checked, Err(Error::Corrupted(_))), "{checked:?}");
    assert!(matches!(damage.unwrap().wrong, Wrong::Unreadable(_)));
    let stopping = AtomicBool::new(true);
    assert!(matches!(check(Some(&stopping)), (Err(Error::WrongState(_)), None)));
    let comparison = Comparison::new(&fs, location, None, None);
    assert!(matches!(comparison.check("pwal_0009"), Err(Error::Io { .. })) && comparison.damage().is_none());
}

#[test]
fn without_its_file_or_with_a_damaged_one_all_is_recorded_anew() {
    for content in [None, Some(&b""[..]), Some(b"LSCHKS01\x05"), Some(b"something else")] {
        let mut dir = Dir::new();
        let path = dir.home.path().join(names::CHECKSUMS);
        match content {
            None => std::fs::remove_file(&path).unwrap(),
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
        }
        dir.restart();
        assert!(dir.damaged().is_empty(), "{content:?}");
        dir.rot();
        assert_eq!(dir.damaged(), [ROTATED], "{content:?}");
    }
}

/// A simulated disk with so many bytes in closed files.
fn sim(sizes: &[usize]) -> SimFs {
    let fs = SimFs::new();
    fs.create_dir(Path::new("/log")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    for (number, size) in sizes.iter().enumerate() {
        fs.put(&Path::new("/log").join(format!("pwal_{number:04}.00000000000001.0")), &vec![1; *size]).unwrap();
    }
    fs
}

fn scrub(fs: &SimFs) -> Scrub {
    Scrub::open(Arc::new(fs.clone()), Path::new("/log"))
}

#[test]
fn a_file_that_the_disk_does_not_give_twice_is_damaged_and_one_that_goes_the_second_time_or_lacks_a_descriptor_is_not()
{
    let fs = sim(&[3000]);
    let mut scrub = scrub(&fs);
    assert!(damaged(&mut scrub).is_empty(), "the first round records");
    let before = fs.operations();
    assert!(damaged(&mut scrub).is_empty());
    let first_read = fs.trace().iter().skip(before as usize).position(|call| call.starts_with("read /log/pwal"));
    let at = |fs: &SimFs| fs.operations() + first_read.unwrap() as u64 + 1;
    fs.fail_at(at(&fs), Fault::IoError);
    assert!(damaged(&mut scrub).is_empty(), "it was read the second time");
    assert!(fs.has_failed());
    fs.fail_from(at(&fs), Fault::IoError);
    let found = round(&mut scrub, Which::All).unwrap().damaged;
    let [Damage { wrong: Wrong::Unreadable(_), .. }] = &found[..] else { panic!("{found:?}") };
    fs.fail_from(fs.operations() + 3, Fault::NoDescriptors);
    assert!(damaged(&mut scrub).is_empty(), "others have the descriptors");
    fs.heal();
    assert!(damaged(&mut scrub).is_empty());
}

#[test]
fn it_reads_no_faster_than_it_may_and_stops_at_once() {
    let fs = sim(&[PIECE_BYTES * 3 + 10, 700]);
    let total = PIECE_BYTES as u64 * 3 + 710;
    let rate = Rate { bytes_per_s: 300_000 };
    let (mut read, mut rested) = (0, Duration::ZERO);
    let mut go_on = |bytes: u64, rest: Duration| {
        assert!(bytes <= PIECE_BYTES as u64 && rest >= rate.rest(bytes));
        (read, rested) = (read + bytes, rested + rest);
        true
    };
    let settled = |_: &str| u64::MAX;
    scrub(&fs).round(Which::All, Reading { rate, settled: &settled, go_on: &mut go_on }).unwrap();
    assert_eq!(read, total);
    assert!(rested >= Duration::from_secs_f64(total as f64 / 300_000.0) && rested < Duration::from_secs(3));

    let mut pieces = 0;
    let mut stop = |_, _| {
        pieces += 1;
        pieces < 2
    };
    let round = scrub(&fs).round(Which::All, Reading { rate, settled: &settled, go_on: &mut stop }).unwrap();
    assert!(!round.is_complete && pieces == 2);
}

#[test]
fn of_a_file_that_is_appended_to_the_begin_counts_and_files_that_do_not_count_are_left_alone() {
    let fs = sim(&[10, 20]);
    let put = |name: &str, bytes: &[u8]| fs.put(&Path::new("/log").join(name), bytes).unwrap();
    let catalog = Catalog { detached: ["pwal_0001.00000000000001.0".to_owned()].into(), ..Catalog::default() };
    put(names::CATALOG, &catalog.encode());
    put("epoch", &[1; 400]);
    put("pwal_0000", &[]);
    let appended = fs.open(Path::new("/log/pwal_0000"), Open::Existing).unwrap();
    let mut scrub = scrub(&fs);
    let mut round = |bytes| {
        let settled = |name: &str| if name == "pwal_0000" { bytes } else { u64::MAX };
        let mut read = 0;
        let mut go_on = |bytes, _| {
            read += bytes;
            true
        };
        let round = scrub.round(Which::All, Reading { rate: SLOW, settled: &settled, go_on: &mut go_on }).unwrap();
        (read, round.damaged.len())
    };
    assert_eq!(round(u64::MAX), (10, 0));
    appended.write_at(0, &[2; 100]).unwrap();
    assert_eq!(round(60), (70, 0));
    // What is not settled may become something else.
    appended.write_at(60, &[3; 100]).unwrap();
    assert_eq!(round(160), (170, 0));
    assert_eq!(round(160), (170, 0));
    // Something else than what was said: it is looked at when it is there again.
    assert_eq!(round(50), (10, 0));
    appended.write_at(150, &[4]).unwrap();
    assert_eq!(round(170), (330, 1));
}

#[test]
fn a_power_cut_at_any_call_leaves_records_that_raise_no_alarm_and_hide_none_that_were_written() {
    let calls = {
        let fs = sim(&[3000, 700]);
        let before = fs.operations();
        round(&mut scrub(&fs), Which::All).unwrap();
        fs.operations() - before
    };
    assert!(calls > 5, "{calls} calls");
    for cut in 1..=calls {
        let fs = sim(&[3000, 700]);
        fs.fail_at(fs.operations() + cut, Fault::PowerCut);
        let mut scrubbed = scrub(&fs);
        let is_done = round(&mut scrubbed, Which::All).is_ok();
        for loss in [Loss::DropUnsynced, Loss::KeepUnsynced, Loss::Torn { seed: cut }] {
            let fs = fs.reboot(loss);
            let mut next = scrub(&fs);
            assert!(!is_done || next.records == scrubbed.records, "cut at {cut}, {loss:?}");
            assert!(damaged(&mut next).is_empty(), "cut at {cut}, {loss:?}");
        }
    }
}

// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::vfs::crashsafe;
use std::collections::HashSet;

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn create(fs: &SimFs, name: &str, bytes: &[u8]) -> Box<dyn VfsFile> {
    let file = fs.open(path(name), Open::Create).unwrap();
    file.write_at(0, bytes).unwrap();
    file
}

fn read(fs: &SimFs, name: &str) -> Option<Vec<u8>> {
    fs.read(path(name), 1 << 20).ok()
}

/// A durable file `/f` with this content.
fn with_file(bytes: &[u8]) -> SimFs {
    let fs = SimFs::new();
    fs.put(path("/f"), bytes).unwrap();
    fs
}

fn torn(fs: &SimFs) -> impl Iterator<Item = SimFs> + '_ {
    (0..200).map(|seed| fs.reboot(Loss::Torn { seed }))
}

#[test]
fn an_unsynced_write_is_gone_when_unsynced_data_is_dropped_and_there_when_it_is_kept() {
    let fs = with_file(b"old");
    fs.open(path("/f"), Open::Existing).unwrap().write_at(3, b"new").unwrap();
    assert_eq!(read(&fs, "/f").unwrap(), b"oldnew");
    assert_eq!(read(&fs.reboot(Loss::DropUnsynced), "/f").unwrap(), b"old");
    assert_eq!(read(&fs.reboot(Loss::KeepUnsynced), "/f").unwrap(), b"oldnew");
}

#[test]
fn a_synced_write_survives_every_loss() {
    let fs = with_file(b"");
    let file = fs.open(path("/f"), Open::Existing).unwrap();
    file.write_at(0, &[7; 5000]).unwrap();
    file.sync().unwrap();
    assert_eq!(read(&fs.reboot(Loss::DropUnsynced), "/f").unwrap(), [7; 5000]);
    assert!(torn(&fs).all(|after| read(&after, "/f").unwrap() == [7; 5000]));
}

#[test]
fn a_synced_file_without_a_synced_name_is_gone() {
    let fs = SimFs::new();
    create(&fs, "/f", b"x").sync().unwrap();
    assert_eq!(read(&fs.reboot(Loss::DropUnsynced), "/f"), None);
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(read(&fs.reboot(Loss::DropUnsynced), "/f").unwrap(), b"x");
}

#[test]
fn a_synced_name_without_a_synced_content_is_an_empty_file() {
    let fs = SimFs::new();
    create(&fs, "/f", b"x");
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(read(&fs.reboot(Loss::DropUnsynced), "/f").unwrap(), b"");
}

#[test]
fn an_unsynced_directory_takes_everything_in_it_along() {
    let fs = SimFs::new();
    fs.create_dir(path("/d")).unwrap();
    create(&fs, "/d/f", b"x").sync().unwrap();
    fs.sync_dir(path("/d")).unwrap();
    assert_eq!(fs.reboot(Loss::DropUnsynced).kind(path("/d")).unwrap(), None);
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(read(&fs.reboot(Loss::DropUnsynced), "/d/f").unwrap(), b"x");
}

#[test]
fn an_unsynced_rename_or_unlink_is_undone() {
    let fs = SimFs::new();
    fs.put(path("/a"), b"a").unwrap();
    fs.put(path("/b"), b"b").unwrap();
    fs.put(path("/c"), b"c").unwrap();
    fs.rename(path("/a"), path("/b")).unwrap();
    fs.unlink(path("/c")).unwrap();
    let names = |fs: &SimFs| fs.files().into_values().collect::<Vec<_>>();
    assert_eq!(names(&fs), [b"a"]);
    assert_eq!(names(&fs.reboot(Loss::DropUnsynced)), [b"a", b"b", b"c"]);
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(names(&fs.reboot(Loss::DropUnsynced)), [b"a"]);
}

#[test]
fn a_torn_loss_keeps_any_subset_of_the_pending_names_but_a_rename_is_whole() {
    let fs = SimFs::new();
    fs.put(path("/a"), b"old").unwrap();
    create(&fs, "/t", b"new").sync().unwrap();
    create(&fs, "/u", b"u").sync().unwrap();
    fs.sync_dir(path("/")).unwrap();
    fs.rename(path("/t"), path("/a")).unwrap();
    fs.unlink(path("/u")).unwrap();
    let mut seen = HashSet::new();
    for after in torn(&fs) {
        let a = read(&after, "/a").unwrap();
        assert_eq!(a == b"old", read(&after, "/t").is_some());
        seen.insert((a, read(&after, "/u").is_some()));
    }
    assert_eq!(seen.len(), 4);
}

#[test]
fn a_torn_loss_decides_by_sector_and_fills_lost_ones_with_zeros() {
    let fs = with_file(&[1; 512]);
    let file = fs.open(path("/f"), Open::Existing).unwrap();
    file.write_at(512, &[2; 1024]).unwrap();
    let mut seen = HashSet::new();
    for after in torn(&fs) {
        let bytes = read(&after, "/f").unwrap();
        assert_eq!(bytes[..512], [1; 512]);
        for sector in bytes[512..].chunks(512) {
            assert!(sector.iter().all(|b| *b == sector[0]) && [0, 2].contains(&sector[0]));
        }
        seen.insert(bytes);
    }
    let full = |second: u8, third: u8| [[1; 512], [second; 512], [third; 512]].concat();
    for state in [vec![1; 512], full(0, 0), full(0, 2), full(2, 0), full(2, 2), full(2, 2)[..1024].to_vec()] {
        assert!(seen.contains(&state));
    }
}

#[test]
fn a_torn_loss_does_not_keep_the_order_of_writes() {
    let fs = with_file(&[0; 1024]);
    let file = fs.open(path("/f"), Open::Existing).unwrap();
    file.write_at(0, &[1]).unwrap();
    file.write_at(1000, &[2]).unwrap();
    let seen: HashSet<_> = torn(&fs).map(|after| read(&after, "/f").unwrap()).map(|b| (b[0], b[1000])).collect();
    assert_eq!(seen, HashSet::from([(0, 0), (1, 0), (0, 2), (1, 2)]));
}

#[test]
fn one_sector_is_never_torn_inside() {
    let fs = with_file(&[0; 512]);
    let file = fs.open(path("/f"), Open::Existing).unwrap();
    file.write_at(0, &[1]).unwrap();
    file.write_at(511, &[2]).unwrap();
    let seen: HashSet<_> = torn(&fs).map(|after| read(&after, "/f").unwrap()).map(|b| (b[0], b[511])).collect();
    assert_eq!(seen, HashSet::from([(0, 0), (1, 0), (1, 2)]));
}

#[test]
fn a_torn_loss_repeats_with_its_seed() {
    let fs = with_file(b"");
    fs.open(path("/f"), Open::Existing).unwrap().write_at(0, &[3; 9000]).unwrap();
    create(&fs, "/g", b"g");
    for seed in 0..20 {
        let loss = Loss::Torn { seed };
        assert_eq!(fs.reboot(loss).files(), fs.reboot(loss).files());
    }
}

#[test]
fn an_unsynced_truncation_may_come_back() {
    let fs = with_file(b"content");
    fs.open(path("/f"), Open::Truncate).unwrap();
    assert_eq!(read(&fs, "/f").unwrap(), b"");
    let seen: HashSet<_> = torn(&fs).map(|after| read(&after, "/f").unwrap()).collect();
    assert!(seen.contains(&b"content"[..]) && seen.contains(&b""[..]));
}

#[test]
fn after_a_power_cut_every_call_fails_until_reboot() {
    let fs = with_file(b"old");
    let file = fs.open(path("/f"), Open::Existing).unwrap();
    fs.fail_at(fs.operations() + 1, Fault::PowerCut);
    assert!(file.write_at(3, b"new").is_err());
    assert!(file.sync().is_err() && file.len().is_err() && fs.list(path("/")).is_err());
    assert!(matches!(fs.lock(path("/f"), Lock::Exclusive), Err(LockError::Io(_))));
    assert_eq!(read(&fs.reboot(Loss::DropUnsynced), "/f").unwrap(), b"old");
    assert!(fs.reboot(Loss::DropUnsynced).open(path("/f"), Open::Existing).unwrap().write_at(0, b"x").is_ok());
}

#[test]
fn the_call_in_progress_at_a_power_cut_may_be_carried_out_in_part() {
    let mut lengths = HashSet::new();
    for n in 2..60 {
        let fs = with_file(b"");
        let file = fs.open(path("/f"), Open::Existing).unwrap();
        while fs.operations() < n - 1 {
            file.len().unwrap();
        }
        fs.fail_at(n, Fault::PowerCut);
        assert!(file.write_at(0, b"1234").is_err());
        lengths.insert(read(&fs.reboot(Loss::KeepUnsynced), "/f").unwrap().len());
    }
    assert_eq!(lengths.len(), 5);
}

#[test]
fn a_sync_in_progress_at_a_power_cut_promises_nothing() {
    let fs = with_file(b"");
    let file = fs.open(path("/f"), Open::Existing).unwrap();
    file.write_at(0, b"1234").unwrap();
    fs.fail_at(fs.operations() + 1, Fault::PowerCut);
    assert!(file.sync().is_err());
    assert_eq!(read(&fs.reboot(Loss::DropUnsynced), "/f").unwrap(), b"");
    assert_eq!(read(&fs.reboot(Loss::KeepUnsynced), "/f").unwrap(), b"1234");
}

#[test]
fn an_io_error_fails_one_call_and_changes_nothing() {
    let fs = with_file(b"old");
    let file = fs.open(path("/f"), Open::Existing).unwrap();
    fs.fail_at(fs.operations() + 1, Fault::IoError);
    assert_eq!(file.write_at(0, b"new").unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(read(&fs, "/f").unwrap(), b"old");
    assert!(fs.has_failed());
    file.write_at(0, b"new").unwrap();
    file.sync().unwrap();
    assert_eq!(read(&fs.reboot(Loss::DropUnsynced), "/f").unwrap(), b"new");
}

#[test]
fn a_failed_sync_can_lose_the_data_for_good_though_a_later_sync_succeeds() {
    let fs = with_file(b"");
    let file = fs.open(path("/f"), Open::Existing).unwrap();
    file.write_at(0, b"lost").unwrap();
    fs.fail_at(fs.operations() + 1, Fault::SyncLoses);
    assert!(file.sync().is_err());
    file.write_at(4, b"kept").unwrap();
    file.sync().unwrap();
    assert_eq!(read(&fs, "/f").unwrap(), b"lostkept");
    for loss in [Loss::DropUnsynced, Loss::KeepUnsynced] {
        assert_eq!(read(&fs.reboot(loss), "/f").unwrap(), b"\0\0\0\0kept");
    }
}

#[test]
fn a_failed_directory_sync_leaves_the_names_unsynced() {
    let fs = SimFs::new();
    create(&fs, "/f", b"x").sync().unwrap();
    fs.fail_at(fs.operations() + 1, Fault::SyncLoses);
    assert!(fs.sync_dir(path("/")).is_err());
    assert_eq!(read(&fs.reboot(Loss::DropUnsynced), "/f"), None);
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(read(&fs.reboot(Loss::DropUnsynced), "/f").unwrap(), b"x");
}

#[test]
fn the_death_of_a_process_leaves_unsynced_data_seen_and_unsynced() {
    let fs = with_file(b"old");
    let file = fs.open(path("/f"), Open::Existing).unwrap();
    file.write_at(0, b"new").unwrap();
    fs.fail_at(fs.operations() + 1, Fault::PowerCut);
    assert!(file.sync().is_err());
    fs.heal();
    assert_eq!(read(&fs, "/f").unwrap(), b"new");
    assert_eq!(read(&fs.reboot(Loss::DropUnsynced), "/f").unwrap(), b"old");
}

#[test]
fn a_full_disk_fails_writes_after_a_part_and_spares_calls_that_need_no_space() {
    let fs = with_file(b"");
    fs.put(path("/g"), b"").unwrap();
    let file = fs.open(path("/f"), Open::Existing).unwrap();
    fs.fail_from(fs.operations() + 1, Fault::NoSpace);
    for _ in 0..10 {
        assert_eq!(file.write_at(0, b"1234").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
    assert!(file.len().unwrap() > 0);
    assert!(fs.open(path("/new"), Open::Create).is_err());
    fs.unlink(path("/g")).unwrap();
    fs.heal();
    file.write_at(0, b"1234").unwrap();
}

#[test]
fn an_unlinked_file_works_while_it_is_open_and_is_gone_after_a_reboot() {
    let fs = with_file(b"x");
    let file = fs.open(path("/f"), Open::Existing).unwrap();
    crashsafe::unlink(&fs, path("/f")).unwrap();
    file.write_at(1, b"y").unwrap();
    assert_eq!(&*file.map().unwrap(), b"xy");
    create(&fs, "/f", b"other");
    assert_eq!(&*file.map().unwrap(), b"xy");
    assert_eq!(read(&fs.reboot(Loss::DropUnsynced), "/f"), None);
}

#[test]
fn an_unnamed_file_appears_nowhere() {
    let fs = SimFs::new();
    let file = fs.temp_file(path("/")).unwrap();
    file.write_at(0, b"x").unwrap();
    file.sync().unwrap();
    assert_eq!(file.len().unwrap(), 1);
    assert!(fs.files().is_empty() && fs.reboot(Loss::KeepUnsynced).files().is_empty());
}

#[test]
fn a_lock_conflicts_until_it_is_dropped_or_the_power_is_cut() {
    let fs = with_file(b"");
    let lock = fs.lock(path("/f"), Lock::Exclusive).unwrap();
    assert!(matches!(fs.lock(path("/f"), Lock::Exclusive), Err(LockError::Held)));
    assert!(fs.reboot(Loss::DropUnsynced).lock(path("/f"), Lock::Exclusive).is_ok());
    drop(lock);
    assert!(fs.lock(path("/f"), Lock::Exclusive).is_ok());
}

#[test]
fn crash_safe_replacement_leaves_the_old_or_the_new_content_at_every_cut() {
    let mut outcomes = HashSet::new();
    for n in 1..=6 {
        let fs = with_file(b"old");
        fs.fail_at(n, Fault::PowerCut);
        let done = crashsafe::replace(&fs, path("/t"), path("/f"), b"new").is_ok();
        let losses = (0..50).map(|seed| Loss::Torn { seed }).chain([Loss::DropUnsynced, Loss::KeepUnsynced]);
        for loss in losses {
            let content = read(&fs.reboot(loss), "/f").unwrap();
            assert!(content == b"new" || (content == b"old" && !done), "cut at {n}, {loss:?}: {:?}", fs.trace());
            outcomes.insert(content);
        }
        assert_eq!(done, n == 6);
    }
    assert_eq!(outcomes.len(), 2);
}

#[test]
fn a_rename_between_directories_is_durable_with_the_directory_of_the_new_name() {
    let fs = SimFs::new();
    fs.create_dir(path("/d")).unwrap();
    fs.sync_dir(path("/")).unwrap();
    create(&fs, "/d/f", b"x").sync().unwrap();
    fs.rename(path("/d/f"), path("/f")).unwrap();
    fs.sync_dir(path("/")).unwrap();
    let after = fs.reboot(Loss::DropUnsynced);
    assert_eq!(after.files().into_keys().collect::<Vec<_>>(), [path("/f")]);
}

#[test]
fn errors_are_those_of_the_system() {
    let fs = with_file(b"");
    fs.put(path("/d/g"), b"").unwrap();
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(fs.open(path("/none"), Open::Read).map(drop)), io::ErrorKind::NotFound);
    assert_eq!(kind(fs.open(path("/none/x"), Open::Create).map(drop)), io::ErrorKind::NotFound);
    assert_eq!(kind(fs.open(path("/d"), Open::Existing).map(drop)), io::ErrorKind::IsADirectory);
    assert_eq!(kind(fs.list(path("/f")).map(drop)), io::ErrorKind::NotADirectory);
    assert_eq!(kind(fs.create_dir(path("/d"))), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(fs.rename(path("/f"), path("/d"))), io::ErrorKind::IsADirectory);
    assert_eq!(kind(fs.unlink(path("/d"))), io::ErrorKind::IsADirectory);
    assert!(fs.open(path("/f"), Open::Read).unwrap().write_at(0, b"x").is_err());
    fs.remove_dir_all(path("/d")).unwrap();
    fs.remove_dir_all(path("/d")).unwrap();
    assert_eq!(fs.files().into_keys().collect::<Vec<_>>(), [path("/f")]);
}

#[test]
fn a_tree_of_the_machine_goes_in_and_comes_out_unchanged() {
    let real = tempfile::tempdir().unwrap();
    std::fs::create_dir(real.path().join("d")).unwrap();
    std::fs::create_dir(real.path().join("empty")).unwrap();
    std::fs::write(real.path().join("d/f"), b"x").unwrap();
    let fs = SimFs::new();
    fs.load(real.path(), path("/log")).unwrap();
    assert_eq!(fs.operations(), 0);
    let after = fs.reboot(Loss::DropUnsynced);
    assert_eq!(read(&after, "/log/d/f").unwrap(), b"x");
    assert_eq!(after.kind(path("/log/empty")).unwrap(), Some(FileKind::Directory));
    let copy = tempfile::tempdir().unwrap();
    after.store(copy.path()).unwrap();
    assert_eq!(std::fs::read(copy.path().join("log/d/f")).unwrap(), b"x");
}

#[test]
fn the_trace_names_every_call_and_its_fault() {
    let fs = SimFs::new();
    fs.fail_at(2, Fault::IoError);
    let file = fs.open(path("/f"), Open::Create).unwrap();
    assert!(file.write_at(4, b"ab").is_err());
    assert_eq!(fs.trace(), ["create /f", "write /f at 4 length 2 -> IoError"]);
}

#[test]
fn a_hard_link_is_a_second_name_that_is_durable_with_its_directory() {
    let fs = with_file(b"x");
    fs.create_dir(path("/d")).unwrap();
    fs.sync_dir(path("/")).unwrap();
    fs.hard_link(path("/f"), path("/d/g")).unwrap();
    assert_eq!(read(&fs.reboot(Loss::DropUnsynced), "/d/g"), None);
    assert_eq!(read(&fs.reboot(Loss::KeepUnsynced), "/d/g").unwrap(), b"x");
    fs.sync_dir(path("/d")).unwrap();
    fs.unlink(path("/f")).unwrap();
    fs.sync_dir(path("/")).unwrap();
    fs.open(path("/d/g"), Open::Existing).unwrap().write_at(1, b"y").unwrap();
    let after = fs.reboot(Loss::DropUnsynced);
    assert_eq!((read(&after, "/f"), read(&after, "/d/g").unwrap()), (None, b"x".to_vec()));
}

#[test]
fn a_hard_link_needs_a_file_and_a_new_name() {
    let fs = with_file(b"x");
    fs.put(path("/d/g"), b"").unwrap();
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(fs.hard_link(path("/f"), path("/d/g"))), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(fs.hard_link(path("/none"), path("/d/h"))), io::ErrorKind::NotFound);
    assert_eq!(kind(fs.hard_link(path("/d"), path("/h"))), io::ErrorKind::PermissionDenied);
    assert_eq!(kind(fs.open(path("/f"), Open::New).map(drop)), io::ErrorKind::AlreadyExists);
    assert!(fs.open(path("/new"), Open::New).is_ok());
}

#[test]
fn no_name_moves_to_another_file_system() {
    let fs = with_file(b"x");
    fs.put(path("/other/g"), b"g").unwrap();
    fs.mount(path("/other"));
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(fs.rename(path("/f"), path("/other/f"))), io::ErrorKind::CrossesDevices);
    assert_eq!(kind(fs.hard_link(path("/other/g"), path("/g"))), io::ErrorKind::CrossesDevices);
    fs.rename(path("/other/g"), path("/other/h")).unwrap();
    assert_eq!(kind(fs.reboot(Loss::KeepUnsynced).rename(path("/other/h"), path("/h"))), io::ErrorKind::CrossesDevices);
}

#[test]
fn of_losses_that_leave_the_same_one_is_tried() {
    let fs = SimFs::new();
    let file = fs.open(Path::new("/a"), Open::New).unwrap();
    file.write_at(0, &[1; 600]).unwrap();
    file.sync().unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let losses = || [Loss::DropUnsynced, Loss::KeepUnsynced].into_iter().chain((0..50).map(|seed| Loss::Torn { seed }));
    let tried = |fs: &SimFs| fs.reboots(losses()).map(|(_, image)| image.files()).collect::<Vec<_>>();
    assert_eq!(tried(&fs).len(), 1, "nothing is unsynced");
    file.write_at(0, &[2; 1300]).unwrap();
    fs.rename(Path::new("/a"), Path::new("/b")).unwrap();
    let all: BTreeSet<_> = losses().map(|loss| fs.reboot(loss).files()).collect();
    assert!((4..52).contains(&all.len()), "{}", all.len());
    let tried = tried(&fs);
    assert_eq!(tried.len(), all.len());
    assert_eq!(tried.into_iter().collect::<BTreeSet<_>>(), all, "each of them");
}

/// Something on a disk with the files `/f` and `/g`, of which the first call that counts is one of its kind.
type Attempt = fn(&SimFs, &dyn VfsFile) -> io::Result<()>;

#[test]
fn fault_that_adds_nothing_does_what_an_io_error_does_or_nothing() {
    let attempts: [Attempt; 8] = [
        |fs, _| fs.list(path("/")).map(drop),
        |_, file| file.read_at(0, &mut [0; 3]).map(drop),
        |_, file| file.write_at(1, &[9; 700]),
        |_, file| file.set_len(2),
        |_, file| file.sync(),
        |fs, _| fs.sync_dir(path("/")),
        |fs, _| fs.rename(path("/f"), path("/g")),
        |fs, _| fs.unlink(path("/g")),
    ];
    let faults = [Fault::IoError, Fault::SyncLoses, Fault::TornWrite, Fault::NoSpace, Fault::NoDescriptors];
    let mut added = 0;
    for (kind, attempt) in attempts.iter().enumerate() {
        // What comes of it, and the disks that it can leave.
        let run = |fault: Option<Fault>| {
            let fs = with_file(b"old");
            fs.put(path("/g"), b"other").unwrap();
            let file = fs.open(path("/f"), Open::Existing).unwrap();
            file.write_at(2, b"unsynced").unwrap();
            fault.into_iter().for_each(|fault| fs.fail_at(fs.operations() + 1, fault));
            let error = attempt(&fs, &*file).err().map(|e| e.raw_os_error());
            let left = [Loss::DropUnsynced, Loss::KeepUnsynced].map(|loss| fs.reboot(loss).files());
            // Another sync does not bring back what one has lost.
            let _ = file.sync();
            ((error, left, fs.reboot(Loss::DropUnsynced).files()), fs)
        };
        let (undisturbed, (failed, disk)) = (run(None).0, run(Some(Fault::IoError)));
        for fault in faults {
            let (outcome, _) = run(Some(fault));
            match disk.adds_nothing(fault) {
                true => assert!(outcome == failed || outcome == undisturbed, "{fault:?} in attempt {kind}"),
                false => added += 1,
            }
        }
    }
    // A write is torn or has no space, a sync loses or has no space; the others that need space; no descriptors.
    assert_eq!(added, 2 + 2 + 1 + 1 + 1 + attempts.len());
}

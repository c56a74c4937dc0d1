// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::vfs::{Fault, Loss, SimFs};

const DIR: &str = "/log";

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (names::MANIFEST, b"{}".to_vec()),
        (names::CATALOG, b"catalog".to_vec()),
        ("epoch", vec![4; 9]),
        ("pwal_0000.01795356604107.0", vec![5; 3000]),
        ("pwal_0001", Vec::new()),
        ("blob/dir_07/0000000000000007.blob", vec![6; 1200]),
    ]
}

fn fresh() -> SimFs {
    let fs = SimFs::new();
    fs.put(&Path::new(DIR).join(STAGING_DIR).join("x"), b"").unwrap();
    fs
}

/// Sends what is wanted; returns the number of bytes that it took.
fn sync(fs: &SimFs, files: &[(&str, Vec<u8>)]) -> Result<(Vec<PathBuf>, u64)> {
    let mut staging = BaseStaging::open(Arc::new(fs.clone()), Path::new(DIR))?;
    let mut sent = 0;
    for (name, content) in files {
        let mut offset = staging.offer(name, content.len() as u64, crc32fast::hash(content))?;
        while offset < content.len() as u64 {
            let piece = &content[offset as usize..content.len().min(offset as usize + 700)];
            staging.data(offset, piece)?;
            offset += piece.len() as u64;
            sent += piece.len() as u64;
        }
        staging.file_end()?;
    }
    Ok((staging.finish(files.len() as u64)?, sent))
}

fn check(fs: &SimFs, staged: &[PathBuf], files: &[(&str, Vec<u8>)]) {
    let found = fs.reboot(Loss::DropUnsynced).files();
    for (name, content) in files {
        let last = name.rsplit('/').next().unwrap();
        let path = staged.iter().find(|path| path.ends_with(last)).expect("staged");
        assert_eq!(found.get(path), Some(content), "{name}");
    }
    assert_eq!(staged.len(), files.len());
}

#[test]
fn a_base_sync_interrupted_anywhere_is_completed_with_the_right_content() {
    let files = files();
    let fs = fresh();
    let before = fs.operations();
    sync(&fs, &files).unwrap();
    for n in before + 1..=fs.operations() {
        for fault in [Fault::PowerCut, Fault::SyncLoses, Fault::NoSpace] {
            let fs = fresh();
            fs.fail_at(n, fault);
            let _ = sync(&fs, &files);
            let images = [Loss::DropUnsynced, Loss::KeepUnsynced, Loss::Torn { seed: n }].map(|loss| fs.reboot(loss));
            for image in images {
                // Content that a torn write spoilt is found out and comes again with the next attempt.
                let (staged, _) = (0..files.len()).find_map(|_| sync(&image, &files).ok()).expect("completed");
                check(&image, &staged, &files);
            }
        }
    }
}

#[test]
fn nothing_of_a_file_is_used_after_its_sync_failed_also_without_a_restart_of_the_machine() {
    let files = files();
    let fs = fresh();
    let before = fs.operations();
    sync(&fs, &files).unwrap();
    for n in before + 1..=fs.operations() {
        for fault in [Fault::SyncLoses, Fault::TornWrite, Fault::IoError] {
            let fs = fresh();
            fs.fail_at(n, fault);
            // The system goes on, with its cache.
            let (staged, _) = (0..=files.len()).find_map(|_| sync(&fs, &files).ok()).expect("completed");
            check(&fs, &staged, &files);
        }
    }
}

#[test]
fn a_part_of_a_file_is_taken_up_in_the_same_process() {
    let fs = fresh();
    let content = vec![5; 3000];
    let open = || BaseStaging::open(Arc::new(fs.clone()), Path::new(DIR)).unwrap();
    let crc = crc32fast::hash(&content);
    let mut staging = open();
    assert_eq!(staging.offer("pwal_0000", 3000, crc).unwrap(), 0);
    staging.data(0, &content[..700]).unwrap();
    let mut again = open();
    assert_eq!(again.offer("pwal_0000", 3000, crc).unwrap(), 700);
    again.data(700, &content[700..]).unwrap();
    again.file_end().unwrap();
    assert_eq!(open().offer("pwal_0000", 3000, crc).unwrap(), 3000);
}

#[test]
fn a_part_of_another_file_of_the_same_name_is_not_taken_up() {
    let fs = fresh();
    let open = || BaseStaging::open(Arc::new(fs.clone()), Path::new(DIR)).unwrap();
    let (old, new) = (vec![5; 3000], vec![6; 3000]);
    let mut staging = open();
    assert_eq!(staging.offer("pwal_0000", 3000, crc32fast::hash(&old)).unwrap(), 0);
    staging.data(0, &old[..700]).unwrap();
    let mut again = open();
    assert_eq!(again.offer("pwal_0000", 3000, crc32fast::hash(&new)).unwrap(), 0);
    again.data(0, &new).unwrap();
    again.file_end().unwrap();
}

#[test]
fn what_has_come_is_not_sent_again_and_what_has_changed_is() {
    let (fs, mut files) = (fresh(), files());
    let all: u64 = files.iter().map(|(_, content)| content.len() as u64).sum();
    assert_eq!(sync(&fs, &files).unwrap().1, all);
    assert_eq!(sync(&fs, &files).unwrap().1, 0);
    files[3].1 = vec![8; 3000];
    files.remove(4);
    let (staged, sent) = sync(&fs, &files).unwrap();
    assert_eq!(sent, 3000);
    check(&fs, &staged, &files);
    assert!(!fs.files().keys().any(|path| path.ends_with("pwal_0001")), "what is not part of it any more is gone");
}

#[test]
fn what_the_directory_has_under_the_same_name_is_not_sent() {
    let (fs, files) = (fresh(), files());
    let in_place = |name: &str| Path::new(DIR).join(name);
    fs.put(&in_place("pwal_0000.01795356604107.0"), &[5; 3000]).unwrap();
    fs.put(&in_place("blob/dir_07/0000000000000007.blob"), &[9; 1200]).unwrap();
    let before = fs.operations();
    let (staged, sent) = sync(&fs, &files).unwrap();
    assert_eq!(sent, files.iter().map(|(_, content)| content.len() as u64).sum::<u64>() - 3000);
    check(&fs, &staged, &files);
    for n in before + 1..=fs.operations() {
        let fs = fresh();
        fs.put(&in_place("pwal_0000.01795356604107.0"), &[5; 3000]).unwrap();
        fs.fail_at(n, Fault::SyncLoses);
        let (staged, _) = (0..=files.len()).find_map(|_| sync(&fs, &files).ok()).expect("completed");
        check(&fs, &staged, &files);
    }
}

#[test]
fn what_the_directory_has_and_the_disk_does_not_give_is_sent() {
    let (fs, files) = (fresh(), files());
    let name = "pwal_0000.01795356604107.0";
    fs.put(&Path::new(DIR).join(name), &[5; 3000]).unwrap();
    let before = fs.operations();
    let all: u64 = files.iter().map(|(_, content)| content.len() as u64).sum();
    assert_eq!(sync(&fs, &files).unwrap().1, all - 3000);
    let is_read = |call: &String| call.starts_with(&format!("read {DIR}/{name}"));
    let at = fs.trace().iter().skip(before as usize).position(is_read).unwrap() as u64;
    let fs = fresh();
    fs.put(&Path::new(DIR).join(name), &[5; 3000]).unwrap();
    fs.fail_at(fs.operations() + at + 1, Fault::IoError);
    let (staged, sent) = sync(&fs, &files).unwrap();
    assert!(fs.has_failed() && sent == all, "{sent} of {all} bytes were sent");
    check(&fs, &staged, &files);
}

#[test]
fn names_that_no_data_directory_has_are_refused() {
    let mut staging = BaseStaging::open(Arc::new(fresh()), Path::new(DIR)).unwrap();
    let bad = ["", "x", "..", "../epoch", "/epoch", "pwal_0000/..", "blob/dir_08/0000000000000007.blob", "a/epoch"];
    for name in bad.into_iter().chain(["blob/dir_07/../dir_07/0000000000000007.blob", "epochs", "pwal_/x"]) {
        assert!(matches!(staging.offer(name, 1, 0), Err(Error::InvalidArgument(_))), "{name}");
    }
}

#[test]
fn missing_and_wrong_bytes_are_found_out() {
    let fs = fresh();
    let mut staging = BaseStaging::open(Arc::new(fs.clone()), Path::new(DIR)).unwrap();
    assert_eq!(staging.offer("epoch", 9, 1).unwrap(), 0);
    assert!(staging.offer("pwal_0000", 9, 1).is_err(), "one file at a time");
    assert!(staging.data(1, &[0]).is_err(), "a gap");
    assert!(staging.data(0, &[0; 10]).is_err(), "more than announced");
    staging.data(0, &[0; 9]).unwrap();
    assert!(staging.file_end().is_err(), "another content");
    assert_eq!(staging.offer("epoch", 9, crc32fast::hash(&[1; 9])).unwrap(), 0, "it comes anew");
    staging.data(0, &[1; 8]).unwrap();
    assert!(staging.file_end().is_err(), "a byte is missing");
    assert!(staging.finish(1).is_err());
}

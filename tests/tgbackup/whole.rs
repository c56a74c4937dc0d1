// SPDX-License-Identifier: Apache-2.0
//! Whole backups: made, checked, restored.

use crate::history::{content, wrote, Writer};
use crate::program::{create, done, json, open, run, text};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file of a backup that begins like this.
fn file_of(target: &Path, name: &str, begin: &str) -> PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(target.join(name).join("files")).unwrap().map(|f| f.unwrap()).collect();
    files.sort_by_key(|file| file.file_name());
    let found = files
        .iter()
        .find(|file| file.file_name().to_str().unwrap().starts_with(begin) && file.metadata().unwrap().len() > 0);
    found.unwrap_or_else(|| panic!("no {begin} in {files:?}")).path()
}

#[test]
fn what_is_restored_is_what_the_engine_had_when_the_backup_was_made() {
    let (top, dir, target, mut writer) = wrote(20);
    let first = (create(&dir, &target), writer.content());
    writer.write(13);
    let second = (create(&dir, &target), writer.content());
    let third_content = writer.stop();
    let third = (create(&dir, &target), third_content);
    let listed = done(&["list", text(&target)]);
    let listed = listed["backups"].as_array().unwrap();
    let of = |key: &str| listed.iter().map(|backup| backup[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("name"), [first.0.clone(), second.0.clone(), third.0.clone()]);
    assert_eq!(of("epoch"), [20, 33, 33]);
    assert_eq!(of("from"), [serde_json::json!("engine"), serde_json::json!("engine"), serde_json::Value::Null]);
    let table = run(&["list", text(&target)]).stdout;
    assert!(table.lines().count() == 4 && table.contains("stopped") && table.contains(&first.0), "{table}");
    let verified = done(&["verify", text(&target)]);
    assert!(verified["backups"].as_array().unwrap().iter().all(|backup| backup["status"] == "OK"), "{verified}");
    for (number, (name, expected)) in [&first, &second, &third].into_iter().enumerate() {
        let restored = top.path().join(format!("restored-{number}"));
        done(&["restore", text(&target), name, text(&restored)]);
        assert_eq!(&content(&restored), expected, "{name}");
    }
    // The newest, into a directory that is there.
    let restored = top.path().join("restored-0");
    let (exit, refused) = json(&["restore", text(&target), text(&restored)]);
    assert!(exit == 1 && refused["error"].as_str().unwrap().contains("is not empty"), "{refused}");
    assert_eq!(content(&restored), first.1);
    assert_eq!(done(&["restore", text(&target), text(&restored), "--replace"])["name"], *third.0);
    assert_eq!(content(&restored), third.1);
    // Each stands alone.
    assert_eq!(done(&["expire", text(&target), "--keep", "1"])["deleted"], serde_json::json!([second.0, first.0]));
    assert_eq!(done(&["verify", text(&target)])["backups"].as_array().unwrap().len(), 1);
}

/// The names say when a backup was made, by a clock that may be set back.
#[test]
fn the_newest_backup_is_the_one_that_was_made_last_whatever_the_clock_said() {
    let (top, dir, target, mut writer) = wrote(5);
    let first = create(&dir, &target);
    let ahead = "29991231T235959998Z-5";
    std::fs::rename(target.join(first), target.join(ahead)).unwrap();
    let mut names = vec![ahead.to_owned()];
    for _ in 0..3 {
        writer.write(4);
        names.push(create(&dir, &target));
    }
    let listed = done(&["list", text(&target)]);
    let listed: Vec<_> = listed["backups"].as_array().unwrap().iter().map(|backup| backup["name"].clone()).collect();
    assert_eq!(listed, names);
    let restored = top.path().join("restored");
    assert_eq!(done(&["restore", text(&target), text(&restored)])["name"], *names[3]);
    assert_eq!(content(&restored), writer.content());
    done(&["expire", text(&target), "--keep", "1"]);
    assert_eq!(done(&["list", text(&target)])["backups"][0]["name"], *names[3]);
}

#[test]
fn what_the_last_backup_has_is_stored_once_and_a_changed_file_of_the_same_name_and_size_again() {
    let (_top, dir, target, mut writer) = wrote(20);
    let first = create(&dir, &target);
    writer.write(5);
    let second = done(&["create", text(&dir), text(&target)]);
    assert!(second["new_bytes"].as_u64() < second["bytes"].as_u64(), "{second}");
    let second = second["name"].as_str().unwrap().to_owned();
    for begin in ["pwal_0000.", "00000000"] {
        let inode = |name: &str| std::fs::metadata(file_of(&target, name, begin)).unwrap().ino();
        assert_eq!(inode(&first), inode(&second), "{begin}");
        // Nothing that is written to is shared.
        let name = file_of(&target, &first, begin).file_name().unwrap().to_owned();
        let live = match begin.starts_with("pwal") {
            true => dir.join(&name),
            false => {
                let id = u64::from_str_radix(&name.to_str().unwrap()[..16], 16).unwrap();
                dir.join("blob").join(format!("dir_{:02}", id % 100)).join(&name)
            }
        };
        assert_ne!(std::fs::metadata(&live).unwrap().ino(), inode(&first), "{}", live.display());
    }
    writer.stop();
    // Behind a start, what has a name and a size may have other content.
    let name = file_of(&target, &second, "00000000").file_name().unwrap().to_owned();
    let id = u64::from_str_radix(&name.to_str().unwrap()[..16], 16).unwrap();
    let live = dir.join("blob").join(format!("dir_{:02}", id % 100)).join(&name);
    let mut bytes = std::fs::read(&live).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&live, &bytes).unwrap();
    let third = create(&dir, &target);
    assert_eq!(std::fs::read(target.join(&third).join("files").join(&name)).unwrap(), bytes);
    assert_eq!(done(&["verify", text(&target)])["backups"].as_array().unwrap().len(), 3);
}

#[test]
fn a_flipped_bit_a_missing_and_a_longer_file_are_found_and_refused() {
    let (top, dir, target, writer) = wrote(10);
    writer.stop();
    let name = create(&dir, &target);
    for begin in ["pwal_0001", "00000000", "epoch", "limestone-manifest.json", "limestone-history.json"] {
        let path = file_of(&target, &name, begin);
        let whole = std::fs::read(&path).unwrap();
        let flipped = whole.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == whole.len() / 2)).collect();
        for bytes in [Some(flipped), Some([&whole[..], b"x"].concat()), None] {
            std::fs::remove_file(&path).unwrap();
            bytes.map_or(Ok(()), |bytes: Vec<u8>| std::fs::write(&path, bytes)).unwrap();
            let (exit, verified) = json(&["verify", text(&target), &name]);
            let damage = verified["backups"][0]["damage"].as_array().unwrap();
            assert!(exit == 2 && damage.iter().any(|text| text.as_str().unwrap().contains(begin)), "{verified}");
            let restored = top.path().join("restored");
            let (exit, refused) = json(&["restore", text(&target), text(&restored)]);
            assert!(exit == 2 && refused["error"].as_str().unwrap().contains(begin), "{refused}");
            assert!(!restored.exists());
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, &whole).unwrap();
        }
    }
    let manifest = target.join(&name).join("backup.json");
    let whole = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, whole.replace("\"epoch\":", "\"epoch\":1")).unwrap();
    let (exit, verified) = json(&["verify", text(&target)]);
    assert!(exit == 2 && verified.to_string().contains("checksum"), "{verified}");
    assert_eq!(run(&["list", text(&target)]).exit, 2);
    assert_eq!(json(&["restore", text(&target), &name, text(&top.path().join("restored"))]).0, 2);
    std::fs::write(&manifest, whole).unwrap();
    std::fs::write(target.join(&name).join("files/other"), "").unwrap();
    let (exit, verified) = json(&["verify", text(&target)]);
    assert!(exit == 1 && verified["backups"][0]["status"] == "warnings", "{verified}");
}

#[test]
fn backups_of_the_library_and_of_the_program_are_the_same() {
    let top = tempfile::tempdir().unwrap();
    let (dir, target, by_hand) = (top.path().join("data"), top.path().join("backups"), top.path().join("by-hand"));
    let mut writer = Writer::start(&dir);
    writer.write(12);
    std::fs::create_dir(&by_hand).unwrap();
    let backup = writer.engine.store().begin_detailed_backup(Duration::from_secs(30)).unwrap();
    for file in backup.files() {
        std::fs::copy(&file.source, by_hand.join(&file.destination)).unwrap();
    }
    drop(backup);
    let name = create(&dir, &target);
    let expected = writer.stop();
    // The program's, by the library.
    let store = open(&top.path().join("1"));
    store.restore(&target.join(name).join("files"), true).unwrap();
    store.shutdown();
    drop(store);
    assert_eq!(content(&top.path().join("1")), expected);
    // The library's, by the program.
    assert_eq!(json(&["verify", text(&by_hand)]).0, 0);
    done(&["restore", text(&by_hand), text(&top.path().join("2"))]);
    assert_eq!(content(&top.path().join("2")), expected);
    let (exit, refused) = json(&["create", text(&dir), text(&by_hand)]);
    assert!(exit == 1 && refused["error"].as_str().unwrap().contains("is no folder of backups"), "{refused}");
}

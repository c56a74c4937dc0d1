// SPDX-License-Identifier: Apache-2.0
//! Points in time.

use crate::history::{content, wrote, Writer};
use crate::program::{create, done, json, open, text, wait_until, DEADLINE};
use limestone_core::replication::backup_socket::OpenBackup;
use limestone_core::stderr_log::rfc3339;
use limestone_core::tgbackup::manifest::BackupManifest;
use limestone_core::types::Epoch;
use limestone_core::vfs::RealFs;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, UNIX_EPOCH};

#[test]
fn every_epoch_of_a_history_can_be_restored() {
    let (top, dir, target, mut writer) = wrote(9);
    writer.engine.store().rotate().unwrap();
    writer.write(9);
    let mut after = writer.after.clone();
    writer.stop();
    let mut writer = Writer::start(&dir);
    writer.write(7);
    create(&dir, &target);
    after.extend(writer.after.clone());
    writer.stop();
    let (first, last) = (*after.keys().next().unwrap(), *after.keys().last().unwrap());
    let written = *after.keys().rfind(|epoch| !epoch.is_multiple_of(5)).unwrap();
    for (epoch, expected) in &after {
        let restored = top.path().join(epoch.to_string());
        let done = done(&["restore", text(&target), text(&restored), "--until-epoch", &epoch.to_string()]);
        assert_eq!(done["epoch"], *epoch);
        // A replica with what came later has nothing in common with it there.
        let history = std::fs::read(restored.join("limestone-history.json")).unwrap();
        let history: serde_json::Value = serde_json::from_slice(&history).unwrap();
        let runs = history["history"]["runs"].as_array().unwrap();
        assert!(!runs.is_empty() && runs.iter().all(|run| run["first_epoch"].as_u64() <= Some(*epoch)), "{history}");
        assert_eq!(&content(&restored), expected, "epoch {epoch}");
        // It stays so, and goes on above all that ever was.
        let store = open(&restored);
        store.ready().unwrap();
        assert!(store.last_epoch() >= Epoch(written), "epoch {epoch}: later ones come again");
        store.shutdown();
        assert_eq!(&content(&restored), expected, "epoch {epoch}");
    }
    let none = top.path().join("none");
    assert_eq!(first, 1);
    done(&["restore", text(&target), text(&none), "--until-epoch", "0"]);
    assert!(content(&none).is_empty());
    let above = (last + 1).to_string();
    let (exit, refused) = json(&["restore", text(&target), text(&top.path().join("x")), "--until-epoch", &above]);
    let error = refused["error"].as_str().unwrap();
    assert!(exit == 1 && error.contains(&format!(": 0 to {last}")) && error.contains("in no backup"), "{refused}");
    assert!(!top.path().join("x").exists());
}

#[test]
fn what_was_compacted_away_is_taken_from_an_older_backup_or_refused() {
    let (top, dir, target, mut writer) = wrote(12);
    let older = create(&dir, &target);
    let compacted = writer.epoch;
    std::thread::scope(|scope| {
        let store = writer.engine.store().clone();
        let compaction = scope.spawn(move || store.compact());
        while !compaction.is_finished() {
            writer.write(1);
        }
        compaction.join().unwrap().unwrap();
    });
    writer.write(3);
    let newer = create(&dir, &target);
    let after = writer.after.clone();
    let last = writer.epoch - 1;
    writer.stop();
    let restore = |name: &[&str], to: &str, epoch: u64| {
        let (to, epoch) = (top.path().join(to), epoch.to_string());
        json(&[&["restore", text(&target)], name, &[text(&to), "--until-epoch", &epoch]].concat())
    };
    let (exit, restored) = restore(&[], "1", 7);
    assert!(exit == 0 && restored["name"] == *older, "{restored}");
    assert_eq!(content(&top.path().join("1")), after[&7]);
    let (exit, restored) = restore(&[], "2", last - 1);
    assert!(exit == 0 && restored["name"] == *newer, "{restored}");
    assert_eq!(content(&top.path().join("2")), after[&(last - 1)]);
    let (exit, refused) = restore(&[&newer], "3", 7);
    let error = refused["error"].as_str().unwrap();
    assert!(exit == 1 && error.contains(&format!("to {last}")), "{refused}");
    let lowest: u64 = error.split(": ").last().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((compacted - 1..last).contains(&lowest), "{error}");
}

#[test]
fn a_time_at_which_a_backup_was_begun_is_known() {
    let (top, dir, target, mut writer) = wrote(0);
    let mut made = Vec::new();
    for _ in 0..3 {
        writer.write(4);
        let backup = done(&["create", text(&dir), text(&target)]);
        made.push((backup["begun_at"].as_str().unwrap().to_owned(), writer.content()));
        let begun = std::time::SystemTime::now();
        wait_until("the clock goes on", || begun.elapsed().is_ok_and(|since| since.as_millis() > 2));
    }
    writer.stop();
    let restore =
        |time: &str, to: &str| json(&["restore", text(&target), text(&top.path().join(to)), "--until-time", time]);
    for (number, (begun_at, expected)) in made.iter().enumerate() {
        let (exit, restored) = restore(begun_at, &number.to_string());
        assert!(exit == 0 && restored["as_of"] == *begun_at, "{restored}");
        assert_eq!(&content(&top.path().join(number.to_string())), expected);
    }
    for time in ["2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"] {
        let (exit, refused) = restore(time, "x");
        let error = refused["error"].as_str().unwrap();
        assert!(exit == 1 && made.iter().all(|(begun_at, ..)| error.contains(begun_at)), "{refused}");
    }
}

#[test]
fn between_backups_what_was_durable_is_known_of_moments_that_whoever_served_the_directory_has_seen() {
    let (top, dir, target, mut writer) = wrote(0);
    let begun = Instant::now();
    while OpenBackup::begin(&dir, &AtomicBool::new(false)).unwrap().unwrap().times.len() < 3 {
        assert!(begun.elapsed() < DEADLINE);
        writer.write(1);
    }
    let name = create(&dir, &target);
    let (after, content_then) = (writer.after.clone(), writer.content());
    writer.stop();
    let manifest = BackupManifest::load(&RealFs, &target.join(&name)).unwrap().unwrap();
    assert!(manifest.times.is_sorted() && manifest.times.len() >= 3, "{:?}", manifest.times);
    for (ms, epoch) in &manifest.times {
        // Up to the next moment it is this one.
        let time = rfc3339(UNIX_EPOCH + Duration::from_millis(ms + 1));
        let to = top.path().join(epoch.to_string());
        let restored = done(&["restore", text(&target), text(&to), "--until-time", &time]);
        assert!(restored["epoch"] == epoch.0 && restored["as_of"].as_str() < Some(&time), "{restored}");
        let expected = after.get(&epoch.0).cloned().unwrap_or_default();
        assert_eq!(content(&to), expected, "epoch {epoch}");
    }
    let to = top.path().join("whole");
    done(&["restore", text(&target), text(&to), "--until-time", &manifest.begun_at]);
    assert_eq!(content(&to), content_then);
}

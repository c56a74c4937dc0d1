// SPDX-License-Identifier: Apache-2.0
//! An engine finds what its disk has changed in log files that nobody writes to, and says so.

use crate::commits;
use crate::compare::{find_value, flip, rot, text};
use crate::program::{run, status_when, DEADLINE};
use limestone_core::datastore::{Channel, Outcome, SelfCompaction, Settings};
use limestone_core::engine::Engine;
use limestone_core::scrub::{Rate, Scrubbing};
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BUSY: Scrubbing = Scrubbing { rate: Rate { bytes_per_s: 1 << 30 }, period: Duration::from_millis(5) };

struct Scrubbed {
    engine: Engine,
    channels: Vec<Arc<Channel>>,
    epoch: u64,
}

impl Scrubbed {
    fn start(dir: &Path) -> Scrubbed {
        let rule = SelfCompaction::default().log_bytes_min(1 << 20).pause(Duration::ZERO);
        Scrubbed::start_with(Settings::new(dir).self_compaction(Some(rule)), Some(BUSY))
    }

    fn start_with(settings: Settings, scrubbing: Option<Scrubbing>) -> Scrubbed {
        let engine = Engine::open(settings.commit(commits::as_told()), None).unwrap().scrubbing(scrubbing);
        let channels = (0..2).map(|_| engine.create_channel().unwrap()).collect();
        let epoch = engine.ready().unwrap().last_epoch.0 + 1;
        let mut scrubbed = Scrubbed { engine, channels, epoch };
        // A session of an epoch that may be recorded already.
        scrubbed.write(1, 50);
        scrubbed.switch();
        scrubbed
    }

    /// One with some sessions, and the key of one of them.
    fn with_content(dir: &Path) -> (Scrubbed, String) {
        let mut scrubbed = Scrubbed::start(dir);
        scrubbed.write(20, 50);
        let key = format!("{}.1", scrubbed.epoch - 3);
        (scrubbed, key)
    }

    fn switch(&mut self) {
        self.epoch += 1;
        self.engine.store().switch_epoch(Epoch(self.epoch)).unwrap();
    }

    fn session(&self, channel: usize, value_bytes: usize) {
        let channel = &self.channels[channel];
        channel.begin_session().unwrap();
        let (key, version) =
            (format!("{}.{}", self.epoch, channel.number()), WriteVersion { major: self.epoch, minor: 0 });
        channel.add_entry(StorageId(1), key.as_bytes(), &vec![b'v'; value_bytes], version, &[]).unwrap();
    }

    fn write(&mut self, epochs: u64, value_bytes: usize) {
        for _ in 0..epochs {
            for channel in 0..self.channels.len() {
                self.session(channel, value_bytes);
                self.channels[channel].end_session().unwrap();
            }
            self.switch();
        }
    }

    /// Puts all log files aside, as the begin of a backup does.
    fn rotate(&mut self) {
        self.switch();
        drop(self.engine.store().begin_detailed_backup(Duration::from_secs(1)).unwrap());
        self.write(1, 50);
    }

    fn compact(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        let store = self.engine.store().clone();
        let compacting = std::thread::spawn(move || {
            while store.compact_and_delete().unwrap() != Outcome::Done {
                assert!(Instant::now() < deadline, "it is not compacted");
            }
        });
        while !compacting.is_finished() {
            self.write(1, 50);
            std::thread::sleep(Duration::from_millis(1));
        }
        compacting.join().unwrap();
    }

    /// The error of a compaction that is asked for.
    fn refusal(&mut self) -> String {
        self.switch();
        let store = self.engine.store().clone();
        let compacting = std::thread::spawn(move || store.compact().unwrap_err().to_string());
        while !compacting.is_finished() {
            self.write(1, 50);
            std::thread::sleep(Duration::from_millis(1));
        }
        compacting.join().unwrap()
    }

    /// Waits until everything that is there now was recorded, and read again after that.
    fn wait_for_rounds(&self) {
        let rounds = || self.engine.status().scrub.unwrap().rounds;
        let (begun, deadline) = (rounds(), Instant::now() + DEADLINE);
        while rounds() < begun + 3 {
            assert!(Instant::now() < deadline, "it does not scrub");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(self) {
        let begun = Instant::now();
        self.engine.shutdown();
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}

fn damage(dir: &Path, key: &str) -> String {
    let (path, at) = find_value(dir, key.as_bytes(), &[b'v'; 50]);
    flip(&path, at);
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn has(damaged: &[&str]) -> impl Fn(&Value) -> bool {
    let damaged = serde_json::json!(damaged);
    move |status| status["scrub"]["damaged"] == damaged
}

#[test]
fn a_flipped_bit_in_an_old_file_of_an_engine_is_found_and_said_and_found_again_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let (mut scrubbed, key) = Scrubbed::with_content(dir.path());
    scrubbed.rotate();
    scrubbed.wait_for_rounds();
    let name = damage(dir.path(), &key);
    assert!(name.starts_with("pwal_0001."), "{name}");
    status_when(dir.path(), has(&[&name]));
    let metrics = run(&["metrics", text(dir.path())], &[]).stdout;
    assert!(metrics.contains("limestone_found_damage_total 1\n"), "{metrics}");
    assert!(metrics.contains("limestone_damaged_files 1\n"), "{metrics}");
    // It goes on, says it once, and finds more in a file that is still appended to.
    scrubbed.write(3, 50);
    let key = format!("{}.0", scrubbed.epoch - 2);
    scrubbed.wait_for_rounds();
    assert_eq!(damage(dir.path(), &key), "pwal_0000");
    scrubbed.write(3, 50);
    let found = status_when(dir.path(), has(&[&name, "pwal_0000"]));
    assert_eq!(found["scrub"]["found"], 2, "{found}");
    scrubbed.stop();
    let next = Scrubbed::start(dir.path());
    status_when(dir.path(), |status| {
        status["scrub"]["damaged"].as_array().is_some_and(|all| all.contains(&name.clone().into()))
    });
    next.stop();
}

#[test]
fn a_flipped_bit_in_a_compacted_file_of_an_engine_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (mut scrubbed, key) = Scrubbed::with_content(dir.path());
    scrubbed.compact();
    scrubbed.wait_for_rounds();
    assert_eq!(damage(dir.path(), &key), "pwal_0000.compacted");
    status_when(dir.path(), has(&["pwal_0000.compacted"]));
    scrubbed.stop();
}

#[test]
fn whatever_an_engine_does_to_its_log_files_is_not_taken_for_damage() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let mut scrubbed = Scrubbed::start(dir.path());
        for round in 0..12 {
            scrubbed.write(5, 50);
            // Written out of it before it is cut off.
            scrubbed.session(0, 400_000);
            std::thread::sleep(Duration::from_millis(10));
            if round % 3 == 0 {
                drop(scrubbed.engine.store().begin_detailed_backup(Duration::ZERO).unwrap());
            }
            scrubbed.channels[0].abort_session().unwrap();
            scrubbed.session(1, 400_000);
            std::thread::sleep(Duration::from_millis(10));
            scrubbed.channels[1].end_session().unwrap();
            match round % 4 {
                0 => scrubbed.rotate(),
                1 => scrubbed.compact(),
                _ => scrubbed.switch(),
            }
        }
        scrubbed.wait_for_rounds();
        let found = scrubbed.engine.status().scrub.unwrap();
        assert!(found.found == 0 && found.rounds > 5 && found.bytes > 0, "{found:?}");
        scrubbed.stop();
    }
}

#[test]
fn a_log_with_a_damaged_file_is_not_compacted_until_the_file_is_whole_again() {
    let dir = tempfile::tempdir().unwrap();
    let compacted = dir.path().join("pwal_0000.compacted");
    let (mut scrubbed, key) = Scrubbed::with_content(dir.path());
    scrubbed.rotate();
    scrubbed.wait_for_rounds();
    let (path, at) = find_value(dir.path(), key.as_bytes(), &[b'v'; 50]);
    flip(&path, at);
    let name = path.file_name().unwrap().to_str().unwrap();
    // Whoever asks finds it, whether it was read again since or not.
    let refusal = scrubbed.refusal();
    assert!(refusal.contains(name) && refusal.contains("restore a backup"), "{refusal}");
    status_when(dir.path(), has(&[name]));
    // By itself it is not compacted either, though the log has grown, nor is what was asked for.
    scrubbed.write(300, 5_000);
    std::fs::write(dir.path().join("ctrl/start_compaction"), "").unwrap();
    for _ in 0..30 {
        scrubbed.write(1, 50);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!compacted.exists() && path.exists(), "{name} is gone, or in the compacted file");
    flip(&path, at);
    let deadline = Instant::now() + DEADLINE;
    while !compacted.exists() {
        assert!(Instant::now() < deadline, "it is not compacted");
        scrubbed.write(1, 50);
        std::thread::sleep(Duration::from_millis(10));
    }
    status_when(dir.path(), has(&[]));
    scrubbed.stop();
}

#[test]
fn a_compaction_finds_by_itself_what_has_rotted_since_the_file_was_read_first() {
    let dir = tempfile::tempdir().unwrap();
    let (mut scrubbed, key) = Scrubbed::with_content(dir.path());
    scrubbed.rotate();
    scrubbed.wait_for_rounds();
    scrubbed.stop();
    let (path, at) = find_value(dir.path(), key.as_bytes(), &[b'v'; 50]);
    rot(&path, at);
    let mut next = Scrubbed::start_with(Settings::new(dir.path()).self_compaction(None), None);
    assert!(next.engine.status().scrub.is_none(), "nobody reads");
    let refusal = next.refusal();
    assert!(refusal.contains("does not hold any more what was written"), "{refusal}");
    let name = path.file_name().unwrap().to_str().unwrap();
    assert_eq!(next.engine.status().scrub.unwrap().damaged, [name]);
    assert!(!dir.path().join("pwal_0000.compacted").exists() && path.exists());
    next.stop();
}

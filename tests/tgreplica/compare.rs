// SPDX-License-Identifier: Apache-2.0
//! `tgreplica compare` and `digest`, of a pair that runs and of what it leaves.

use crate::pair::Pair;
use crate::program::{command, run, status_when, Replica, Run, DEADLINE};
use limestone_core::datastore::Outcome;
use limestone_core::replication::backup_socket::OpenBackup;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn compare(args: &[&str]) -> (i32, Value) {
    let Run { exit, stdout, stderr } = run(&[&["compare", "--json"], args].concat(), &[]);
    (exit, serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}")))
}

fn digest(args: &[&str]) -> Value {
    let Run { exit, stdout, stderr } = run(&[&["digest", "--json"], args].concat(), &[]);
    assert_eq!(exit, 0, "{stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

impl Pair {
    /// Compacts the log of the primary, which goes on.
    fn compact(&mut self) {
        let store = self.engine.engine.store().clone();
        let deadline = Instant::now() + DEADLINE;
        let compacting = std::thread::spawn(move || {
            while store.compact().unwrap() != Outcome::Done {
                assert!(Instant::now() < deadline, "it is not compacted");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        while !compacting.is_finished() {
            self.engine.write(1, 10);
            std::thread::sleep(Duration::from_millis(1));
        }
        compacting.join().unwrap();
    }
}

/// Flips a bit of the byte there.
pub fn flip(path: &Path, at: usize) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at as u64).unwrap();
}

/// What a disk does by itself: neither the size nor any time that the file system shows changes.
pub fn rot(path: &Path, at: usize) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    flip(path, at);
    file.set_modified(modified).unwrap();
}

#[test]
fn a_pair_that_runs_is_the_same_at_an_epoch_that_both_have_and_a_flipped_bit_is_named() {
    let mut pair = Pair::start(&[]);
    pair.engine.write(20, 50);
    pair.engine.propagated();
    // The primary goes on, so that it is ahead when the replica is asked.
    let stop = AtomicBool::new(false);
    let dirs = pair.dirs.each_ref().map(|dir| dir.path().to_owned());
    let engine = &mut pair.engine;
    let runs: Vec<Run> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                engine.write(1, 50);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let runs = (0..5).map(|_| run(&["compare", "--json", text(&dirs[0]), text(&dirs[1])], &[])).collect();
        stop.store(true, SeqCst);
        runs
    });
    for Run { exit, stdout, stderr } in runs {
        assert_eq!(exit, 0, "{stdout}{stderr}");
        let found: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(found["entries"][0], found["entries"][1]);
        assert!(found["same"] == true && found["epoch"].as_u64() >= Some(20), "{found}");
        assert!(found["entries"][0].as_u64() >= Some(45), "{found}");
    }
    pair.engine.propagated();
    // Each side compacts by itself.
    pair.compact();
    pair.engine.propagated();
    let (exit, found) = compare(&pair.paths());
    assert_eq!(exit, 0, "{found}");

    let (path, at) = find_value(&dirs[1], b"5.1", &[b'v'; 50]);
    flip(&path, at);
    let (exit, found) = compare(&pair.paths());
    assert_eq!((exit, &found["same"]), (1, &Value::Bool(false)), "{found}");
    let difference = &found["differences"][0];
    assert_eq!((difference["storage"].as_u64(), difference["from"].as_str()), (Some(1), Some("")), "{found}");
    assert_eq!(difference["entries"], serde_json::json!([found["entries"][0], found["entries"][1]]));
    let told = run(&[&["compare"][..], &pair.paths()].concat(), &[]);
    assert!(told.stdout.contains("storage 1, keys from the begin to the end"), "{}", told.stdout);
    let dirs = pair.stop();
    let (exit, found) = compare(&[text(dirs[0].path()), text(dirs[1].path())]);
    assert_eq!(exit, 1, "stopped: {found}");
}

/// Where the last byte of the value stands that belongs to the key; between the two is the version.
pub fn find_value(dir: &Path, key: &[u8], value: &[u8]) -> (PathBuf, usize) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_str().unwrap().starts_with("pwal_") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let Some(at) = bytes.windows(key.len()).position(|window| window == key) else { continue };
        let behind = &bytes[at..bytes.len().min(at + 100)];
        if let Some(value_at) = behind.windows(value.len()).position(|window| window == value) {
            return (path, at + value_at + value.len() - 1);
        }
    }
    panic!("it is in no log file");
}

#[test]
fn a_digest_stands_for_a_directory_elsewhere_and_a_side_that_is_behind_is_waited_for() {
    let mut pair = Pair::start(&[]);
    pair.engine.write(20, 50);
    pair.engine.propagated();
    let paths = pair.paths().map(str::to_owned);
    let [primary, replica] = paths.each_ref().map(String::as_str);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.json");
    let document = digest(&[primary]);
    std::fs::write(&file, document.to_string()).unwrap();
    assert_eq!(compare(&[text(&file), replica]).0, 0);
    // From stdin, while the other side goes on.
    let epoch = document["epoch"].as_u64().unwrap();
    assert!(digest(&[replica, "--epoch", &(epoch - 3).to_string()])["epoch"] == epoch - 3);
    let mut child =
        command(&["compare", "-", replica], &[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    // The replica need not have heard of the last epochs, in which nothing was written.
    let same_since = document["same_since"].as_u64().unwrap();
    let at: u64 = told.strip_prefix("same at epoch ").unwrap().split(':').next().unwrap().parse().unwrap();
    assert!((same_since..=epoch).contains(&at), "{told}");
    // What both have was written with the contents of BLOBs or without.
    let (exit, error) = compare(&["--blobs", text(&file), replica]);
    assert!(exit == 2 && error["error"].as_str().unwrap().contains("without --blobs"), "{error}");

    // A stopped directory does not come further, until its name leads to another one.
    let (behind, link) = (folder.path().join("behind"), folder.path().join("link"));
    copy(pair.dirs[1].path(), &behind);
    std::os::unix::fs::symlink(&behind, &link).unwrap();
    pair.engine.write(8, 50);
    pair.engine.propagated();
    std::fs::write(&file, digest(&[primary]).to_string()).unwrap();
    let (exit, error) = compare(&["--wait", "0", text(&file), text(&link)]);
    assert!(exit == 2 && error["error"].as_str().unwrap().contains("no epoch"), "{error}");
    let waiting = {
        let args = ["compare", "--wait", "600", text(&file), text(&link)].map(str::to_owned);
        std::thread::spawn(move || run(&args.each_ref().map(String::as_str), &[]))
    };
    let dirs = pair.stop();
    assert!(!waiting.is_finished(), "it waits for what is behind");
    let next = folder.path().join("next");
    std::os::unix::fs::symlink(dirs[1].path(), &next).unwrap();
    std::fs::rename(&next, &link).unwrap();
    let waited = waiting.join().unwrap();
    assert_eq!(waited.exit, 0, "{}{}", waited.stdout, waited.stderr);
}

/// A copy as a backup makes it.
fn copy(from: &Path, to: &Path) {
    let target = tempfile::tempdir().unwrap();
    let backup = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tgbackup")).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    backup(&["create", text(from), text(target.path())]);
    backup(&["restore", text(target.path()), text(to)]);
}

#[test]
fn what_cannot_be_told_has_a_code_of_its_own() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [a, b] = dirs.each_ref().map(|dir| text(dir.path()));
    let no_digest = dirs[0].path().join("x");
    std::fs::write(&no_digest, "{}").unwrap();
    for (args, why) in [
        (vec![], "expected: tgreplica compare"),
        (vec![a], "manifest"),
        (vec!["--wait", "3", a], "expected: tgreplica compare"),
        (vec![a, b, a], "expected: tgreplica compare"),
        (vec![a, a], "compared with itself"),
        (vec!["-", "-"], "only one"),
        (vec!["/nowhere", b], "no directory or file"),
        (vec![a, b], "manifest"),
        (vec![text(&no_digest), b], "no document of tgreplica digest"),
        (vec!["--wait", "x", a, b], "invalid value"),
        (vec!["--epoch", "3", a, b], "expected: tgreplica compare"),
    ] {
        let (exit, error) = compare(&args);
        assert_eq!(exit, 2, "{args:?}");
        assert!(error["error"].as_str().unwrap().contains(why), "{args:?}: {error}");
    }
    assert_eq!(run(&["--blobs", a], &[]).exit, 1);
    assert_eq!(run(&["digest", "/nowhere"], &[]).exit, 1);
}

#[test]
fn who_waits_for_the_end_of_a_backup_ends_at_once_when_it_is_told_to() {
    let mut pair = Pair::start(&[]);
    pair.engine.write(3, 50);
    pair.engine.propagated();
    let paths = pair.paths().map(str::to_owned);
    let [primary, replica] = paths.each_ref().map(String::as_str);
    for held in [primary, replica] {
        let open = OpenBackup::begin(Path::new(held), &AtomicBool::new(false)).unwrap().unwrap();
        for args in [&["compare", primary, replica][..], &["compare", replica], &["digest", held]] {
            if !args.contains(&held) {
                continue;
            }
            let mut child = command(args, &[]).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(500));
            assert!(child.try_wait().unwrap().is_none(), "it waits");
            let begun = Instant::now();
            // SAFETY: the process is a child that has not been waited for.
            assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
            let exit = child.wait().unwrap().code();
            assert_eq!(exit, Some(if args[0] == "digest" { 3 } else { 2 }), "{args:?}");
            assert!(begun.elapsed() < Duration::from_secs(8), "{args:?}: {:?}", begun.elapsed());
        }
        open.end().unwrap();
    }
    assert_eq!(compare(&[primary, replica]).0, 0, "nobody holds the files any more");
    pair.stop();
}

#[test]
fn a_slow_reading_ends_with_a_signal_and_holds_nobody_up() {
    let mut pair = Pair::start(&[]);
    pair.engine.write(30, 1 << 20);
    pair.engine.propagated();
    let paths = pair.paths().map(str::to_owned);
    let [primary, replica] = paths.each_ref().map(String::as_str);
    let begun = Instant::now();
    let mut child = command(&["compare", "--mib-per-second", "1", primary, replica], &[]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    // Both sides go on meanwhile.
    pair.engine.write(2, 50);
    pair.engine.propagated();
    assert!(child.try_wait().unwrap().is_none(), "it reads 60 MiB and more in a minute");
    // SAFETY: the process is a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < DEADLINE, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert_eq!(compare(&[primary, replica]).0, 0, "nobody holds the files any more");
    pair.stop();
}

#[test]
fn a_replica_that_differs_is_repaired_while_it_serves_and_also_when_it_is_stopped() {
    let mut pair = Pair::start(&[]);
    pair.engine.write(20, 50);
    pair.engine.propagated();
    let replica_dir = pair.dirs[1].path().to_owned();
    let damage = |key: &[u8]| {
        let (path, at) = find_value(&replica_dir, key, &[b'v'; 50]);
        flip(&path, at);
    };
    assert_eq!(compare(&pair.paths()).0, 0);
    damage(b"5.1");
    assert_eq!(compare(&pair.paths()).0, 1);
    let repaired = run(&["repair", "--json", text(&replica_dir)], &[]);
    let answer: Value = serde_json::from_str(&repaired.stdout).unwrap_or_else(|e| panic!("{e}: {}", repaired.stderr));
    assert_eq!(repaired.exit, 0, "{answer}");
    let saved = PathBuf::from(answer["saved"].as_str().unwrap());
    assert!(saved.starts_with(replica_dir.join("cut_off")) && answer["entries"].as_u64().unwrap() >= 45, "{answer}");
    // The primary comes again by itself.
    pair.engine.write(3, 50);
    pair.engine.propagated();
    assert_eq!(compare(&pair.paths()).0, 0);
    // What it had is there to be looked at.
    let (exit, found) = compare(&["--wait", "0", text(&saved), pair.paths()[0]]);
    assert_eq!(exit, 1, "{found}");

    let Pair { dirs, replica, engine } = pair;
    let address = replica.address;
    replica.stop();
    damage(b"6.1");
    let repaired = run(&["repair", text(&replica_dir)], &[]);
    assert_eq!(repaired.exit, 0, "{}", repaired.stderr);
    assert!(repaired.stdout.contains("waits for a base sync; what it had is in "), "{}", repaired.stdout);
    // It counts for nothing until then.
    let (exit, error) = compare(&[text(dirs[0].path()), text(&replica_dir)]);
    assert!(exit == 2 && error["error"].as_str().unwrap().contains("given up"), "{error}");
    let promoted = run(&["promote", text(&replica_dir)], &[]);
    assert_eq!(promoted.exit, 2, "{}", promoted.stdout);
    let replica = Replica::start_at(&replica_dir, address);
    let pair = Pair { dirs, replica, engine };
    pair.engine.propagated();
    status_when(&replica_dir, |status| status["state"] == "streaming");
    assert_eq!(compare(&pair.paths()).0, 0);
    // A primary's is nobody's to repair.
    let refused = run(&["repair", pair.paths()[0]], &[]);
    assert_ne!(refused.exit, 0, "{}", refused.stdout);
    let dirs = pair.stop();
    let refused = run(&["repair", text(dirs[0].path())], &[]);
    assert!(refused.exit == 2 && refused.stderr.contains("not a replica's"), "{}", refused.stderr);
}

// SPDX-License-Identifier: Apache-2.0
//! `repair` leaves a directory that starts with everything that was acknowledged, or says that it cannot.

use crate::engine_run::{quick_dir, start};
use crate::golden_data::{cases, copy_tree, number, parse_matrix, rows, tree};
use crate::tool::{directory, epoch_record, files, on, open_session, session, strings};
use std::fs;

/// Cases of the parse matrix that the original calls unrepairable although nothing in them was acknowledged.
const REPAIRED_HERE: &[&str] = &["short_begin_after_invalidated", "short_begin_after_no_end_durable"];

#[test]
fn every_case_of_the_parse_matrix_is_repaired_as_by_the_original() {
    let mut failed = Vec::new();
    for case in parse_matrix() {
        for (option, key) in [("--nocut", "repair"), ("--cut", "repair_cut")] {
            let dir = quick_dir();
            case.write_to(dir.path());
            let upstream = &case.upstream[key];
            let name = case.name.split(' ').next().unwrap();
            let (mut exit, mut stdout) = (number(&upstream["exit"]) as i32, strings(&upstream["stdout"]));
            if REPAIRED_HERE.contains(&name) {
                exit = 0;
                *stdout.last_mut().unwrap() = "status: repaired".to_owned();
            }
            let run = on(dir.path(), &["repair", option]);
            if (run.exit, run.results()) != (exit, &stdout[..]) {
                failed.push(format!("{} {option}: {run:?}, expected {exit} {stdout:?}", case.name));
                continue;
            }
            if exit != 0 {
                continue;
            }
            let after = &upstream["start_after"];
            match start(dir.path(), 1) {
                Err(e) => failed.push(format!("{} {option}: the start after it: {e}", case.name)),
                Ok(started) if after["result"] == "ok" && started.rows != rows(&after["entries"]) => {
                    failed.push(format!("{} {option}: {:?}", case.name, started.rows));
                }
                Ok(_) => {}
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_case_of_the_parse_matrix_starts_once_damage_is_given_up() {
    let mut failed = Vec::new();
    for case in parse_matrix() {
        let dir = quick_dir();
        case.write_to(dir.path());
        let run = on(dir.path(), &["repair", "--give_up_damaged"]);
        if let (0, Ok(_)) = (run.exit, start(dir.path(), 1)) {
            continue;
        }
        failed.push(format!("{}: {run:?}", case.name));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_golden_directory_is_never_worse_after_a_repair() {
    let mut failed = Vec::new();
    for case in cases() {
        let (untouched, dir) = (quick_dir(), quick_dir());
        case.copy_to(dir.path());
        copy_tree(dir.path(), untouched.path());
        let before = tree(dir.path());
        let run = on(dir.path(), &["repair"]);
        let (without, with) = (start(untouched.path(), 1), start(dir.path(), 1));
        match (run.exit, without, with) {
            (0 | 64, Ok(without), Ok(with)) if with.rows == without.rows => {}
            (0, Err(_), Ok(_)) => {}
            // What the tool could not handle is as it was, whatever a start made of it.
            (64, _, Err(_)) | (16, _, Err(_)) => {
                let after: Vec<Vec<u8>> = tree(dir.path()).into_values().collect();
                if let Some((path, _)) = before.iter().find(|(_, bytes)| !after.contains(bytes)) {
                    failed.push(format!("{}: {} is gone after {run:?}", case.name, path.display()));
                }
            }
            (_, without, with) => failed.push(format!("{}: {run:?}: {without:?}, then {with:?}", case.name)),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn garbage_behind_an_end_marker_is_cut_only_on_request_and_never_becomes_a_session() {
    let whole = session(1, "k", "v");
    let dir = directory(&epoch_record(1), &[("pwal_0000", [&whole[..], &[0xff; 30]].concat())]);
    let marked = [&whole[..], &[0x06], &[0; 29]].concat();
    for (cut, change, left) in
        [(&["repair"][..], "marked invalid", marked), (&["repair", "--cut"], "trimmed", whole.clone())]
    {
        let run = on(dir.path(), cut);
        assert_eq!((run.exit, run.status()), (0, "status: repaired"));
        assert!(run.stderr.contains(&format!("{change} \"")), "{run:?}");
        assert!(run.stderr.contains(&format!("at offset {}", whole.len())), "{run:?}");
        assert_eq!(files(dir.path(), "pwal_").into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), [left]);
        assert_eq!(files(dir.path(), "damaged.").len(), 1, "a copy is kept");
        let again = on(dir.path(), cut);
        assert_eq!((again.exit, again.status()), (0, "status: OK"));
    }
    assert_eq!(start(dir.path(), 1).unwrap().last_epoch, 1);
}

#[test]
fn a_file_of_zeros_keeps_its_length_unless_cutting_is_asked_for() {
    for (options, left) in [(&["repair"][..], 64), (&["repair", "--cut=false"], 64), (&["repair", "--cut"], 0)] {
        let dir = directory(&epoch_record(2), &[("pwal_0000", vec![0; 64])]);
        let run = on(dir.path(), options);
        assert_eq!((run.exit, run.status()), (0, "status: repaired"), "{run:?}");
        assert_eq!(files(dir.path(), "pwal_")[0].1.len(), left, "{options:?}");
        assert!(start(dir.path(), 1).unwrap().rows.is_empty());
    }
}

#[test]
fn a_torn_epoch_file_is_written_anew_and_the_old_one_kept() {
    let torn = [&epoch_record(5)[..], &epoch_record(3), &epoch_record(6)[..4]].concat();
    let dir = directory(&torn, &[("pwal_0000", session(5, "k", "v"))]);
    let run = on(dir.path(), &["repair"]);
    assert_eq!((run.exit, run.status()), (0, "status: repaired"));
    assert_eq!(fs::read(dir.path().join("epoch")).unwrap(), epoch_record(5));
    let kept = files(dir.path(), "damaged.");
    assert_eq!(kept.iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), [&torn]);
    assert_eq!(start(dir.path(), 1).unwrap().rows.len(), 1);
}

#[test]
fn a_damaged_epoch_file_is_not_guessed_at_when_sessions_depend_on_it() {
    let damaged = [&epoch_record(1)[..], &session(2, "k", "v")[..9]].concat();
    let sessions = [session(1, "a", "1"), session(2, "b", "2")].concat();
    let make = || directory(&damaged, &[("pwal_0000", sessions.clone())]);

    let dir = make();
    let before = tree(dir.path());
    let run = on(dir.path(), &["repair"]);
    assert_eq!((run.exit, run.status()), (16, "status: unrepairable"));
    assert!(run.stderr.contains("--epoch"), "{}", run.stderr);
    assert_eq!(tree(dir.path()), before);

    for (option, epoch, entries) in [("--epoch=2", 2, 2), ("--give_up_damaged", 1, 1)] {
        let dir = make();
        assert_eq!(on(dir.path(), &["repair", option]).exit, 0, "{option}");
        assert_eq!(fs::read(dir.path().join("epoch")).unwrap(), epoch_record(epoch), "{option}");
        assert_eq!(start(dir.path(), 1).unwrap().rows.len(), entries, "{option}");
    }
}

#[test]
fn a_lost_epoch_file_comes_back_only_when_the_operator_names_the_epoch() {
    let dir = directory(&[], &[("pwal_0000", session(2, "k", "v"))]);
    fs::remove_file(dir.path().join("epoch")).unwrap();
    let before = tree(dir.path());
    assert_eq!(on(dir.path(), &["repair"]).exit, 16);
    assert_eq!(on(dir.path(), &["repair", "--give_up_damaged"]).exit, 16);
    assert_eq!(tree(dir.path()), before);
    assert_eq!(on(dir.path(), &["repair", "--epoch=2"]).exit, 0);
    assert_eq!(start(dir.path(), 1).unwrap().rows.len(), 1);
}

#[test]
fn damaged_durable_sessions_are_given_up_only_on_request_and_alone() {
    let mut bad = session(2, "b", "2");
    bad[9] = 0x0b;
    let log = [session(1, "a", "1"), bad, session(3, "c", "3")].concat();
    let dir = directory(&epoch_record(3), &[("pwal_0000", log.clone())]);
    let run = on(dir.path(), &["repair"]);
    assert_eq!((run.exit, run.status()), (16, "status: unrepairable"));
    let place = format!("at offset {}, in a session of epoch 2", session(1, "a", "1").len() + 9);
    assert!(run.stderr.contains(&place), "{}", run.stderr);
    assert!(start(dir.path(), 1).is_err());

    let run = on(dir.path(), &["repair", "--give_up_damaged"]);
    assert_eq!((run.exit, run.status()), (0, "status: repaired"));
    assert!(run.stderr.contains("given up"), "{}", run.stderr);
    assert_eq!(files(dir.path(), "damaged.").into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), [log]);
    let keys: Vec<Vec<u8>> = start(dir.path(), 1).unwrap().rows.into_iter().map(|row| row.key).collect();
    assert_eq!(keys, [b"a", b"c"]);
}

#[test]
fn durable_sessions_behind_disposable_damage_are_not_hidden_by_a_new_name() {
    let torn = [&open_session(9, "x", "x")[..], &[0xff]].concat();
    let log = [session(1, "a", "1"), torn, session(2, "b", "2")].concat();
    let dir = directory(&epoch_record(2), &[("pwal_0000", log.clone())]);
    assert_eq!(on(dir.path(), &["inspect"]).exit, 2);
    assert_eq!(on(dir.path(), &["repair"]).exit, 16);
    assert_eq!(files(dir.path(), "pwal_"), [("pwal_0000".to_owned(), log)]);
    assert!(start(dir.path(), 1).is_err());
    assert_eq!(on(dir.path(), &["repair", "--give_up_damaged"]).exit, 0);
    assert_eq!(start(dir.path(), 1).unwrap().rows.len(), 2);
}

#[test]
fn sessions_beyond_the_durable_epoch_are_marked_and_torn_ones_cut_on_request() {
    let durable = session(1, "a", "1");
    let torn = &session(2, "b", "2")[..20];
    for (option, expected) in [("--nocut", [&durable[..], &[0x06], &torn[1..]].concat()), ("--cut", durable.clone())] {
        let dir = directory(&epoch_record(1), &[("pwal_0000", [&durable[..], torn].concat())]);
        let run = on(dir.path(), &["repair", option]);
        assert_eq!(run.results(), ["durable-epoch: 1", "status: repaired"]);
        let logs = files(dir.path(), "pwal_");
        assert_eq!(logs.len(), 1);
        assert!(logs[0].0.starts_with("pwal_0000.0") && logs[0].0.ends_with(".0"), "{}", logs[0].0);
        assert_eq!(logs[0].1, expected, "{option}");
        assert_eq!(start(dir.path(), 1).unwrap().rows.len(), 1);
    }
}

#[test]
fn a_directory_without_usable_catalog_is_unrepairable_and_stays_as_it_is() {
    let dir = directory(&epoch_record(1), &[("pwal_0000", session(1, "a", "1"))]);
    fs::write(dir.path().join("compaction_catalog"), "").unwrap();
    let before = tree(dir.path());
    let run = on(dir.path(), &["repair"]);
    assert_eq!((run.exit, run.status()), (16, "status: unrepairable"));
    assert_eq!(tree(dir.path()), before);
}

// SPDX-License-Identifier: Apache-2.0
//! The rows of `docs/recovery.md`, one test each: what a start makes of a directory. In all of them the durable epoch
//! is 5 unless the test says otherwise, and the file `pwal_0001` holds a whole session (key `other`) so that nothing
//! is decided by the only log file there is.

mod data_dir;
mod engine_run;
mod golden_data;
mod start_model;
mod upstream_checker;

use data_dir::{begin, catalog, compacted, end, invalidated, manifest, put, records, remove, session, DataDir};
use golden_data::tree;
use start_model::Outcome;

fn join(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

fn cut(bytes: Vec<u8>, by: usize) -> Vec<u8> {
    bytes[..bytes.len() - by].to_vec()
}

/// A directory with durable epoch 5, a sound second log file, and this one.
fn with_log(name: &str, log: Vec<u8>) -> DataDir {
    DataDir::with_epochs(&[5]).write("pwal_0001", session(1, "other")).write(name, log)
}

/// Checks that the directory opens with these keys (besides `other`) and warnings that name these things, that the
/// second start finds the same without a warning of what was put right, and that the original opens what is left.
fn opens(dir: &DataDir, keys: &[(&str, &str)], warnings: &[&str]) {
    let Outcome::Opens(model) = start_model::outcome(dir.path()) else {
        panic!("start_model disagrees: {:?}", start_model::outcome(dir.path()));
    };
    let found = engine_run::start(dir.path(), 2).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let rows: Vec<_> = found.rows.iter().map(|r| (text(&r.key), text(&r.value))).filter(|r| r.0 != "other").collect();
    let expected: Vec<_> = keys.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    assert_eq!(rows, expected);
    assert_eq!(found.rows, model.rows, "start_model disagrees");
    assert_eq!(found.last_epoch, model.last_epoch);
    assert_eq!(found.warnings.len(), warnings.len(), "{:?}", found.warnings);
    for (warning, part) in found.warnings.iter().zip(warnings) {
        assert!(warning.contains(part), "no {part:?} in {warning:?}");
    }
    let again = engine_run::start(dir.path(), 1).unwrap();
    assert_eq!((&again.rows, again.last_epoch), (&found.rows, found.last_epoch), "the second start differs");
    let lasting = |w: &String| w.contains("end marker") || w.contains("is not read behind");
    assert!(again.warnings.iter().all(lasting), "warned again: {:?}", again.warnings);
    let upstream = upstream_checker::upstream_start(dir.path()).expect("the original opens what is left");
    assert_eq!(upstream.rows, found.rows, "the original reads something else");
    assert_eq!(upstream_checker::handover_violations(dir.path()), [""; 0]);
}

/// Checks that the start is refused with a message that holds all of `parts`, twice, and that no file changes.
fn refuses(dir: &DataDir, parts: &[&str]) {
    assert!(matches!(start_model::outcome(dir.path()), Outcome::Refused(_)), "start_model disagrees");
    let before = tree(dir.path());
    for _ in 0..2 {
        let message = engine_run::start(dir.path(), 2).expect_err("opened");
        for part in parts {
            assert!(message.contains(part), "no {part:?} in {message:?}");
        }
        let after = tree(dir.path());
        for (path, bytes) in &before {
            assert_eq!(after.get(path), Some(bytes), "{} changed", path.display());
        }
    }
}

const ACTIVE: &str = "pwal_0000";
const ROTATED: &str = "pwal_0000.00000000000001.0";
const REPAIR: &str = "tglogutil repair";

// Log files: what was never durable

#[test]
fn a_whole_session_beyond_the_durable_epoch_is_dropped_silently() {
    for name in [ACTIVE, ROTATED] {
        opens(&with_log(name, join(&[session(5, "a"), session(6, "b")])), &[("a", "5")], &[]);
    }
}

#[test]
fn a_torn_entry_beyond_the_durable_epoch_is_cut_off() {
    for name in [ACTIVE, ROTATED] {
        let torn = join(&[session(5, "a"), begin(6), put("b", "6", 6), cut(put("c", "6", 6), 3)]);
        opens(&with_log(name, torn), &[("a", "5")], &[name]);
    }
}

#[test]
fn a_torn_end_marker_beyond_the_durable_epoch_is_cut_off() {
    for name in [ACTIVE, ROTATED] {
        opens(&with_log(name, join(&[session(5, "a"), cut(session(6, "b"), 1)])), &[("a", "5")], &[name]);
    }
}

#[test]
fn an_unknown_tag_beyond_the_durable_epoch_is_cut_off() {
    for name in [ACTIVE, ROTATED] {
        let log = join(&[session(5, "a"), begin(6), put("b", "6", 6), vec![0xee; 30]]);
        opens(&with_log(name, log), &[("a", "5")], &[name]);
    }
}

#[test]
fn zeros_in_a_session_beyond_the_durable_epoch_are_cut_off() {
    for name in [ACTIVE, ROTATED] {
        opens(&with_log(name, join(&[session(5, "a"), begin(6), vec![0; 4096]])), &[("a", "5")], &[name]);
    }
}

#[test]
fn a_torn_tail_of_an_invalidated_session_is_cut_off() {
    for name in [ACTIVE, ROTATED] {
        let log = join(&[session(5, "a"), invalidated(4), cut(put("b", "6", 6), 1)]);
        opens(&with_log(name, log), &[("a", "5")], &[name]);
    }
}

#[test]
fn a_torn_begin_marker_is_cut_off_wherever_it_stands() {
    for name in [ACTIVE, ROTATED] {
        for left in 1..=8 {
            let torn = begin(6)[..left].to_vec();
            opens(&with_log(name, torn.clone()), &[], &[name]);
            opens(&with_log(name, join(&[session(5, "a"), torn.clone()])), &[("a", "5")], &[name]);
            let unended = join(&[begin(5), put("a", "5", 5), torn]);
            opens(&with_log(name, unended), &[("a", "5")], &[name]);
        }
    }
}

#[test]
fn zeros_behind_an_end_marker_are_cut_off() {
    for name in [ACTIVE, ROTATED] {
        for zeros in [1, 9, 64, 8192] {
            opens(&with_log(name, join(&[session(5, "a"), vec![0; zeros]])), &[("a", "5")], &[name]);
        }
    }
}

#[test]
fn zeros_in_place_of_a_begin_marker_are_cut_off_with_what_follows_if_nothing_durable_does() {
    for name in [ACTIVE, ROTATED] {
        let lost = join(&[vec![0; 9], put("b", "6", 6), end(6)]);
        opens(&with_log(name, join(&[session(5, "a"), lost])), &[("a", "5")], &[name]);
    }
}

#[test]
fn a_rotated_file_is_not_read_behind_damage_beyond_the_durable_epoch_and_keeps_what_stands_there() {
    for dropped in [begin(6), invalidated(6), invalidated(0)] {
        for damage in [vec![0; 7], vec![0xee; 7]] {
            let log = join(&[session(4, "a"), dropped.clone(), damage, session(5, "b")]);
            let dir = with_log(ROTATED, log.clone());
            opens(&dir, &[("a", "4")], &[ROTATED]);
            assert_eq!(dir.read(ROTATED).len(), log.len(), "an expert may still want the session behind");
        }
    }
}

// Log files: damage in what was durable

#[test]
fn zeros_in_place_of_a_begin_marker_with_a_durable_session_behind_are_refused() {
    for name in [ACTIVE, ROTATED] {
        let lost = join(&[vec![0; 9], put("b", "5", 5), end(5)]);
        refuses(&with_log(name, join(&[session(4, "a"), lost.clone()])), &[name, "offset 54", REPAIR]);
        let lost = join(&[lost, session(6, "c")]);
        refuses(&with_log(name, join(&[session(4, "a"), lost])), &[name, "offset 54", REPAIR]);
    }
}

#[test]
fn an_active_file_with_a_durable_session_behind_damage_beyond_the_durable_epoch_is_refused() {
    let log = join(&[session(4, "a"), begin(6), vec![0xee], put("b", "6", 6), end(6), session(5, "c")]);
    refuses(&with_log(ACTIVE, log), &[ACTIVE, "offset 63", "epoch 6", REPAIR]);
}

#[test]
fn a_torn_entry_in_a_durable_session_is_refused() {
    for name in [ACTIVE, ROTATED] {
        let torn = join(&[session(4, "a"), begin(5), cut(put("b", "5", 5), 1)]);
        refuses(&with_log(name, torn), &[name, "offset 63", "epoch 5", REPAIR]);
    }
}

#[test]
fn a_torn_end_marker_of_a_durable_session_is_refused() {
    for name in [ACTIVE, ROTATED] {
        let torn = cut(join(&[session(4, "a"), session(5, "b")]), 1);
        refuses(&with_log(name, torn), &[name, "offset 98", "epoch 5", REPAIR]);
    }
}

#[test]
fn an_unknown_tag_in_a_durable_session_is_refused() {
    for tag in [0x0b, 0xff] {
        let log = join(&[session(4, "a"), begin(5), vec![tag], put("b", "5", 5), end(5)]);
        refuses(&with_log(ACTIVE, log.clone()), &[ACTIVE, "offset 63", "epoch 5", &tag.to_string(), REPAIR]);
        refuses(&with_log(ROTATED, log), &[ROTATED, "offset 63", "epoch 5", &tag.to_string(), REPAIR]);
    }
}

#[test]
fn zeros_in_a_durable_session_are_refused() {
    for name in [ACTIVE, ROTATED] {
        let log = join(&[session(4, "a"), begin(5), put("b", "5", 5), vec![0; 100]]);
        refuses(&with_log(name, log), &[name, "offset 98", "epoch 5", REPAIR]);
    }
}

/// A whole session of epoch 4 that fills this many bytes.
fn session_of_bytes(len: usize) -> (Vec<u8>, String) {
    let value = "x".repeat(len - session(4, "a").len() + 1);
    (join(&[begin(4), put("a", &value, 4), end(4)]), value)
}

#[test]
fn a_begin_marker_that_lost_its_second_sector_is_cut_off() {
    // Epoch 0x0104 without its upper bytes reads as 4, which is durable.
    let (before, value) = session_of_bytes(510);
    for rest in [vec![0; 40], vec![0; 700], join(&[vec![0; 512], put("b", "6", 6), end(0x0104)])] {
        let log = join(&[before.clone(), begin(0x0104)[..2].to_vec(), rest]);
        opens(&with_log(ACTIVE, log), &[("a", &value)], &[ACTIVE]);
    }
}

#[test]
fn a_lost_sector_behind_a_durable_begin_marker_is_refused() {
    for len in [504, 508, 511] {
        let lost = join(&[begin(5), vec![0; 1024 - len - 9], put("b", "5", 5), end(5)]);
        let log = join(&[session_of_bytes(len).0, lost]);
        refuses(&with_log(ACTIVE, log), &[ACTIVE, &format!("offset {}", len + 9), "epoch 5", REPAIR]);
    }
}

#[test]
fn anything_but_zeros_outside_a_session_is_refused() {
    for rest in [vec![0xee; 3], put("b", "5", 5), end(5), cut(put("b", "5", 5), 1), cut(end(5), 1)] {
        refuses(&with_log(ACTIVE, rest.clone()), &[ACTIVE, "offset 0", REPAIR]);
        refuses(&with_log(ROTATED, join(&[session(4, "a"), rest])), &[ROTATED, "offset 54", REPAIR]);
    }
}

#[test]
fn an_epoch_record_in_a_log_file_is_refused() {
    for name in [ACTIVE, ROTATED] {
        refuses(&with_log(name, join(&[session(4, "a"), records(&[5])])), &[name, "offset 54", REPAIR]);
        refuses(&with_log(name, join(&[begin(5), records(&[5])])), &[name, "offset 9", REPAIR]);
    }
}

// Log files: what the original leaves without having lost anything

#[test]
fn a_torn_second_session_of_a_durable_epoch_is_read_up_to_its_last_whole_entry() {
    for name in [ACTIVE, ROTATED] {
        for tail in [cut(put("c", "5", 5), 1), cut(end(5), 1), vec![0; 300]] {
            let log = join(&[session(5, "a"), begin(5), put("b", "5", 5), tail]);
            opens(&with_log(name, log), &[("a", "5"), ("b", "5")], &[name]);
        }
    }
}

#[test]
fn a_torn_session_of_epoch_0_is_read_up_to_its_last_whole_entry() {
    let log = join(&[begin(0), put("a", "0", 5), cut(put("b", "0", 5), 1)]);
    opens(&with_log(ACTIVE, log), &[("a", "0")], &[ACTIVE]);
}

#[test]
fn a_durable_session_without_end_marker_is_read_with_a_warning() {
    for name in [ACTIVE, ROTATED] {
        let log = join(&[session(4, "a"), begin(5), put("b", "5", 5)]);
        opens(&with_log(name, log), &[("a", "4"), ("b", "5")], &["end marker"]);
    }
}

#[test]
fn a_file_without_any_end_marker_is_an_old_one_and_read_silently() {
    let log = join(&[begin(4), put("a", "4", 4), begin(5), put("b", "5", 5)]);
    opens(&with_log(ACTIVE, log), &[("a", "4"), ("b", "5")], &[]);
}

#[test]
fn a_directory_of_a_version_without_end_markers_is_read_silently() {
    for version in 1..=5 {
        let log = join(&[session(4, "a"), begin(5), put("b", "5", 5)]);
        let dir = DataDir::of_version(version).write("epoch", records(&[5])).write(ACTIVE, log);
        opens(&dir, &[("a", "4"), ("b", "5")], &[]);
        assert!(!dir.has(ACTIVE), "version {version}: the file is detached so that nothing is appended to it");
    }
}

#[test]
fn an_invalidated_session_with_an_impossible_epoch_does_not_raise_the_epoch() {
    let log = join(&[session(4, "a"), invalidated(u64::MAX), put("b", "5", 5), end(5)]);
    let dir = with_log(ACTIVE, log);
    assert_eq!(engine_run::start(dir.path(), 1).unwrap().last_epoch, 5);
}

#[test]
fn a_session_with_an_impossible_epoch_does_not_raise_the_epoch_and_is_told() {
    for name in [ACTIVE, ROTATED] {
        let log = join(&[session(4, "a"), begin(u64::MAX - 7), put("b", "5", 5), end(5)]);
        let dir = with_log(name, log);
        let found = engine_run::start(dir.path(), 1).unwrap();
        let Outcome::Opens(model) = start_model::outcome(dir.path()) else { panic!("start_model disagrees") };
        assert_eq!((found.last_epoch, &found.rows), (5, &model.rows));
        let [warning] = &found.warnings[..] else { panic!("{:?}", found.warnings) };
        for part in [name, "offset", "impossible epoch"] {
            assert!(warning.contains(part), "no {part:?} in {warning:?}");
        }
    }
}

// Log files that this project wrote

/// What the original leaves of a second session in an epoch, in a part of the file that somebody has written.
fn second_session(marks: &[bool], name: &str, tail: Vec<u8>) -> DataDir {
    let marks: Vec<Vec<u8>> = marks.iter().map(|ours| start_model::mark(*ours)).collect();
    with_log(name, join(&[session(4, "z"), join(&marks), session(5, "a"), begin(5), put("b", "5", 5), tail]))
}

#[test]
fn a_torn_second_session_of_an_epoch_is_cut_where_the_original_wrote_it_and_damage_where_this_project_did() {
    for tail in [cut(put("c", "5", 5), 1), cut(end(5), 3), vec![0; 40]] {
        for name in [ACTIVE, ROTATED] {
            let kept = [("a", "5"), ("b", "5"), ("z", "4")];
            opens(&second_session(&[], name, tail.clone()), &kept, &["did not protect"]);
            opens(&second_session(&[true, false], name, tail.clone()), &kept, &["did not protect"]);
            refuses(&second_session(&[true], name, tail.clone()), &[name, "epoch 5", REPAIR]);
            refuses(&second_session(&[false, true], name, tail.clone()), &[name, "epoch 5", REPAIR]);
        }
    }
}

#[test]
fn a_durable_session_without_an_end_marker_is_read_where_the_original_wrote_it_and_damage_where_this_project_did() {
    for behind in [vec![], session(5, "c"), start_model::mark(true), cut(begin(6), 2), cut(invalidated(6), 2)] {
        let log = |marks: &[u8]| join(&[marks.to_vec(), session(5, "a"), begin(5), put("b", "5", 5), behind.clone()]);
        let marked = behind == start_model::mark(true);
        assert!(
            engine_run::start(with_log(ROTATED, log(&[])).path(), 1).is_ok() != marked,
            "nothing is appended there"
        );
        refuses(&with_log(ROTATED, log(&start_model::mark(true))), &[ROTATED, "no end marker", "epoch 5", REPAIR]);
    }
}

#[test]
fn epoch_0_gives_no_leave_where_this_project_wrote() {
    let log = |marks: &[u8]| join(&[marks.to_vec(), begin(0), put("a", "0", 0), cut(put("b", "0", 0), 1)]);
    opens(&with_log(ACTIVE, log(&[])), &[("a", "0")], &["did not protect"]);
    refuses(&with_log(ACTIVE, log(&start_model::mark(true))), &[ACTIVE, "epoch 0", REPAIR]);
}

#[test]
fn a_rotated_file_of_this_project_is_never_read_in_part() {
    let hidden = join(&[invalidated(4), vec![0x0b; 20], session(5, "a")]);
    let log = |first: Vec<u8>| join(&[first, session(4, "z"), hidden.clone()]);
    opens(&with_log(ROTATED, log(vec![])), &[("z", "4")], &["is not read behind"]);
    refuses(&with_log(ROTATED, log(start_model::mark(true))), &[ROTATED, REPAIR]);
    // The mark itself is damaged.
    let mut mark = start_model::mark(true);
    mark[9] = 0x0b;
    refuses(&with_log(ROTATED, join(&[session(5, "z"), mark, session(5, "a")])), &[ROTATED, REPAIR]);
}

#[test]
fn a_mark_is_no_session_and_nothing_is_appended_behind_one_that_stands_alone() {
    let log = join(&[session(4, "z"), start_model::mark(true), session(5, "a")]);
    let dir = with_log(ACTIVE, log.clone());
    opens(&dir, &[("a", "5"), ("z", "4")], &[]);
    assert_eq!(dir.read(ACTIVE), log, "it keeps its name and content");
    for behind in [vec![], cut(session(6, "b"), 3)] {
        let dir = with_log(ACTIVE, join(&[session(4, "z"), start_model::mark(true), behind]));
        engine_run::start(dir.path(), 1).unwrap();
        assert!(!dir.has(ACTIVE), "a failed sync may have lost the mark");
    }
    for length in 1..start_model::mark(true).len() {
        let dir = with_log(ACTIVE, start_model::mark(true)[..length].to_vec());
        assert!(engine_run::start(dir.path(), 1).is_ok(), "a power cut left {length} bytes of a mark");
    }
}

// Log files of zeros

#[test]
fn a_file_of_zeros_counts_as_empty_beside_another_log_file() {
    for name in [ACTIVE, ROTATED] {
        opens(&with_log(name, vec![0; 512]), &[], &[name]);
    }
}

#[test]
fn a_file_of_zeros_that_is_the_only_log_of_a_directory_with_durable_epochs_is_refused() {
    refuses(&DataDir::with_epochs(&[5]).write(ACTIVE, [0; 512]), &[ACTIVE, "offset 0", REPAIR]);
}

#[test]
fn several_files_of_zeros_and_nothing_else_are_refused_like_one() {
    let dir = DataDir::with_epochs(&[5]).write(ACTIVE, [0; 512]).write("pwal_0001", [0; 512]).write("pwal_0002", b"");
    refuses(&dir, &[ACTIVE, "offset 0", REPAIR]);
}

#[test]
fn a_file_of_zeros_in_a_directory_without_durable_epochs_counts_as_empty() {
    opens(&DataDir::with_epochs(&[0]).write(ACTIVE, [0; 512]), &[], &[ACTIVE]);
    opens(&DataDir::with_epochs(&[]).write(ACTIVE, [0; 512]), &[], &[ACTIVE]);
}

#[test]
fn a_file_of_zeros_is_what_a_power_cut_left_when_nothing_was_ever_durable() {
    let dir = DataDir::with_epochs(&[0]).write(ACTIVE, session(3, "a"));
    opens(&dir, &[], &[]);
    assert_eq!(dir.read("epoch"), records(&[3, 0]), "epoch 3 left a trace, but nothing is durable");
    // The start puts the session aside under a rotated name; of the next one a power cut left zeros.
    opens(&DataDir::with_epochs(&[3, 0]).write(ACTIVE, [0; 512]), &[], &[ACTIVE]);
    refuses(&DataDir::with_epochs(&[3, 0, 4]).write(ACTIVE, [0; 512]), &[ACTIVE, "offset 0", REPAIR]);
    let torn = join(&[records(&[3, 0]), records(&[4])[..5].to_vec()]);
    opens(&DataDir::of_version(7).write("epoch", torn).write(ACTIVE, [0; 512]), &[], &["epoch", ACTIVE]);
}

#[test]
fn a_start_says_that_something_is_durable_as_soon_as_something_is() {
    let dir = DataDir::with_epochs(&[3, 0]).write(ACTIVE, session(3, "a"));
    opens(&dir, &[("a", "3")], &[]);
    assert_eq!(dir.read("epoch"), records(&[3]));
    let compacted = DataDir::with_epochs(&[3, 0]).write("pwal_0000.compacted", b"");
    engine_run::start(compacted.path(), 1).unwrap();
    assert_eq!(compacted.read("epoch"), records(&[3]));
}

#[test]
fn an_empty_compacted_file_is_a_log_beside_a_file_of_zeros() {
    let dir = DataDir::with_epochs(&[5])
        .write("compaction_catalog", catalog(&["COMPACTED_FILE pwal_0000.compacted 1"]))
        .write("pwal_0000.compacted", b"")
        .write("pwal_0001", [0; 512]);
    opens(&dir, &[], &["pwal_0001"]);
}

// The epoch file

fn with_epoch_file(content: Vec<u8>) -> DataDir {
    DataDir::of_version(7).write("epoch", content).write(ACTIVE, join(&[session(5, "a"), session(6, "b")]))
}

#[test]
fn a_torn_epoch_record_is_cut_off() {
    for left in 1..=8 {
        let torn = join(&[records(&[4, 5]), records(&[6])[..left].to_vec()]);
        opens(&with_epoch_file(torn), &[("a", "5")], &["epoch"]);
    }
}

#[test]
fn an_epoch_record_that_lost_one_of_two_sectors_is_cut_off() {
    let before = records(&[5; 56]);
    assert_eq!((before.len(), before.len() + 8), (504, 512), "the next record lies in two sectors");
    let lost_first = join(&[before.clone(), vec![0; 8], vec![1]]);
    opens(&with_epoch_file(lost_first), &[("a", "5")], &["epoch"]);
}

#[test]
fn zeros_behind_the_epoch_records_are_cut_off() {
    for zeros in [1, 8, 9, 20, 4096] {
        opens(&with_epoch_file(join(&[records(&[4, 5]), vec![0; zeros]])), &[("a", "5")], &["epoch"]);
    }
}

#[test]
fn anything_else_in_the_epoch_file_is_refused() {
    for foreign in [begin(6), vec![0xee], end(6)] {
        refuses(&with_epoch_file(join(&[records(&[4, 5]), foreign])), &["epoch", "offset 18"]);
    }
    refuses(&with_epoch_file(join(&[records(&[5]), vec![0; 9], records(&[6])])), &["epoch", "offset 9"]);
    let without_tag = join(&[vec![0], records(&[6])[1..].to_vec()]);
    refuses(&with_epoch_file(join(&[records(&[5]), without_tag])), &["epoch", "offset 9"]);
}

#[test]
fn the_largest_epoch_record_counts_not_the_last() {
    opens(&with_epoch_file(records(&[5, 6, 3])), &[("a", "5"), ("b", "6")], &[]);
}

#[test]
fn a_missing_or_empty_epoch_file_is_refused_when_sessions_were_ended() {
    refuses(&with_epoch_file(vec![]), &["epoch"]);
    refuses(&with_epoch_file(vec![]).without("epoch"), &["epoch"]);
    let message = engine_run::start(with_epoch_file(vec![]).path(), 1).unwrap_err();
    assert!(!message.contains("repair"), "a repair would give up every session: {message}");
}

#[test]
fn damage_does_not_hide_ended_sessions_from_a_start_without_an_epoch_file() {
    let whole = session(2, "b");
    let torn_entry = join(&[begin(1), put("a", "1", 1), vec![0xee; 20], whole.clone()]);
    let zeros = join(&[vec![0; 40], whole.clone()]);
    let torn_in_epoch_0 = join(&[begin(0), vec![0x01, 0, 0, 0, 0x7f], vec![0; 40], whole.clone()]);
    let marked = join(&[invalidated(1), put("a", "1", 1), vec![0xee; 20], whole]);
    for log in [torn_entry, zeros, torn_in_epoch_0, marked] {
        for name in [ACTIVE, ROTATED] {
            let dir = DataDir::of_version(7).write(name, &log);
            let before = tree(dir.path());
            let message = engine_run::start(dir.path(), 1).expect_err("opened");
            assert!(message.contains("epoch") && message.contains("missing or empty"), "{message}");
            assert_eq!(dir.read(name), log);
            assert_eq!(tree(dir.path()).get(std::path::Path::new("epoch")), before.get(std::path::Path::new("epoch")));
        }
    }
    // The end marker of an aborted or repaired session says nothing.
    let own = join(&[invalidated(1), put("a", "1", 1), vec![0xee; 20], end(1)]);
    assert!(engine_run::start(DataDir::of_version(7).write(ACTIVE, own).path(), 1).is_ok());
}

#[test]
fn a_missing_or_empty_epoch_file_is_fine_when_no_session_was_ended() {
    for log in [vec![], session(0, "a"), join(&[begin(1), put("b", "1", 1)])] {
        let dir = DataDir::of_version(7).write(ACTIVE, log);
        assert!(engine_run::start(dir.path(), 1).is_ok());
        let dir = dir.without("epoch");
        assert!(engine_run::start(dir.path(), 1).is_ok());
    }
}

#[test]
fn an_epoch_record_of_0_says_that_nothing_is_durable_yet() {
    opens(&with_epoch_file(records(&[0])), &[], &[]);
}

#[test]
fn rotated_epoch_files_count_only_while_the_main_file_has_no_record() {
    let rotated = "epoch.00000000000001.6";
    opens(&with_epoch_file(vec![]).write(rotated, records(&[6])), &[("a", "5"), ("b", "6")], &[]);
    let dir = with_epoch_file(records(&[5])).write(rotated, records(&[6]));
    opens(&dir, &[("a", "5")], &[]);
    assert!(!dir.has(rotated));
}

#[test]
fn a_leftover_of_a_replaced_epoch_file_is_removed() {
    let dir = with_epoch_file(records(&[5])).write(".epoch.tmp", records(&[9]));
    opens(&dir, &[("a", "5")], &[]);
    assert!(!dir.has(".epoch.tmp"));
}

// The manifest

const MANIFEST: &str = "limestone-manifest.json";
const MANIFEST_BACKUP: &str = "limestone-manifest.json.back";

#[test]
fn a_missing_or_broken_manifest_is_replaced_by_its_backup() {
    let dir = with_log(ACTIVE, session(5, "a")).write(MANIFEST_BACKUP, manifest(7));
    opens(&dir.without(MANIFEST), &[("a", "5")], &["manifest"]);
    let dir = with_log(ACTIVE, session(5, "a")).write(MANIFEST_BACKUP, manifest(7));
    opens(&dir.write(MANIFEST, "{\"format_ver"), &[("a", "5")], &["manifest"]);
}

#[test]
fn a_manifest_without_usable_backup_is_refused_when_it_is_missing_broken_or_of_another_version() {
    let dir = || with_log(ACTIVE, session(5, "a"));
    refuses(&dir().without(MANIFEST), &["version 0"]);
    refuses(&dir().write(MANIFEST, ""), &[MANIFEST]);
    refuses(&dir().write(MANIFEST, "{}").write(MANIFEST_BACKUP, "{"), &[MANIFEST]);
    refuses(&dir().write(MANIFEST, manifest(0)), &["version 0"]);
    refuses(&dir().write(MANIFEST, manifest(8)), &["version 8"]);
    refuses(&dir().write(MANIFEST, manifest(8)).write(MANIFEST_BACKUP, manifest(7)), &["version 8"]);
    refuses(&dir().write(MANIFEST, "{\"format_version\":\"1.1\",\"persistent_format_version\":7}"), &[MANIFEST]);
}

#[test]
fn every_version_from_1_to_7_is_opened_and_carried_to_7() {
    for version in 1..=7 {
        let log = if version < 6 { join(&[begin(5), put("a", "5", 5)]) } else { session(5, "a") };
        let dir = DataDir::of_version(version).write("epoch", records(&[5])).write(ACTIVE, log);
        opens(&dir, &[("a", "5")], &[]);
        assert!(String::from_utf8(dir.read(MANIFEST)).unwrap().ends_with("\"persistent_format_version\":7}"));
        assert_eq!(dir.has(ACTIVE), version >= 6, "only where no end markers were written another file is begun");
    }
}

#[test]
fn a_crash_in_the_middle_of_a_migration_is_gone_after_the_next_start() {
    let dir = with_log(ACTIVE, session(5, "a")).write(MANIFEST, manifest(4)).write(MANIFEST_BACKUP, manifest(7));
    opens(&dir, &[("a", "5")], &[]);
    assert!(!dir.has(MANIFEST_BACKUP));
}

#[test]
fn a_torn_backup_of_a_whole_manifest_is_gone_after_the_next_start() {
    for torn in ["", "{\"format_ver"] {
        let dir = with_log(ACTIVE, session(5, "a")).write(MANIFEST_BACKUP, torn);
        opens(&dir, &[("a", "5")], &[]);
        assert!(!dir.has(MANIFEST_BACKUP));
    }
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = with_log(ACTIVE, session(5, "a"));
    let (first, _) = engine_run::open(dir.path(), 1).unwrap();
    let message = engine_run::open(dir.path(), 1).expect_err("opened twice");
    assert!(message.contains("another process is using the log directory"), "{message}");
    first.shutdown();
    engine_run::open(dir.path(), 1).unwrap().0.shutdown();
}

/// Who opens a pipe waits for its other end.
#[test]
fn what_is_no_regular_file_under_a_name_of_ours_is_refused_and_not_waited_for() {
    let pipe = "no regular file";
    let names = [(MANIFEST, pipe), (CATALOG, pipe), ("limestone-history.json", pipe), ("epoch", "is missing or empty")];
    for (name, reason) in names {
        let dir = with_log(ACTIVE, session(5, "a"));
        engine_run::open(dir.path(), 1).unwrap().0.shutdown();
        let path = dir.path().join(name);
        let _ = std::fs::remove_file(&path);
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let (done, outcome) = std::sync::mpsc::channel();
        let location = dir.path().to_owned();
        std::thread::spawn(move || done.send(engine_run::open(&location, 1).map(|_| ())));
        let outcome = outcome.recv_timeout(std::time::Duration::from_secs(60));
        let refused = outcome.unwrap_or_else(|_| panic!("{name} is waited for"));
        let refused = refused.unwrap_err();
        assert!(refused.contains(reason), "{name}: {refused}");
    }
}

// The catalog and compacted files

const CATALOG: &str = "compaction_catalog";
const CATALOG_BACKUP: &str = "compaction_catalog.back";
const COMPACTED: &str = "pwal_0000.compacted";

/// A compacted file with `a` and `b`, its input still there (with an old `b`), and a later removal of `a`.
fn with_compacted() -> DataDir {
    let catalog = catalog(&["COMPACTED_FILE pwal_0000.compacted 1", "DETACHED_PWAL pwal_0000.00000000000001.0"]);
    DataDir::with_epochs(&[5])
        .write(COMPACTED, compacted(&[("a", "1"), ("b", "2")]))
        .write(ROTATED, session(1, "b"))
        .write(ACTIVE, join(&[begin(5), remove("a", 5), end(5)]))
        .write(CATALOG, catalog)
}

#[test]
fn a_compacted_file_lies_below_the_log_and_its_inputs_are_ignored() {
    opens(&with_compacted(), &[("b", "2")], &[]);
}

#[test]
fn a_missing_or_torn_catalog_is_replaced_by_its_backup() {
    for broken in [None, Some("COMPACTION_CATALOG_HEADER\nDETACHED_PWAL pwal_0000\nMAX_EP")] {
        let dir = with_compacted();
        let text = dir.read(CATALOG);
        let dir = dir.without(CATALOG).write(CATALOG_BACKUP, text);
        let dir = match broken {
            Some(torn) => dir.write(CATALOG, torn),
            None => dir,
        };
        opens(&dir, &[("b", "2")], &["catalog"]);
    }
}

#[test]
fn a_broken_catalog_without_usable_backup_is_refused() {
    for broken in ["", "COMPACTION_CATALOG_HEADER\n", "COMPACTION_CATALOG_HEADER\nWHAT 1\nCOMPACTION_CATALOG_FOOTER\n"]
    {
        refuses(&with_compacted().write(CATALOG, broken), &[CATALOG]);
        refuses(&with_compacted().write(CATALOG, broken).write(CATALOG_BACKUP, broken), &[CATALOG]);
        refuses(&with_compacted().without(CATALOG).write(CATALOG_BACKUP, broken), &[CATALOG]);
    }
}

#[test]
fn a_missing_catalog_without_backup_counts_as_empty() {
    opens(&with_log(ACTIVE, session(5, "a")).without(CATALOG), &[("a", "5")], &[]);
}

#[test]
fn removes_hide_compacted_keys_even_when_the_catalog_does_not_name_the_compacted_file() {
    let dir = with_compacted().without(ROTATED).write(CATALOG, catalog(&[]));
    opens(&dir, &[("b", "2")], &["catalog"]);
}

#[test]
fn the_previous_compacted_file_counts_only_when_the_new_one_is_missing() {
    let previous = "pwal_0000.compacted.prev";
    let dir = with_compacted().write(previous, compacted(&[("a", "old"), ("b", "old"), ("c", "old")]));
    opens(&dir, &[("b", "2")], &[]);
    let dir = with_compacted().without(COMPACTED).write(previous, compacted(&[("a", "old"), ("b", "old")]));
    opens(&dir, &[("b", "old")], &[]);
}

#[test]
fn a_damaged_compacted_file_is_refused() {
    let whole = compacted(&[("a", "1"), ("b", "2")]);
    refuses(&with_compacted().write(COMPACTED, cut(whole.clone(), 1)), &[COMPACTED, "offset 44"]);
    refuses(&with_compacted().write(COMPACTED, join(&[whole, vec![0; 9]])), &[COMPACTED, "offset 79"]);
    let disordered = compacted(&[("b", "2"), ("a", "1")]);
    refuses(&with_compacted().write(COMPACTED, disordered), &[COMPACTED, "offset 44"]);
}

#[test]
fn foreign_names_are_left_alone() {
    let dir = with_log(ACTIVE, session(5, "a")).write("junk.txt", "x").write("limestone-checksums", "x");
    let dir = dir.write("limestone-marks", "x");
    std::fs::create_dir(dir.path().join("pwal_directory")).unwrap();
    opens(&dir, &[("a", "5")], &[]);
    assert!(dir.has("junk.txt") && dir.has("limestone-checksums"));
    assert!(dir.has("limestone-marks"));
}

#[test]
fn a_directory_with_nothing_but_a_broken_manifest_is_refused_and_stays_as_it_is() {
    for content in ["", "{", "{}", "broken"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("limestone-manifest.json"), content).unwrap();
        let message = engine_run::start(dir.path(), 1).unwrap_err();
        assert!(message.contains("limestone-manifest.json"), "{message}");
        let left = golden_data::tree(dir.path()).into_iter().collect::<Vec<_>>();
        assert_eq!(left, [("limestone-manifest.json".into(), content.as_bytes().to_vec())]);
    }
}

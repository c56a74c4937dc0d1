// SPDX-License-Identifier: Apache-2.0
//! Directories that upstream left, whole and damaged: every case below `tests/golden/disk` and every byte string of its
//! parse matrix. Where upstream opens a directory, its entries are the expectation; where it refuses one, the rules of
//! `docs/recovery.md` (as the program in `start_model`) are.

mod engine_run;
mod golden_data;
mod start_model;
mod upstream_checker;

use engine_run::{start, Started};
use golden_data::{tree, Row};
use start_model::{outcome, Outcome, Reason, Refusal};
use std::path::Path;
use tempfile::TempDir;
use upstream_checker::{handover_violations, upstream_start};

/// A directory to open, and what upstream made of it.
struct Subject {
    name: String,
    dir: TempDir,
    /// Entries (without upstream's defects) and `last_epoch`; `None` if upstream refused.
    upstream: Option<(Vec<Row>, u64)>,
}

impl Subject {
    fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn subjects() -> Vec<Subject> {
    let mut subjects = Vec::new();
    for case in golden_data::cases() {
        let dir = tempfile::tempdir().unwrap();
        case.copy_to(dir.path());
        let upstream = case
            .upstream_opens()
            .then(|| (case.correct_rows(), case.upstream_last_epoch()));
        subjects.push(Subject {
            name: case.name,
            dir,
            upstream,
        });
    }
    for case in golden_data::parse_matrix() {
        let dir = tempfile::tempdir().unwrap();
        case.write_to(dir.path());
        let upstream = (case.start["result"] == "ok").then(|| {
            (
                golden_data::rows(&case.start["entries"]),
                golden_data::number(&case.start["last_epoch"]),
            )
        });
        subjects.push(Subject {
            name: format!("parse matrix: {}", case.name),
            dir,
            upstream,
        });
    }
    subjects
}

/// Runs `check` on every subject and reports all that fail, not only the first.
fn for_every_directory(check: impl Fn(&Subject) -> Result<(), String>) {
    let subjects = subjects();
    let failed: Vec<String> = subjects
        .iter()
        .filter_map(|s| check(s).err().map(|e| format!("{}: {e}", s.name)))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} directories:\n{}",
        failed.len(),
        subjects.len(),
        failed.join("\n")
    );
}

fn ensure(holds: bool, complaint: impl FnOnce() -> String) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(complaint())
    }
}

#[test]
fn the_recovery_table_keeps_everything_that_upstream_opens() {
    for_every_directory(|subject| match (outcome(subject.path()), &subject.upstream) {
        (Outcome::Opens(opened), Some((rows, last_epoch))) => {
            ensure(opened.rows == *rows, || {
                format!("rows {:?}, upstream {rows:?}", opened.rows)
            })?;
            ensure(opened.last_epoch == *last_epoch, || {
                format!("epoch {}, not {last_epoch}", opened.last_epoch)
            })
        }
        (Outcome::Refused(refusal), Some(_)) => ensure(refusal.reason == Reason::NoEpochRecord, || {
            format!("upstream opens it, refused: {refusal:?}")
        }),
        (_, None) => Ok(()),
    });
}

#[test]
fn every_directory_opens_with_the_same_entries_and_epoch_or_is_refused_as_the_recovery_table_says() {
    for_every_directory(|subject| {
        for threads in [1, 8] {
            let dir = tempfile::tempdir().unwrap();
            golden_data::copy_tree(subject.path(), dir.path());
            match (outcome(subject.path()), start(dir.path(), threads)) {
                (Outcome::Opens(expected), Ok(found)) => {
                    let (rows, last_epoch) = match &subject.upstream {
                        Some((rows, last_epoch)) => (rows, *last_epoch),
                        None => (&expected.rows, expected.last_epoch),
                    };
                    ensure(found.rows == *rows, || {
                        format!("{threads} threads: {:?}, not {rows:?}", found.rows)
                    })?;
                    ensure(found.last_epoch == last_epoch, || {
                        format!("{threads} threads: last_epoch {}, not {last_epoch}", found.last_epoch)
                    })?;
                    let (min, max) = (expected.warnings_min, expected.warnings_max);
                    ensure((min..=max).contains(&found.warnings.len()), || {
                        format!("warnings {:?}, expected {min} to {max}", found.warnings)
                    })?;
                }
                (Outcome::Refused(_), Err(_)) => {}
                (expected, found) => return Err(format!("{threads} threads: {found:?}, expected {expected:?}")),
            }
        }
        Ok(())
    });
}

#[test]
fn a_refused_start_loses_nothing_and_names_the_place() {
    for_every_directory(|subject| {
        let Outcome::Refused(refusal) = outcome(subject.path()) else {
            return Ok(());
        };
        let before = tree(subject.path());
        for attempt in ["first", "second"] {
            let Err(message) = start(subject.path(), 1) else {
                return Err(format!("{attempt} start: opened"));
            };
            names_the_place(&refusal, &message)?;
            let after = tree(subject.path());
            for (path, bytes) in &before {
                ensure(after.get(path) == Some(bytes), || {
                    format!("{attempt} start changed {}", path.display())
                })?;
            }
        }
        Ok(())
    });
}

fn names_the_place(refusal: &Refusal, message: &str) -> Result<(), String> {
    let mut needed = vec![refusal.file.clone()];
    needed.extend(refusal.offset.map(|offset| offset.to_string()));
    needed.extend(refusal.epoch.map(|epoch| epoch.to_string()));
    if refusal.reason == Reason::Log {
        needed.push("tglogutil repair".into());
    }
    for text in needed {
        ensure(message.contains(&text), || {
            format!("the message lacks \"{text}\": {message}")
        })?;
    }
    Ok(())
}

#[test]
fn the_start_after_a_start_finds_the_same_and_has_nothing_to_warn_of() {
    for_every_directory(|subject| {
        let Ok(first) = start(subject.path(), 2) else {
            return Ok(());
        };
        let second = start(subject.path(), 2)?;
        let facts = |s: &Started| (s.rows.clone(), s.last_epoch);
        ensure(facts(&first) == facts(&second), || {
            format!("first {first:?}, then {second:?}")
        })?;
        ensure(second.warnings.iter().all(|w| w.contains("end marker")), || {
            format!("cut off, but found again: {:?}", second.warnings)
        })
    });
}

#[test]
fn upstream_opens_what_a_start_leaves() {
    for_every_directory(|subject| {
        let Ok(ours) = start(subject.path(), 2) else {
            return Ok(());
        };
        let upstream = upstream_start(subject.path())?;
        ensure(upstream.rows == ours.rows, || {
            format!("upstream {:?}, we {:?}", upstream.rows, ours.rows)
        })?;
        ensure(upstream.last_epoch >= ours.last_epoch, || {
            format!("last_epoch: upstream {}, we {}", upstream.last_epoch, ours.last_epoch)
        })?;
        let violations = handover_violations(subject.path());
        ensure(violations.is_empty(), || format!("{violations:?}"))
    });
}

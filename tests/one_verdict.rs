// SPDX-License-Identifier: Apache-2.0
//! `inspect`, `verify` and `repair` never contradict a start, on every golden directory and on thousands of damaged
//! ones.

mod damaged_dir;
mod engine_run;
mod golden_data;
#[allow(dead_code)]
#[path = "cli/tool.rs"]
mod tool;

use crate::damaged_dir::{damaged, logs, run, Damage, DURABLE};
use crate::engine_run::{quick_dir, start};
use crate::golden_data::{cases, copy_tree, parse_matrix, tree};
use limestone_core::types::Epoch;
use limestone_core::vfs::RealFs;
use limestone_core::wal::history::{History, Run, RunId};
use limestone_core::wal::history_file::{DirectoryHistory, Role};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;
use std::path::Path;

/// Compares what the tools say of a directory with what a start does.
fn check(dir: &Path) -> Result<(), String> {
    let (started, repaired) = (quick_dir(), quick_dir());
    copy_tree(dir, started.path());
    copy_tree(dir, repaired.path());
    let before = tree(dir);
    let (inspect, printed) = run(dir, &["inspect", "--json"]);
    let (verify, verified) = run(dir, &["verify", "--json"]);
    let (looked_at, original) = (tree(dir), start(started.path(), 1));
    let (repair, _) = run(repaired.path(), &["repair"]);
    let after = start(repaired.path(), 1);
    let case = format!(
        "start {:?}, inspect {inspect} {printed}, verify {verify} {verified}, repair {repair}, then {:?}",
        original.as_ref().map(|started| &started.warnings),
        after.as_ref().map(|started| &started.warnings)
    );
    let expect = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(format!("{rule}: {case}")) };

    expect(looked_at == before, "looking changes nothing")?;
    let report: Value = serde_json::from_str(&printed).map_err(|e| format!("{e}: {case}"))?;
    let verdict: Value = serde_json::from_str(&verified).map_err(|e| format!("{e}: {case}"))?;
    let only_blobs = |report: &Value| {
        let damage = report["damage"].as_array().into_iter().flatten();
        damage.into_iter().all(|text| text.as_str().is_some_and(|text| text.starts_with("BLOB ")))
    };
    match &original {
        Ok(_) => {
            expect([0, 1].contains(&inspect), "inspect finds nothing worse than a start")?;
            expect(report["start"] == "opens", "inspect says that a start opens it")?;
            expect([0, 1].contains(&verify) || only_blobs(&verdict), "verify finds nothing worse than a start")?;
            expect(repair == 0, "what starts needs no decision of a person")?;
        }
        Err(_) => {
            expect(
                inspect != 0 && (inspect == 64 || report["start"] == "refused"),
                "inspect says that a start refuses",
            )?;
            expect([2, 64].contains(&verify), "verify says that a start refuses")?;
        }
    }
    match inspect {
        0 | 1 => expect(repair == 0, "inspect foretells that a repair succeeds")?,
        2 => expect(repair == 16, "inspect foretells that a repair does not succeed")?,
        _ => {}
    }
    expect(repair != 0 || after.is_ok(), "what was repaired starts")
}

#[test]
fn tools_and_start_agree_on_every_golden_directory() {
    let mut failed = Vec::new();
    for case in cases() {
        let dir = quick_dir();
        case.copy_to(dir.path());
        failed.extend(check(dir.path()).err().map(|reason| format!("{}: {reason}", case.name)));
    }
    for case in parse_matrix() {
        let dir = quick_dir();
        case.write_to(dir.path());
        failed.extend(check(dir.path()).err().map(|reason| format!("{}: {reason}", case.name)));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The identity of the directories.
const INSTANCE: &str = "u";

/// What may happen to a file besides its content.
fn other_files() -> impl Strategy<Value = Vec<(usize, Option<Vec<Damage>>)>> {
    vec((0..FILES.len(), proptest::option::of(vec(Damage::strategy(), 1..2))), 0..2)
}

const FILES: [&str; 6] = [
    "epoch",
    "limestone-manifest.json",
    "compaction_catalog",
    "compaction_catalog.back",
    "limestone-history.json",
    "replication_state",
];

/// Histories that a directory may have: none, those of an engine and of a replica, one of another directory, and those
/// with which no engine starts.
fn histories() -> Vec<Option<DirectoryHistory>> {
    let runs = [Run { id: RunId(1), term: 1, first_epoch: 0 }, Run { id: RunId(2), term: 2, first_epoch: 3 }];
    let runs = History::new(runs.to_vec(), false).unwrap();
    let replicas = DirectoryHistory::following(INSTANCE, 2, runs.clone());
    let mut engines = replicas.clone();
    engines.role = Role::Primary;
    let (mut fenced, mut others) = (engines.clone(), DirectoryHistory::following("other", 1, runs));
    fenced.fenced = Some("a replica has seen term 3".to_owned());
    others.fenced.clone_from(&fenced.fenced);
    let half_way = replicas.clone().awaiting_base_sync();
    let rewound = replicas.clone().cutting(Epoch(2));
    [engines, replicas, others, fenced, half_way, rewound].into_iter().map(Some).chain([None]).collect()
}

#[test]
fn tools_and_start_agree_on_every_history_and_every_cut_of_it() {
    let whole = vec![(vec![1, 2, 4], false, Vec::new())];
    let repairable = vec![(vec![1, 2], true, Vec::new())];
    for history in histories().into_iter().flatten() {
        let bytes = history.encode();
        let cuts = (0..=bytes.len()).step_by(9).chain([bytes.len() - 1, bytes.len()]);
        for len in cuts {
            for logs in [&whole, &repairable] {
                let dir = damaged(logs, &[]);
                std::fs::write(dir.path().join("limestone-history.json"), &bytes[..len]).unwrap();
                check(dir.path()).unwrap_or_else(|reason| panic!("{len} of {} bytes: {reason}", bytes.len()));
            }
        }
    }
}

#[test]
fn tools_say_why_no_engine_may_start() {
    let reasons = [Some("seen term 3"), Some("base sync into this replica"), Some("rewind to epoch 2"), None];
    for (history, why) in histories().into_iter().skip(3).zip(reasons) {
        let dir = damaged(&[(vec![1, 2, 4], false, Vec::new())], &[]);
        if let Some(history) = history {
            history.save(&RealFs, dir.path()).unwrap();
        }
        for tool in ["inspect", "verify"] {
            let (exit, printed) = run(dir.path(), &[tool, "--json"]);
            let report: Value = serde_json::from_str(&printed).unwrap();
            let said = report["damage"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
            assert_eq!(said.filter(|text| why.is_some_and(|why| text.contains(why))).count(), usize::from(exit == 2));
            assert_eq!(exit == 2, why.is_some(), "{tool}: {printed}");
            let complete = report.get("complete_up_to_epoch");
            assert!(complete.is_none_or(|epoch| *epoch == DURABLE), "what is here is whole: {printed}");
        }
        assert_eq!(run(dir.path(), &["repair"]).0, if why.is_some() { 16 } else { 0 });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tools_and_start_agree_on_random_damage(
        logs in logs(), epoch_damage in vec(Damage::strategy(), 0..2), others in other_files(),
        history in proptest::sample::select(histories()),
    ) {
        let dir = damaged(&logs, &epoch_damage);
        if let Some(history) = &history {
            std::fs::write(dir.path().join("limestone-history.json"), history.encode()).unwrap();
        }
        for (file, damage) in &others {
            let path = dir.path().join(FILES[*file]);
            let bytes = std::fs::read(&path).ok();
            match (damage, bytes) {
                (Some(damage), Some(mut bytes)) => {
                    damage.iter().for_each(|damage| damage.apply(&mut bytes));
                    std::fs::write(&path, bytes).unwrap();
                }
                (None, Some(_)) => std::fs::remove_file(&path).unwrap(),
                // One that was not there gets strange content.
                (Some(_), None) => std::fs::write(&path, "strange").unwrap(),
                (None, None) => {}
            }
        }
        if let Err(reason) = check(dir.path()) {
            prop_assert!(false, "{}", reason);
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What the tools give up or guess is not in common with a replica any more: not when they are done, and not when the
//! power goes, or a call fails, anywhere in between.

use crate::engine_run::rows;
use crate::tool::{directory, epoch_record, session};
use limestone_core::datastore::{Datastore, Settings};
use limestone_core::replication::native::protocol::handshake::{decide, Standing};
use limestone_core::replication::native::protocol::message::{Outcome, PrimaryIdentity};
use limestone_core::tglogutil;
use limestone_core::types::Epoch;
use limestone_core::vfs::{Fault, Loss, SimFs, Vfs};
use limestone_core::wal::history::{Common, History, Run, RunId};
use limestone_core::wal::history_file::{DirectoryHistory, Place};
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/db";
const INSTANCE: &str = "u";

/// A directory, what is done to it, and the replica that was level with it. Keys begin with the epoch.
struct Case {
    words: &'static [&'static str],
    epoch: Vec<u8>,
    logs: Vec<(&'static str, Vec<u8>)>,
    replica: &'static [&'static str],
    replica_durable: u64,
    /// The highest common point when the tool is done.
    common: u64,
}

fn put(key: &str) -> Vec<u8> {
    session(key[..1].parse().unwrap(), key, "v")
}

fn damaged(key: &str) -> Vec<u8> {
    let mut bytes = put(key);
    bytes[9] = 0x0b;
    bytes
}

fn cases() -> Vec<Case> {
    let logs = |damaged_one: bool| {
        let middle = if damaged_one { damaged("3c") } else { put("3c") };
        vec![("pwal_0000", [put("1a"), put("2b"), middle, put("4d")].concat()), ("pwal_0001", put("2e"))]
    };
    let case = |words, epoch: &[u8], damaged_one, common| Case {
        words,
        epoch: epoch.to_vec(),
        logs: logs(damaged_one),
        replica: &["1a", "2b", "2e", "2q", "3c", "4d"],
        replica_durable: 4,
        common,
    };
    // A session of the damaged directory's third channel, which a lost file had; only where the epoch is raised.
    let whole = |case: Case| Case { replica: &["1a", "2b", "2e", "3c", "4d"], ..case };
    let broken_epoch = |whole: u64| [&epoch_record(whole)[..], &[0x77; 9]].concat();
    let give_up: &[&str] = &["repair", "--give_up_damaged"];
    let first_of_a_file = vec![("pwal_0000", [damaged("3c"), put("4d")].concat()), ("pwal_0001", put("1a"))];
    vec![
        whole(case(give_up, &epoch_record(4), true, 1)),
        // Nothing says of which epochs the sessions were that stood there.
        Case { logs: first_of_a_file, replica: &["1a", "3c", "4d"], ..case(give_up, &epoch_record(4), true, 0) },
        whole(case(&["repair", "--epoch=2"], &epoch_record(4), false, 2)),
        whole(case(&["repair", "--epoch=2", "--cut"], &epoch_record(4), false, 2)),
        whole(case(&["compaction", "--force", "--working_dir=/work", "--epoch=2"], &epoch_record(4), false, 2)),
        // What was durable is not known, or less than what is named.
        whole(case(give_up, &broken_epoch(2), false, 2)),
        case(&["repair", "--epoch=4"], &broken_epoch(1), false, 1),
        case(&["repair", "--epoch=4"], &[], false, 0),
        case(&["compaction", "--force", "--working_dir=/work", "--epoch=4"], &epoch_record(1), false, 1),
    ]
}

fn place(fs: &SimFs) -> Place<'_> {
    Place { vfs: fs, location: Path::new(DIR), instance: INSTANCE }
}

fn replicas_history() -> History {
    let runs = [Run { id: RunId(1), term: 1, first_epoch: 0 }, Run { id: RunId(2), term: 1, first_epoch: 4 }];
    History::new(runs.to_vec(), false).unwrap()
}

fn prepared(case: &Case) -> SimFs {
    let dir = directory(&case.epoch, &case.logs);
    let fs = SimFs::new();
    fs.load(dir.path(), Path::new(DIR)).unwrap();
    DirectoryHistory::following(INSTANCE, 1, replicas_history()).save(&fs, Path::new(DIR)).unwrap();
    fs.create_dir(Path::new("/work")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs.reboot(Loss::KeepUnsynced)
}

fn run(fs: &SimFs, words: &[&str]) -> i32 {
    let args = [&["tglogutil"], words, &[DIR]].concat();
    tglogutil::run(args, Arc::new(fs.clone()), &mut Vec::new())
}

/// What the directory and the replica have in common by their histories is the same in both. Gives the common point, or
/// `None` when the directory does not start.
fn check(fs: &SimFs, case: &Case) -> Result<Option<u64>, String> {
    let before = DirectoryHistory::load(place(fs)).map_err(|e| e.to_string())?.ok_or("the history is gone")?;
    let store = Datastore::open(Settings::new(DIR).vfs(Arc::new(fs.clone()))).map_err(|e| e.to_string())?;
    let Ok(report) = store.ready() else { return Ok(None) };
    let keys: Vec<String> =
        rows(&store.snapshot().unwrap()).iter().map(|row| String::from_utf8(row.key.clone()).unwrap()).collect();
    let after = store.history().unwrap();
    store.shutdown();
    let mut points = Vec::new();
    for (history, durable) in [(&before, report.durable_epoch), (&after, Epoch(50))] {
        let common = match history.history.common(durable, &replicas_history(), Epoch(case.replica_durable)) {
            Common::UpTo(epoch) => epoch.0,
            Common::Nothing | Common::Forgotten => 0,
        };
        let up_to = |key: &str| key[..1].parse::<u64>().unwrap() <= common;
        let here: Vec<&str> = keys.iter().map(String::as_str).filter(|key| up_to(key)).collect();
        let there: Vec<&str> = case.replica.iter().copied().filter(|key| up_to(key)).collect();
        if here != there {
            return Err(format!("in common up to {common}, but {here:?} is here and {there:?} there; {history:?}"));
        }
        points.push(common);
    }
    Ok(points.first().copied())
}

#[test]
fn what_is_given_up_or_guessed_is_not_in_common_with_a_replica_wherever_the_tool_is_cut_off() {
    for case in cases() {
        let words = case.words;
        let undisturbed = prepared(&case);
        assert_eq!(run(&undisturbed, words), 0, "{words:?}");
        let calls = undisturbed.operations();
        assert_eq!(check(&undisturbed.reboot(Loss::DropUnsynced), &case), Ok(Some(case.common)), "{words:?}");
        for n in 1..=calls {
            for fault in [Fault::PowerCut, Fault::IoError, Fault::SyncLoses] {
                for loss in [Loss::DropUnsynced, Loss::KeepUnsynced, Loss::Torn { seed: n }] {
                    let fs = prepared(&case);
                    fs.fail_at(n, fault);
                    let exit = run(&fs, words);
                    let image = fs.reboot(loss);
                    let found = check(&image.reboot(Loss::KeepUnsynced), &case);
                    let trace = || fs.trace().join("\n");
                    let at = format!("{words:?}, call {n} of {calls}, {fault:?}, {loss:?}, exit {exit}");
                    assert!(found.is_ok(), "{at}: {found:?}\n{}", trace());
                    if exit == 0 {
                        assert_eq!(found, Ok(Some(case.common)), "{at}\n{}", trace());
                    } else if words[0] == "repair" {
                        assert_eq!(run(&image, words), 0, "{at}, again\n{}", trace());
                        assert!(check(&image, &case).is_ok_and(|common| common <= Some(case.common)), "{at}, again");
                    }
                }
            }
        }
    }
}

/// The handshake of the directory, which becomes a primary's or a replica's, with the other side.
fn outcomes(own: &DirectoryHistory, durable: u64, case: &Case) -> [Option<Outcome>; 2] {
    let primary = |history: &History, stored: u64| PrimaryIdentity {
        uuid: INSTANCE.to_owned(),
        term: 1,
        history: history.clone(),
        stored: Epoch(stored),
        oldest_shippable: Epoch(0),
        lanes: 1,
        max_channels: 1,
        capabilities: 0,
    };
    let replica = |history: &History, durable: u64| Standing {
        uuid: INSTANCE.to_owned(),
        empty: false,
        term: 1,
        history: history.clone(),
        durable: Epoch(durable),
    };
    let (other, other_durable) = (replicas_history(), case.replica_durable);
    [
        decide(&primary(&own.history, durable), &replica(&other, other_durable)).ok(),
        decide(&primary(&other, other_durable), &replica(&own.history, durable)).ok(),
    ]
}

#[test]
fn after_damage_was_given_up_neither_side_follows_the_other() {
    let case = &cases()[0];
    let fs = prepared(case);
    let own = |fs: &SimFs| DirectoryHistory::load(place(fs)).unwrap().unwrap();
    assert_eq!(outcomes(&own(&fs), 4, case), [Some(Outcome::Stream); 2]);
    assert_eq!(run(&fs, case.words), 0);
    assert_eq!(outcomes(&own(&fs), 4, case), [None, None]);
    assert_eq!(outcomes(&own(&fs), 40, case), [None, None]);
}

#[test]
fn what_loses_nothing_durable_leaves_the_history_as_it_is() {
    let torn_epoch = [&epoch_record(4)[..], &epoch_record(5)[..3]].concat();
    let mut case = Case { epoch: torn_epoch, words: &["repair", "--cut"], ..cases().remove(2) };
    case.logs[1].1.extend([put("5x"), put("5y")[..20].to_vec()].concat());
    for words in [&["repair", "--cut"][..], &["repair", "--give_up_damaged"], &["repair", "--epoch=4"], &["repair"]] {
        let fs = prepared(&case);
        let before = DirectoryHistory::load(place(&fs)).unwrap();
        assert_eq!(run(&fs, words), 0, "{words:?}");
        assert_eq!(DirectoryHistory::load(place(&fs)).unwrap(), before, "{words:?}");
        assert_eq!(check(&fs, &case), Ok(Some(4)), "{words:?}");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! A power cut at every call that changes the disk, with every kind of loss.

use crate::commits;
use crate::model::{Content, Model, SessionId};
use crate::runner::{OnError, Run, LOCATION};
use crate::script::{self, Script};
use crate::sweep::sweep;
use limestone_core::vfs::{Fault, Loss, SimFs};
use std::collections::BTreeSet;
use std::path::Path;

const TORN_SEEDS: u64 = 5;
const TRACE_LINES_SHOWN: usize = 12;

/// A disk and what is known to be on it.
pub struct Start {
    pub fs: SimFs,
    pub model: Model,
}

impl Start {
    pub fn fresh() -> Start {
        Start { fs: SimFs::new(), model: Model::default() }
    }

    /// A directory of format version 4 that the original left.
    pub fn version_4() -> Start {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/disk/manifest_v4");
        let fs = SimFs::new();
        fs.load(&golden.join("data"), Path::new(LOCATION)).expect("the golden directory is there");
        let expected = std::fs::read(golden.join("expected.json")).expect("its result is there");
        let expected: serde_json::Value = serde_json::from_slice(&expected).expect("its result is JSON");
        let mut base = Content::new();
        for entry in expected["entries"].as_array().expect("it lists entries") {
            let hex = |key: &str| unhex(entry[key].as_str().expect("hexadecimal text"));
            let storage = entry["storage_id"].to_string().trim_matches('"').parse().expect("a number");
            base.insert((storage, hex("key")), hex("value"));
        }
        Start { fs, model: Model::with_base(&base) }
    }

    /// The same for each way to commit.
    pub fn ways(&self) -> [Start; 2] {
        commits::ways().map(|commit| {
            let model = Model { commit, ..self.model.clone() };
            Start { fs: self.fs.clone(), model }
        })
    }

    pub fn run(&self) -> Run {
        Run::new(&self.fs.reboot(Loss::KeepUnsynced), self.model.clone())
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(digits).collect()
}

/// Fails with the last calls to the disk.
pub fn verdict(run: &Run, result: Result<(), String>) -> Result<(), String> {
    let violation = run.violations.lock().unwrap().first().cloned();
    let reason = match (violation, result) {
        (Some(violation), _) => violation,
        (None, Err(reason)) => reason,
        (None, Ok(())) => return Ok(()),
    };
    let trace = run.fs.trace();
    let tail = trace[trace.len().saturating_sub(TRACE_LINES_SHOWN)..].join("\n    ");
    Err(format!("{reason}\n  the last of {} calls:\n    {tail}", trace.len()))
}

/// The numbers of the calls of a whole run that change the disk.
pub fn changing_calls(run: &Run) -> Vec<u64> {
    let reads = ["list", "kind", "open", "len", "read", "map", "lock"];
    let changes = |call: &str| !reads.contains(&call.split(' ').next().unwrap_or_default());
    let trace = run.fs.trace();
    (1..).zip(&trace).filter(|(_, call)| changes(call)).map(|(n, _)| n).collect()
}

/// Runs the script without faults; it must succeed.
pub fn dry_run(start: &Start, script: &Script) -> Run {
    let mut run = start.run();
    run.play(script, OnError::Stop);
    verdict(&run, run.errors.first().map_or(Ok(()), |error| Err(error.clone()))).expect("the script runs");
    run
}

/// What a power cut has left must start, be right, take new sessions, and start again.
fn survive(image: &SimFs, model: &Model) -> Result<BTreeSet<SessionId>, String> {
    let mut run = Run::new(image, model.clone());
    let started = run.start(2);
    let visible = started.as_ref().cloned().unwrap_or_default();
    let went_on = started.and_then(|_| run.write_one_session());
    verdict(&run, went_on)?;
    let mut again = Run::new(&image.reboot(Loss::DropUnsynced), run.model.clone());
    let started = again.start(1).map(drop);
    verdict(&again, started).map_err(|reason| format!("second start: {reason}"))?;
    Ok(visible)
}

/// What a power cut leaves must do all that, whatever it takes.
pub fn survive_all(fs: &SimFs, model: &Model, losses: impl IntoIterator<Item = Loss>) -> Result<(), String> {
    let survive = |(loss, image)| survive(&image, model).map(drop).map_err(|reason| format!("{loss:?}: {reason}"));
    fs.reboots(losses).try_for_each(survive)
}

pub fn losses(n: u64) -> impl Iterator<Item = Loss> {
    let torn = (0..TORN_SEEDS).map(move |seed| Loss::Torn { seed: n * 1000 + seed });
    [Loss::DropUnsynced, Loss::KeepUnsynced].into_iter().chain(torn)
}

/// Cuts the power at the `n`-th call.
fn cut(start: &Start, script: &Script, n: u64) -> Result<Run, String> {
    let mut run = start.run();
    run.fs.fail_at(n, Fault::PowerCut);
    run.play(script, OnError::Stop);
    verdict(&run, Ok(()))?;
    run.stop();
    Ok(run)
}

pub fn cut_everywhere(start: &Start, script: &Script) {
    for start in start.ways() {
        let calls = changing_calls(&dry_run(&start, script));
        sweep(&calls, |&n| {
            let run = cut(&start, script, n)?;
            survive_all(&run.fs, &run.model, losses(n))
        });
    }
}

#[test]
fn power_cut_anywhere_among_sessions_loses_nothing_acknowledged() {
    cut_everywhere(&Start::fresh(), &script::sessions());
}

#[test]
fn power_cut_anywhere_among_rotations_loses_nothing_acknowledged() {
    cut_everywhere(&Start::fresh(), &script::rotations());
}

#[test]
fn power_cut_anywhere_among_aborts_loses_nothing_acknowledged_and_brings_nothing_aborted_back() {
    cut_everywhere(&Start::fresh(), &script::aborts());
}

#[test]
fn power_cut_anywhere_among_restarts_loses_nothing_acknowledged() {
    cut_everywhere(&Start::fresh(), &script::restarts());
}

#[test]
fn power_cut_anywhere_among_sessions_before_the_first_switch_loses_nothing_acknowledged() {
    cut_everywhere(&Start::fresh(), &script::covered());
}

/// The power is cut in two lives, one after the other.
#[test]
fn power_cuts_before_anything_was_durable_never_stop_a_later_start() {
    Start::fresh().ways().iter().for_each(|start| cut_twice(start, &script::first_session()));
}

fn cut_twice(start: &Start, script: &Script) {
    let calls = changing_calls(&dry_run(start, script));
    sweep(&calls, |&n| {
        let first = cut(start, script, n)?;
        let mut images = first.fs.reboots(losses(n));
        images.try_for_each(|(_, image)| {
            let start = Start { fs: image, model: first.model.clone() };
            let calls = changing_calls(&dry_run(&start, script));
            calls.iter().try_for_each(|&m| {
                let second = cut(&start, script, m)?;
                survive_all(&second.fs, &second.model, losses(m))
            })
        })
    });
}

#[test]
fn power_cut_anywhere_among_compactions_loses_nothing_acknowledged() {
    cut_everywhere(&Start::fresh(), &script::compactions());
    cut_everywhere(&Start::fresh(), &script::compactions_that_delete());
}

#[test]
fn power_cut_anywhere_while_the_epoch_file_is_replaced_loses_nothing_acknowledged() {
    cut_everywhere(&Start::fresh(), &script::many_epochs());
}

#[test]
fn power_cut_anywhere_in_a_migration_loses_nothing_that_was_there() {
    cut_everywhere(&Start::version_4(), &script::after_migration());
}

/// Lets only the process die at every call: the next one sees what was never synced, and whatever it relies on must
/// survive a power cut later.
pub fn die_everywhere(start: &Start, script: &Script) {
    start.ways().iter().for_each(|start| die_at_every_call(start, script));
}

fn die_at_every_call(start: &Start, script: &Script) {
    let calls = changing_calls(&dry_run(start, script));
    sweep(&calls, |&n| {
        let run = cut(start, script, n)?;
        run.fs.heal();
        let mut next = Run::new(&run.fs, run.model.clone());
        let started = next.start(2).map(drop);
        verdict(&next, started)?;
        survive_all(&next.fs, &next.model, losses(n))?;
        let went_on = next.write_one_session();
        verdict(&next, went_on)?;
        survive_all(&next.fs, &next.model, losses(n))
    });
}

#[test]
fn process_that_dies_among_sessions_leaves_nothing_that_a_later_power_cut_takes() {
    die_everywhere(&Start::fresh(), &script::sessions());
}

#[test]
fn process_that_dies_among_rotations_leaves_nothing_that_a_later_power_cut_takes() {
    die_everywhere(&Start::fresh(), &script::rotations());
}

#[test]
fn process_that_dies_among_aborts_leaves_nothing_that_a_later_power_cut_takes_or_brings_back() {
    die_everywhere(&Start::fresh(), &script::aborts());
}

#[test]
fn process_that_dies_among_restarts_leaves_nothing_that_a_later_power_cut_takes() {
    die_everywhere(&Start::fresh(), &script::restarts());
}

#[test]
fn process_that_dies_among_sessions_before_the_first_switch_leaves_nothing_that_a_later_power_cut_takes() {
    die_everywhere(&Start::fresh(), &script::covered());
}

#[test]
fn process_that_dies_among_compactions_leaves_nothing_that_a_later_power_cut_takes() {
    die_everywhere(&Start::fresh(), &script::compactions());
    die_everywhere(&Start::fresh(), &script::compactions_that_delete());
}

#[test]
fn process_that_dies_in_a_migration_leaves_nothing_that_a_later_power_cut_takes() {
    die_everywhere(&Start::version_4(), &script::after_migration());
}

/// Cuts the power again at every call of the recovery: the next recovery shows the same as an undisturbed one.
fn cut_recovery_everywhere(start: &Start, script: &Script, every: usize) {
    start.ways().iter().for_each(|start| cut_recovery_at_every_call(start, script, every));
}

fn cut_recovery_at_every_call(start: &Start, script: &Script, every: usize) {
    let calls: Vec<u64> = changing_calls(&dry_run(start, script)).into_iter().step_by(every).collect();
    sweep(&calls, |&n| {
        let run = cut(start, script, n)?;
        let firsts = [Loss::KeepUnsynced, Loss::Torn { seed: n }, Loss::Torn { seed: n + 1_000_000 }];
        for (first, image) in run.fs.reboots(firsts) {
            let mut undisturbed = Run::new(&image.reboot(Loss::KeepUnsynced), run.model.clone());
            let expected = undisturbed.start(2)?;
            for m in changing_calls(&undisturbed) {
                let mut second = Run::new(&image.reboot(Loss::KeepUnsynced), run.model.clone());
                second.fs.fail_at(m, Fault::PowerCut);
                let started = second.start(2);
                verdict(&second, Ok(()))?;
                let at = |reason| format!("after {first:?}, cut again at call {m} of the recovery, {reason}");
                if started.is_ok() && second.fs.has_failed() {
                    return Err(at("which succeeded all the same".to_owned()));
                }
                let losses = [Loss::DropUnsynced, Loss::KeepUnsynced, Loss::Torn { seed: m }];
                for (loss, image) in second.fs.reboots(losses) {
                    let visible = survive(&image, &run.model).map_err(|reason| at(format!("{loss:?}: {reason}")))?;
                    if visible != expected {
                        return Err(at(format!("{loss:?}: sessions {visible:?} are there, not {expected:?}")));
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn power_cut_anywhere_in_a_recovery_changes_nothing_about_its_result() {
    cut_recovery_everywhere(&Start::fresh(), &script::sessions(), 3);
    cut_recovery_everywhere(&Start::fresh(), &script::rotations(), 7);
    cut_recovery_everywhere(&Start::fresh(), &script::restarts(), 7);
    cut_recovery_everywhere(&Start::fresh(), &script::compactions(), 17);
    cut_recovery_everywhere(&Start::fresh(), &script::compactions_that_delete(), 17);
}

#[test]
fn power_cut_anywhere_in_a_repeated_migration_changes_nothing_about_its_result() {
    cut_recovery_everywhere(&Start::version_4(), &script::after_migration(), 4);
}

// SPDX-License-Identifier: Apache-2.0
//! One call to the disk fails, or all from one on: the data store returns an error or lives without that call, and
//! acknowledges nothing that the disk does not hold.

use crate::power_cuts::{dry_run, survive_all, verdict, Start};
use crate::runner::OnError;
use crate::script::{self, Script};
use crate::sweep::sweep;
use limestone_core::vfs::{Fault, Loss, SimFs};

pub fn fail_everywhere(script: &Script, faults: &[Fault], lasting: bool) {
    Start::fresh().ways().iter().for_each(|start| fail_at_every_call(start, script, faults, lasting));
}

fn fail_at_every_call(start: &Start, script: &Script, faults: &[Fault], lasting: bool) {
    let calls: Vec<u64> = (1..=dry_run(start, script).fs.operations()).collect();
    sweep(&calls, |&n| match lasting {
        true => faults.iter().try_for_each(|fault| fail_at_call(start, script, n, *fault, true).map(drop)),
        false => each_fault(faults, |fault| fail_at_call(start, script, n, fault, false)),
    });
}

fn fail_at_call(start: &Start, script: &Script, n: u64, fault: Fault, lasting: bool) -> Result<SimFs, String> {
    let mut run = start.run();
    let on_error = if lasting {
        run.fs.fail_from(n, fault);
        OnError::Ignore
    } else {
        run.fs.fail_at(n, fault);
        OnError::IgnoreAndStartAgain
    };
    run.play(script, on_error);
    let at = |reason| format!("{fault:?}: {reason}");
    let swallowed = run.errors.is_empty() && failed_writes(&run.fs.trace()).next().is_some();
    let told = if swallowed { Err("a failed write or sync caused no error".to_owned()) } else { Ok(()) };
    verdict(&run, told).map_err(at)?;
    run.stop();
    let losses = [Loss::DropUnsynced, Loss::KeepUnsynced, Loss::Torn { seed: n }];
    survive_all(&run.fs, &run.model, losses).map_err(at)?;
    Ok(run.fs.clone())
}

/// Tries each fault at one and the same call. `attempt` gives the disk on which the call has failed; faults that do to
/// that kind of call what [`Fault::IoError`] does are tried once.
pub fn each_fault(faults: &[Fault], mut attempt: impl FnMut(Fault) -> Result<SimFs, String>) -> Result<(), String> {
    let mut failed: Option<SimFs> = None;
    for &fault in faults {
        if failed.as_ref().is_some_and(|disk| disk.adds_nothing(fault)) {
            continue;
        }
        let disk = attempt(fault)?;
        failed = if fault == Fault::IoError { Some(disk) } else { failed };
    }
    Ok(())
}

/// The calls that failed and that bring data to the disk. Without the note of an orderly end the next start takes the
/// end for a crash, and without marks it reads more: nothing is lost.
pub fn failed_writes(trace: &[String]) -> impl DoubleEndedIterator<Item = &String> {
    let is_write = |call: &str| ["write ", "sync ", "sync_dir "].iter().any(|name| call.starts_with(name));
    let is_note = |call: &str| call.contains("limestone-history.json") || call.contains("limestone-marks");
    trace.iter().enumerate().filter_map(move |(at, call)| {
        let belongs_to_note = is_note(call) || at > 0 && is_note(&trace[at - 1]);
        (call.contains(" -> ") && is_write(call) && !belongs_to_note).then_some(call)
    })
}

#[test]
fn failure_of_any_call_among_sessions_is_an_error_and_loses_nothing_acknowledged() {
    let faults = [Fault::IoError, Fault::SyncLoses, Fault::TornWrite, Fault::NoSpace];
    fail_everywhere(&script::sessions(), &faults, false);
}

#[test]
fn failure_of_any_call_among_rotations_is_an_error_and_loses_nothing_acknowledged() {
    fail_everywhere(&script::rotations(), &[Fault::IoError, Fault::SyncLoses, Fault::NoSpace], false);
}

#[test]
fn failure_of_any_call_among_aborts_is_an_error_and_brings_nothing_aborted_back() {
    fail_everywhere(&script::aborts(), &[Fault::IoError, Fault::SyncLoses, Fault::NoSpace], false);
}

#[test]
fn failure_of_any_call_among_restarts_is_an_error_and_loses_nothing_acknowledged() {
    fail_everywhere(&script::restarts(), &[Fault::IoError, Fault::SyncLoses, Fault::NoSpace], false);
}

#[test]
fn failure_of_any_call_among_sessions_before_the_first_switch_is_an_error_and_loses_nothing_that_was_seen() {
    fail_everywhere(&script::covered(), &[Fault::IoError, Fault::SyncLoses, Fault::TornWrite], false);
}

#[test]
fn failure_of_any_call_among_compactions_is_an_error_and_loses_nothing_acknowledged() {
    let faults = [Fault::IoError, Fault::SyncLoses, Fault::TornWrite, Fault::NoSpace];
    fail_everywhere(&script::compactions(), &faults, false);
    fail_everywhere(&script::compactions_that_delete(), &faults, false);
}

#[test]
fn disk_that_stays_full_or_broken_from_any_call_on_loses_nothing_acknowledged() {
    fail_everywhere(&script::sessions(), &[Fault::IoError, Fault::NoSpace], true);
    fail_everywhere(&script::restarts(), &[Fault::IoError, Fault::NoSpace], true);
    fail_everywhere(&script::compactions(), &[Fault::IoError, Fault::NoSpace], true);
    fail_everywhere(&script::compactions_that_delete(), &[Fault::IoError, Fault::NoSpace], true);
}

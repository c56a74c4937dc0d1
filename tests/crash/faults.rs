// SPDX-License-Identifier: Apache-2.0
//! One call to the disk fails, or all from one on: the data store returns an error or lives without that call, and
//! acknowledges nothing that the disk does not hold.

use crate::power_cuts::{dry_run, survive, verdict, Start};
use crate::runner::OnError;
use crate::script::{self, Script};
use crate::sweep::sweep;
use limestone_core::vfs::{Fault, Loss};

pub fn fail_everywhere(script: &Script, faults: &[Fault], lasting: bool) {
    Start::fresh().ways().iter().for_each(|start| fail_at_every_call(start, script, faults, lasting));
}

fn fail_at_every_call(start: &Start, script: &Script, faults: &[Fault], lasting: bool) {
    let calls = dry_run(start, script).fs.operations();
    let cases: Vec<(u64, Fault)> = (1..=calls).flat_map(|n| faults.iter().map(move |fault| (n, *fault))).collect();
    sweep(&cases, |&(n, fault)| {
        let mut run = start.run();
        let on_error = if lasting {
            run.fs.fail_from(n, fault);
            OnError::Ignore
        } else {
            run.fs.fail_at(n, fault);
            OnError::IgnoreAndStartAgain
        };
        run.play(script, on_error);
        let swallowed = run.errors.is_empty() && failed_writes(&run.fs.trace()).next().is_some();
        verdict(&run, if swallowed { Err("a failed write or sync caused no error".to_owned()) } else { Ok(()) })?;
        run.stop();
        for loss in [Loss::DropUnsynced, Loss::KeepUnsynced, Loss::Torn { seed: n }] {
            survive(&run.fs, &run.model, loss)?;
        }
        Ok(())
    });
}

/// The calls that failed and that bring data to the disk. Without the note of an orderly end the next start takes the
/// end for a crash: nothing is lost.
pub fn failed_writes(trace: &[String]) -> impl DoubleEndedIterator<Item = &String> {
    let is_write = |call: &str| ["write ", "sync ", "sync_dir "].iter().any(|name| call.starts_with(name));
    let is_note = |call: &str| call.contains("limestone-history.json");
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

// SPDX-License-Identifier: Apache-2.0
//! `tglogutil inspect`: says whether a directory is whole; changes nothing (§16.2).

use super::arguments::InspectOptions;
use super::examine::{examine, Subject};
use super::glance::{Count, File, Glance};
use super::logs::{epochs, logs, Epochs, Fault, LogFile};
use super::salvage::max_ended_anywhere;
use super::scan::each_file;
use crate::directory::{OfflineDirectory, Verdict};
use crate::error::{Error, Remedy, Result};
use crate::progress_bar::{FileProgress, Progress};
use crate::types::Epoch;
use crate::wal::sessions::Origin;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// What the original prints for every directory.
const PRINTED_VERSION: u32 = 1;
const CANNOT_CHECK: i32 = 64;

pub fn run(
    directory: &OfflineDirectory,
    limit: Option<Epoch>,
    options: &InspectOptions,
    out: &mut dyn Write,
) -> Result<i32> {
    let mut printer = Printer { out, json: options.json };
    printer.line(format_args!("persistent-format-version: {PRINTED_VERSION}"));
    let found = epochs(directory)?;
    if let Some(fault @ Fault::Damaged { damage, .. }) = &found.fault {
        let problem = format!("reading epoch file is failed: {}", fault.reason());
        log::error!("{problem}");
        log::error!("{damage}");
        printer.object(&json!({
            "directory": directory.location().to_string_lossy(), "status": "cannot-check", "start": "refused",
            "warnings": directory.warnings(), "damage": [problem],
        }));
        return Ok(CANNOT_CHECK);
    }
    let recorded = found.durable.unwrap_or_default();
    printer.line(format_args!("durable-epoch: {recorded}"));
    let mut report = Report { max_epoch: limit.unwrap_or(recorded), ..Report::default() };
    directory.warnings().iter().for_each(|warning| report.warning(warning.clone()));
    if let Some(fault @ Fault::Torn { path, offset, .. }) = &found.fault {
        report.repairable = true;
        report.warning(format!(
            "{}: the record at offset {offset} was never completely written ({}); a start and a repair cut it off",
            path.display(),
            fault.reason()
        ));
    }

    let (logs, threads) = (logs(directory)?, options.common.threads());
    let limit = limit.unwrap_or(recorded);
    let (verdict, mut clean) = glance(directory, &logs, limit, threads)?;
    let rest = logs.iter().filter(|log| !clean.contains_key(&log.path));
    let progress = Progress::new(rest.map(|log| log.bytes.len() as u64).sum());
    let examined = each_file(&logs, threads, |log| match clean.contains_key(&log.path) {
        true => None,
        false => Some(count(subject(directory, log, limit), progress.file())),
    });
    drop(progress);
    for (log, examined) in logs.iter().zip(examined) {
        let file = examined.or_else(|| clean.remove(&log.path)).expect("what is not clean was examined");
        report.file(&file, subject(directory, log, limit));
        if found.durable.is_none() {
            report.max_ended = report.max_ended.max(max_ended_anywhere(subject(directory, log, limit)));
        }
    }
    report.lost_epoch_file(&found, limit);
    report.judge(&verdict);

    Ok(report.print(directory, recorded, &mut printer))
}

fn subject<'a>(directory: &OfflineDirectory, log: &'a LogFile, limit: Epoch) -> Subject<'a> {
    let end_markers = directory.has_end_markers();
    Subject { bytes: &log.bytes, path: &log.path, limit, end_markers, origin: Origin::Unknown }
}

/// What a start makes of the directory, and the files that need no second look.
fn glance(
    directory: &OfflineDirectory,
    logs: &[LogFile],
    limit: Epoch,
    threads: usize,
) -> Result<(Verdict, BTreeMap<PathBuf, File>)> {
    let progress = Progress::new(logs.iter().map(|log| log.bytes.len() as u64).sum());
    let glance = Glance::new(&progress);
    let verdict = directory.verdict_before(threads, &glance)?;
    let clean = match &verdict.outcome {
        Ok(recovered) if recovered.durable == Some(limit) => glance.clean(),
        _ => BTreeMap::new(),
    };
    Ok((verdict, clean))
}

fn count(subject: Subject<'_>, mut progress: FileProgress<'_>) -> File {
    let mut count = Count::default();
    let examined = examine(subject, |offset, _, entry| {
        count.add(subject.bytes[offset], &entry);
        progress.at(offset);
    });
    progress.done(subject.bytes.len());
    File { examined, count }
}

#[derive(Default)]
struct Report {
    max_epoch: Epoch,
    max_ended: Epoch,
    entries: u64,
    repairable: bool,
    /// A start refuses the directory as it is.
    refused: bool,
    warnings: Vec<String>,
    damage: Vec<String>,
}

impl Report {
    fn warning(&mut self, text: String) {
        log::warn!("{text}");
        self.warnings.push(text);
    }

    fn damage(&mut self, text: String) {
        log::error!("{text}");
        self.damage.push(text);
    }

    fn file(&mut self, file: &File, subject: Subject<'_>) {
        let File { examined, count } = file;
        // As the original has it: a line for each record that it does not count.
        count.uncounted.iter().for_each(|tag| log::error!("{tag}"));
        self.entries += count.counted;
        self.max_epoch = self.max_epoch.max(examined.max_epoch);
        self.max_ended = self.max_ended.max(examined.max_ended);
        self.repairable |= examined.needs_repair(subject.is_active());
        examined.broken.iter().for_each(|broken| self.damage(broken.damage.to_string()));
        for warning in &examined.warnings {
            self.warning(format!("{}: {warning}", subject.path.display()));
        }
    }

    fn lost_epoch_file(&mut self, found: &Epochs, limit: Epoch) {
        if found.durable.is_none() && self.max_ended > limit {
            let max_ended = self.max_ended;
            self.damage(format!(
                "the epoch file is missing or empty, but sessions up to epoch {max_ended} were ended: bring it back, \
                 or name the epoch with repair --epoch"
            ));
        }
    }

    /// Takes over what a start says. Where it refuses something that a repair puts right, both are said.
    fn judge(&mut self, verdict: &Verdict) {
        self.refused = verdict.refusals().next().is_some();
        if let (Err(refusal), true) = (&verdict.outcome, self.damage.is_empty()) {
            let helps = matches!(refusal, Error::Corrupted(damage) if damage.remedy == Remedy::Repair);
            if self.repairable && helps {
                self.warning(format!("a start refuses this directory until it is repaired: {refusal}"));
            } else {
                self.damage(format!("a start refuses this directory: {refusal}"));
            }
        }
        if let Some(barred) = &verdict.barred {
            self.damage(format!("a start refuses this directory: {barred}"));
        }
    }

    /// Prints it; returns the exit code.
    fn print(&self, directory: &OfflineDirectory, recorded: Epoch, printer: &mut Printer<'_>) -> i32 {
        let Report { max_epoch, entries, damage, warnings, .. } = self;
        let start = if self.refused { "refused" } else { "opens" };
        printer.line(format_args!("max-appeared-epoch: {max_epoch}"));
        printer.line(format_args!("count-durable-wal-entries: {entries}"));
        let (status, exit) = match (damage.is_empty(), self.repairable) {
            (false, _) => ("unrepairable", 2),
            (true, true) => ("auto-repairable", 1),
            (true, false) => ("OK", 0),
        };
        printer.line(format_args!("status: {status}"));
        printer.object(&json!({
            "directory": directory.location().to_string_lossy(), "status": status,
            "persistent_format_version": PRINTED_VERSION, "durable_epoch": recorded.0,
            "max_appeared_epoch": max_epoch.0, "count_durable_wal_entries": entries, "start": start,
            "warnings": warnings, "damage": damage,
        }));
        exit
    }
}

/// Prints lines for people, or one object for programs.
struct Printer<'a> {
    out: &'a mut dyn Write,
    json: bool,
}

impl Printer<'_> {
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        if !self.json {
            line(self.out, text);
        }
    }

    fn object(&mut self, value: &serde_json::Value) {
        if self.json {
            line(self.out, format_args!("{value}"));
        }
    }
}

/// Prints a line; a reader that went away is no error.
pub fn line(out: &mut dyn Write, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{text}");
}

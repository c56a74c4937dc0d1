// SPDX-License-Identifier: Apache-2.0
//! `tglogutil verify`: reads everything that a start reads, and says of each file what it holds; changes nothing.
//! Exit codes: 0 all is fine, 1 with warnings, 2 damage that refuses a start or loses data, 64 cannot check.

use super::arguments::VerifyOptions;
use super::blobs;
use super::examine::{examine, Examined, Subject};
use super::inspect::line;
use super::logs::{epochs, logs, Fault, LogFile};
use super::scan::each_file;
use crate::directory::OfflineDirectory;
use crate::error::Result;
use crate::progress_bar::Progress;
use crate::types::Epoch;
use crate::wal::sessions::Origin;
use serde_json::{json, Value};
use std::io::Write;

/// Memory for the index of the trial recovery; beyond it sorted pieces go to unnamed files.
const MEMORY_BYTES: u64 = 1 << 30;
/// No more missing BLOBs than this are named.
const NAMED_BLOBS_MAX: usize = 100;

#[derive(Default)]
struct Report {
    files: Vec<Value>,
    damage: Vec<String>,
    warnings: Vec<String>,
    /// The first epoch that is damaged; 0 when the damage cannot be placed.
    first_damaged: Option<Epoch>,
}

pub fn run(directory: &OfflineDirectory, options: &VerifyOptions, out: &mut dyn Write) -> Result<i32> {
    let mut report = Report::default();
    let found = epochs(directory)?;
    if let Some(Fault::Damaged { damage, .. }) = &found.fault {
        report.damage(Some(Epoch(0)), damage.to_string());
    }
    let durable = found.durable.unwrap_or_default();
    report.all_files(directory, durable, options.common.threads())?;
    let verdict = directory.verdict(options.common.threads(), Some(MEMORY_BYTES))?;
    report.warnings = verdict.warnings;
    let blobs = match verdict.outcome {
        Ok(recovered) => Some(blobs::check(directory, &recovered.snapshot)?),
        Err(refusal) => {
            report.damage(Some(Epoch(0)).filter(|_| report.first_damaged.is_none()), refusal.to_string());
            None
        }
    };
    if let Some(barred) = verdict.barred {
        report.damage(None, barred.to_string());
    }
    let missing = blobs.iter().flat_map(|blobs| &blobs.missing);
    for id in missing.take(NAMED_BLOBS_MAX) {
        report.damage.push(format!("BLOB {id}, to which a live entry refers, is missing"));
    }
    let (status, exit) = match (report.damage.is_empty(), report.warnings.is_empty()) {
        (true, true) => ("OK", 0),
        (true, false) => ("warnings", 1),
        (false, _) => ("damaged", 2),
    };
    let complete = report.first_damaged.map_or(durable, |epoch| epoch.previous().min(durable));
    let blob_count = blobs.as_ref().map(|blobs| blobs.count);
    let missing_count = blobs.as_ref().map(|blobs| blobs.missing.len());
    let value = json!({
        "directory": directory.location().to_string_lossy(), "status": status, "durable_epoch": durable.0,
        "complete_up_to_epoch": complete.0, "files": report.files, "blob_references": blob_count,
        "missing_blobs": missing_count, "warnings": report.warnings, "damage": report.damage,
    });
    match options.json {
        true => line(out, format_args!("{value}")),
        false => print(&value, out),
    }
    Ok(exit)
}

/// The document for people.
fn print(document: &Value, out: &mut dyn Write) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
    line(out, format_args!("durable-epoch: {}", document["durable_epoch"]));
    line(out, format_args!("complete-up-to-epoch: {}", document["complete_up_to_epoch"]));
    for file in list("files") {
        let [name, state] = ["file", "state"].map(|key| text(&file[key]));
        let [bytes, sessions, entries] = ["bytes", "sessions", "entries"].map(|key| &file[key]);
        let epochs = match file["last_epoch"].as_u64() {
            Some(last) => format!(", epochs {} to {last}", file["first_epoch"]),
            None => String::new(),
        };
        line(out, format_args!("file: {name}: {state}, {bytes} bytes, {sessions} sessions, {entries} entries{epochs}"));
    }
    if let (Some(count), Some(missing)) = (document["blob_references"].as_u64(), document["missing_blobs"].as_u64()) {
        line(out, format_args!("blob-references: {count}, missing: {missing}"));
    }
    list("warnings").iter().for_each(|warning| line(out, format_args!("warning: {}", text(warning))));
    list("damage").iter().for_each(|damage| line(out, format_args!("damage: {}", text(damage))));
    line(out, format_args!("status: {}", text(&document["status"])));
}

impl Report {
    fn all_files(&mut self, directory: &OfflineDirectory, durable: Epoch, threads: usize) -> Result<()> {
        let logs = logs(directory)?;
        let progress = Progress::new(logs.iter().map(|log| log.bytes.len() as u64).sum());
        let end_markers = directory.has_end_markers();
        let files = each_file(&logs, threads, |log| {
            let subject =
                Subject { bytes: &log.bytes, path: &log.path, limit: durable, end_markers, origin: Origin::Unknown };
            let mut read = progress.file();
            let examined = examine(subject, |offset, _, _| read.at(offset));
            read.done(log.bytes.len());
            (examined, subject.is_active())
        });
        drop(progress);
        for (log, (examined, active)) in logs.iter().zip(files) {
            let superseded = directory.catalog().is_ok_and(|catalog| catalog.detached.contains(&log.name));
            self.file(log, &examined, superseded, active);
        }
        Ok(())
    }

    fn damage(&mut self, epoch: Option<Epoch>, text: String) {
        self.first_damaged = match (self.first_damaged, epoch) {
            (Some(first), Some(epoch)) => Some(first.min(epoch)),
            (first, epoch) => first.or(epoch),
        };
        if !self.damage.contains(&text) {
            self.damage.push(text);
        }
    }

    fn file(&mut self, log: &LogFile, examined: &Examined, superseded: bool, active: bool) {
        let state = match (superseded, examined.broken.is_empty(), examined.needs_repair(active)) {
            (true, ..) => "superseded by the compacted file",
            (false, false, _) => "damaged",
            (false, true, true) => "repairable",
            (false, true, false) => "OK",
        };
        if !superseded {
            for broken in &examined.broken {
                self.damage(Some(broken.damage.epoch.unwrap_or_default()), broken.damage.to_string());
            }
        }
        self.files.push(json!({
            "file": log.name, "bytes": log.bytes.len(), "state": state,
            "sessions": examined.sessions, "ended_sessions": examined.ended, "entries": examined.entries,
            "first_epoch": examined.first_epoch.map(|epoch| epoch.0),
            "last_epoch": examined.last_epoch.map(|epoch| epoch.0),
            "sessions_beyond_durable_epoch": examined.beyond.len(), "invalidated_sessions": examined.invalidated,
        }));
    }
}

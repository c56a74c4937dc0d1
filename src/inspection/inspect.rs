// SPDX-License-Identifier: Apache-2.0
//! `tglogutil inspect`: says whether a directory is whole; changes nothing (§16.2).

use super::examine::{examine, Subject};
use super::logs::{epochs, logs, Fault};
use super::progress::Progress;
use crate::datastore::OfflineDirectory;
use crate::error::Result;
use crate::types::Epoch;
use crate::wal::entry::{tag, Entry};
use std::io::Write;

/// What the original prints for every directory.
const PRINTED_VERSION: u32 = 1;

pub fn run(directory: &OfflineDirectory, limit: Option<Epoch>, out: &mut dyn Write) -> Result<i32> {
    log::warn!("subcommand 'inspect' is under development");
    line(out, format_args!("persistent-format-version: {PRINTED_VERSION}"));
    let found = epochs(directory)?;
    if let Some(fault) = &found.fault {
        report_unreadable_epochs(fault);
        return Ok(64);
    }
    let recorded = found.durable.unwrap_or_default();
    line(out, format_args!("durable-epoch: {recorded}"));
    if let Err(e) = directory.catalog() {
        log::warn!("a start refuses this directory: {e}");
    }

    let limit = limit.unwrap_or(recorded);
    let logs = logs(directory)?;
    let mut progress = Progress::new(logs.iter().map(|log| log.bytes.len() as u64).sum());
    let (mut max_epoch, mut max_ended, mut entries) = (limit, Epoch(0), 0u64);
    let (mut repairable, mut broken) = (false, false);
    for log in &logs {
        log.bytes.advise(true);
        let subject = Subject { bytes: &log.bytes, path: &log.path, limit, end_markers: directory.has_end_markers() };
        let examined = examine(subject, |offset, _, entry| {
            match entry {
                Entry::Put { .. } if log.bytes[offset] == tag::PUT => entries += 1,
                Entry::Remove { .. } => entries += 1,
                // As the original has it: records that it does not count.
                _ => log::error!("{}", log.bytes[offset]),
            }
            progress.at(offset);
        });
        progress.file_done(log.bytes.len());
        max_epoch = max_epoch.max(examined.max_epoch);
        max_ended = max_ended.max(examined.max_ended);
        repairable |= examined.needs_repair(subject.is_active());
        broken |= !examined.broken.is_empty();
        for found in &examined.broken {
            log::error!("{}", found.damage);
        }
        for warning in &examined.warnings {
            log::warn!("{}: {warning}", log.path.display());
        }
    }
    drop(progress);
    if found.durable.is_none() && max_ended > limit {
        log::error!(
            "the epoch file is missing or empty, but sessions up to epoch {max_ended} were ended: bring it back, or \
             name the epoch with repair --epoch"
        );
        broken = true;
    }
    line(out, format_args!("max-appeared-epoch: {max_epoch}"));
    line(out, format_args!("count-durable-wal-entries: {entries}"));
    let (status, exit) = match (broken, repairable) {
        (true, _) => ("unrepairable", 2),
        (false, true) => ("auto-repairable", 1),
        (false, false) => ("OK", 0),
    };
    line(out, format_args!("status: {status}"));
    Ok(exit)
}

fn report_unreadable_epochs(fault: &Fault) {
    log::error!("reading epoch file is failed: {}", fault.reason());
    match fault {
        Fault::Torn { path, offset, .. } => log::warn!(
            "{}: the record at offset {offset} was never completely written; a start and a repair cut it off",
            path.display()
        ),
        Fault::Damaged { damage, .. } => log::error!("{damage}"),
    }
}

/// Prints a line; a reader that went away is no error.
pub fn line(out: &mut dyn Write, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{text}");
}

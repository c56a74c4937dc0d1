// SPDX-License-Identifier: Apache-2.0
//! `tglogutil repair`: makes a directory one that starts, without taking anything away that was acknowledged (§16.2).
//! Every step leaves the directory no worse than before, so that a repair that was interrupted is simply run again.

use super::arguments::RepairOptions;
use super::examine::{examine, Examined, Subject, Tail};
use super::inspect::line;
use super::logs::{epochs, logs, map, Epochs, Fault, LogFile};
use super::salvage::{max_ended_anywhere, salvage};
use crate::directory::OfflineDirectory;
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::crashsafe;
use crate::wal::epoch_file::EpochFile;
use crate::wal::names;
use crate::wal::sessions::Origin;
use std::io::Write;
use std::path::Path;

/// Scratch name of a file that is written anew.
const TEMPORARY: &str = "repair.tmp";

pub fn run(
    directory: &OfflineDirectory,
    limit: Option<Epoch>,
    options: &RepairOptions,
    out: &mut dyn Write,
) -> Result<i32> {
    let found = epochs(directory)?;
    let recorded = found.durable.unwrap_or_default();
    if limit.is_none() {
        line(out, format_args!("durable-epoch: {recorded}"));
    }
    let mut repair = Repair {
        directory,
        limit: limit.unwrap_or(recorded),
        recorded,
        disowned: None,
        cut: options.cut,
        threads: options.common.threads(),
        give_up: options.give_up_damaged,
        changed: false,
        unrepairable: false,
    };
    repair.all(&found, limit)?;
    if !repair.unrepairable {
        // The last word has the start.
        for refusal in directory.verdict(options.common.threads(), None)?.refusals() {
            log::error!("a start still refuses this directory: {refusal}");
            repair.unrepairable = true;
        }
    }
    let (status, exit) = match (repair.unrepairable, repair.changed) {
        (true, _) => ("unrepairable", 16),
        (false, true) => ("repaired", 0),
        (false, false) => ("OK", 0),
    };
    line(out, format_args!("status: {status}"));
    Ok(exit)
}

struct Repair<'a> {
    directory: &'a OfflineDirectory,
    /// Sessions up to this epoch are durable.
    limit: Epoch,
    /// What the epoch files say.
    recorded: Epoch,
    /// From where on the history has been told that content is given up.
    disowned: Option<Epoch>,
    cut: bool,
    threads: usize,
    give_up: bool,
    changed: bool,
    unrepairable: bool,
}

impl Repair<'_> {
    fn all(&mut self, found: &Epochs, given: Option<Epoch>) -> Result<()> {
        let history = self.directory.history();
        if let Some(e @ Error::BrokenMetadata(_)) = self.directory.catalog().err().or(history.as_ref().err()) {
            log::error!("{e}");
            self.unrepairable = true;
            return Ok(());
        }
        history?;
        // Nothing is changed before the durable epoch is settled: all else follows from it.
        let mut hiding = Vec::new();
        let mut max_ended = Epoch(0);
        // A start that opens the directory without any record has seen that no session was ended, damage or not.
        let must_ask = found.durable.is_none() && self.directory.verdict(self.threads, None)?.outcome.is_err();
        let (mut empty, mut zeros) = (true, false);
        for log in logs(self.directory)? {
            let examined = self.examine(&log);
            if found.durable.is_some() || must_ask {
                max_ended = max_ended.max(examined.max_ended);
            }
            if must_ask {
                // Damage must not hide that sessions were ended: without them, epoch 0 would be recorded.
                max_ended = max_ended.max(max_ended_anywhere(self.subject(&log.bytes, &log.path)));
            }
            let nothing = matches!(examined.tail, Some(Tail::Garbage { offset: 0, zeros: true }));
            zeros |= nothing;
            empty &= log.bytes.is_empty() || nothing;
            if examined.hides_durable.is_some() && !self.give_up {
                hiding.push(log.name);
            }
        }
        if !self.settle_epoch_file(found, given, max_ended)? {
            self.unrepairable = true;
            return Ok(());
        }
        if zeros && empty && self.limit > Epoch(0) {
            log::warn!(
                "the log files hold nothing but zeros although epochs up to {} are durable: what they held is lost; \
                 restore a backup if there is one",
                self.limit
            );
        }
        // Under a rotated name a start would skip the durable sessions in such a file instead of refusing.
        self.directory.rotate(|name| !hiding.iter().any(|hiding| hiding == name))?;
        for log in logs(self.directory)? {
            self.log_file(log)?;
        }
        Ok(())
    }

    fn examine(&self, log: &LogFile) -> Examined {
        log.bytes.advise(true);
        examine(self.subject(&log.bytes, &log.path), |_, _, _| ())
    }

    fn subject<'b>(&self, bytes: &'b [u8], path: &'b Path) -> Subject<'b> {
        let end_markers = self.directory.has_end_markers();
        Subject { bytes, path, limit: self.limit, end_markers, origin: Origin::Unknown }
    }

    /// Puts the epoch file right; returns whether the durable epoch is known.
    fn settle_epoch_file(&mut self, found: &Epochs, given: Option<Epoch>, max_ended: Epoch) -> Result<bool> {
        let record = match (found.durable, &found.fault, given) {
            (Some(_), None, _) => return Ok(true),
            // Nothing was ever ended.
            (None, None, _) if max_ended == Epoch(0) => return Ok(true),
            // What a start would cut off: the record was never acknowledged.
            (Some(durable), Some(Fault::Torn { .. }), _) => durable,
            (Some(durable), Some(Fault::Damaged { damage, .. }), None) => {
                log::error!("{damage}");
                if max_ended > durable && !self.give_up {
                    log::error!(
                        "the damaged record may have been a newer one: sessions up to epoch {max_ended} were ended, \
                         the largest whole record is {durable}; name the durable epoch with --epoch, or take \
                         {durable} with --give_up_damaged"
                    );
                    return Ok(false);
                }
                durable
            }
            (durable, _, Some(given)) => durable.unwrap_or_default().max(given),
            (None, _, None) if max_ended > Epoch(0) => {
                log::error!(
                    "no epoch record is left, but sessions up to epoch {max_ended} were ended and a repair would give \
                     all of them up: bring the epoch file back, or name the durable epoch with --epoch (0 if nothing \
                     in this directory was ever acknowledged)"
                );
                return Ok(false);
            }
            (None, _, None) => Epoch(0),
        };
        let directory = self.directory;
        if let Some(fault) = &found.fault {
            keep_copy(directory, fault.path())?;
        }
        if record != self.recorded || matches!(found.fault, Some(Fault::Damaged { .. })) {
            self.disown(self.limit.min(self.recorded).next())?;
        }
        EpochFile::replace(directory.vfs().clone(), directory.location(), record)?;
        log::warn!("{} was written anew with epoch {record}", directory.location().join(names::EPOCH).display());
        self.changed = true;
        Ok(true)
    }

    fn log_file(&mut self, log: LogFile) -> Result<()> {
        let mut examined = self.examine(&log);
        for warning in &examined.warnings {
            log::warn!("{}: {warning}", log.path.display());
        }
        let damaged = !examined.broken.is_empty() || (self.give_up && examined.hides_durable.is_some());
        if damaged {
            for broken in &examined.broken {
                report(broken.damage.epoch, broken.damage.offset, &log.path, &broken.damage.reason);
            }
            let compacted = names::is_compacted(&log.name);
            if compacted || !self.give_up {
                let advice = match compacted {
                    true => "restore this file or the whole directory from a backup",
                    false => "restore a backup, or give up the damaged sessions with --give_up_damaged",
                };
                log::error!("{}: {advice}", log.path.display());
                self.unrepairable = true;
                return Ok(());
            }
            let content = self.give_up_damaged(&log)?;
            examined = examine(self.subject(&content, &log.path), |_, _, _| ());
        } else if let Some(Tail::Garbage { zeros: false, .. }) = examined.tail {
            keep_copy(self.directory, &log.path)?;
        }
        let edits = examined.edits(self.cut);
        // A mapped file must not become shorter.
        drop(log.bytes);
        if !edits.is_empty() {
            if self.limit < self.recorded {
                self.disown(self.limit.next())?;
            }
            self.directory.apply(&log.path, &edits)?;
            self.changed = true;
        }
        Ok(())
    }

    /// Writes the file anew without its damaged sessions, a copy of it kept; returns the new content.
    fn give_up_damaged(&mut self, log: &LogFile) -> Result<Vec<u8>> {
        keep_copy(self.directory, &log.path)?;
        let (content, lost) = salvage(self.subject(&log.bytes, &log.path));
        if let Some(first) = lost.iter().map(|lost| lost.not_before).min() {
            self.disown(first)?;
        }
        for lost in lost {
            let epoch = lost.epoch.map_or("no durable session".to_owned(), |epoch| format!("epoch {epoch}"));
            let (from, to) = (lost.range.start, lost.range.end);
            log::warn!("given up \"{}\" from offset {from} to {to}: {epoch}", log.path.display());
        }
        let temporary = self.directory.location().join(TEMPORARY);
        crashsafe::replace(&**self.directory.vfs(), &temporary, &log.path, &content)
            .map_err(|e| Error::io("cannot write", &log.path, e))?;
        self.changed = true;
        Ok(content)
    }

    /// Durable content from `first` on is given up, or what is durable is guessed: no other directory has the same.
    fn disown(&mut self, first: Epoch) -> Result<()> {
        if self.disowned.is_none_or(|disowned| first < disowned) {
            self.directory.disown(first)?;
            self.disowned = Some(first);
        }
        Ok(())
    }
}

fn report(epoch: Option<Epoch>, offset: u64, path: &Path, reason: &str) {
    let session = epoch.map_or("outside a session".to_owned(), |epoch| format!("in a session of epoch {epoch}"));
    log::error!("{reason} (\"{}\" at offset {offset}, {session})", path.display());
}

/// Keeps the content of a file under a name that neither this project nor the original reads, durably.
fn keep_copy(directory: &OfflineDirectory, path: &Path) -> Result<()> {
    let vfs = &**directory.vfs();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let failed = |e| Error::io("cannot keep a copy of", path, e);
    let now = names::unix_ms();
    let target = |k: u32| directory.location().join(format!("damaged.{now:014}.{k}.{name}"));
    let mut k = 0;
    while vfs.kind(&target(k)).map_err(failed)?.is_some() {
        k += 1;
    }
    let copy = target(k);
    let bytes = map(directory, path)?;
    crashsafe::write_new(vfs, &copy, &bytes).and_then(|()| vfs.sync_dir(directory.location())).map_err(failed)?;
    log::info!("\"{}\" is kept as \"{}\"", path.display(), copy.display());
    Ok(())
}

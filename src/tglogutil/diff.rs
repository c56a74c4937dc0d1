// SPDX-License-Identifier: Apache-2.0
//! `tglogutil diff`: lists the entries that two directories have differently. Both are read like a start reads them,
//! each into an index of bounded size; then they are gone through side by side, in the order of their keys.

use super::arguments::DiffOptions;
use super::blobs;
use super::dump::hex;
use super::inspect::line;
use crate::directory::OfflineDirectory;
use crate::error::{Error, Result};
use crate::progress_bar::Progress;
use crate::recovery::{Row, Snapshot};
use crate::types::{BlobId, StorageId, WriteVersion};
use crate::vfs::Open;
use serde_json::{json, Value};
use std::io::{ErrorKind, Write};

/// The directories cannot be compared.
pub const CANNOT_COMPARE: i32 = 2;
const SAME: i32 = 0;
const DIFFERENT: i32 = 1;
/// Bound for the index of each directory.
const MEMORY_BYTES: u64 = 512 << 20;
/// What an entry counts for in the bar, which speaks of bytes.
const ENTRY_BYTES: u64 = 100;

/// Compares what a start on either directory would give.
pub fn run(
    first: &OfflineDirectory,
    second: &OfflineDirectory,
    options: &DiffOptions,
    out: &mut dyn Write,
) -> Result<i32> {
    let threads = options.common.threads();
    let snapshots = (snapshot(first, threads)?, snapshot(second, threads)?);
    let mut found = Found { only: options.first_only, printer: Printer { out, json: options.json }, counts: [0; 3] };
    let progress = Progress::new((snapshots.0.len() + snapshots.1.len()) as u64 * ENTRY_BYTES);
    let mut passed = progress.file();
    let (mut left, mut right) = (snapshots.0.cursor(), snapshots.1.cursor());
    let (mut own, mut other) = (left.next()?, right.next()?);
    for step in 1.. {
        passed.at(step * ENTRY_BYTES as usize);
        match (own, other) {
            (None, None) => break,
            (Some(a), Some(b)) if place(&a) == place(&b) => {
                if !is_same(&a, &b) || !have_same_blobs(first, second, &a)? {
                    found.add(Some(&a), Some(&b));
                }
                (own, other) = (left.next()?, right.next()?);
            }
            (Some(a), b) if b.is_none_or(|b| place(&a) < place(&b)) => {
                found.add(Some(&a), None);
                own = left.next()?;
            }
            (_, b) => {
                found.add(None, b.as_ref());
                other = right.next()?;
            }
        }
    }
    Ok(found.exit())
}

fn snapshot(directory: &OfflineDirectory, threads: usize) -> Result<Snapshot> {
    let recovered = directory.read_log(threads, Some(MEMORY_BYTES))?;
    for warning in &recovered.warnings {
        log::warn!("{warning}");
    }
    Ok(recovered.snapshot)
}

/// Where an entry stands in the order of the cursors.
fn place<'a>(row: &Row<'a>) -> (u64, &'a [u8]) {
    (row.storage.order(), row.key)
}

/// Compaction forgets versions; what it has forgotten makes no difference.
fn is_same(a: &Row<'_>, b: &Row<'_>) -> bool {
    let forgotten = WriteVersion::default();
    let versions = a.version == b.version || a.version == forgotten || b.version == forgotten;
    versions && a.value == b.value && a.blobs.iter().eq(b.blobs.iter())
}

/// An id may stand for different BLOBs in two directories.
fn have_same_blobs(first: &OfflineDirectory, second: &OfflineDirectory, row: &Row<'_>) -> Result<bool> {
    let content = |directory: &OfflineDirectory, id: BlobId| {
        let path = blobs::path(directory, id);
        match directory.vfs().open(&path, Open::Read) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            file => file.and_then(|file| file.map().map(Some)).map_err(|e| Error::io("cannot read", &path, e)),
        }
    };
    for id in row.blobs.iter() {
        let same = match (content(first, id)?, content(second, id)?) {
            (None, None) => true,
            (Some(a), Some(b)) => *a == *b,
            _ => false,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What differs.
struct Found<'a> {
    /// Only what the first directory has is listed.
    only: bool,
    printer: Printer<'a>,
    /// Entries that only the first, only the second, and both directories have.
    counts: [u64; 3],
}

impl Found<'_> {
    fn add(&mut self, first: Option<&Row<'_>>, second: Option<&Row<'_>>) {
        let which = match (first, second) {
            (Some(_), None) => 0,
            (None, _) => 1,
            (Some(_), Some(_)) => 2,
        };
        self.counts[which] += 1;
        if !(self.only && first.is_none()) {
            self.printer.print(first, second);
        }
    }

    fn exit(&self) -> i32 {
        let [first, second, both] = self.counts;
        log::info!("{first} entries are only in the first directory, {second} only in the second, {both} differ");
        match first + both + if self.only { 0 } else { second } {
            0 => SAME,
            _ => DIFFERENT,
        }
    }
}

/// Entries as they are listed: a JSON object for each key, or a line for each directory that has it.
struct Printer<'a> {
    out: &'a mut dyn Write,
    json: bool,
}

impl Printer<'_> {
    fn print(&mut self, first: Option<&Row<'_>>, second: Option<&Row<'_>>) {
        if self.json {
            let side = match (first, second) {
                (Some(_), None) => "first",
                (None, _) => "second",
                (Some(_), Some(_)) => "both",
            };
            let Some(row) = first.or(second) else { return };
            let (StorageId(storage), key) = (row.storage, hex(row.key));
            let (first, second) = (first.map(of_side), second.map(of_side));
            let object = json!({ "storage": storage, "key": key, "side": side, "first": first, "second": second });
            return line(self.out, format_args!("{object}"));
        }
        for (mark, row) in [("<", first), (">", second)] {
            let Some(Row { storage, key, value, version, blobs }) = row else { continue };
            let (key, value) = (key.escape_ascii(), value.escape_ascii());
            let ids: Vec<String> = blobs.iter().map(|id| id.to_string()).collect();
            let (WriteVersion { major, minor }, ids) = (version, ids.join(","));
            line(
                self.out,
                format_args!(
                    "{mark} storage={storage} key=\"{key}\" major={major} minor={minor} value=\"{value}\" blobs={ids}"
                ),
            );
        }
    }
}

fn of_side(row: &Row<'_>) -> Value {
    let ids: Vec<u64> = row.blobs.iter().map(|BlobId(id)| id).collect();
    json!({ "value": hex(row.value), "major": row.version.major, "minor": row.version.minor, "blobs": ids })
}

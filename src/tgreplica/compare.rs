// SPDX-License-Identifier: Apache-2.0
//! `tgreplica compare`: whether two directories have the same content at an epoch that both have.

use super::arguments::{Arguments, Wanted};
use super::with_primary;

use super::digest::how;
use super::report::Output;
use super::signals::Signals;
use crate::compaction::step_back;
use crate::comparison::digest::{hex, Digest};
use crate::comparison::{differences, work, Difference, How, Side, Span};
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::{FileKind, RealFs, Vfs};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SAME: i32 = 0;
const DIFFERENT: i32 = 1;
/// One of them cannot be read, they have no epoch in common, or the call is wrong.
pub const CANNOT_TELL: i32 = 2;

/// For a side that is behind.
const WAIT_SECONDS: u64 = 30;
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is compared.
enum Operand {
    Directory(Box<Side>),
    /// What was read before, perhaps elsewhere.
    Digest(Digest),
}

impl Operand {
    fn span(&self) -> Span {
        match self {
            Operand::Directory(side) => side.span,
            Operand::Digest(digest) => Span { low: digest.same_since, high: digest.epoch },
        }
    }
}

/// Compares and says what differs.
pub fn run(arguments: &Arguments, signals: &Signals, output: &mut Output<'_>) -> i32 {
    step_back();
    let compared = match arguments.wanted() {
        Ok(Wanted::Compare(a, b)) => compare([a, b], arguments, signals),
        Ok(Wanted::CompareWithPrimary(logdir)) => with_primary::compare(logdir, how(arguments), &signals.stop),
        _ => return CANNOT_TELL,
    };
    match compared {
        Ok((digests, epoch)) => report(&digests, epoch, output),
        Err(e) => output.fail(CANNOT_TELL, &e.to_string()),
    }
}

fn compare(paths: [&Path; 2], arguments: &Arguments, signals: &Signals) -> Result<([Digest; 2], Epoch)> {
    let vfs: Arc<dyn Vfs> = Arc::new(RealFs);
    check_apart(&*vfs, paths)?;
    let deadline = Instant::now() + Duration::from_secs(arguments.wait.unwrap_or(WAIT_SECONDS));
    let mut operands = [open(&vfs, paths[0], signals)?, open(&vfs, paths[1], signals)?];
    let epoch = loop {
        let [a, b] = [operands[0].span(), operands[1].span()];
        let (low, high) = (a.low.max(b.low), a.high.min(b.high));
        if low <= high {
            break high;
        }
        let behind = usize::from(b.high < a.high);
        let over = Instant::now() >= deadline || signals.stop.load(SeqCst);
        if over || matches!(operands[behind], Operand::Digest(_)) {
            return Err(nothing_in_common(paths, [a, b]));
        }
        std::thread::sleep(LOOK_EVERY);
        let [a, b] = operands;
        // What is held is given back first: of a directory two backups are not open at a time.
        operands = match behind {
            0 => {
                drop(a);
                [open(&vfs, paths[0], signals)?, b]
            }
            _ => {
                drop(b);
                [a, open(&vfs, paths[1], signals)?]
            }
        };
    };
    Ok((digests(operands, epoch, how(arguments), signals)?, epoch))
}

/// Of one directory two backups are not open at a time.
fn check_apart(vfs: &dyn Vfs, paths: [&Path; 2]) -> Result<()> {
    let resolved = paths.map(|path| vfs.resolve(path).ok());
    match (paths, resolved) {
        ([a, b], _) if a == Path::new("-") && b == a => {
            Err(Error::InvalidArgument("only one of the two can be read from stdin".to_owned()))
        }
        (_, [Some(a), Some(b)]) if a == b => {
            Err(Error::InvalidArgument(format!("{} is compared with itself", a.display())))
        }
        _ => Ok(()),
    }
}

fn open(vfs: &Arc<dyn Vfs>, path: &Path, signals: &Signals) -> Result<Operand> {
    if path == Path::new("-") {
        return Digest::read(std::io::stdin(), "what stdin has").map(Operand::Digest);
    }
    match vfs.kind(path).map_err(|e| Error::io("cannot look at", path, e))? {
        Some(FileKind::Directory) => {
            Side::open(vfs, path, &signals.stop).map(|side| Operand::Directory(Box::new(side)))
        }
        Some(FileKind::File) => {
            let file = std::fs::File::open(path).map_err(|e| Error::io("cannot open", path, e))?;
            Digest::read(file, &path.display().to_string()).map(Operand::Digest)
        }
        _ => Err(Error::NotFound(format!("there is no directory or file {}", path.display()))),
    }
}

fn nothing_in_common(paths: [&Path; 2], spans: [Span; 2]) -> Error {
    let of = |at: usize| {
        let Span { low, high } = spans[at];
        format!("{}: {low} to {high}", paths[at].display())
    };
    let text = "there is no epoch of which both are known; they are known of these";
    Error::WrongState(format!("{text}: {}; {}", of(0), of(1)))
}

fn digests(operands: [Operand; 2], epoch: Epoch, mut how: How, signals: &Signals) -> Result<[Digest; 2]> {
    let (mut sides, mut known) = (Vec::new(), Vec::new());
    for (at, operand) in operands.into_iter().enumerate() {
        match operand {
            Operand::Directory(side) => sides.push(*side),
            Operand::Digest(digest) => {
                how.with_blobs |= digest.with_blobs;
                known.push((at, digest));
            }
        }
    }
    if let Some((_, digest)) = known.iter().find(|(_, digest)| digest.with_blobs != how.with_blobs) {
        let text = format!("the digest of {} was made without --blobs", digest.directory);
        return Err(Error::InvalidArgument(text));
    }
    let mut found = work(sides, epoch, how, &signals.stop)?;
    known.into_iter().for_each(|(at, digest)| found.insert(at, digest));
    <[Digest; 2]>::try_from(found).map_err(|found| Error::WrongState(format!("{} sides were read", found.len())))
}

fn report(digests: &[Digest; 2], epoch: Epoch, output: &mut Output<'_>) -> i32 {
    let found = differences(&digests[0], &digests[1]);
    if let Some(digest) = digests.iter().find(|digest| !found.is_empty() && digest.may_have_lost_blobs()) {
        let (missing, directory, epoch) = (digest.missing_blobs, &digest.directory, digest.epoch);
        let text = format!(
            "{missing} BLOBs of epoch {epoch} are missing in {directory}, and may have been deleted since: compare \
             when less is written, or without --blobs"
        );
        return output.fail(CANNOT_TELL, &text);
    }
    match output.json {
        true => output.print(&format!("{}\n", document(digests, epoch, &found))),
        false => output.print(&text(digests, epoch, &found)),
    }
    match found.is_empty() {
        true => SAME,
        false => DIFFERENT,
    }
}

fn document(digests: &[Digest; 2], epoch: Epoch, found: &[Difference]) -> serde_json::Value {
    let ranges: Vec<_> = found
        .iter()
        .map(|Difference { storage, from, to, entries }| {
            let to = to.as_ref().map(|to| hex::text(to));
            serde_json::json!({ "storage": storage.0, "from": hex::text(from), "to": to, "entries": entries })
        })
        .collect();
    serde_json::json!({
        "same": found.is_empty(), "epoch": epoch, "with_blobs": digests[0].with_blobs,
        "directories": digests.each_ref().map(|digest| &digest.directory),
        "entries": digests.each_ref().map(|digest| digest.entries), "differences": ranges,
    })
}

fn text(digests: &[Digest; 2], epoch: Epoch, found: &[Difference]) -> String {
    let [a, b] = digests.each_ref().map(|digest| (&digest.directory, digest.entries));
    if found.is_empty() {
        return format!("same at epoch {epoch}: {} entries in {} and in {}\n", a.1, a.0, b.0);
    }
    let mut text = format!("different at epoch {epoch}: {} entries in {}, {} in {}\n", a.1, a.0, b.1, b.0);
    for Difference { storage, from, to, entries: [a, b] } in found {
        let from = if from.is_empty() { "the begin".to_owned() } else { hex::text(from) };
        let to = to.as_ref().map_or("the end".to_owned(), |to| hex::text(to));
        text.push_str(&format!("  storage {storage}, keys from {from} to {to}: {a} and {b} entries\n"));
    }
    text
}

// SPDX-License-Identifier: Apache-2.0
//! `tgreplica digest`: what the content of a directory comes to.

use super::arguments::Arguments;
use super::report::{exit_of, Output, DONE, IN_USE, USAGE};
use super::signals::Signals;
use crate::compaction::step_back;
use crate::comparison::digest::{hex, Digest};
use crate::comparison::{work, How, Side};
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::RealFs;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// Prints it.
pub fn run(logdir: &Path, arguments: &Arguments, signals: &Signals, output: &mut Output<'_>) -> i32 {
    step_back();
    match digest(logdir, arguments, signals) {
        Ok(digest) if output.json => output.print(&format!("{}\n", serde_json::json!(digest))),
        Ok(digest) => output.print(&text(&digest)),
        Err(e) => {
            let exit = match e {
                Error::InvalidArgument(_) => USAGE,
                Error::WrongState(_) => IN_USE,
                ref e => exit_of(e),
            };
            return output.fail(exit, &e.to_string());
        }
    }
    DONE
}

/// How the options say that directories are read.
pub fn how(arguments: &Arguments) -> How {
    let bytes_per_second = arguments.mib_per_second.map(|mib| mib << 20);
    How { with_blobs: arguments.blobs, bytes_per_second, ..How::default() }
}

fn digest(logdir: &Path, arguments: &Arguments, signals: &Signals) -> Result<Digest> {
    let side = Side::open(&(Arc::new(RealFs) as _), logdir, &signals.stop)?;
    let epoch = arguments.epoch.map_or(side.span.high, Epoch);
    let mut digests = work(vec![side], epoch, how(arguments), &signals.stop)?;
    Ok(digests.remove(0))
}

fn text(digest: &Digest) -> String {
    let mut text = format!("epoch: {}\nentries: {}\n", digest.epoch, digest.entries);
    if digest.with_blobs {
        let _ = writeln!(text, "missing-blobs: {}", digest.missing_blobs);
    }
    for range in &digest.ranges {
        let (from, sha256) = (hex::text(&range.from), hex::text(&range.sha256));
        let _ = writeln!(text, "range: storage={} from={from} entries={} {sha256}", range.storage, range.entries);
    }
    let _ = writeln!(text, "sha256: {}", hex::text(&digest.sha256));
    text
}

// SPDX-License-Identifier: Apache-2.0
//! The files of a directory that the tools look at, and its epoch file.

use crate::directory::OfflineDirectory;
use crate::error::{Damage, Error, Result};
use crate::types::Epoch;
use crate::vfs::{FileKind, Mapping, Open};
use crate::wal::entry::{tag, MARKER_LEN};
use crate::wal::{epoch_file, names};
use std::path::{Path, PathBuf};

/// A record further than this above the others is no record.
const PLAUSIBLE_EPOCHS: u64 = 1 << 40;

/// A log file, mapped.
pub struct LogFile {
    pub name: String,
    pub path: PathBuf,
    pub bytes: Mapping,
}

/// Names of all regular files, sorted.
fn files(directory: &OfflineDirectory) -> Result<Vec<String>> {
    let location = directory.location();
    let listing = directory.vfs().list(location).map_err(|e| Error::io("cannot list", location, e))?;
    let files = listing.into_iter().filter(|entry| entry.kind == FileKind::File);
    let mut names: Vec<String> = files.map(|entry| entry.name.to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Every log file of the directory, those included that the catalog lists as detached, and the compacted ones.
pub fn logs(directory: &OfflineDirectory) -> Result<Vec<LogFile>> {
    let names = files(directory)?.into_iter().filter(|name| names::is_log(name));
    names
        .map(|name| {
            let path = directory.location().join(&name);
            Ok(LogFile { bytes: map(directory, &path)?, name, path })
        })
        .collect()
}

/// Maps a file for reading.
pub fn map(directory: &OfflineDirectory, path: &Path) -> Result<Mapping> {
    let bytes = directory.vfs().open(path, Open::Read).and_then(|file| file.map());
    bytes.map_err(|e| match e.raw_os_error() {
        Some(_) => Error::io("cannot open pwal file", path, e),
        None => Error::io("cannot read", path, e),
    })
}

/// What the epoch files say.
#[derive(Debug, Default)]
pub struct Epochs {
    /// The largest whole record; `None` without any.
    pub durable: Option<Epoch>,
    /// Why the file cannot be used as it is.
    pub fault: Option<Fault>,
}

/// What is wrong with an epoch file.
#[derive(Debug)]
pub enum Fault {
    /// An append was not finished; nothing that was acknowledged is missing.
    Torn { path: PathBuf, offset: usize, partial: bool },
    /// A record may have been lost.
    Damaged { path: PathBuf, damage: Box<Damage> },
}

impl Fault {
    /// The file that is concerned.
    pub fn path(&self) -> &Path {
        match self {
            Fault::Torn { path, .. } | Fault::Damaged { path, .. } => path,
        }
    }

    /// As the original words it.
    pub fn reason(&self) -> String {
        match self {
            Fault::Torn { partial: true, .. } => "this log_entry is broken: unexpected EOF".to_owned(),
            Fault::Torn { .. } => "this log_entry is broken: unknown log_entry type 0".to_owned(),
            Fault::Damaged { damage, .. } => damage.reason.clone(),
        }
    }
}

/// Reads the epoch file, or the rotated ones when it has no record (disk format §3.4).
pub fn epochs(directory: &OfflineDirectory) -> Result<Epochs> {
    let names = files(directory)?;
    let mut epochs = Epochs::default();
    if names.iter().any(|name| name == names::EPOCH) {
        read_epochs(directory, names::EPOCH, &mut epochs)?;
    }
    if epochs.durable.is_none() {
        for name in names.iter().filter(|name| names::is_epoch(name) && *name != names::EPOCH) {
            read_epochs(directory, name, &mut epochs)?;
        }
    }
    Ok(epochs)
}

fn read_epochs(directory: &OfflineDirectory, name: &str, epochs: &mut Epochs) -> Result<()> {
    let path = directory.location().join(name);
    let bytes = map(directory, &path)?;
    let fault = match epoch_file::parse(&bytes, &path) {
        Ok(records) => {
            epochs.durable = epochs.durable.max(records.max);
            let partial = |offset: usize| bytes[offset] == tag::DURABLE;
            records.torn_at.map(|offset| Fault::Torn { path, offset, partial: partial(offset) })
        }
        Err(damage) => {
            epochs.durable = epochs.durable.max(whole_records(&bytes));
            Some(Fault::Damaged { path, damage })
        }
    };
    // The main file's fault is the one that matters.
    epochs.fault = epochs.fault.take().or(fault);
    Ok(())
}

/// The largest record that stands where a record can stand.
fn whole_records(bytes: &[u8]) -> Option<Epoch> {
    let mut max: Option<Epoch> = None;
    for record in bytes.as_chunks::<MARKER_LEN>().0 {
        if let [tag::DURABLE, epoch @ ..] = record {
            let epoch = Epoch(u64::from_le_bytes(*epoch));
            let plausible = max.unwrap_or_default().0.saturating_add(PLAUSIBLE_EPOCHS);
            if epoch.0 <= plausible {
                max = max.max(Some(epoch));
            }
        }
    }
    max
}

// SPDX-License-Identifier: Apache-2.0
//! A data directory that is compared: of an engine or a replica that holds its files meanwhile, or of nobody.

use super::cutting::{BlobContent, Cutter};
use super::digest::Digest;
use super::held_view::HeldView;
use crate::blob::paths;
use crate::directory::{compacted_up_to, Access, OfflineDirectory};
use crate::error::{Error, Result};
use crate::recovery::{Beyond, Input, Pace, Selected};
use crate::replication::backup_socket::{HeldFile, OpenBackup, Serves};
use crate::types::{BlobId, Epoch};
use crate::vfs::{Open, ReadOnly, Vfs};
use crate::wal::names;
use sha2::{Digest as _, Sha256};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

/// Bytes of a BLOB that are read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// The epochs at which the content of a directory is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Below it nothing is known of the order: the log was compacted up to it.
    pub low: Epoch,
    /// All up to it is durable.
    pub high: Epoch,
}

/// One of them, whose files do not change as long as it lives, or that is told at the end of the work.
#[derive(Debug)]
pub struct Side {
    pub path: PathBuf,
    pub span: Span,
    directory: OfflineDirectory,
    pub(super) held: Option<OpenBackup>,
}

/// How a side is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading<'a> {
    pub with_blobs: bool,
    pub memory_bytes: u64,
    pub threads: usize,
    pub pace: Option<&'a Pace>,
    pub stopping: &'a AtomicBool,
}

impl Side {
    /// Asks whoever serves the directory for its files, or else takes its lock. Gives up when `stop` is set.
    ///
    /// # Errors
    /// [`Error::Locked`] when a process has it that holds no files for others; [`Error::WrongState`] when the one that
    /// serves it cannot now, or what is there does not count; what a start refuses a directory for.
    pub fn open(vfs: &Arc<dyn Vfs>, path: &Path, stop: &AtomicBool) -> Result<Side> {
        let absolute = vfs.absolute(path).map_err(|e| Error::io("cannot look at", path, e))?;
        let held = match OpenBackup::begin(&absolute, stop) {
            Ok(held) => held,
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                return Err(Error::io("cannot ask the process that serves", path, e));
            }
            Err(e) => return Err(Error::WrongState(format!("the files of {} are not held: {e}", path.display()))),
        };
        let (directory, high) = match &held {
            Some(open) => (of_held(vfs, &absolute, &open.files)?, open.epoch),
            None => {
                let directory = OfflineDirectory::open(vfs.clone(), &absolute, Access::Read)?;
                let durable = directory.read_log(threads(), None)?.durable.unwrap_or_default();
                (directory, durable)
            }
        };
        Side::of(directory, path, high, held)
    }

    /// A directory whose files this process holds, up to this epoch; they have to be held as long as the result lives.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn of_held(vfs: &Arc<dyn Vfs>, location: &Path, (epoch, files): (Epoch, &[HeldFile])) -> Result<Side> {
        Side::of(of_held(vfs, location, files)?, location, epoch, None)
    }

    fn of(directory: OfflineDirectory, path: &Path, high: Epoch, held: Option<OpenBackup>) -> Result<Side> {
        directory.warnings().iter().for_each(|warning| log::warn!("{}: {warning}", path.display()));
        if directory.history()?.is_some_and(|history| history.is_given_up()) {
            let text = format!("what {} has was given up: a base sync has to replace it", path.display());
            return Err(Error::WrongState(text));
        }
        let low = compacted_up_to(&**directory.vfs(), directory.location(), high)?.unwrap_or_default();
        Ok(Side { path: path.to_owned(), span: Span { low, high }, directory, held })
    }

    /// Who serves the directory and holds its files, if somebody does.
    pub fn served_by(&self) -> Option<Serves> {
        self.held.as_ref().map(|held| held.serves)
    }

    /// What the directory has at an epoch of its span.
    pub(super) fn digest(&self, epoch: Epoch, reading: Reading<'_>) -> Result<Digest> {
        let Span { low, high } = self.span;
        if epoch < low || epoch > high {
            return Err(Error::InvalidArgument(format!(
                "what {} had at epoch {epoch} is not known: that is known of the epochs {low} to {high}",
                self.path.display()
            )));
        }
        let catalog = self.directory.catalog().map_err(|broken| Error::BrokenMetadata(broken.to_string()))?;
        let input = Input {
            vfs: &**self.directory.vfs(),
            location: self.directory.location(),
            catalog,
            end_markers: self.directory.has_end_markers(),
            threads: reading.threads,
            memory_bytes: reading.memory_bytes,
            releases: true,
            stopping: Some(reading.stopping),
            pace: reading.pace,
            marks: None,
        };
        let merged = Selected::open(&input, epoch, |_| true)?.merge(Beyond::Dropped)?;
        merged.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        let (mut cutter, mut missing, mut contents) = (Cutter::default(), 0, Vec::new());
        let (mut cursor, mut reads) =
            (merged.snapshot.cursor(), merged.snapshot.mapped_reads(input.mapped_bytes_max()));
        while let Some(row) = cursor.next()? {
            contents.clear();
            for id in row.blobs.iter().filter(|_| reading.with_blobs) {
                contents.push(self.blob(id, reading)?);
            }
            missing += contents.iter().filter(|content| **content == BlobContent::Missing).count() as u64;
            cutter.add(&row, &contents);
            reads.count(1);
            reading.went_on((row.key.len() + row.value.len()) as u64)?;
        }
        let directory = self.path.to_string_lossy().into_owned();
        let same_since = merged.last_durable.max(low);
        let digest = Digest::new(directory, epoch, high, cutter.finish());
        Ok(Digest { same_since, with_blobs: reading.with_blobs, missing_blobs: missing, ..digest })
    }

    fn blob(&self, id: BlobId, reading: Reading<'_>) -> Result<BlobContent> {
        let path = paths::file(&self.directory.location().join(names::BLOB_DIR), id);
        let failed = |e: io::Error| Error::io("cannot read", &path, e);
        let file = match self.directory.vfs().open(&path, Open::Read) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(BlobContent::Missing),
            file => file.map_err(failed)?,
        };
        let (mut hash, mut offset, mut piece) = (Sha256::new(), 0, vec![0; PIECE_BYTES]);
        loop {
            let got = file.read_at(offset, &mut piece).map_err(failed)?;
            hash.update(&piece[..got]);
            offset += got as u64;
            reading.went_on(got as u64)?;
            if got < piece.len() {
                return Ok(BlobContent::Is(hash.finalize().into()));
            }
        }
    }
}

impl Reading<'_> {
    fn went_on(&self, bytes: u64) -> Result<()> {
        if let Some(pace) = self.pace {
            pace.read(bytes);
        }
        match self.stopping.load(Relaxed) {
            true => Err(Error::WrongState("the reading was broken off".to_owned())),
            false => Ok(()),
        }
    }
}

fn of_held(vfs: &Arc<dyn Vfs>, location: &Path, files: &[HeldFile]) -> Result<OfflineDirectory> {
    let view = Arc::new(ReadOnly(HeldView::new(vfs.clone(), location, files)));
    OfflineDirectory::open(view, location, Access::Read)
}

/// Threads that read a log.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

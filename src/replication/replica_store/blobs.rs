// SPDX-License-Identifier: Apache-2.0
//! BLOBs as they arrive: written under a temporary name, checked and synced, then renamed to the name that entries
//! refer to. Names are synced once per directory before an epoch that refers to them is recorded.

use super::shared::Shared;
use super::staging::STAGING_DIR;
use crate::blob::paths::{self, Directories};
use crate::error::{Error, Result};
use crate::types::BlobId;
use crate::vfs::{Open, Vfs, VfsFile};
use crate::wal::names;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;

const PREFIX: &str = "blob.";
/// Makes temporary names differ.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Writes one BLOB after the other.
#[derive(Debug)]
pub struct BlobReceiver {
    shared: Arc<Shared>,
    root: PathBuf,
    temporary: PathBuf,
    current: Option<Current>,
    /// Directories with new names that are not durable.
    unsynced: Directories,
    /// Directories that are there with a durable name.
    durable: Directories,
}

#[derive(Debug)]
struct Current {
    id: BlobId,
    size: u64,
    written: u64,
    crc: crc32fast::Hasher,
    file: Box<dyn VfsFile>,
}

/// Deletes what receivers of an ended process left.
pub(super) fn remove_leftovers(vfs: &dyn Vfs, staging: &Path) -> Result<()> {
    let listing = vfs.names(staging).map_err(|e| Error::io("cannot list", staging, e))?;
    for (name, _) in listing.iter().filter(|(name, _)| name.to_string_lossy().starts_with(PREFIX)) {
        let path = staging.join(name);
        vfs.unlink(&path).map_err(|e| Error::io("cannot delete", &path, e))?;
    }
    Ok(())
}

fn failed(action: &str, path: &Path, e: io::Error) -> Error {
    Error::Blob { message: format!("{action}: {}", path.display()), source: e }
}

impl BlobReceiver {
    pub(super) fn new(shared: Arc<Shared>) -> BlobReceiver {
        let root = shared.location.join(names::BLOB_DIR);
        let temporary = shared.location.join(STAGING_DIR).join(format!("{PREFIX}{}", NEXT.fetch_add(1, SeqCst)));
        let none = Directories::default();
        BlobReceiver { shared, root, temporary, current: None, unsynced: none, durable: none }
    }

    /// Takes the bytes of BLOB `id` at `offset`; they come in order, from offset 0 on. With the last piece, which
    /// brings the CRC-32 of the whole, the content is on the disk; its name is only after [`Self::sync_names`].
    ///
    /// # Errors [`Error::InvalidArgument`] when pieces are missing, too many, or not what the CRC says: then the BLOB
    /// is dropped.
    pub fn piece(&mut self, id: BlobId, size: u64, offset: u64, bytes: &[u8], last: Option<u32>) -> Result<()> {
        self.shared.check()?;
        let mut current = match (self.current.take(), offset) {
            (_, 0) => {
                let opened = self.shared.vfs.open(&self.temporary, Open::Truncate);
                let file = opened.map_err(|e| self.shared.fail(failed("cannot create", &self.temporary, e)))?;
                Current { id, size, written: 0, crc: crc32fast::Hasher::new(), file }
            }
            (Some(current), _) => current,
            (None, _) => return Err(wrong(id, format!("expected offset 0, found {offset}"))),
        };
        let found = (id, size, offset);
        if found != (current.id, current.size, current.written) {
            return Err(wrong(
                id,
                format!("expected {:?}, found {found:?}", (current.id, current.size, current.written)),
            ));
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if end > size || (last.is_some() && end != size) {
            return Err(wrong(id, format!("a piece from {offset} to {end} of {size} bytes, last: {}", last.is_some())));
        }
        if !bytes.is_empty() {
            let written = current.file.write_at(offset, bytes);
            written.map_err(|e| self.shared.fail(failed("cannot write", &self.temporary, e)))?;
            current.crc.update(bytes);
            current.written = end;
        }
        let Some(expected) = last else {
            self.current = Some(current);
            return Ok(());
        };
        let crc = current.crc.finalize();
        if crc != expected {
            return Err(wrong(id, format!("expected CRC {expected:08x} of the whole, found {crc:08x}")));
        }
        current.file.sync().map_err(|e| self.shared.fail(failed("cannot sync", &self.temporary, e)))?;
        self.place(id).map_err(|e| self.shared.fail(e))
    }

    /// Gives the complete temporary file its name. One that is there was never durable, or holds the same.
    fn place(&mut self, id: BlobId) -> Result<()> {
        let vfs = &*self.shared.vfs;
        let directories = Directories::of(&[id]);
        if self.durable.with(directories) != self.durable {
            let directory = paths::directory(&self.root, id);
            match vfs.create_dir(&directory) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.map_err(|e| failed("cannot create the directory", &directory, e))?,
            }
            vfs.sync_dir(&self.root).map_err(|e| failed("cannot sync the directory", &self.root, e))?;
            self.durable = self.durable.with(directories);
        }
        let path = paths::file(&self.root, id);
        vfs.rename(&self.temporary, &path).map_err(|e| failed("cannot create", &path, e))?;
        self.unsynced = self.unsynced.with(directories);
        Ok(())
    }

    /// Makes the names of all BLOBs that came whole durable, each directory once; tells `synced` of each.
    pub fn sync_names(&mut self, mut synced: impl FnMut()) -> Result<()> {
        self.shared.check()?;
        for number in self.unsynced.numbers() {
            let directory = paths::directory(&self.root, BlobId(number as u64));
            let result = self.shared.vfs.sync_dir(&directory);
            result.map_err(|e| self.shared.fail(failed("cannot sync the directory", &directory, e)))?;
            synced();
        }
        self.unsynced = Directories::default();
        Ok(())
    }
}

fn wrong(id: BlobId, what: String) -> Error {
    Error::InvalidArgument(format!("BLOB {id}: {what}"))
}

// SPDX-License-Identifier: Apache-2.0
//! Writes the compacted file (disk format §6.4): live entries in key order, all with version (0, 0).

use crate::error::{Error, Result};
use crate::recovery::Snapshot;
use crate::types::{BlobId, Epoch, WriteVersion};
use crate::vfs::{Open, Vfs};
use crate::wal::entry::{self, tag};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Bytes of one write.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes the entries to a file of this name and syncs its content; the name is not durable yet. Returns the size.
pub fn write(vfs: &dyn Vfs, path: &Path, live: &Snapshot, stopping: Option<&AtomicBool>) -> Result<u64> {
    let file = vfs.open(path, Open::Truncate).map_err(|e| Error::io("cannot create", path, e))?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES + (BUFFER_BYTES >> 2));
    let mut len = 0;
    let mut write_out = |buffer: &mut Vec<u8>| -> Result<u64> {
        file.write_at(len, buffer).map_err(|e| Error::io("cannot write to", path, e))?;
        len += buffer.len() as u64;
        buffer.clear();
        Ok(len)
    };
    buffer.extend_from_slice(&entry::marker(tag::BEGIN, Epoch(0)));
    let mut blobs: Vec<BlobId> = Vec::new();
    let mut cursor = live.cursor();
    while let Some(row) = cursor.next()? {
        blobs.clear();
        blobs.extend(row.blobs.iter());
        entry::encode_put(&mut buffer, row.storage, row.key, row.value, WriteVersion::default(), &blobs);
        if buffer.len() >= BUFFER_BYTES {
            if stopping.is_some_and(|stopping| stopping.load(Relaxed)) {
                return Err(Error::WrongState("the compaction was broken off by a shutdown".to_owned()));
            }
            write_out(&mut buffer)?;
        }
    }
    let len = write_out(&mut buffer)?;
    file.sync().map_err(|e| Error::io("cannot sync", path, e))?;
    Ok(len)
}

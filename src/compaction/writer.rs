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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::fixture::{compacted, put, put_with_blobs, session, Dir, LOCATION};
    use crate::recovery::recover;
    use crate::vfs::Loss;

    #[test]
    fn the_file_has_live_entries_in_key_order_without_versions_and_is_synced() {
        let log = session(5, &[put_with_blobs(b"b", 7, "2", &[3, 4]), put(b"a", 7, "1"), put(b"a", 6, "old")]);
        let dir = Dir::new(5).with("pwal_0000", &log);
        let path = Path::new(LOCATION).join("compacted");
        let live = recover(&dir.input()).unwrap().snapshot;
        let len = write(&dir.fs, &path, &live, None).unwrap();
        dir.fs.sync_dir(Path::new(LOCATION)).unwrap();
        let expected = compacted(&[put(b"a", 0, "1"), put_with_blobs(b"b", 0, "2", &[3, 4])]);
        assert_eq!(dir.fs.reboot(Loss::DropUnsynced).files()[&path], expected);
        assert_eq!(len, expected.len() as u64);
    }

    #[test]
    fn a_large_one_is_broken_off_when_it_is_told_to() {
        let entries: Vec<Vec<u8>> = (0..5).map(|n| put(&[n], 7, &"v".repeat(BUFFER_BYTES / 4))).collect();
        let dir = Dir::new(5).with("pwal_0000", &session(5, &entries));
        let live = recover(&dir.input()).unwrap().snapshot;
        let write = |stopping| write(&dir.fs, Path::new("/log/compacted"), &live, Some(&AtomicBool::new(stopping)));
        assert!(matches!(write(true), Err(Error::WrongState(_))));
        assert!(write(false).unwrap() > BUFFER_BYTES as u64);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Writes the compacted file (disk format §6.4): live entries in key order, all with version (0, 0).

use crate::error::{Error, Result};
use crate::recovery::Snapshot;
use crate::types::{BlobId, Epoch, WriteVersion};
use crate::vfs::{crashsafe, Disk, Open, Vfs};
use crate::wal::entry::{self, tag};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Bytes of one write.
const BUFFER_BYTES: usize = 1 << 20;
/// Bytes between two syncs, so that commits never wait for the sync of a large file.
const SYNC_BYTES: u64 = 16 << 20;
/// What has to stay free on the disk, for those who commit meanwhile.
pub const RESERVE_BYTES: u64 = 64 << 20;

/// Under what conditions a file is written.
#[derive(Clone, Copy, Default)]
pub struct Consideration<'a> {
    /// Set by whoever wants the work to be given up.
    pub stopping: Option<&'a AtomicBool>,
    /// Others work on this machine and this disk: of what is read, so many bytes stay in memory, and
    /// [`RESERVE_BYTES`] stay free.
    pub others: Option<u64>,
}

impl Consideration<'_> {
    /// Looked at from time to time.
    fn check(&self, path: &Path) -> Result<()> {
        if self.stopping.is_some_and(|stopping| stopping.load(Relaxed)) {
            return Err(Error::WrongState("the compaction was broken off by a shutdown".to_owned()));
        }
        let free = Disk::of(crashsafe::parent(path)).map(|disk| disk.free_bytes);
        match free {
            Some(free) if self.others.is_some() && free < RESERVE_BYTES => Err(Error::WrongState(format!(
                "the compaction was broken off: {free} bytes are free on the disk of {}, of which {RESERVE_BYTES} \
                 have to stay free",
                path.display()
            ))),
            _ => Ok(()),
        }
    }
}

/// Writes the entries to a file of this name and syncs its content; the name is not durable yet. Returns the size.
pub fn write(vfs: &dyn Vfs, path: &Path, live: &Snapshot, consideration: Consideration<'_>) -> Result<u64> {
    let file = vfs.open(path, Open::Truncate).map_err(|e| Error::io("cannot create", path, e))?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES + (BUFFER_BYTES >> 2));
    let mut len = 0;
    let mut synced = 0;
    let mut write_out = |buffer: &mut Vec<u8>| -> Result<u64> {
        file.write_at(len, buffer).map_err(|e| Error::io("cannot write to", path, e))?;
        len += buffer.len() as u64;
        buffer.clear();
        if len - synced >= SYNC_BYTES {
            file.sync().map_err(|e| Error::io("cannot sync", path, e))?;
            synced = len;
        }
        Ok(len)
    };
    buffer.extend_from_slice(&entry::marker(tag::BEGIN, Epoch(0)));
    let mut blobs: Vec<BlobId> = Vec::new();
    let mut cursor = live.cursor();
    let mut reads = live.mapped_reads(consideration.others);
    while let Some(row) = cursor.next()? {
        blobs.clear();
        blobs.extend(row.blobs.iter());
        entry::encode_put(&mut buffer, row.storage, row.key, row.value, WriteVersion::default(), &blobs);
        reads.count(1);
        if buffer.len() >= BUFFER_BYTES {
            consideration.check(path)?;
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
        let len = write(&dir.fs, &path, &live, Consideration::default()).unwrap();
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
        let write = |stopping: &AtomicBool| {
            let consideration = Consideration { stopping: Some(stopping), others: Some(1 << 20) };
            write(&dir.fs, Path::new("/log/compacted"), &live, consideration)
        };
        assert!(matches!(write(&AtomicBool::new(true)), Err(Error::WrongState(_))));
        assert!(write(&AtomicBool::new(false)).unwrap() > BUFFER_BYTES as u64);
    }
}

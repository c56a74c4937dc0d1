// SPDX-License-Identifier: Apache-2.0
//! What a start recovered, and the cursors over it. It never changes: later writes are not seen.

use super::index::Position;
use super::mapped_reads::MappedReads;
use super::merge::{changed, entry_at, Segment};
use crate::error::{Error, Result};
use crate::types::{StorageId, WriteVersion};
use crate::vfs::Mapping;
use crate::wal::entry::{BlobList, Entry};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// Entries that are looked ahead, so that their bytes are on the way when they are asked for. They are asked for in
/// blocks of this size, because address translations overlap only when they are close together.
const AHEAD: usize = 16;

/// The recovered entries. Cheap to clone; may be used from any thread.
#[derive(Clone, Debug)]
pub struct Snapshot {
    data: Arc<Data>,
    partitioned: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Data {
    files: Vec<Mapping>,
    segments: Vec<Segment>,
    /// The number of the first entry of each segment.
    starts: Vec<usize>,
    len: usize,
}

impl Data {
    /// Where entry number `index` stands: its segment and its place in it.
    fn place(&self, index: usize) -> (usize, usize) {
        match self.starts.partition_point(|&start| start <= index).checked_sub(1) {
            Some(segment) if index < self.len => (segment, index - self.starts[segment]),
            _ => (self.segments.len(), 0),
        }
    }

    fn row(&self, position: Position) -> Result<Row<'_>> {
        match entry_at(&self.files, position)? {
            Entry::Put { storage, key, value, version, blobs } => Ok(Row { storage, key, value, version, blobs }),
            _ => Err(changed(position)),
        }
    }

    /// The number of entries that are `before` something; these come first. Reads a few entries for each doubling of
    /// their number.
    fn partition_point(&self, before: impl Fn(StorageId, &[u8]) -> bool) -> Result<usize> {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            let (segment, index) = self.place(middle);
            let row = self.row(self.segments[segment].get(index))?;
            if before(row.storage, row.key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// One entry of a snapshot; the bytes live in the mapped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    pub storage: StorageId,
    pub key: &'a [u8],
    pub value: &'a [u8],
    /// (0, 0) when the entry was compacted.
    pub version: WriteVersion,
    pub blobs: BlobList<'a>,
}

impl Snapshot {
    pub(super) fn new(files: Vec<Mapping>, segments: Vec<Segment>) -> Snapshot {
        let mut len = 0;
        let mut starts = Vec::with_capacity(segments.len());
        for segment in &segments {
            starts.push(len);
            len += segment.len();
        }
        Snapshot { data: Arc::new(Data { files, segments, starts, len }), partitioned: Arc::default() }
    }

    /// A snapshot without entries.
    pub fn empty() -> Snapshot {
        Snapshot::new(Vec::new(), Vec::new())
    }

    /// Another view of the same entries, which may be partitioned once more.
    pub fn share(&self) -> Snapshot {
        Snapshot { data: self.data.clone(), partitioned: Arc::default() }
    }

    /// To bound the memory of who reads all entries once.
    pub fn mapped_reads(&self, bytes_max: Option<u64>) -> MappedReads<'_> {
        MappedReads::new(&self.data.files, bytes_max)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.data.len
    }

    pub fn is_empty(&self) -> bool {
        self.data.len == 0
    }

    /// A cursor over everything, before the first entry. Entries come in the order of the little-endian bytes of the
    /// storage id, then of the key (§6.2).
    pub fn cursor(&self) -> Cursor {
        self.range(0, self.data.len)
    }

    /// Exactly `n` cursors that together give every entry once, each in ascending order; for one thread each. A
    /// cursor that is not read costs nothing and holds nobody up.
    pub fn partitioned_cursors(&self, n: usize) -> Result<Vec<Cursor>> {
        if n == 0 {
            return Err(Error::InvalidArgument("partition count must be greater than 0".to_owned()));
        }
        if self.partitioned.swap(true, Ordering::AcqRel) {
            let message = "get_partitioned_cursors() was already called once for this snapshot";
            return Err(Error::WrongState(message.to_owned()));
        }
        let bound = |part: usize| (self.data.len as u128 * part as u128 / n as u128) as usize;
        Ok((0..n).map(|part| self.range(bound(part), bound(part + 1))).collect())
    }

    /// A cursor over the entry with this key, if there is one: a search by halves, not a pass over the entries.
    pub fn find(&self, storage: StorageId, key: &[u8]) -> Result<Cursor> {
        let wanted = (storage.order(), key);
        let from = self.data.partition_point(|storage, key| (storage.order(), key) < wanted)?;
        let (segment, index) = self.data.place(from);
        let found = match self.data.segments.get(segment) {
            Some(segment) => self.data.row(segment.get(index))?,
            None => return Ok(self.range(from, from)),
        };
        let is_it = found.storage == storage && found.key == key;
        Ok(self.range(from, from + usize::from(is_it)))
    }

    /// A cursor over the entries of one storage from `key` on, in the order of their keys; with or without that of
    /// `key` itself. Found as by [`Self::find`].
    pub fn scan(&self, storage: StorageId, key: &[u8], inclusive: bool) -> Result<Cursor> {
        let first = (storage.order(), key);
        let before_first = |storage: StorageId, key: &[u8]| {
            let entry = (storage.order(), key);
            entry < first || (!inclusive && entry == first)
        };
        let from = self.data.partition_point(before_first)?;
        let to = self.data.partition_point(|entry_storage, _| entry_storage.order() <= storage.order())?;
        Ok(self.range(from, to))
    }

    fn range(&self, from: usize, to: usize) -> Cursor {
        let (segment, index) = self.data.place(from);
        Cursor { data: self.data.clone(), segment, index, left: to - from }
    }
}

/// Walks over entries of a snapshot; one thread at a time. Keeps the snapshot alive.
#[derive(Debug)]
pub struct Cursor {
    data: Arc<Data>,
    segment: usize,
    index: usize,
    left: usize,
}

impl Cursor {
    /// The next entry, `None` at the end and ever after.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Row<'_>>> {
        if self.left == 0 {
            return Ok(None);
        }
        let segment = &self.data.segments[self.segment];
        let position = segment.get(self.index);
        if self.index.is_multiple_of(AHEAD) {
            let end = segment.len().min(self.index + 2 * AHEAD);
            for ahead in (self.index + AHEAD).min(end)..end {
                let ahead = segment.get(ahead);
                prefetch(&self.data.files[ahead.file()], ahead.offset());
            }
        }
        self.left -= 1;
        self.index += 1;
        if self.index == segment.len() {
            self.segment += 1;
            self.index = 0;
        }
        self.data.row(position).map(Some)
    }
}

/// Asks for the cache lines of an entry of ordinary size.
#[inline]
fn prefetch(bytes: &[u8], offset: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..3 {
        if let Some(byte) = bytes.get(offset + line * 64) {
            // SAFETY: a prefetch of an address inside the slice; it reads nothing that the program sees.
            unsafe {
                use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
                _mm_prefetch(std::ptr::from_ref(byte).cast::<i8>(), _MM_HINT_T0);
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, offset);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::fixture::{put, session, version, Dir};
    use crate::recovery::recover;
    use crate::wal::entry::encode_put;

    fn snapshot() -> Snapshot {
        let mut entries: Vec<Vec<u8>> = (0..10).map(|n| put(format!("key {n}").as_bytes(), 1, "v")).collect();
        for storage in [256, 2] {
            let mut entry = Vec::new();
            encode_put(&mut entry, StorageId(storage), b"other", b"v", version(1), &[]);
            entries.push(entry);
        }
        let (first, second) = entries.split_at(5);
        let dir = Dir::new(5).with("pwal_0000", &session(1, first)).with("pwal_0001", &session(1, second));
        recover(&dir.input()).unwrap().snapshot
    }

    fn keys(mut cursor: Cursor) -> Vec<(u64, String)> {
        let mut keys = Vec::new();
        while let Some(row) = cursor.next().unwrap() {
            keys.push((row.storage.0, String::from_utf8_lossy(row.key).into_owned()));
        }
        assert!(cursor.next().unwrap().is_none(), "and ever after");
        keys
    }

    #[test]
    fn storages_come_in_the_order_of_their_little_endian_bytes() {
        let storages: Vec<u64> = keys(snapshot().cursor()).into_iter().map(|(storage, _)| storage).collect();
        assert_eq!(storages, [&[256][..], &[1; 10], &[2]].concat());
    }

    #[test]
    fn partitioned_cursors_together_give_everything_once_and_in_order() {
        let all = keys(snapshot().cursor());
        for n in [1, 3, 12, 40] {
            let cursors = snapshot().partitioned_cursors(n).unwrap();
            assert_eq!(cursors.len(), n);
            assert_eq!(cursors.into_iter().flat_map(keys).collect::<Vec<_>>(), all, "{n} cursors");
        }
        let snapshot = snapshot();
        assert!(matches!(snapshot.partitioned_cursors(0), Err(Error::InvalidArgument(_))));
        snapshot.partitioned_cursors(2).unwrap();
        assert!(matches!(snapshot.clone().partitioned_cursors(2), Err(Error::WrongState(_))), "once for a snapshot");
        assert!(snapshot.share().partitioned_cursors(2).is_ok());
    }

    #[test]
    fn a_search_finds_its_key_only_and_a_scan_ends_with_its_storage() {
        let snapshot = snapshot();
        let find = |storage, key: &str| keys(snapshot.find(StorageId(storage), key.as_bytes()).unwrap()).len();
        assert_eq!((find(1, "key 0"), find(1, "key 9"), find(2, "other"), find(256, "other")), (1, 1, 1, 1));
        assert_eq!((find(1, "key"), find(1, "other"), find(3, "key 0"), find(2, "zzz")), (0, 0, 0, 0));
        let scan = |key: &str, inclusive| keys(snapshot.scan(StorageId(1), key.as_bytes(), inclusive).unwrap()).len();
        assert_eq!((scan("key 7", true), scan("key 7", false), scan("key 77", true), scan("", true)), (3, 2, 2, 10));
    }
}

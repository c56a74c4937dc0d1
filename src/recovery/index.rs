// SPDX-License-Identifier: Apache-2.0
//! The index of all entries: 24 bytes each, in pieces sorted by the first bytes of the key. Pieces beyond the memory
//! bound go to a file without a name, which is gone with the process.

use super::pool;
use crate::error::{Error, Result};
use crate::types::StorageId;
use crate::vfs::{Mapping, Vfs};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a key that are in the index itself.
pub const PREFIX_LEN: usize = 16;
const RECORD_LEN: usize = 24;
/// Smaller pieces are not worth a thread.
const PIECE_RECORDS_MIN: usize = 1 << 15;
/// Records that are moved at once from one piece to another: 3 MiB.
const MOVED_RECORDS: usize = 1 << 17;

/// What an entry does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Put,
    Remove,
}

/// Where an entry stands: 20 bits of file number, 43 bits of offset, one bit for removals. A larger position of the
/// same version wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

impl Position {
    const OFFSET_BITS: u32 = 43;
    pub const MAX_FILES: usize = 1 << 20;
    pub const MAX_OFFSET: usize = 1 << Self::OFFSET_BITS;

    pub fn new(file: usize, offset: usize, kind: Kind) -> Option<Position> {
        if file >= Self::MAX_FILES || offset >= Self::MAX_OFFSET {
            return None;
        }
        let remove = u64::from(kind == Kind::Remove);
        Some(Position((file as u64) << (Self::OFFSET_BITS + 1) | (offset as u64) << 1 | remove))
    }

    pub fn file(self) -> usize {
        (self.0 >> (Self::OFFSET_BITS + 1)) as usize
    }

    pub fn offset(self) -> usize {
        (self.0 >> 1) as usize & (Self::MAX_OFFSET - 1)
    }

    pub fn is_remove(self) -> bool {
        self.0 & 1 == 1
    }

    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }

    pub fn from_bytes(bytes: &[u8]) -> Position {
        Position(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }
}

/// The first sixteen bytes of a key, zeros behind a shorter one; ordered as the keys are, equal prefixes aside.
pub type Prefix = (u64, u64);

/// One entry of the index.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub prefix: Prefix,
    pub position: Position,
}

/// The prefix of a key.
#[inline]
pub fn prefix_of(key: &[u8]) -> Prefix {
    let mut bytes = [0u8; PREFIX_LEN];
    let len = key.len().min(PREFIX_LEN);
    bytes[..len].copy_from_slice(&key[..len]);
    let value = u128::from_be_bytes(bytes);
    ((value >> 64) as u64, value as u64)
}

/// The bound on what the threads of a scan hold together.
pub struct Budget<'a> {
    records_max: u64,
    /// A thread that holds less than this does not write a piece out.
    piece_records_min: usize,
    held: AtomicU64,
    vfs: &'a dyn Vfs,
    directory: &'a Path,
}

impl<'a> Budget<'a> {
    /// Three quarters of `memory_bytes` are for records; the rest is for the positions that a snapshot keeps.
    pub fn new(memory_bytes: u64, threads: usize, vfs: &'a dyn Vfs, directory: &'a Path) -> Budget<'a> {
        let records_max = (memory_bytes / 4 * 3 / RECORD_LEN as u64).max(1024);
        let piece_records_min = (records_max as usize / (2 * threads)).max(512);
        Budget { records_max, piece_records_min, held: AtomicU64::new(0), vfs, directory }
    }
}

/// Collects the entries that one thread reads.
pub struct IndexBuilder<'a> {
    budget: &'a Budget<'a>,
    storages: HashMap<StorageId, usize>,
    buckets: Vec<(StorageId, Vec<Record>)>,
    /// The storage that was added to last and its bucket.
    recent: Option<(StorageId, usize)>,
    held: usize,
    /// Records since the shared count was looked at.
    uncounted: usize,
    spilled: Vec<(StorageId, Piece)>,
}

impl<'a> IndexBuilder<'a> {
    pub fn new(budget: &'a Budget<'a>) -> IndexBuilder<'a> {
        IndexBuilder {
            budget,
            storages: HashMap::new(),
            buckets: Vec::new(),
            recent: None,
            held: 0,
            uncounted: 0,
            spilled: Vec::new(),
        }
    }

    #[inline]
    pub fn add(&mut self, storage: StorageId, key: &[u8], position: Position) -> Result<()> {
        let bucket = match self.recent {
            Some((recent, bucket)) if recent == storage => bucket,
            _ => self.bucket(storage),
        };
        self.buckets[bucket].1.push(Record { prefix: prefix_of(key), position });
        self.held += 1;
        self.uncounted += 1;
        if self.uncounted >= 256 {
            return self.count();
        }
        Ok(())
    }

    fn bucket(&mut self, storage: StorageId) -> usize {
        let buckets = &mut self.buckets;
        let bucket = *self.storages.entry(storage).or_insert_with(|| {
            buckets.push((storage, Vec::new()));
            buckets.len() - 1
        });
        self.recent = Some((storage, bucket));
        bucket
    }

    fn count(&mut self) -> Result<()> {
        let held = self.budget.held.fetch_add(self.uncounted as u64, Ordering::Relaxed) + self.uncounted as u64;
        self.uncounted = 0;
        if held > self.budget.records_max && self.held >= self.budget.piece_records_min {
            return self.spill();
        }
        Ok(())
    }

    /// Sorts what is held and writes it out.
    fn spill(&mut self) -> Result<()> {
        let failed = |e| Error::io("cannot write a temporary index file in", self.budget.directory, e);
        let file = self.budget.vfs.temp_file(self.budget.directory).map_err(failed)?;
        let mut end = 0;
        let mut parts = Vec::new();
        let mut bytes = Vec::new();
        for (storage, mut records) in self.buckets.drain(..) {
            records.sort_unstable_by_key(|record| record.prefix);
            let start = end;
            for chunk in records.chunks(1 << 14) {
                bytes.clear();
                for record in chunk {
                    bytes.extend_from_slice(&record.prefix.0.to_le_bytes());
                    bytes.extend_from_slice(&record.prefix.1.to_le_bytes());
                    bytes.extend_from_slice(&record.position.to_bytes());
                }
                file.write_at(end as u64, &bytes).map_err(failed)?;
                end += bytes.len();
            }
            parts.push((storage, start..end));
        }
        let map = file.map().map_err(failed)?;
        self.spilled.extend(parts.into_iter().map(|(storage, range)| {
            (storage, Piece::Spilled { map: map.clone(), start: range.start, records: range.len() / RECORD_LEN })
        }));
        self.budget.held.fetch_sub(self.held as u64, Ordering::Relaxed);
        self.storages.clear();
        self.recent = None;
        self.held = 0;
        Ok(())
    }
}

/// Takes the last `count` records. What it moves is given back in steps: at no moment is there memory for more of them
/// twice than for one step, however many one thread holds.
fn split_off(records: &mut Vec<Record>, count: usize) -> Vec<Record> {
    let mut last = Vec::with_capacity(count);
    while last.len() < count {
        let kept = records.len() - MOVED_RECORDS.min(count - last.len());
        last.extend_from_slice(&records[kept..]);
        records.truncate(kept);
        records.shrink_to_fit();
    }
    last
}

/// Records sorted by prefix.
#[derive(Debug)]
pub enum Piece {
    Held(Vec<Record>),
    Spilled { map: Mapping, start: usize, records: usize },
}

impl Piece {
    pub fn len(&self) -> usize {
        match self {
            Piece::Held(records) => records.len(),
            Piece::Spilled { records, .. } => *records,
        }
    }

    #[inline]
    pub fn get(&self, index: usize) -> Record {
        match self {
            Piece::Held(records) => records[index],
            Piece::Spilled { map, start, .. } => {
                let at = start + index * RECORD_LEN;
                let bytes = &map[at..at + RECORD_LEN];
                let word = |i: usize| u64::from_le_bytes(bytes[i..i + 8].try_into().expect("eight bytes"));
                Record { prefix: (word(0), word(8)), position: Position::from_bytes(&bytes[16..]) }
            }
        }
    }

    /// The first record whose prefix is not below `prefix`.
    pub fn lower_bound(&self, prefix: Prefix) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.get(middle).prefix < prefix {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// The pieces of every storage, in the order of the storages.
#[derive(Debug, Default)]
pub struct Index {
    pub storages: BTreeMap<u64, Vec<Piece>>,
}

impl Index {
    /// Sorts what the threads still hold, with as many threads.
    pub fn finish(builders: Vec<IndexBuilder<'_>>, threads: usize) -> Result<Index> {
        let mut index = Index::default();
        let mut unsorted = Vec::new();
        let total: usize = builders.iter().map(|builder| builder.held).sum();
        let piece_max = total.div_ceil(threads).max(PIECE_RECORDS_MIN);
        for builder in builders {
            for (storage, piece) in builder.spilled {
                index.storages.entry(storage.order()).or_default().push(piece);
            }
            for (storage, mut records) in builder.buckets {
                // One thread may have read nearly everything; the others help to sort it.
                while records.len() > piece_max + PIECE_RECORDS_MIN {
                    unsorted.push((storage, split_off(&mut records, piece_max)));
                }
                unsorted.push((storage, records));
            }
        }
        let work = pool::Queue::new(unsorted);
        let sorted = pool::run(threads, || {
            let mut done = Vec::new();
            while let Some((storage, mut records)) = work.next() {
                records.sort_unstable_by_key(|record| record.prefix);
                done.push((storage, Piece::Held(records)));
            }
            done
        });
        for (storage, piece) in sorted.into_iter().flatten() {
            index.storages.entry(storage.order()).or_default().push(piece);
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::SimFs;

    #[test]
    fn positions_keep_what_they_were_made_of_and_are_ordered_by_file_and_offset() {
        let last = Position::new(Position::MAX_FILES - 1, Position::MAX_OFFSET - 1, Kind::Remove).unwrap();
        assert_eq!((last.file(), last.offset()), (Position::MAX_FILES - 1, Position::MAX_OFFSET - 1));
        assert!(last.is_remove() && !Position::new(0, 0, Kind::Put).unwrap().is_remove());
        assert_eq!(Position::from_bytes(&last.to_bytes()), last);
        assert_eq!(Position::new(Position::MAX_FILES, 0, Kind::Put), None);
        assert_eq!(Position::new(0, Position::MAX_OFFSET, Kind::Put), None);
        let at = |file, offset| Position::new(file, offset, Kind::Put).unwrap();
        assert!(at(1, 0) > at(0, Position::MAX_OFFSET - 1) && at(1, 7) > at(1, 6));
    }

    #[test]
    fn prefixes_are_ordered_as_their_keys() {
        let keys: [&[u8]; 6] = [b"", b"\x01", b"a", b"aaaaaaaaaaaaaaaa", b"ab", b"\xff"];
        assert!(keys.windows(2).all(|pair| prefix_of(pair[0]) < prefix_of(pair[1])));
        assert_eq!(prefix_of(b"a"), prefix_of(b"a\0"), "told apart by the files");
        assert_eq!(prefix_of(b"sixteen bytes---x"), prefix_of(b"sixteen bytes---y"));
    }

    #[test]
    fn pieces_beyond_the_bound_go_to_a_file_and_hold_the_same_in_order() {
        let fs = SimFs::new();
        fs.create_dir(Path::new("/log")).unwrap();
        let budget = Budget::new(1, 1, &fs, Path::new("/log"));
        let mut builder = IndexBuilder::new(&budget);
        let key = |n: usize| (n * 7919 % 5000).to_be_bytes();
        for n in 0..5000 {
            builder.add(StorageId(1), &key(n), Position::new(0, n, Kind::Put).unwrap()).unwrap();
        }
        let index = Index::finish(vec![builder], 1).unwrap();
        let pieces = &index.storages[&StorageId(1).order()];
        assert!(pieces.iter().any(|piece| matches!(piece, Piece::Spilled { .. })), "{} pieces", pieces.len());
        let mut found = Vec::new();
        for piece in pieces {
            let records: Vec<Record> = (0..piece.len()).map(|n| piece.get(n)).collect();
            assert!(records.windows(2).all(|pair| pair[0].prefix <= pair[1].prefix));
            let middle = records[records.len() / 2].prefix;
            assert_eq!(piece.lower_bound(middle), records.partition_point(|record| record.prefix < middle));
            assert!(records.iter().all(|record| record.prefix == prefix_of(&key(record.position.offset()))));
            found.extend(records.iter().map(|record| record.position.offset()));
        }
        found.sort_unstable();
        assert!(found.into_iter().eq(0..5000), "each once");
    }

    #[test]
    fn what_one_thread_has_read_is_sorted_by_all_in_no_more_memory() {
        let fs = SimFs::new();
        let budget = Budget::new(1 << 30, 2, &fs, Path::new("/log"));
        let (mut busy, idle) = (IndexBuilder::new(&budget), IndexBuilder::new(&budget));
        let entries = 5 * MOVED_RECORDS / 2;
        for n in 0..entries {
            busy.add(StorageId(1), &n.to_be_bytes(), Position::new(0, n, Kind::Put).unwrap()).unwrap();
        }
        let index = Index::finish(vec![busy, idle], 2).unwrap();
        let pieces = &index.storages[&StorageId(1).order()];
        let room = |piece: &Piece| match piece {
            Piece::Held(records) => (records.len(), records.capacity()),
            Piece::Spilled { .. } => panic!("there is memory for all"),
        };
        let room: Vec<(usize, usize)> = pieces.iter().map(room).collect();
        assert_eq!(room, [(entries / 2, entries / 2); 2]);
        let mut found: Vec<usize> =
            pieces.iter().flat_map(|piece| (0..piece.len()).map(|n| piece.get(n).position.offset())).collect();
        found.sort_unstable();
        assert!(found.into_iter().eq(0..entries), "each once");
    }
}

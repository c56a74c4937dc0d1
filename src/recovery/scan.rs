// SPDX-License-Identifier: Apache-2.0
//! The parallel scan of all log files into one index.

use super::compacted;
use super::index::{Budget, Index, IndexBuilder, Kind, Position};
use super::input::{Input, Source};
use super::merge::Clears;
use super::onlooker::{Follower, Onlooker};
use super::pool;
use crate::error::{Error, Result};
use crate::types::{BlobId, Epoch};
use crate::vfs::Mapping;
use crate::wal::entry::Entry;
use crate::wal::scanner::{self, FileScan, Visitor};

/// Entries between two looks at whether to give up.
const CHECK_ENTRIES: u64 = 1 << 12;

/// What all log files hold together.
pub(super) struct Scans {
    /// One for each source, in their order.
    pub files: Vec<FileScan>,
    pub index: Index,
    pub clears: Clears,
    pub max_blob_id: BlobId,
    pub entries: u64,
}

/// Collects what one thread reads.
struct Collector<'a, 'o> {
    input: &'a Input<'a>,
    /// `None` when no snapshot is wanted.
    index: Option<IndexBuilder<'a>>,
    file: usize,
    /// The file that is read.
    bytes: Mapping,
    follower: Option<Box<dyn Follower + 'o>>,
    /// How much of it the pace knows of.
    paced: usize,
    clears: Clears,
    max_blob_id: BlobId,
    entries: u64,
    error: Option<Error>,
}

/// What one thread has read: all of it together, and each of its files by its number.
type Read<'a, 'o> = (Collector<'a, 'o>, Vec<(usize, Result<FileScan>)>);

impl Collector<'_, '_> {
    /// The scan is at `offset` of the file.
    fn pace(&mut self, offset: usize) {
        if let Some(pace) = self.input.pace {
            pace.read(offset.saturating_sub(self.paced) as u64);
            self.paced = offset;
        }
    }
}

impl Visitor for Collector<'_, '_> {
    #[inline]
    fn entry(&mut self, offset: usize, entry: Entry<'_>) {
        if let Some(follower) = &mut self.follower {
            follower.entry(offset, &entry);
        }
        let (storage, key, kind) = match entry {
            Entry::Put { storage, key, blobs, .. } => {
                self.max_blob_id = blobs.iter().fold(self.max_blob_id, BlobId::max);
                (storage, key, Kind::Put)
            }
            Entry::Remove { storage, key, .. } => (storage, key, Kind::Remove),
            Entry::ClearStorage { storage, version } => {
                let clear = self.clears.entry(storage).or_default();
                *clear = version.max(*clear);
                return;
            }
            _ => return,
        };
        self.entries += 1;
        if self.entries.is_multiple_of(CHECK_ENTRIES) {
            if let Err(e) = self.input.check() {
                self.error.get_or_insert(e);
            }
            self.input.release(&self.bytes);
            self.pace(offset);
        }
        let Some(index) = &mut self.index else {
            return;
        };
        match Position::new(self.file, offset, kind) {
            Some(position) => {
                if let Err(e) = index.add(storage, key, position) {
                    self.error.get_or_insert(e);
                }
            }
            None => {
                let message =
                    format!("more than {} log files, or one above {} bytes", Position::MAX_FILES, Position::MAX_OFFSET);
                self.error.get_or_insert(Error::UnsupportedVersion(message));
            }
        }
    }

    fn passed_over(&mut self, offset: usize, entry: Entry<'_>) {
        if let Some(follower) = &mut self.follower {
            follower.entry(offset, &entry);
        }
    }

    #[inline]
    fn gave_up(&self) -> bool {
        self.error.is_some()
    }
}

/// Scans all files with several threads; the first damage in file order is reported. Without `indexing` the index
/// stays empty.
pub(super) fn scan<'a>(
    input: &'a Input<'a>,
    sources: &[Source],
    durable: Epoch,
    indexing: bool,
    onlooker: Option<&'a dyn Onlooker>,
) -> Result<Scans> {
    let threads = input.threads.clamp(1, sources.len().max(1));
    let budget = Budget::new(input.memory_bytes, threads, input.vfs, input.location);
    // The largest first, so that no thread is left with a large one at the end.
    let mut order: Vec<usize> = (0..sources.len()).collect();
    order.sort_by_key(|&file| std::cmp::Reverse(sources[file].bytes.len()));
    let work = pool::Queue::new(order);
    let scan_one = |collector: &mut Collector<'_, 'a>, file: usize| -> Result<FileScan> {
        let source = &sources[file];
        (collector.file, collector.bytes, collector.paced) = (file, source.bytes.clone(), 0);
        collector.follower = onlooker.map(|onlooker| onlooker.follow(&source.path, &source.bytes));
        source.bytes.advise(true);
        // Where nothing is durable it matters whether there is anything.
        let known = input.marks.filter(|_| !indexing && durable > Epoch(0));
        let known = known.map(|marks| marks.of(&source.name).now()).unwrap_or_default();
        let scan = if source.compacted {
            compacted::scan_again(&source.bytes, &source.path, &known, collector)
        } else {
            scanner::scan_again(&source.bytes, durable, input.end_markers, &source.path, &known, collector)
        };
        let follower = collector.follower.take();
        if let Some(error) = collector.error.take() {
            return Err(error);
        }
        let scan = scan.map_err(Error::Corrupted)?;
        follower.into_iter().for_each(|follower| follower.done(&scan));
        Ok(scan)
    };
    let workers = pool::run(threads, || {
        let index = indexing.then(|| IndexBuilder::new(&budget));
        let mut collector = Collector {
            input,
            index,
            file: 0,
            bytes: Mapping::owned(Vec::new()),
            follower: None,
            paced: 0,
            clears: Clears::new(),
            max_blob_id: BlobId(0),
            entries: 0,
            error: None,
        };
        let mut scans = Vec::new();
        while let Some(file) = work.next() {
            scans.push((file, scan_one(&mut collector, file)));
        }
        (collector, scans)
    });
    put_together(workers, sources.len(), threads)
}

/// What the threads have read; the scans are in the order of the files.
fn put_together(workers: Vec<Read<'_, '_>>, files: usize, threads: usize) -> Result<Scans> {
    let mut files: Vec<Option<Result<FileScan>>> = (0..files).map(|_| None).collect();
    let mut clears = Clears::new();
    let (mut max_blob_id, mut entries) = (BlobId(0), 0);
    let mut builders = Vec::new();
    for (collector, scans) in workers {
        for (file, scan) in scans {
            files[file] = Some(scan);
        }
        for (storage, version) in collector.clears {
            let clear = clears.entry(storage).or_default();
            *clear = version.max(*clear);
        }
        max_blob_id = max_blob_id.max(collector.max_blob_id);
        entries += collector.entries;
        builders.extend(collector.index);
    }
    let files = files.into_iter().map(|scan| scan.expect("every file was scanned")).collect::<Result<Vec<_>>>()?;
    let index = Index::finish(builders, threads)?;
    Ok(Scans { files, index, clears, max_blob_id, entries })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::fixture::{clear, put, put_with_blobs, session, version, Dir};
    use crate::recovery::recover;
    use crate::types::StorageId;
    use std::sync::atomic::AtomicBool;

    fn scan_all(dir: &Dir, indexing: bool) -> Result<Scans> {
        let input = dir.input();
        let mut listing = input.vfs.list(input.location).unwrap();
        listing.sort_by(|a, b| a.name.cmp(&b.name));
        let sources = input.open_logs(&listing, |_| true).unwrap();
        scan(&input, &sources, Epoch(5), indexing, None)
    }

    #[test]
    fn what_several_threads_have_read_is_put_together() {
        let first = session(1, &[clear(7), put_with_blobs(b"a", 1, "v", &[9, 3])]);
        let second = session(1, &[clear(6), put(b"b", 1, "v"), put_with_blobs(b"c", 1, "v", &[4])]);
        let dir = Dir::new(5).with("pwal_0000", &first).with("pwal_0001", &second);
        let scans = scan_all(&dir, true).unwrap();
        assert_eq!(scans.clears[&StorageId(1)], version(7), "the largest");
        assert_eq!((scans.max_blob_id, scans.entries, scans.files.len()), (BlobId(9), 3, 2));
        assert_eq!(scans.index.storages.len(), 1);
        let without = scan_all(&dir, false).unwrap();
        assert_eq!((without.entries, without.index.storages.len()), (3, 0), "the same without an index");
    }

    #[test]
    fn of_several_damaged_files_the_first_by_name_is_reported() {
        let broken = |len: usize| [session(1, &[]), vec![0xee; len], session(2, &[])].concat();
        let mut dir = Dir::new(5).with("pwal_0001", &broken(9)).with("pwal_0002", &broken(9000));
        dir = dir.with("pwal_0000", &session(1, &[]));
        for threads in [1, 4] {
            dir.threads = threads;
            let Err(Error::Corrupted(damage)) = scan_all(&dir, true).map(drop) else { panic!("it was read") };
            assert!(damage.file.ends_with("pwal_0001"), "{}", damage.file.display());
        }
    }

    #[test]
    fn a_scan_that_is_told_to_stop_fails_soon() {
        let entries: Vec<Vec<u8>> = (0..CHECK_ENTRIES).map(|n| put(&n.to_be_bytes(), 1, "v")).collect();
        let (dir, stopping) = (Dir::new(5).with("pwal_0000", &session(1, &entries)), AtomicBool::new(true));
        let input = Input { stopping: Some(&stopping), ..dir.input() };
        assert!(matches!(recover(&input), Err(Error::WrongState(_))));
    }
}

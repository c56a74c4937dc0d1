// SPDX-License-Identifier: Apache-2.0
//! The files of a directory that a recovery reads.

use crate::error::{Error, Result};
use crate::vfs::{DirEntry, FileKind, Mapping, Open, Vfs};
use crate::wal::catalog::Catalog;
use crate::wal::epoch_marks::LogMarks;
use crate::wal::{epoch_file, names};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Who waits sees after this whether he shall give up.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// What a recovery works on.
#[derive(Debug)]
pub struct Input<'a> {
    pub vfs: &'a dyn Vfs,
    pub location: &'a Path,
    pub catalog: &'a Catalog,
    /// Whether the format version of the directory writes end markers.
    pub end_markers: bool,
    pub threads: usize,
    /// Bound for the index, in bytes.
    pub memory_bytes: u64,
    /// Whether the memory that mapped files take is given back on the way: for whoever has time, and not the machine.
    pub releases: bool,
    /// Set by whoever wants the work to be given up; it then fails soon.
    pub stopping: Option<&'a AtomicBool>,
    /// How fast it may be read at most; `None` for as fast as can be.
    pub pace: Option<&'a Pace>,
    /// Where to begin to read files that were read before; `None` for the begin. Not for a snapshot.
    pub marks: Option<&'a LogMarks>,
}

/// A bound for what is read in a second. May be used by several threads.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    begun: Instant,
    read: Arc<AtomicU64>,
}

impl Pace {
    /// From now on; 0 is 1 byte.
    pub fn new(bytes_per_second: u64) -> Pace {
        Pace::counting(Some(bytes_per_second), Arc::default())
    }

    /// The same, or as fast as can be; `read` is how much has been read, for others to look at.
    pub fn counting(bytes_per_second: Option<u64>, read: Arc<AtomicU64>) -> Pace {
        Pace { bytes_per_second: bytes_per_second.unwrap_or(u64::MAX).max(1), begun: Instant::now(), read }
    }

    /// So much more has been read: waits until it may have been. To be called now and then, since it does not wait
    /// long at a time.
    pub fn read(&self, bytes: u64) {
        let read = self.read.fetch_add(bytes, Relaxed) + bytes;
        let due = Duration::from_secs_f64(read as f64 / self.bytes_per_second as f64);
        std::thread::sleep(due.saturating_sub(self.begun.elapsed()).min(LONGEST_WAIT));
    }
}

/// A log file that is read.
pub(super) struct Source {
    pub name: String,
    pub path: PathBuf,
    pub bytes: Mapping,
    /// Not a log: live entries in key order.
    pub compacted: bool,
}

impl Input<'_> {
    /// The durable epoch (§3.4): the largest record of `epoch`, or of all epoch files when it has none; `None` without
    /// any record.
    pub(super) fn read_epochs(
        &self,
        listing: &[DirEntry],
        warnings: &mut Vec<String>,
    ) -> Result<epoch_file::EpochRecords> {
        let mut read = |name: &str| -> Result<epoch_file::EpochRecords> {
            let path = self.location.join(name);
            let bytes = map(self.vfs, &path)?;
            let records = epoch_file::parse(&bytes, &path).map_err(Error::Corrupted)?;
            if let Some(offset) = records.torn_at {
                let lost = bytes.len() - offset;
                warnings.push(format!(
                    "{}: a torn record at offset {offset}: {lost} bytes are cut off by a start",
                    path.display()
                ));
            }
            Ok(records)
        };
        let exists = |name: &str| listing.iter().any(|entry| entry.kind == FileKind::File && entry.name == name);
        if exists(names::EPOCH) {
            let main = read(names::EPOCH)?;
            if main.max.is_some() {
                return Ok(main);
            }
        }
        let mut rotated = epoch_file::EpochRecords::default();
        for entry in listing.iter().filter(|entry| entry.kind == FileKind::File && entry.name != names::EPOCH) {
            match entry.name.to_str() {
                Some(name) if names::is_epoch(name) => rotated.max = rotated.max.max(read(name)?.max),
                _ => {}
            }
        }
        // Which of them is the last is not known.
        rotated.last = rotated.max;
        Ok(rotated)
    }

    /// The files to read, in the order in which a later one wins among equal versions: the compacted file, whose
    /// versions are all (0, 0), then the logs by name (§1.3, §6.5).
    pub(super) fn open_logs(&self, listing: &[DirEntry], wanted: impl Fn(&str) -> bool) -> Result<Vec<Source>> {
        let mut logs: Vec<Source> = Vec::new();
        for entry in listing.iter().filter(|entry| entry.kind == FileKind::File) {
            let name = entry.name.to_string_lossy().into_owned();
            let is_input = names::is_log(&name) && !names::is_compacted(&name);
            if is_input && !self.catalog.detached.contains(&name) && wanted(&name) {
                logs.push(self.open_log(&name, &entry.name)?);
            }
        }
        // A crash between two renames leaves only the previous compacted file; beside a new one it is stale (W15).
        let listed = |name: &&str| listing.iter().any(|entry| entry.kind == FileKind::File && entry.name == **name);
        if let Some(name) = [names::COMPACTED, names::COMPACTED_PREVIOUS].iter().find(|name| listed(name)) {
            logs.insert(0, Source { compacted: true, ..self.open_log(name, name.as_ref())? });
        }
        Ok(logs)
    }

    /// To be called for a file that is read from front to back, now and then.
    pub(super) fn release(&self, file: &Mapping) {
        if self.releases {
            file.release();
        }
    }

    /// How much of the files may be mapped at a time; `None` for any number. As much as the index takes, twice: less
    /// makes it slow.
    pub fn mapped_bytes_max(&self) -> Option<u64> {
        self.releases.then(|| self.memory_bytes.saturating_mul(2))
    }

    /// Fails when the work is to be given up.
    pub(super) fn check(&self) -> Result<()> {
        match self.stopping {
            Some(stopping) if stopping.load(Relaxed) => {
                Err(Error::WrongState("the reading of the log was broken off by a shutdown".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn open_log(&self, name: &str, file_name: &OsStr) -> Result<Source> {
        let path = self.location.join(file_name);
        Ok(Source { name: name.to_owned(), bytes: map(self.vfs, &path)?, path, compacted: false })
    }
}

fn map(vfs: &dyn Vfs, path: &Path) -> Result<Mapping> {
    let map = || vfs.open(path, Open::Read)?.map();
    map().map_err(|e| Error::io("cannot read", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::fixture::{records, session, Dir};
    use crate::types::Epoch;

    fn listing(dir: &Dir) -> Vec<DirEntry> {
        let mut listing = dir.input().vfs.list(dir.input().location).unwrap();
        listing.sort_by(|a, b| a.name.cmp(&b.name));
        listing
    }

    #[test]
    fn whoever_reads_at_a_pace_waits_until_it_may_have_been_read() {
        let (pace, begun) = (Pace::new(1000), Instant::now());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| pace.read(100));
            }
        });
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }

    #[test]
    fn rotated_epoch_files_count_only_when_the_epoch_file_has_no_record() {
        let rotated = |dir: Dir| {
            dir.with("epoch.00000000000001.9", &records(&[9, 4])).with("epoch.00000000000002.7", &records(&[7]))
        };
        let max = |dir: &Dir| dir.input().read_epochs(&listing(dir), &mut Vec::new()).unwrap().max;
        let dir = rotated(Dir::new(5));
        assert_eq!(max(&dir), Some(Epoch(5)));
        assert_eq!(max(&dir.with(names::EPOCH, b"")), Some(Epoch(9)), "the largest of all");
        assert_eq!(max(&Dir::new(5).with(names::EPOCH, b"")), None);
    }

    #[test]
    fn the_compacted_file_comes_first_and_detached_files_are_not_read() {
        let log = session(1, &[]);
        let mut dir =
            Dir::new(5).with("pwal_0001", &log).with("pwal_0000", &log).with("pwal_0000.00000000000001.0", &log);
        dir = dir.with("pwal_0002.00000000000001.0", &log).with("other", &log).with(names::COMPACTED_PREVIOUS, b"");
        dir.catalog.detached.insert("pwal_0002.00000000000001.0".to_owned());
        let names = |dir: &Dir| -> Vec<(String, bool)> {
            let sources = dir.input().open_logs(&listing(dir), |_| true).unwrap();
            sources.into_iter().map(|source| (source.name, source.compacted)).collect()
        };
        let logs = ["pwal_0000", "pwal_0000.00000000000001.0", "pwal_0001"].map(|name| (name.to_owned(), false));
        let expected = |first: &str| [&[(first.to_owned(), true)], &logs[..]].concat();
        assert_eq!(names(&dir), expected(names::COMPACTED_PREVIOUS));
        dir = dir.with(names::COMPACTED, b"");
        assert_eq!(names(&dir), expected(names::COMPACTED), "beside a new one the previous one is stale");
    }
}

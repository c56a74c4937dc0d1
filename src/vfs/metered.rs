// SPDX-License-Identifier: Apache-2.0
//! A disk that counts what is written to it and how long syncs take.

use super::interface::{DirEntry, FileKind, FileLock, Lock, LockError, Mapping, Open, Stamp, Vfs, VfsFile};
use crate::metrics::Metrics;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Another disk, whose writes and syncs are counted.
#[derive(Debug)]
pub struct MeteredFs {
    disk: Arc<dyn Vfs>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct MeteredFile {
    file: Box<dyn VfsFile>,
    metrics: Arc<Metrics>,
}

impl MeteredFs {
    /// The disk `disk`, counted in `metrics`.
    pub fn new(disk: Arc<dyn Vfs>, metrics: Arc<Metrics>) -> MeteredFs {
        MeteredFs { disk, metrics }
    }

    fn metered(&self, file: Box<dyn VfsFile>) -> Box<dyn VfsFile> {
        Box::new(MeteredFile { file, metrics: self.metrics.clone() })
    }
}

fn timed(metrics: &Metrics, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let begun = Instant::now();
    let done = sync();
    metrics.syncs.observe(begun.elapsed());
    if done.is_err() {
        metrics.sync_errors.add(1);
    }
    done
}

impl Vfs for MeteredFs {
    fn anchor(&self, dir: &Path) -> io::Result<Arc<dyn Vfs>> {
        Ok(Arc::new(MeteredFs::new(self.disk.anchor(dir)?, self.metrics.clone())))
    }

    fn confirm(&self) -> io::Result<()> {
        self.disk.confirm()
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        self.disk.absolute(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<(OsString, FileKind)>> {
        self.disk.names(dir)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<FileKind>> {
        self.disk.kind(path)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.disk.resolve(path)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>> {
        self.disk.open(path, how).map(|file| self.metered(file))
    }

    fn temp_file(&self, dir: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.disk.temp_file(dir).map(|file| self.metered(file))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        self.disk.hard_link(existing, new)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.disk.unlink(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        timed(&self.metrics, || self.disk.sync_dir(dir))
    }

    fn lock(&self, path: &Path, how: Lock) -> Result<Box<dyn FileLock>, LockError> {
        self.disk.lock(path, how)
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        self.disk.read(path, max_bytes)
    }
}

impl VfsFile for MeteredFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn stamp(&self) -> io::Result<Stamp> {
        self.file.stamp()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let done = self.file.write_at(offset, data);
        match done {
            Ok(()) => self.metrics.written_bytes.add(data.len() as u64),
            Err(_) => self.metrics.write_errors.add(1),
        }
        done
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        timed(&self.metrics, || self.file.sync())
    }

    fn release_cache(&self, offset: u64, len: u64) {
        self.file.release_cache(offset, len);
    }

    fn map(&self) -> io::Result<Mapping> {
        self.file.map()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Fault, SimFs};

    #[test]
    fn writes_and_syncs_below_an_anchored_directory_are_counted_and_so_are_their_failures() {
        let (disk, metrics) = (SimFs::new(), Arc::<Metrics>::default());
        disk.create_dir(Path::new("/log")).unwrap();
        let metered = MeteredFs::new(Arc::new(disk.clone()), metrics.clone());
        let anchored = metered.anchor(Path::new("/log")).unwrap();
        let file = anchored.open(Path::new("/log/file"), Open::New).unwrap();
        file.write_at(0, b"12345").unwrap();
        file.sync().unwrap();
        anchored.sync_dir(Path::new("/log")).unwrap();
        disk.fail_at(disk.operations() + 1, Fault::SyncLoses);
        file.sync().unwrap_err();
        let counted = metrics.snapshot();
        assert_eq!((counted.written_bytes, counted.syncs.parts.iter().sum::<u64>()), (5, 3));
        assert_eq!((counted.sync_errors, counted.write_errors), (1, 0));
        assert_eq!(anchored.read(Path::new("/log/file"), 10).unwrap(), b"12345");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! A file system in memory for tests, as unreliable as the interface allows. It keeps apart what programs see and what
//! a power cut leaves: content and size are durable after a sync of the file, a name after a sync of its directory.
//! Every call counts; one call can be told to fail, or to be the last before the power goes. Same calls, same seed: same
//! outcome.

mod disk;
#[cfg(test)]
mod tests;

use crate::vfs::{DirEntry, FileKind, FileLock, LockError, Mapping, Open, Vfs, VfsFile};
use disk::{errno, Disk, Ino};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

/// What happens to the call that [`SimFs::fail_at`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power goes: this call and all later ones fail. The call may have been carried out in part, unsynced.
    PowerCut,
    /// The call fails and does nothing; what was unsynced stays unsynced.
    IoError,
    /// The sync of a file fails and the writes that it should have made durable never will be, though programs still
    /// see them and a later sync succeeds, as on Linux. Other calls fail as with `IoError`.
    SyncLoses,
    /// A write fails after it wrote a part. Other calls fail as with `IoError`.
    TornWrite,
    /// The disk is full: a write fails after it wrote a part; other calls that need space or write back fail and do
    /// nothing; calls that need none succeed.
    NoSpace,
}

/// What a power cut takes of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Everything.
    DropUnsynced,
    /// Nothing.
    KeepUnsynced,
    /// Any part: single sectors of 512 bytes, sizes, names, in no order. A lost sector inside a grown file reads as
    /// zeros.
    Torn { seed: u64 },
}

/// See [`SimFs::images_made`].
static IMAGES_MADE: AtomicU64 = AtomicU64::new(0);

/// Repeatable pseudo-random numbers (splitmix64).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What a call does, for the faults that treat them differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Sync,
    Name,
    Unlink,
}

/// How a call that fails is carried out all the same.
enum Outcome {
    Nothing,
    /// A part of it; the number decides which.
    Part(u64),
    LoseUnsynced,
}

#[derive(Debug)]
struct Call {
    name: &'static str,
    path: PathBuf,
    detail: Option<(u64, u64)>,
    failed: Option<Fault>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.path.display())?;
        if let Some((offset, len)) = self.detail {
            write!(f, " at {offset} length {len}")?;
        }
        self.failed.map_or(Ok(()), |fault| write!(f, " -> {fault:?}"))
    }
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    at: u64,
    fault: Fault,
    lasting: bool,
}

#[derive(Debug)]
struct State {
    disk: Disk,
    calls: Vec<Call>,
    plan: Option<Plan>,
    power_is_cut: bool,
    locked: BTreeSet<Ino>,
    /// Directories that are file systems of their own.
    mounts: BTreeSet<PathBuf>,
}

impl State {
    /// Counts a call and decides whether it fails, and with what effect.
    fn call(
        &mut self,
        kind: Kind,
        name: &'static str,
        path: &Path,
        detail: Option<(u64, u64)>,
    ) -> Result<(), (io::Error, Outcome)> {
        let n = self.calls.len() as u64 + 1;
        let due = self.plan.filter(|plan| n == plan.at || (plan.lasting && n > plan.at)).map(|plan| plan.fault);
        let spared = due == Some(Fault::NoSpace) && matches!(kind, Kind::Read | Kind::Unlink);
        let fault = if self.power_is_cut { Some(Fault::PowerCut) } else { due.filter(|_| !spared) };
        self.calls.push(Call { name, path: path.to_path_buf(), detail, failed: fault });
        let part = Outcome::Part(Random::new(n).below(u64::MAX));
        let io_error = || errno(libc::EIO);
        match fault {
            None => Ok(()),
            Some(Fault::PowerCut) => {
                let outcome = if self.power_is_cut { Outcome::Nothing } else { part };
                self.power_is_cut = true;
                Err((io::Error::other("the power is cut"), outcome))
            }
            Some(Fault::SyncLoses) if kind == Kind::Sync => Err((io_error(), Outcome::LoseUnsynced)),
            Some(Fault::TornWrite) if kind == Kind::Write => Err((io_error(), part)),
            Some(Fault::NoSpace) if kind == Kind::Write => Err((errno(libc::ENOSPC), part)),
            Some(Fault::NoSpace) => Err((errno(libc::ENOSPC), Outcome::Nothing)),
            Some(_) => Err((io_error(), Outcome::Nothing)),
        }
    }

    /// Names cannot move from one file system to another.
    fn check_same_file_system(&self, a: &Path, b: &Path) -> io::Result<()> {
        let mount = |path: &Path| path.ancestors().find(|dir| self.mounts.contains(*dir)).map(Path::to_path_buf);
        match mount(a) == mount(b) {
            true => Ok(()),
            false => Err(errno(libc::EXDEV)),
        }
    }

    /// A call that reads and has no effect.
    fn reading(&mut self, name: &'static str, path: &Path, detail: Option<(u64, u64)>) -> io::Result<()> {
        self.call(Kind::Read, name, path, detail).map_err(|(error, _)| error)
    }

    /// A call that is carried out as a whole or not at all.
    fn changing<T>(
        &mut self,
        kind: Kind,
        name: &'static str,
        path: &Path,
        change: impl FnOnce(&mut Disk) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.call(kind, name, path, None) {
            Ok(()) => change(&mut self.disk),
            Err((error, Outcome::Part(part))) if part % 2 == 1 => {
                // Only its traces on the disk count.
                let _ = change(&mut self.disk);
                Err(error)
            }
            Err((error, _)) => Err(error),
        }
    }
}

/// The simulated file system. Clones are handles to the same one; usable from any thread. Relative paths start at the
/// root, which is empty at first.
#[derive(Clone)]
pub struct SimFs(Arc<Mutex<State>>);

impl Default for SimFs {
    fn default() -> SimFs {
        SimFs::new()
    }
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFs({} operations)", self.operations())
    }
}

impl SimFs {
    /// An empty file system that never fails.
    pub fn new() -> SimFs {
        SimFs::on(Disk::new(), BTreeSet::new())
    }

    fn on(disk: Disk, mounts: BTreeSet<PathBuf>) -> SimFs {
        let locked = BTreeSet::new();
        let state = State { disk, calls: Vec::new(), plan: None, power_is_cut: false, locked, mounts };
        SimFs(Arc::new(Mutex::new(state)))
    }

    /// The number of calls made so far, failed ones included.
    pub fn operations(&self) -> u64 {
        self.0.lock().calls.len() as u64
    }

    /// Lets the `n`-th call fail, counted from 1. Replaces an earlier plan.
    pub fn fail_at(&self, n: u64, fault: Fault) {
        self.0.lock().plan = Some(Plan { at: n, fault, lasting: false });
    }

    /// Lets the `n`-th call and all later ones fail.
    pub fn fail_from(&self, n: u64, fault: Fault) {
        self.0.lock().plan = Some(Plan { at: n, fault, lasting: true });
    }

    /// Takes the plan to fail back and lets calls succeed again. After a power cut this turns it into the death of the
    /// process alone: what was unsynced is still seen, and still unsynced.
    pub fn heal(&self) {
        let mut state = self.0.lock();
        state.plan = None;
        state.power_is_cut = false;
    }

    /// Whether any call has failed because of a plan.
    pub fn has_failed(&self) -> bool {
        self.0.lock().calls.iter().any(|call| call.failed.is_some())
    }

    /// Every call so far, one line each, to be shown when a test fails. The first word is the name of the call.
    pub fn trace(&self) -> Vec<String> {
        self.0.lock().calls.iter().map(Call::to_string).collect()
    }

    /// How many images of power cuts this process has made so far, of all file systems.
    pub fn images_made() -> u64 {
        IMAGES_MADE.load(Relaxed)
    }

    /// What a power cut at this moment leaves, without faults, locks and counts. This file system stays as it is, so that
    /// several losses can be tried on one cut.
    pub fn reboot(&self, loss: Loss) -> SimFs {
        IMAGES_MADE.fetch_add(1, Relaxed);
        let state = self.0.lock();
        SimFs::on(state.disk.survive(loss), state.mounts.clone())
    }

    /// Makes `dir` a file system of its own: no rename or hard link leads in or out.
    pub fn mount(&self, dir: &Path) {
        self.0.lock().mounts.insert(dir.to_path_buf());
    }

    /// Puts a durable file in place, directories above it included, without counting. Nothing else may be unsynced.
    pub fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        create_above(&mut state.disk, path)?;
        let ino = state.disk.create(path)?;
        state.disk.set_len(ino, 0)?;
        state.disk.write(ino, 0, bytes)?;
        state.disk.settle_all();
        Ok(())
    }

    /// Copies a directory of the machine to `dir`, durable, without counting.
    pub fn load(&self, real: &Path, dir: &Path) -> io::Result<()> {
        {
            let mut state = self.0.lock();
            create_above(&mut state.disk, &dir.join("below"))?;
            state.disk.settle_all();
        }
        for entry in std::fs::read_dir(real)? {
            let entry = entry?;
            let to = dir.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.load(&entry.path(), &to)?;
            } else {
                self.put(&to, &std::fs::read(entry.path())?)?;
            }
        }
        Ok(())
    }

    /// Every file as programs see it now, by its path from the root. Not counted.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.0.lock().disk.files()
    }

    /// Writes every file to a directory of the machine, to look at it with other tools.
    pub fn store(&self, real: &Path) -> io::Result<()> {
        for (path, bytes) in self.files() {
            let to = real.join(path.strip_prefix("/").unwrap_or(&path));
            std::fs::create_dir_all(super::crashsafe::parent(&to))?;
            std::fs::write(to, bytes)?;
        }
        Ok(())
    }

    fn file(&self, ino: Ino, path: &Path, writable: bool, unnamed: bool) -> Box<dyn VfsFile> {
        Box::new(SimFile { fs: self.clone(), ino, path: path.to_path_buf(), writable, unnamed })
    }
}

fn create_above(disk: &mut Disk, path: &Path) -> io::Result<()> {
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    for dir in above.into_iter().rev() {
        match disk.find(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => drop(disk.create_dir(dir)?),
            other => drop(other?),
        }
    }
    Ok(())
}

impl Vfs for SimFs {
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.0.lock();
        state.reading("list", dir, None)?;
        let ino = state.disk.find(dir)?;
        state.disk.list(ino)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<FileKind>> {
        let mut state = self.0.lock();
        state.reading("kind", path, None)?;
        match state.disk.find(path) {
            Ok(ino) if state.disk.is_dir(ino) => Ok(Some(FileKind::Directory)),
            Ok(_) => Ok(Some(FileKind::File)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut state = self.0.lock();
        state.reading("resolve", path, None)?;
        state.disk.find(path)?;
        // There are no links.
        Ok(Path::new("/").join(path).components().filter(|part| *part != std::path::Component::CurDir).collect())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>> {
        let mut state = self.0.lock();
        let ino = match how {
            Open::Read | Open::Existing => {
                state.reading("open", path, None)?;
                state.disk.find(path)?
            }
            Open::New => state.changing(Kind::Name, "create", path, |disk| match disk.find(path) {
                Ok(_) => Err(errno(libc::EEXIST)),
                Err(_) => disk.create(path),
            })?,
            Open::Create => state.changing(Kind::Name, "create", path, |disk| disk.create(path))?,
            Open::Truncate => state.changing(Kind::Name, "truncate", path, |disk| {
                let ino = disk.create(path)?;
                disk.set_len(ino, 0)?;
                Ok(ino)
            })?,
        };
        if state.disk.is_dir(ino) {
            return Err(errno(libc::EISDIR));
        }
        drop(state);
        Ok(self.file(ino, path, how != Open::Read, false))
    }

    fn temp_file(&self, dir: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut state = self.0.lock();
        let ino = state.changing(Kind::Name, "temp_file", dir, |disk| {
            disk.find(dir).and_then(|dir| disk.list(dir))?;
            Ok(disk.create_unnamed())
        })?;
        drop(state);
        Ok(self.file(ino, dir, true, true))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.lock().changing(Kind::Name, "create_dir", dir, |disk| disk.create_dir(dir).map(drop))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.check_same_file_system(from, to)?;
        state.changing(Kind::Name, "rename", from, |disk| disk.rename(from, to))
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.check_same_file_system(existing, new)?;
        state.changing(Kind::Name, "hard_link", new, |disk| disk.hard_link(existing, new))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.0.lock().changing(Kind::Unlink, "unlink", path, |disk| disk.unlink(path))
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let removed = self.0.lock().changing(Kind::Unlink, "remove_dir_all", dir, |disk| disk.remove_dir_all(dir));
        match removed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.call(Kind::Sync, "sync_dir", dir, None).map_err(|(error, _)| error)?;
        let ino = state.disk.find(dir)?;
        state.disk.sync_dir(ino)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError> {
        let mut state = self.0.lock();
        state.reading("lock", path, None).map_err(LockError::Io)?;
        let ino = state.disk.find(path).map_err(LockError::Io)?;
        if !state.locked.insert(ino) {
            return Err(LockError::Held);
        }
        Ok(Box::new(SimLock { fs: self.clone(), ino }))
    }
}

#[derive(Debug)]
struct SimLock {
    fs: SimFs,
    ino: Ino,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.fs.0.lock().locked.remove(&self.ino);
    }
}

#[derive(Debug)]
struct SimFile {
    fs: SimFs,
    ino: Ino,
    path: PathBuf,
    writable: bool,
    unnamed: bool,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if self.unnamed {
            self.fs.0.lock().disk.forget(self.ino);
        }
    }
}

impl VfsFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.fs.0.lock();
        state.reading("len", &self.path, None)?;
        Ok(state.disk.bytes(self.ino)?.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.fs.0.lock();
        state.reading("read", &self.path, Some((offset, buffer.len() as u64)))?;
        let bytes = state.disk.bytes(self.ino)?;
        let start = bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let count = buffer.len().min(bytes.len() - start);
        buffer[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.fs.0.lock();
        let verdict = state.call(Kind::Write, "write", &self.path, Some((offset, data.len() as u64)));
        if !self.writable {
            return Err(errno(libc::EBADF));
        }
        match verdict {
            Ok(()) => state.disk.write(self.ino, offset, data),
            Err((error, outcome)) => {
                if let Outcome::Part(part) = outcome {
                    let written = (part % (data.len() as u64 + 1)) as usize;
                    state.disk.write(self.ino, offset, &data[..written])?;
                }
                Err(error)
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if !self.writable {
            return Err(errno(libc::EINVAL));
        }
        self.fs.0.lock().changing(Kind::Name, "set_len", &self.path, |disk| disk.set_len(self.ino, len))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.fs.0.lock();
        match state.call(Kind::Sync, "sync", &self.path, None) {
            Ok(()) => state.disk.sync(self.ino),
            Err((error, Outcome::LoseUnsynced)) => {
                state.disk.lose_unsynced(self.ino)?;
                Err(error)
            }
            Err((error, _)) => Err(error),
        }
    }

    fn map(&self) -> io::Result<Mapping> {
        let mut state = self.fs.0.lock();
        state.reading("map", &self.path, None)?;
        Ok(Mapping::owned(state.disk.bytes(self.ino)?.to_vec()))
    }
}

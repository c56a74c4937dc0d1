// SPDX-License-Identifier: Apache-2.0
//! A file system in memory for tests, as unreliable as the interface allows. It keeps apart what programs see and what
//! a power cut leaves: content and size are durable after a sync of the file, a name after a sync of its directory.
//! Every call counts; one call can be told to fail, or to be the last before the power goes. Same calls, same seed:
//! same outcome.

mod content;
mod disk;
mod faults;
mod file;
mod state;
#[cfg(test)]
mod tests;

use super::interface::{DirEntry, FileKind, FileLock, Lock, LockError, Open, Vfs, VfsFile};
use crate::lock_order::{Mutex, Rank};
use disk::{errno, At, Disk, Ino};
pub use faults::{Fault, Loss};
use file::{SimFile, SimLock};
use state::{Call, Held, Kind, Plan, Root, State};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

/// See [`SimFs::images_made`].
static IMAGES_MADE: AtomicU64 = AtomicU64::new(0);
/// See [`SimFs::images_skipped`].
static IMAGES_SKIPPED: AtomicU64 = AtomicU64::new(0);

/// The simulated file system. Clones are handles to the same one; usable from any thread. Relative paths start at the
/// root, which is empty at first.
#[derive(Clone)]
pub struct SimFs {
    state: Arc<Mutex<State>>,
    root: Option<Arc<Root>>,
}

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
        let (locked, renamed) = (BTreeMap::new(), BTreeMap::new());
        let state = State { disk, calls: Vec::new(), plan: None, power_is_cut: false, locked, renamed, mounts };
        SimFs { state: Arc::new(Mutex::new(Rank::Disk, state)), root: None }
    }

    /// Where the path begins.
    fn at<'a>(&self, path: &'a Path) -> At<'a> {
        let below = self.root.as_ref().and_then(|root| Some((root, path.strip_prefix(&root.location).ok()?)));
        match below {
            Some((root, path)) => At { start: root.ino, path },
            None => At::root(path),
        }
    }

    /// The number of calls made so far, failed ones included.
    pub fn operations(&self) -> u64 {
        self.state.lock().calls.len() as u64
    }

    /// Lets the `n`-th call fail, counted from 1. Replaces an earlier plan.
    pub fn fail_at(&self, n: u64, fault: Fault) {
        self.state.lock().plan = Some(Plan { at: n, fault, lasting: false });
    }

    /// Lets the `n`-th call and all later ones fail.
    pub fn fail_from(&self, n: u64, fault: Fault) {
        self.state.lock().plan = Some(Plan { at: n, fault, lasting: true });
    }

    /// Takes the plan to fail back and lets calls succeed again. After a power cut this turns it into the death of the
    /// process alone: what was unsynced is still seen, and still unsynced.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.plan = None;
        state.power_is_cut = false;
    }

    /// Whether any call has failed because of a plan.
    pub fn has_failed(&self) -> bool {
        self.failed_on().is_some()
    }

    /// The name of the thread the call of which was the first to fail because of a plan.
    pub fn failed_on(&self) -> Option<String> {
        self.state.lock().calls.iter().find_map(|call| call.thread.clone())
    }

    /// Whether `fault` would add nothing where [`Fault::IoError`] has failed a call: the same call fails in the same
    /// way, or does not fail.
    pub fn adds_nothing(&self, fault: Fault) -> bool {
        let state = self.state.lock();
        let failed = state.calls.iter().find(|call| call.failed.is_some());
        failed.is_some_and(|call| !call.fails_otherwise_with(fault))
    }

    /// Every call so far, one line each, to be shown when a test fails. The first word is the name of the call.
    pub fn trace(&self) -> Vec<String> {
        self.state.lock().calls.iter().map(Call::to_string).collect()
    }

    /// How many images of power cuts this process has made so far, of all file systems, without those that were
    /// skipped.
    pub fn images_made() -> u64 {
        IMAGES_MADE.load(Relaxed)
    }

    /// How many images [`SimFs::reboots`] has skipped, because they were the same as another one.
    pub fn images_skipped() -> u64 {
        IMAGES_SKIPPED.load(Relaxed)
    }

    /// What a power cut at this moment leaves, without faults, locks and counts. This file system stays as it is, so
    /// that several losses can be tried on one cut.
    pub fn reboot(&self, loss: Loss) -> SimFs {
        IMAGES_MADE.fetch_add(1, Relaxed);
        let state = self.state.lock();
        SimFs::on(state.disk.survive(loss), state.mounts.clone())
    }

    /// What a power cut at this moment leaves with each of these losses. Where several leave the same, it is there
    /// once.
    pub fn reboots<'a>(
        &'a self,
        losses: impl IntoIterator<Item = Loss> + 'a,
    ) -> impl Iterator<Item = (Loss, SimFs)> + 'a {
        let mut seen = HashSet::new();
        losses.into_iter().filter_map(move |loss| {
            let state = self.state.lock();
            let survivor = state.disk.survive(loss);
            let is_new = seen.insert(state.disk.fingerprint(&survivor));
            (if is_new { &IMAGES_MADE } else { &IMAGES_SKIPPED }).fetch_add(1, Relaxed);
            is_new.then(|| (loss, SimFs::on(survivor, state.mounts.clone())))
        })
    }

    /// Makes `dir` a file system of its own: no rename or hard link leads in or out.
    pub fn mount(&self, dir: &Path) {
        self.state.lock().mounts.insert(dir.to_path_buf());
    }

    /// Puts a durable file in place, directories above it included, without counting. Nothing else may be unsynced.
    pub fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        create_above(&mut state.disk, path)?;
        let ino = state.disk.create(At::root(path))?;
        state.disk.set_len(ino, 0)?;
        state.disk.write(ino, 0, bytes)?;
        state.disk.settle_all();
        Ok(())
    }

    /// Copies a directory of the machine to `dir`, durable, without counting.
    pub fn load(&self, real: &Path, dir: &Path) -> io::Result<()> {
        {
            let mut state = self.state.lock();
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
        self.state.lock().disk.files()
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
        Box::new(SimFile {
            state: self.state.clone(),
            root: self.root.clone(),
            ino,
            path: path.to_path_buf(),
            writable,
            unnamed,
        })
    }
}

fn create_above(disk: &mut Disk, path: &Path) -> io::Result<()> {
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    for dir in above.into_iter().rev() {
        match disk.find(At::root(dir)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => drop(disk.create_dir(At::root(dir))?),
            other => drop(other?),
        }
    }
    Ok(())
}

impl Vfs for SimFs {
    fn anchor(&self, dir: &Path) -> io::Result<Arc<dyn Vfs>> {
        let mut state = self.state.lock();
        state.reading("anchor", dir, None)?;
        if self.root.as_ref().is_some_and(|root| root.location == dir) {
            state.confirm_place(self.root.as_deref())?;
            return Ok(Arc::new(self.clone()));
        }
        let ino = state.disk.find(At::root(dir))?;
        if !state.disk.is_dir(ino) {
            return Err(errno(libc::ENOTDIR));
        }
        let root = Root { location: dir.to_owned(), ino, locked: Mutex::default() };
        Ok(Arc::new(SimFs { state: self.state.clone(), root: Some(Arc::new(root)) }))
    }

    fn confirm(&self) -> io::Result<()> {
        self.state.lock().confirm_place(self.root.as_deref())
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        // Relative paths start at the root.
        Ok(Path::new("/").join(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.state.lock();
        state.reading("list", dir, None)?;
        let ino = state.disk.find(self.at(dir))?;
        state.disk.list(ino)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<FileKind>> {
        let mut state = self.state.lock();
        state.reading("kind", path, None)?;
        match state.disk.find(self.at(path)) {
            Ok(ino) if state.disk.is_dir(ino) => Ok(Some(FileKind::Directory)),
            Ok(_) => Ok(Some(FileKind::File)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut state = self.state.lock();
        state.reading("resolve", path, None)?;
        state.disk.find(self.at(path))?;
        // There are no links.
        Ok(Path::new("/").join(path).components().filter(|part| *part != std::path::Component::CurDir).collect())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn VfsFile>> {
        let mut state = self.state.lock();
        let at = self.at(path);
        let ino = match how {
            Open::Read | Open::Existing => {
                state.reading("open", path, None)?;
                state.disk.find(self.at(path))?
            }
            Open::New => state.changing(Kind::Name, "create", path, |disk| match disk.find(at) {
                Ok(_) => Err(errno(libc::EEXIST)),
                Err(_) => disk.create(at),
            })?,
            Open::Create => state.changing(Kind::Name, "create", path, |disk| disk.create(at))?,
            Open::Truncate => state.changing(Kind::Name, "truncate", path, |disk| {
                let ino = disk.create(at)?;
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
        let mut state = self.state.lock();
        let ino = state.changing(Kind::Name, "temp_file", dir, |disk| {
            disk.find(self.at(dir)).and_then(|dir| disk.list(dir))?;
            Ok(disk.create_unnamed())
        })?;
        drop(state);
        Ok(self.file(ino, dir, true, true))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.state.lock().changing(Kind::Name, "create_dir", dir, |disk| disk.create_dir(self.at(dir)).map(drop))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check_same_file_system(from, to)?;
        state.changing(Kind::Name, "rename", from, |disk| disk.rename(self.at(from), self.at(to)))?;
        let ino = state.disk.find(self.at(to))?;
        state.renamed.insert(ino, to.to_path_buf());
        Ok(())
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check_same_file_system(existing, new)?;
        state.changing(Kind::Name, "hard_link", new, |disk| disk.hard_link(self.at(existing), self.at(new)))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.state.lock().changing(Kind::Unlink, "unlink", path, |disk| disk.unlink(self.at(path)))
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let removed =
            self.state.lock().changing(Kind::Unlink, "remove_dir_all", dir, |disk| disk.remove_dir_all(self.at(dir)));
        match removed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call(Kind::Sync, "sync_dir", dir, None).map_err(|(error, _)| error)?;
        let ino = state.disk.find(self.at(dir))?;
        state.disk.sync_dir(ino)?;
        state.confirm_place(self.root.as_deref())
    }

    fn lock(&self, path: &Path, how: Lock) -> Result<Box<dyn FileLock>, LockError> {
        let mut state = self.state.lock();
        state.reading("lock", path, None).map_err(LockError::Io)?;
        let ino = state.disk.find(self.at(path)).map_err(LockError::Io)?;
        let held = match (how, state.locked.get(&ino)) {
            (Lock::Exclusive, None) => Held::Alone,
            (Lock::Shared, None) => Held::Together(1),
            (Lock::Shared, Some(Held::Together(others))) => Held::Together(others + 1),
            (Lock::Exclusive, Some(Held::Together(_))) => return Err(LockError::HeldByReaders),
            (_, Some(Held::Alone)) => return Err(LockError::Held),
        };
        state.locked.insert(ino, held);
        if let Some(root) = &self.root {
            *root.locked.lock() = Some((path.to_owned(), ino));
        }
        Ok(Box::new(SimLock { state: self.state.clone(), root: self.root.clone(), ino }))
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What all handles to one simulated file system share: its disk, the calls that were made, and which of them fail.

use super::disk::{errno, At, Disk, Ino};
use super::faults::{Fault, Random};
use crate::lock_order::Mutex;
use crate::vfs::interface::not_the_same;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What a call does, for the faults that treat them differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Sync,
    Name,
    Unlink,
}

/// How a call that fails is carried out all the same.
pub(super) enum Outcome {
    Nothing,
    /// A part of it; the number decides which.
    Part(u64),
    LoseUnsynced,
}

#[derive(Debug)]
pub(super) struct Call {
    kind: Kind,
    pub(super) name: &'static str,
    pub(super) path: PathBuf,
    pub(super) detail: Option<(u64, u64)>,
    pub(super) failed: Option<Fault>,
    /// The name of the thread that called, of a call that failed.
    pub(super) thread: Option<String>,
}

impl Call {
    /// Whether `fault` fails this call in another way than [`Fault::IoError`] does.
    pub(super) fn fails_otherwise_with(&self, fault: Fault) -> bool {
        match fault {
            Fault::IoError => false,
            Fault::SyncLoses => self.name == "sync",
            Fault::TornWrite => self.kind == Kind::Write,
            // Such calls do not fail.
            Fault::NoSpace => !matches!(self.kind, Kind::Read | Kind::Unlink),
            Fault::PowerCut | Fault::NoDescriptors | Fault::Panic => true,
        }
    }
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
pub(super) struct Plan {
    pub(super) at: u64,
    pub(super) fault: Fault,
    pub(super) lasting: bool,
}

/// Who holds the lock of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Alone,
    Together(usize),
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) disk: Disk,
    pub(super) calls: Vec<Call>,
    pub(super) plan: Option<Plan>,
    pub(super) power_is_cut: bool,
    pub(super) locked: BTreeMap<Ino, Held>,
    /// Present names of files that were renamed, for the trace.
    pub(super) renamed: BTreeMap<Ino, PathBuf>,
    /// Directories that are file systems of their own.
    pub(super) mounts: BTreeSet<PathBuf>,
}

impl State {
    /// Fails when something else stands under the name of an anchored directory. Not counted.
    pub(super) fn confirm_place(&self, root: Option<&Root>) -> io::Result<()> {
        let Some(root) = root else {
            return Ok(());
        };
        let expect = |path: &Path, expected: Ino| match self.disk.find(At::root(path)) {
            Ok(found) if found == expected => Ok(()),
            Ok(_) => Err(not_the_same(path, "something else stands there")),
            Err(e) => Err(not_the_same(path, &e.to_string())),
        };
        expect(&root.location, root.ino)?;
        match &*root.locked.lock() {
            Some((path, ino)) => expect(path, *ino),
            None => Ok(()),
        }
    }

    /// Counts a call and decides whether it fails, and with what effect.
    pub(super) fn call(
        &mut self,
        kind: Kind,
        name: &'static str,
        path: &Path,
        detail: Option<(u64, u64)>,
    ) -> Result<(), (io::Error, Outcome)> {
        let n = self.calls.len() as u64 + 1;
        let due = self.plan.filter(|plan| n == plan.at || (plan.lasting && n > plan.at)).map(|plan| plan.fault);
        let spared = match due {
            Some(Fault::NoSpace) => matches!(kind, Kind::Read | Kind::Unlink),
            Some(Fault::NoDescriptors) => !matches!(name, "open" | "create" | "truncate" | "temp_file" | "list"),
            _ => false,
        };
        let fault = if self.power_is_cut { Some(Fault::PowerCut) } else { due.filter(|_| !spared) };
        let thread = fault.map(|_| std::thread::current().name().unwrap_or_default().to_owned());
        self.calls.push(Call { kind, name, path: path.to_path_buf(), detail, failed: fault, thread });
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
            Some(Fault::NoDescriptors) => Err((errno(libc::EMFILE), Outcome::Nothing)),
            Some(Fault::Panic) => panic!("on purpose: {name} {}", path.display()),
            Some(_) => Err((io_error(), Outcome::Nothing)),
        }
    }

    /// Names cannot move from one file system to another.
    pub(super) fn check_same_file_system(&self, a: &Path, b: &Path) -> io::Result<()> {
        let mount = |path: &Path| path.ancestors().find(|dir| self.mounts.contains(*dir)).map(Path::to_path_buf);
        match mount(a) == mount(b) {
            true => Ok(()),
            false => Err(errno(libc::EXDEV)),
        }
    }

    /// A call that reads and has no effect.
    pub(super) fn reading(&mut self, name: &'static str, path: &Path, detail: Option<(u64, u64)>) -> io::Result<()> {
        self.call(Kind::Read, name, path, detail).map_err(|(error, _)| error)
    }

    /// A call that is carried out as a whole or not at all.
    pub(super) fn changing<T>(
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

/// A directory that was opened once.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) location: PathBuf,
    pub(super) ino: Ino,
    /// The file in it that is locked.
    pub(super) locked: Mutex<Option<(PathBuf, Ino)>>,
}

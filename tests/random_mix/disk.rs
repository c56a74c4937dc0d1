// SPDX-License-Identifier: Apache-2.0
//! The disk of a case: a simulated one that can fail, or a temporary directory of the machine.

use limestone_core::vfs::{Fault, FileKind, Loss, Open, RealFs, SimFs, Vfs};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FILE_BYTES_MAX: u64 = 1 << 30;

pub enum Disk {
    Sim(SimFs),
    Real(tempfile::TempDir),
}

impl Disk {
    pub fn simulated() -> Disk {
        Disk::Sim(SimFs::new())
    }

    pub fn real() -> Disk {
        Disk::Real(tempfile::tempdir().expect("a temporary directory"))
    }

    /// An empty one of the same kind.
    pub fn another(&self) -> Disk {
        match self {
            Disk::Sim(_) => Disk::simulated(),
            Disk::Real(_) => Disk::real(),
        }
    }

    pub fn vfs(&self) -> Arc<dyn Vfs> {
        match self {
            Disk::Sim(fs) => Arc::new(fs.clone()),
            Disk::Real(_) => Arc::new(RealFs),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        match self {
            Disk::Sim(_) => Path::new("/").join(name),
            Disk::Real(dir) => dir.path().join(name),
        }
    }

    pub fn sim(&self) -> Option<&SimFs> {
        match self {
            Disk::Sim(fs) => Some(fs),
            Disk::Real(_) => None,
        }
    }

    /// How many calls have failed because they were told to.
    pub fn failures(&self) -> usize {
        self.sim().map_or(0, |fs| fs.trace().iter().filter(|call| call.contains(" -> ")).count())
    }

    /// No call succeeds until [`Self::revive`]: the process is dead.
    pub fn kill(&self) {
        if let Disk::Sim(fs) = self {
            fs.fail_from(fs.operations() + 1, Fault::PowerCut);
        }
    }

    /// The next process begins; what was unsynced is still unsynced.
    pub fn revive(&self) {
        if let Disk::Sim(fs) = self {
            fs.heal();
        }
    }

    /// The power comes back after it was cut.
    pub fn reboot(&mut self, loss: Loss) {
        if let Disk::Sim(fs) = self {
            *self = Disk::Sim(fs.reboot(loss));
        }
    }

    /// The file `name` in the directory, written as any program would, unsynced.
    pub fn write(&self, dir: &Path, name: &Path, bytes: &[u8]) -> io::Result<()> {
        let vfs = self.vfs();
        match vfs.create_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        vfs.open(&dir.join(name), Open::Truncate)?.write_at(0, bytes)
    }

    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self {
            // Not counted, so that looking does not fail.
            Disk::Sim(fs) => fs.files().remove(path).ok_or_else(|| io::ErrorKind::NotFound.into()),
            Disk::Real(_) => RealFs.read(path, FILE_BYTES_MAX),
        }
    }

    /// The directory as one of the machine, to look at it with other tools.
    pub fn export(&self, location: &Path) -> io::Result<(tempfile::TempDir, PathBuf)> {
        let to = tempfile::tempdir()?;
        let dir = to.path().join(location.file_name().unwrap_or_default());
        match self {
            Disk::Sim(fs) => fs.store(to.path())?,
            Disk::Real(_) => copy_tree(location, &dir)?,
        }
        Ok((to, dir))
    }
}

/// Copies a directory of the machine.
pub fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    RealFs.create_dir(to)?;
    for (name, kind) in RealFs.names(from)? {
        match kind {
            FileKind::Directory => copy_tree(&from.join(&name), &to.join(&name))?,
            _ => std::fs::copy(from.join(&name), to.join(&name)).map(drop)?,
        }
    }
    Ok(())
}

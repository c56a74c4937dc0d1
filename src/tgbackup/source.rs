// SPDX-License-Identifier: Apache-2.0
//! The data directory of which a backup is made: of an engine or a replica that holds its files meanwhile, or of
//! nobody.

use super::manifest::Identity;
use crate::backup::set;
use crate::directory::{Access, OfflineDirectory};
use crate::error::{Error, Result};
use crate::replication::backup_socket::{HeldFile, OpenBackup, Serves};
use crate::replication::epoch_times::TimeOfEpoch;
use crate::types::Epoch;
use crate::vfs::{FileKind, Vfs};
use crate::wal::history_file::{DirectoryHistory, Place};
use crate::wal::{manifest, names};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

/// A signal ends the program as it stands.
static NEVER: AtomicBool = AtomicBool::new(false);

/// Nothing of its files changes before [`Source::end`], or that fails.
#[derive(Debug)]
pub struct Source {
    /// The disk as it has to be read.
    pub vfs: Arc<dyn Vfs>,
    pub location: PathBuf,
    pub epoch: Epoch,
    pub files: Vec<HeldFile>,
    /// When which epoch was durable, as far as whoever serves it knows.
    pub times: Vec<TimeOfEpoch>,
    /// Who serves it.
    pub from: Option<Serves>,
    held: Held,
}

#[derive(Debug)]
enum Held {
    ByProcess(OpenBackup),
    /// Under its lock.
    Here(OfflineDirectory),
}

impl Source {
    /// Asks whoever serves the directory, or else takes its lock.
    ///
    /// # Errors
    /// [`Error::Locked`] when a process has it that makes no backups; [`Error::WrongState`] when the one that serves it
    /// cannot now; what a start refuses a directory for.
    pub fn open(vfs: &Arc<dyn Vfs>, location: &Path) -> Result<Source> {
        match OpenBackup::begin(location, &NEVER) {
            Ok(Some(mut open)) => {
                let (files, times) = (std::mem::take(&mut open.files), std::mem::take(&mut open.times));
                let (epoch, from) = (open.epoch, Some(open.serves));
                let (vfs, location, held) = (vfs.clone(), location.to_owned(), Held::ByProcess(open));
                Ok(Source { vfs, location, epoch, files, times, from, held })
            }
            Ok(None) => Source::stopped(vfs, location),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Err(Error::io("cannot ask the process that serves", location, e))
            }
            Err(e) => Err(Error::WrongState(format!("no backup of {}: {e}", location.display()))),
        }
    }

    fn stopped(vfs: &Arc<dyn Vfs>, location: &Path) -> Result<Source> {
        let directory = OfflineDirectory::open(vfs.clone(), location, Access::Read)?;
        directory.warnings().iter().for_each(|warning| log::warn!("{warning}"));
        let recovered = directory.read_log(threads(), None)?;
        let (vfs, location) = (directory.vfs().clone(), directory.location().to_owned());
        let files: Vec<HeldFile> = set::all_files(&*vfs, &location, |_| false)?
            .into_iter()
            .map(|file| HeldFile {
                source: file.source.strip_prefix(&location).unwrap_or(&file.source).to_owned(),
                destination: file.destination,
                bytes: None,
            })
            .collect();
        if !files.iter().any(|file| file.destination == Path::new(names::MANIFEST)) {
            let text = format!("{} has no {}: start the server once", location.display(), names::MANIFEST);
            return Err(Error::BrokenMetadata(text));
        }
        let epoch = recovered.durable.unwrap_or_default();
        Ok(Source { vfs, location, epoch, files, times: Vec::new(), from: None, held: Held::Here(directory) })
    }

    /// Whose data it is; to be asked while it is held.
    pub fn identity(&self) -> Result<Identity> {
        identity(&*self.vfs, &self.location)
    }

    /// Says that the copying goes on.
    ///
    /// # Errors
    /// [`Error::WrongState`] when the files are not held any more.
    pub fn goes_on(&mut self) -> Result<()> {
        match &mut self.held {
            Held::ByProcess(open) => open.goes_on().map_err(|e| lost(&self.location, &e)),
            Held::Here(_) => Ok(()),
        }
    }

    /// Everything has been copied.
    ///
    /// # Errors
    /// [`Error::WrongState`] when the files have not been held until now: then the copies are worth nothing.
    pub fn end(self) -> Result<()> {
        match self.held {
            Held::ByProcess(open) => open.end().map_err(|e| lost(&self.location, &e)),
            Held::Here(directory) => {
                drop(directory);
                Ok(())
            }
        }
    }
}

fn lost(location: &Path, error: &io::Error) -> Error {
    Error::WrongState(format!("the backup of {} was not held to its end: {error}", location.display()))
}

/// Whose data the files in `location` are.
pub fn identity(vfs: &dyn Vfs, location: &Path) -> Result<Identity> {
    let path = location.join(names::MANIFEST);
    let bytes = vfs.read(&path, manifest::MAX_BYTES).map_err(|e| Error::io("cannot read", &path, e))?;
    let manifest = manifest::parse(&bytes)
        .map_err(|reason| Error::BrokenMetadata(format!("{} cannot be used: {reason}", path.display())))?;
    let instance_uuid = manifest.instance_uuid.unwrap_or_default();
    let history = DirectoryHistory::load(Place { vfs, location, instance: &instance_uuid })?;
    let run = history.as_ref().and_then(|history| history.run()).map(|run| run.id.to_string());
    Ok(Identity { term: history.map(|history| history.term), run, instance_uuid })
}

/// Threads that read a log.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Whether something is a directory.
///
/// # Errors
/// [`Error::NotFound`] when it is none.
pub fn check_directory(vfs: &dyn Vfs, location: &Path) -> Result<()> {
    match vfs.kind(location).map_err(|e| Error::io("cannot look at", location, e))? {
        Some(FileKind::Directory) => Ok(()),
        _ => Err(Error::NotFound(format!("there is no directory {}", location.display()))),
    }
}

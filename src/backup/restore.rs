// SPDX-License-Identifier: Apache-2.0
//! Restores a backup into a data directory (disk format §§9.4, 9.5). Everything is checked before anything is changed.

use super::progress::{Phase, Progress};
use super::swap::{self, Staging};
use crate::blob::paths;
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::{crashsafe, DirEntry, FileKind, Vfs, VfsFile};
use crate::wal::confirmed::{self, Noted};
use crate::wal::entry::{marker, tag};
use crate::wal::history_file::{DirectoryHistory, Place};
use crate::wal::{catalog, manifest, names};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

const GUIDE: &str = "see https://github.com/project-tsurugi/tsurugidb/blob/master/docs/upgrade-guide.md";

/// One file of a set to restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileToRestore {
    /// Absolute, or below the directory of the backup.
    pub source: PathBuf,
    /// The name it gets in the data directory. A source that is named like a BLOB goes to the BLOB's place instead.
    pub destination: PathBuf,
}

/// A file that was checked.
#[derive(Debug)]
struct Planned {
    source: PathBuf,
    /// Its name while it is staged.
    name: OsString,
}

/// Where a restore goes; the caller holds the lock of the directory.
#[derive(Debug)]
pub struct Target<'a> {
    pub vfs: &'a dyn Vfs,
    pub location: &'a Path,
    /// The manifest, on which the lock is.
    pub held_manifest: &'a dyn VfsFile,
    pub progress: &'a Progress,
    /// Only what sessions up to this epoch wrote is to count; all when there is none.
    pub until: Option<Epoch>,
}

/// Replaces the content of the directory by the files that lie directly in `from`, and deletes those when they are not
/// to be kept.
///
/// # Errors
/// [`Error::UnsupportedVersion`] and [`Error::BrokenMetadata`] when `from` holds no usable backup; any other for what
/// cannot be read or written. [`Progress`] tells whether the old content is still there.
pub fn restore_directory(target: &Target<'_>, from: &Path, keep_backup: bool) -> Result<()> {
    let files = target.checked(|| plan_directory(target, from))?;
    target.replace(files)?;
    if !keep_backup {
        delete_backup(target.vfs, from)?;
    }
    Ok(())
}

/// Replaces the content of the directory by these files; the backup stays.
///
/// # Errors
/// As for [`restore_directory`]; [`Error::NotFound`] for a source that does not exist or is no regular file.
pub fn restore_files(target: &Target<'_>, from: &Path, files: &[FileToRestore]) -> Result<()> {
    let files = target.checked(|| plan_files(target, from, files))?;
    target.replace(files)
}

impl Target<'_> {
    /// Runs a check; the restore ends with the first that fails.
    fn checked<T>(&self, check: impl FnOnce() -> Result<T>) -> Result<T> {
        self.progress.begin(0);
        check().inspect_err(|_| self.progress.set_phase(Phase::Canceled))
    }

    fn replace(&self, files: Vec<Planned>) -> Result<()> {
        self.progress.begin(files.len() as u64);
        if let Err(e) = self.stage(&files) {
            let untouched = matches!(swap::is_decided(self.vfs, self.location), Ok(false));
            self.progress.set_phase(if untouched { Phase::Canceled } else { Phase::Failed });
            return Err(e);
        }
        self.progress.set_phase(Phase::Running);
        let replaced = swap::resume(self.vfs, self.location, self.held_manifest).map(drop);
        self.progress.set_phase(if replaced.is_ok() { Phase::Completed } else { Phase::Failed });
        replaced
    }

    fn stage(&self, files: &[Planned]) -> Result<()> {
        let staging = Staging::create(self.vfs, self.location)?;
        // What the backup counts up to is not what is wanted then.
        let is_wanted = |file: &&Planned| self.until.is_none() || !file.name.to_str().is_some_and(names::is_epoch);
        let copied = files.iter().filter(is_wanted).try_for_each(|file| {
            self.progress.copied(staging.copy(&file.source, &file.name)?);
            Ok(())
        });
        let staged = copied.and_then(|()| self.stage_epoch(&staging)).and_then(|()| self.stage_history(&staging));
        match staged.and_then(|()| self.stage_confirmed(&staging)) {
            Ok(()) => staging.decide(),
            Err(e) => {
                staging.discard();
                Err(e)
            }
        }
    }
}

impl Target<'_> {
    /// The record that sessions count up to, which makes later ones of the backup such that never counted: a start
    /// takes them away.
    fn stage_epoch(&self, staging: &Staging<'_>) -> Result<()> {
        let Some(last) = self.until else { return Ok(()) };
        let path = staging.path(OsStr::new(names::EPOCH));
        crashsafe::write_new(self.vfs, &path, &marker(tag::DURABLE, last))
            .map_err(|e| Error::io("cannot write", &path, e))
    }

    /// The history of the backup, added to that of the directory: the term that it has been in stays.
    fn stage_history(&self, staging: &Staging<'_>) -> Result<()> {
        let path = staging.path(OsStr::new(names::MANIFEST));
        let bytes = self.vfs.read(&path, manifest::MAX_BYTES).map_err(|e| Error::io("cannot read", &path, e))?;
        let manifest = manifest::parse(&bytes).map_err(|reason| broken(&path, &reason))?;
        // A directory without an identity gets a new one, and with that a history of its own.
        let Some(instance) = &manifest.instance_uuid else { return Ok(()) };
        let folder = crashsafe::parent(&path);
        let backup = DirectoryHistory::load(Place { vfs: self.vfs, location: folder, instance })?;
        let before = match DirectoryHistory::load(Place { vfs: self.vfs, location: self.location, instance }) {
            // What is not whole any more is what a restore is for.
            Err(Error::BrokenMetadata(reason)) => {
                log::warn!("the history of the content that is replaced is lost: {reason}");
                None
            }
            before => before?,
        };
        match DirectoryHistory::restored(backup, instance, before) {
            Some(history) => match self.until {
                // The runs above wrote what does not count.
                Some(last) => history.cut(last),
                None => history,
            }
            .save(self.vfs, folder),
            None => Ok(()),
        }
    }

    /// What a replica of the original's protocol has is of a past that is given up; it cannot be asked, so a later run
    /// is told.
    fn stage_confirmed(&self, staging: &Staging<'_>) -> Result<()> {
        let noted = match confirmed::load(self.vfs, self.location) {
            Ok(None) => return Ok(()),
            // Whatever it said, nothing can be relied on.
            Err(Error::BrokenMetadata(_)) => Noted::default(),
            noted => noted?.unwrap_or_default(),
        };
        let folder = staging.path(OsStr::new(""));
        confirmed::save(self.vfs, &folder, Noted { set_back: true, ..noted })
    }
}

fn unsupported(detail: &str) -> Error {
    let text = "/:limestone unsupported backup persistent format version";
    Error::UnsupportedVersion(format!("{text}: {GUIDE} (version mismatch: {detail})"))
}

fn broken(path: &Path, reason: &str) -> Error {
    let text = "/:limestone backup data is corrupted, can not use.";
    Error::BrokenMetadata(format!("{text} ({}: {reason}; nothing was changed)", path.display()))
}

fn refused(path: &Path, reason: &str) -> Error {
    Error::InvalidArgument(format!("cannot restore {}: {reason}; nothing was changed", path.display()))
}

fn kind(vfs: &dyn Vfs, path: &Path) -> Result<Option<FileKind>> {
    vfs.kind(path).map_err(|e| Error::io("cannot look at", path, e))
}

fn check_manifest(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    let bytes = vfs.read(path, manifest::MAX_BYTES).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => broken(path, &e.to_string()),
        _ => Error::io("cannot read", path, e),
    })?;
    let manifest = manifest::parse(&bytes).map_err(|reason| broken(path, &reason))?;
    if manifest.is_supported() {
        return Ok(());
    }
    let (oldest, newest) = (manifest::OLDEST_VERSION, manifest::CURRENT_VERSION);
    let version = manifest.persistent_format_version;
    Err(unsupported(&format!("version {version}, server supports versions {oldest} through {newest}")))
}

fn no_manifest() -> Error {
    unsupported("version 0, server supports version 1")
}

fn plan_directory(target: &Target<'_>, from: &Path) -> Result<Vec<Planned>> {
    let vfs = target.vfs;
    let manifest = from.join(names::MANIFEST);
    match kind(vfs, &manifest)? {
        Some(FileKind::File) => check_manifest(vfs, &manifest)?,
        _ => return Err(no_manifest()),
    }
    let resolved = resolve(vfs, from)?;
    let location = resolve(vfs, target.location)?;
    let work = [location.join(names::RESTORE_DIR), location.join(names::BLOB_DIR)];
    if resolved == location || work.iter().any(|dir| resolved.starts_with(dir)) {
        return Err(refused(from, "it is the data directory itself"));
    }
    let mut files = Vec::new();
    for DirEntry { name, kind, .. } in vfs.list(from).map_err(|e| Error::io("cannot list", from, e))? {
        let source = from.join(&name);
        if kind != FileKind::File {
            return Err(refused(&source, "a backup holds regular files only"));
        }
        check_inside(vfs, &resolved, &source)?;
        files.push(plan(target, source, &name)?);
    }
    check_complete(vfs, &files)?;
    Ok(files)
}

fn plan_files(target: &Target<'_>, from: &Path, files: &[FileToRestore]) -> Result<Vec<Planned>> {
    let vfs = target.vfs;
    let is_blob = |file: &FileToRestore| file.source.file_name().is_some_and(|name| paths::id_of(name).is_some());
    let manifests = || files.iter().filter(|file| file.destination == Path::new(names::MANIFEST) && !is_blob(file));
    if manifests().next().is_none() {
        return Err(no_manifest());
    }
    for file in manifests() {
        let source = check_source(vfs, from, file)?;
        check_manifest(vfs, &source)?;
    }
    let mut planned: Vec<Planned> = Vec::with_capacity(files.len());
    for file in files {
        let source = check_source(vfs, from, file)?;
        let name = file_name(&file.destination);
        match (is_blob(file), name) {
            (false, None) => return Err(refused(&file.destination, "a file name without directories was expected")),
            (_, name) => planned.push(plan(target, source, name.unwrap_or_default())?),
        }
    }
    // Of several entries for one name the last counts.
    planned.reverse();
    let mut seen = HashSet::new();
    planned.retain(|file| seen.insert(file.name.clone()));
    check_complete(vfs, &planned)?;
    Ok(planned)
}

/// The only component of a path.
fn file_name(path: &Path) -> Option<&OsStr> {
    let mut parts = path.components().filter(|part| *part != Component::CurDir);
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => Some(name),
        _ => None,
    }
}

/// Where the source is: a relative one must lie inside the backup.
fn check_source(vfs: &dyn Vfs, from: &Path, file: &FileToRestore) -> Result<PathBuf> {
    let source = from.join(&file.source);
    if file.source.components().any(|part| part == Component::ParentDir) {
        return Err(refused(&file.source, "a path without \"..\" was expected"));
    }
    match kind(vfs, &source)? {
        Some(FileKind::File) => {}
        Some(_) => {
            return Err(Error::NotFound(format!("{} is not a regular file; nothing was changed", source.display())))
        }
        None => return Err(Error::NotFound(format!("{} does not exist; nothing was changed", source.display()))),
    }
    if file.source.is_relative() {
        check_inside(vfs, &resolve(vfs, from)?, &source)?;
    }
    Ok(source)
}

fn resolve(vfs: &dyn Vfs, path: &Path) -> Result<PathBuf> {
    vfs.resolve(path).map_err(|e| Error::io("cannot look at", path, e))
}

/// A symbolic link must not lead out of the backup.
fn check_inside(vfs: &dyn Vfs, resolved_from: &Path, source: &Path) -> Result<()> {
    match resolve(vfs, source)?.starts_with(resolved_from) {
        true => Ok(()),
        false => Err(refused(source, "it is a link that leads out of the backup")),
    }
}

/// Decides where a file goes.
fn plan(target: &Target<'_>, source: PathBuf, name: &OsStr) -> Result<Planned> {
    if let Some(id) = source.file_name().and_then(paths::id_of) {
        let name = paths::file(Path::new(""), id);
        return Ok(Planned { source, name: name.file_name().unwrap_or_default().to_owned() });
    }
    let reserved = [names::BLOB_DIR, names::CONTROL_DIR, names::SORTING_DIR, names::RESTORE_DIR];
    let is_reserved = reserved.iter().chain(&names::OTHER_DIRS).any(|dir| name == *dir);
    let destination = target.location.join(name);
    if is_reserved || kind(target.vfs, &destination)? == Some(FileKind::Directory) {
        return Err(refused(&source, &format!("{} is or will be a directory", destination.display())));
    }
    if paths::id_of(name).is_some() {
        return Err(refused(&source, "only a BLOB may have the name of a BLOB"));
    }
    Ok(Planned { source, name: name.to_owned() })
}

/// What a start could not do without.
fn check_complete(vfs: &dyn Vfs, files: &[Planned]) -> Result<()> {
    let find = |name: &str| files.iter().find(|file| file.name == name);
    if let Some(found) = find(names::CATALOG) {
        let parse = |path: &Path| -> Result<std::result::Result<(), String>> {
            match vfs.read(path, catalog::MAX_BYTES) {
                Ok(bytes) => Ok(catalog::parse(&bytes).map(drop)),
                Err(e) if e.kind() == std::io::ErrorKind::InvalidData => Ok(Err(e.to_string())),
                Err(e) => Err(Error::io("cannot read", path, e)),
            }
        };
        if let Err(reason) = parse(&found.source)? {
            let saved = find(names::CATALOG_BACKUP).map(|saved| parse(&saved.source)).transpose()?;
            if !matches!(saved, Some(Ok(()))) {
                return Err(broken(&found.source, &reason));
            }
        }
    }
    let is_epoch = |file: &Planned| file.name.to_str().is_some_and(names::is_epoch);
    if files.iter().any(is_epoch) {
        return Ok(());
    }
    for file in files {
        let is_log = file.name.to_str().is_some_and(|name| names::is_log(name) && !names::is_compacted(name));
        let len = || vfs.open(&file.source, crate::vfs::Open::Read)?.len();
        if is_log && len().map_err(|e| Error::io("cannot read", &file.source, e))? > 0 {
            let reason = "there is no epoch file, without which the log does not count";
            return Err(broken(&file.source, reason));
        }
    }
    Ok(())
}

/// Deletes what lies in the directory of the backup.
fn delete_backup(vfs: &dyn Vfs, from: &Path) -> Result<()> {
    for (name, _) in vfs.names(from).map_err(|e| Error::io("cannot list", from, e))? {
        let path = from.join(name);
        if let Err(e) = vfs.unlink(&path) {
            log::warn!("{}", Error::io("the backup was restored, but cannot delete", &path, e));
        }
    }
    Ok(())
}

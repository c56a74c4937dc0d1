// SPDX-License-Identifier: Apache-2.0
//! What a rewind takes away is kept below `cut_off/`, in data directories of their own that every tool opens. Each has
//! an identity of its own, so that it is never taken for a copy of the directory it came from, and a file that says
//! what it is. One that is being made or deleted has a name that says so.

use super::above::{for_each_part, logs, Extent, Log, Part};
use crate::backup::swap;
use crate::blob::paths::{self, Directories};
use crate::error::{Error, Result};
use crate::types::BlobId;
use crate::vfs::{crashsafe, FileKind, Open, Vfs, VfsFile};
use crate::wal::catalog::Catalog;
use crate::wal::entry::{encode_end, Entry};
use crate::wal::epoch_file::EpochFile;
use crate::wal::epoch_marks::LogMarks;
use crate::wal::history_file::DirectoryHistory;
use crate::wal::manifest::Manifest;
use crate::wal::names;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Says what a directory below `cut_off/` holds.
pub const DESCRIPTION: &str = "cut_off.json";
const DESCRIPTION_BYTES_MAX: u64 = 1 << 16;
/// Behind the name of a directory that is not whole.
const PARTIAL: &str = ".partial";

/// How much of what was cut off is kept; the newest always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// At most so many directories. Default: 4.
    pub directories: u64,
    /// At most so many bytes in all of them. Default: 10 GiB.
    pub bytes: u64,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep { directories: 4, bytes: 10 << 30 }
    }
}

/// A directory from which something is saved. Nobody writes to it meanwhile.
pub(super) struct Origin<'a> {
    pub vfs: &'a Arc<dyn Vfs>,
    pub location: &'a Path,
    pub catalog: &'a Catalog,
    pub history: &'a DirectoryHistory,
    /// Where to begin to read the log files.
    pub marks: &'a LogMarks,
}

impl Origin<'_> {
    /// Saves what is above, durably, and returns where it is. What an attempt has saved that was then interrupted is
    /// found and not saved again.
    pub(super) fn save(&self, extent: &Extent) -> Result<PathBuf> {
        let vfs = &**self.vfs;
        let folder = self.location.join(names::CUT_OFF_DIR);
        let failed = |e| Error::io("cannot prepare the directory", &folder, e);
        if vfs.kind(&folder).map_err(failed)?.is_none() {
            vfs.create_dir(&folder).map_err(failed)?;
        }
        // An earlier attempt may have left its name in the cache of the system only.
        vfs.sync_dir(self.location).map_err(failed)?;
        let description = self.describe(extent);
        let saved = saved(vfs, &folder)?;
        if let Some(newest) = saved.last().map(|name| folder.join(name)) {
            let found = vfs.read(&newest.join(DESCRIPTION), DESCRIPTION_BYTES_MAX);
            if found.is_ok_and(|found| found == description) {
                vfs.sync_dir(&folder).map_err(failed)?;
                return Ok(newest);
            }
        }
        let name = free_name(&saved, extent);
        let partial = folder.join(format!("{name}{PARTIAL}"));
        let create = || {
            vfs.remove_dir_all(&partial)?;
            vfs.create_dir(&partial)?;
            vfs.create_dir(&partial.join(names::BLOB_DIR))
        };
        create().map_err(|e| Error::io("cannot prepare the directory", &partial, e))?;
        self.fill(&partial, extent)?;
        let write = |name: &str, bytes: &[u8]| {
            let path = partial.join(name);
            crashsafe::write_new(vfs, &path, bytes).map_err(|e| Error::io("cannot write", &path, e))
        };
        write(DESCRIPTION, &description)?;
        write(names::MANIFEST, &Manifest::new().encode())?;
        let target = folder.join(name);
        let place = || {
            vfs.sync_dir(&partial)?;
            crashsafe::rename(vfs, &partial, &target)
        };
        place().map_err(|e| Error::io("cannot rename", &partial, e))?;
        Ok(target)
    }

    /// The content, but for what says what it is.
    fn fill(&self, partial: &Path, extent: &Extent) -> Result<()> {
        let blobs = Blobs { vfs: &**self.vfs, from: self.location, to: partial, directories: Directories::default() };
        let catalog = match extent.is_all() {
            true => {
                self.copy_all(partial, blobs)?;
                self.catalog.clone()
            }
            false => {
                self.copy_above(partial, extent, blobs)?;
                Catalog::default()
            }
        };
        let path = partial.join(names::CATALOG);
        crashsafe::write_new(&**self.vfs, &path, &catalog.encode()).map_err(|e| Error::io("cannot write", &path, e))?;
        EpochFile::replace(self.vfs.clone(), partial, extent.durable).map(drop)
    }

    /// Whole files, as they are.
    fn copy_all(&self, partial: &Path, mut blobs: Blobs<'_>) -> Result<()> {
        let vfs = &**self.vfs;
        let mut wanted: Vec<String> = logs(vfs, self.location, self.catalog)?.into_iter().map(|log| log.name).collect();
        wanted.extend([names::COMPACTED, names::COMPACTED_PREVIOUS].map(str::to_owned));
        for name in wanted {
            let source = self.location.join(&name);
            if vfs.kind(&source).map_err(|e| Error::io("cannot look at", &source, e))?.is_some() {
                swap::copy(vfs, &source, &partial.join(&name))?;
            }
        }
        let root = self.location.join(names::BLOB_DIR);
        let listed = |dir: &Path| match vfs.names(dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(|e| Error::io("cannot list", dir, e)),
        };
        for (directory, kind) in listed(&root)? {
            if kind == FileKind::Directory {
                for (name, _) in listed(&root.join(directory))? {
                    paths::id_of(&name).map_or(Ok(()), |id| blobs.take(id))?;
                }
            }
        }
        blobs.finish()
    }

    /// The sessions that are above, each log file under its name.
    fn copy_above(&self, partial: &Path, extent: &Extent, mut blobs: Blobs<'_>) -> Result<()> {
        for Log { name, bytes } in logs(&**self.vfs, self.location, self.catalog)? {
            let (path, marks) = (partial.join(&name), self.marks.of(&name).now());
            let failed = |e| Error::io("cannot write", &path, e);
            let mut copy: Option<Copy> = None;
            for_each_part(&bytes, &marks, extent.last, extent.durable, &mut |part| match part {
                Part::Entry(Entry::Put { blobs: ids, .. }) => ids.iter().try_for_each(|id| blobs.take(id)),
                Part::Entry(_) => Ok(()),
                Part::Session { epoch, range, ended } => {
                    let copy = match &mut copy {
                        Some(copy) => copy,
                        None => {
                            let file = self.vfs.open(&path, Open::New).map_err(failed)?;
                            copy.insert(Copy { file, len: 0, from: 0..0 })
                        }
                    };
                    copy.add(&bytes, range).map_err(failed)?;
                    if !ended {
                        let mut end = Vec::new();
                        encode_end(&mut end, epoch);
                        copy.flush(&bytes).and_then(|()| copy.write(&end)).map_err(failed)?;
                    }
                    Ok(())
                }
            })?;
            if let Some(mut copy) = copy {
                copy.flush(&bytes).and_then(|()| copy.file.sync()).map_err(failed)?;
            }
        }
        blobs.finish()
    }

    fn describe(&self, extent: &Extent) -> Vec<u8> {
        let run = self.history.run().map(|run| run.id.to_string());
        let text = serde_json::json!({
            "instance_uuid": self.history.instance, "term": self.history.term, "run": run,
            "first_epoch": extent.first().0, "last_epoch": extent.durable.0,
            "sessions": extent.sessions, "entries": extent.entries, "whole": extent.is_all(),
        });
        format!("{text}\n").into_bytes()
    }
}

/// Sessions on their way into a new file; what stands together is written together.
struct Copy {
    file: Box<dyn VfsFile>,
    len: u64,
    from: std::ops::Range<usize>,
}

impl Copy {
    fn add(&mut self, bytes: &[u8], range: std::ops::Range<usize>) -> io::Result<()> {
        if range.start != self.from.end {
            self.flush(bytes)?;
            self.from.start = range.start;
        }
        self.from.end = range.end;
        Ok(())
    }

    fn flush(&mut self, bytes: &[u8]) -> io::Result<()> {
        let range = std::mem::replace(&mut self.from, 0..0);
        self.write(&bytes[range])
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !bytes.is_empty() {
            self.file.write_at(self.len, bytes)?;
            self.len += bytes.len() as u64;
        }
        Ok(())
    }
}

/// BLOBs get a second name: they never change.
struct Blobs<'a> {
    vfs: &'a dyn Vfs,
    from: &'a Path,
    to: &'a Path,
    /// Those that have been made.
    directories: Directories,
}

impl Blobs<'_> {
    fn take(&mut self, id: BlobId) -> Result<()> {
        let (from, to) = (self.from.join(names::BLOB_DIR), self.to.join(names::BLOB_DIR));
        let with = self.directories.with(Directories::of(&[id]));
        if with != self.directories {
            let dir = paths::directory(&to, id);
            self.vfs.create_dir(&dir).map_err(|e| Error::io("cannot create the directory", &dir, e))?;
            self.directories = with;
        }
        let (source, target) = (paths::file(&from, id), paths::file(&to, id));
        match self.vfs.hard_link(&source, &target) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                log::warn!("{} is missing, to which an entry refers that is cut off", source.display());
                Ok(())
            }
            // After any other error the name may be there all the same, and writing to it would destroy the BLOB.
            Err(e) if has_no_links(&e) => swap::copy(self.vfs, &source, &target).map(drop),
            Err(e) => Err(Error::io("cannot give a second name to", &source, e)),
        }
    }

    fn finish(self) -> Result<()> {
        let root = self.to.join(names::BLOB_DIR);
        let sync = || {
            for number in self.directories.numbers() {
                self.vfs.sync_dir(&paths::directory(&root, BlobId(number as u64)))?;
            }
            self.vfs.sync_dir(&root)
        };
        sync().map_err(|e| Error::io("cannot sync the directory", &root, e))
    }
}

/// Whether the error says that there cannot be a second name: the BLOBs are on another file system, or this one has no
/// such names.
fn has_no_links(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EXDEV | libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::EMLINK))
}

/// The names of what was saved, oldest first.
fn saved(vfs: &dyn Vfs, folder: &Path) -> Result<Vec<String>> {
    let listing = match vfs.names(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| Error::io("cannot list", folder, e))?,
    };
    let directories = listing.into_iter().filter(|(_, kind)| *kind == FileKind::Directory);
    let names = directories.map(|(name, _)| name.to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.ends_with(PARTIAL)).collect();
    names.sort();
    Ok(names)
}

/// A name that sorts behind all others: `<ms since 1970>.<first epoch>-<last epoch>`.
fn free_name(saved: &[String], extent: &Extent) -> String {
    let of = |name: &String| name.split('.').next().and_then(|ms| ms.parse::<u128>().ok());
    let newest = saved.iter().filter_map(of).max().map_or(0, |ms| ms + 1);
    let ms = names::unix_ms().max(newest);
    format!("{ms:014}.{}-{}", extent.first(), extent.durable)
}

/// Deletes the oldest of what was saved until what is left is within the bounds, and what is not whole. A failure is
/// told in the log only.
pub fn bound(vfs: &dyn Vfs, location: &Path, keep: Keep) {
    let folder = location.join(names::CUT_OFF_DIR);
    if let Err(e) = try_bound(vfs, &folder, keep) {
        log::warn!("{e}; more is kept than is set");
    }
}

fn try_bound(vfs: &dyn Vfs, folder: &Path, keep: Keep) -> Result<()> {
    let failed = |path: &Path, e| Error::io("cannot delete", path, e);
    let saved = saved(vfs, folder)?;
    let sizes: Vec<u64> = saved.iter().map(|name| size(vfs, &folder.join(name))).collect::<Result<_>>()?;
    let (mut count, mut bytes) = (saved.len() as u64, sizes.iter().sum::<u64>());
    for (name, size) in saved.iter().zip(sizes) {
        if count <= 1 || (count <= keep.directories && bytes <= keep.bytes) {
            break;
        }
        let path = folder.join(name);
        let (max, mib) = (keep.directories, keep.bytes >> 20);
        log::warn!(
            "{} is deleted: at most {max} directories and {mib} MiB of what was cut off are kept",
            path.display()
        );
        crashsafe::rename(vfs, &path, &folder.join(format!("{name}{PARTIAL}"))).map_err(|e| failed(&path, e))?;
        (count, bytes) = (count - 1, bytes - size);
    }
    let listing = match vfs.names(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| Error::io("cannot list", folder, e))?,
    };
    for (name, _) in listing.iter().filter(|(name, _)| name.to_string_lossy().ends_with(PARTIAL)) {
        vfs.remove_dir_all(&folder.join(name)).map_err(|e| failed(&folder.join(name), e))?;
    }
    Ok(())
}

/// The bytes of all files below a directory.
fn size(vfs: &dyn Vfs, dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in vfs.list(dir).map_err(|e| Error::io("cannot list", dir, e))? {
        bytes += match entry.kind {
            FileKind::Directory => size(vfs, &dir.join(entry.name))?,
            _ => entry.len,
        };
    }
    Ok(bytes)
}

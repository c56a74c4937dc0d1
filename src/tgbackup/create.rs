// SPDX-License-Identifier: Apache-2.0
//! `tgbackup create`.

use super::copying::{Content, Reading, Watch};
use super::folder::{Backup, Folder};
use super::list;
use super::manifest::{BackupManifest, Identity, SavedFile};
use super::source::{check_directory, identity, Source};
use crate::blob::paths;
use crate::error::{Error, Result};
use crate::program_output::Output;
use crate::progress_bar::Progress;
use crate::replication::backup_socket::{HeldFile, Serves};
use crate::replication::epoch_times::now_ms;
use crate::vfs::{crashsafe, Open, Vfs};
use crate::wal::names;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Makes a backup of `dir` in the folder `target`.
pub fn run(vfs: &Arc<dyn Vfs>, dir: &Path, target: &Path, output: &mut Output<'_>) -> Result<i32> {
    check_directory(&**vfs, dir)?;
    check_apart(&**vfs, dir, target)?;
    let folder = Folder::open_to_change(vfs, target, true)?;
    let mut source = Source::open(vfs, dir)?;
    // The epoch is durable now.
    let begun_at_ms = now_ms();
    let mut manifest = BackupManifest::new(begun_at_ms, source.epoch, source.from, dir);
    manifest.times = std::mem::take(&mut source.times);
    let previous = Previous::newest(&folder, &source.identity()?, source.from)?;
    let new = folder.begin(begun_at_ms, source.epoch)?;
    manifest.files = save(&mut source, &previous, vfs, &new.files())?;
    manifest.identity = identity(&**vfs, &new.files())?;
    new.write(&manifest)?;
    source.end()?;
    let name = new.name.clone();
    new.put_in_place()?;
    match output.json {
        true => output.print(&format!("{}\n", list::document(&name, &manifest))),
        false => output.print(&format!(
            "{name}: up to epoch {}, {} files, {} bytes, {} of them new\n",
            manifest.epoch,
            manifest.files.len(),
            manifest.bytes(),
            manifest.new_bytes()
        )),
    }
    Ok(0)
}

/// A backup does not go into what it is of.
fn check_apart(vfs: &dyn Vfs, dir: &Path, target: &Path) -> Result<()> {
    let resolve = |path: &Path| vfs.resolve(path).map_err(|e| Error::io("cannot look at", path, e));
    let there = match vfs.kind(target).map_err(|e| Error::io("cannot look at", target, e))? {
        Some(_) => resolve(target)?,
        None => resolve(crashsafe::parent(target))?,
    };
    match there.starts_with(resolve(dir)?) {
        true => Err(Error::InvalidArgument(format!("{} lies in the data directory itself", target.display()))),
        false => Ok(()),
    }
}

/// The files of the newest backup.
#[derive(Debug, Default)]
struct Previous {
    files: HashMap<String, SavedFile>,
    location: PathBuf,
    /// It is of the same run of an engine: within one, what has got its last name is not changed any more.
    same_run: bool,
}

impl Previous {
    fn newest(folder: &Folder, now: &Identity, from: Option<Serves>) -> Result<Previous> {
        for Backup { name, files, manifest } in folder.backups()?.into_iter().rev() {
            let manifest = match manifest {
                Ok(Some(manifest)) => manifest,
                Err(e @ Error::Io { .. }) => return Err(e),
                Ok(None) | Err(_) => {
                    log::warn!("{} cannot be used, nothing is shared with it", name.unwrap_or_default());
                    continue;
                }
            };
            let engines = [from, manifest.from] == [Some(Serves::Engine); 2];
            let same_run = engines && now.run.is_some() && *now == manifest.identity;
            let by_name = manifest.files.into_iter().map(|file| (file.name.clone(), file)).collect();
            return Ok(Previous { files: by_name, location: files, same_run });
        }
        Ok(Previous::default())
    }

    /// The file of this name and size, when it is there as it was written, and whether its content is known to be the
    /// same.
    fn candidate(&self, vfs: &dyn Vfs, name: &str, bytes: u64) -> Option<(&SavedFile, bool)> {
        let saved = self.files.get(name).filter(|saved| saved.bytes == bytes)?;
        let found = vfs.open(&self.location.join(name), Open::Read).and_then(|file| file.len());
        found.is_ok_and(|found| found == bytes).then_some((saved, self.same_run && never_changes(name)))
    }
}

/// Whether a file of this name never gets other content while an engine runs.
fn never_changes(name: &str) -> bool {
    let is_rotated = names::is_log(name) && !names::is_active_log(name) && !names::is_compacted(name);
    is_rotated || paths::id_of(OsStr::new(name)).is_some()
}

/// Copies or links all files, durably but for the names.
fn save(source: &mut Source, previous: &Previous, vfs: &Arc<dyn Vfs>, to: &Path) -> Result<Vec<SavedFile>> {
    let mut wanted = Vec::new();
    for file in std::mem::take(&mut source.files) {
        let path = source.location.join(&file.source);
        let len = || source.vfs.open(&path, Open::Read)?.len();
        let len = file.bytes.map_or_else(len, Ok).map_err(|e| Error::io("cannot open", &path, e))?;
        wanted.push((file, path, len));
        source.goes_on()?;
    }
    let progress = Progress::new(wanted.iter().map(|(_, _, len)| len).sum());
    let mut saved = Vec::with_capacity(wanted.len());
    for (HeldFile { destination, bytes, .. }, path, len) in wanted {
        let name = destination
            .to_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::InvalidArgument(format!("{} has a name that is no text", path.display())))?;
        let mut read = progress.file();
        let from = source.vfs.clone();
        let reading = Reading { vfs: &*from, path: &path, bytes };
        let watch = &mut |offset: usize| {
            read.at(offset);
            source.goes_on()
        };
        let target = to.join(&name);
        let (content, shared) = match share(previous, &**vfs, (&name, len), &reading, &target, watch)? {
            Some(content) => (content, true),
            None => (reading.copy(&**vfs, &target, watch)?, false),
        };
        read.done(len as usize);
        saved.push(SavedFile { name, bytes: content.bytes, sha256: content.sha256, shared });
    }
    saved.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(saved)
}

/// Gives the file of the previous backup a second name when it has the same content; `None` when it has not, or that is
/// not possible.
fn share(
    previous: &Previous,
    vfs: &dyn Vfs,
    (name, len): (&str, u64),
    reading: &Reading<'_>,
    target: &Path,
    watch: Watch<'_>,
) -> Result<Option<Content>> {
    let Some((saved, is_known)) = previous.candidate(vfs, name, len) else { return Ok(None) };
    let content = match is_known {
        true => Content { bytes: saved.bytes, sha256: saved.sha256.clone() },
        false => reading.content(watch)?,
    };
    let is_same = (content.bytes, &content.sha256) == (saved.bytes, &saved.sha256);
    let linked = is_same && vfs.hard_link(&previous.location.join(name), target).is_ok();
    Ok(linked.then_some(content))
}

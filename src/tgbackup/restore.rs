// SPDX-License-Identifier: Apache-2.0
//! `tgbackup restore`: a backup takes the place of a directory's content, whole or up to a point.

use super::arguments::RestoreOptions;
use super::folder::{Backup, Folder};
use super::points::{choose, Chosen, Point};
use super::times;
use super::verify::{check_files, try_start, Findings};
use crate::backup::{restore_directory, swap, Phase, Progress as Restored, Target};
use crate::blob::paths;
use crate::directory::data_directory::Directory;
use crate::error::{Error, Result};
use crate::program_output::Output;
use crate::progress_bar::Progress;
use crate::stderr_log::rfc3339;
use crate::types::Epoch;
use crate::vfs::Vfs;
use crate::wal::names;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How often the bar is told how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Restores what is wanted.
pub fn run(vfs: &Arc<dyn Vfs>, options: &RestoreOptions, output: &mut Output<'_>) -> Result<i32> {
    let absolute = |path: &PathBuf| vfs.absolute(path).map_err(|e| Error::io("cannot look at", path, e));
    let (target, name, dir) = match &options.words[..] {
        [target, dir] => (absolute(target)?, None, absolute(dir)?),
        [target, name, dir] => (absolute(target)?, Some(name), absolute(dir)?),
        _ => return Err(Error::InvalidArgument("<TARGET> [NAME] <DIR> was expected".to_owned())),
    };
    let name = match name.map(|name| name.to_str().ok_or(name)) {
        Some(Err(name)) => return Err(Error::InvalidArgument(format!("{} is no name of a backup", name.display()))),
        name => name.and_then(std::result::Result::ok),
    };
    let point = match (options.until_epoch, &options.until_time) {
        (Some(epoch), _) => Point::Epoch(Epoch(epoch)),
        (None, Some(text)) => Point::Time(times::parse(text).map_err(Error::InvalidArgument)?),
        (None, None) => Point::Whole,
    };
    let folder = Folder::open(vfs, &target)?;
    let Chosen { backup, until, as_of } = choose(vfs, &folder, name, point)?;
    if !options.replace {
        check_empty(&**vfs, &dir)?;
    }
    let found = check_files(vfs, &backup)?;
    if !found.damage.is_empty() {
        let text = format!("{} is damaged, nothing was changed: {}", backup.label(), found.damage.join("; "));
        return Err(Error::BrokenMetadata(text));
    }
    found.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    put_in_place(vfs, &backup, until, &dir)?;
    if until.is_some() {
        check_restored(vfs, &dir, until)?;
    }
    report(&backup, (until, as_of), &dir, output);
    Ok(0)
}

/// What a directory may have that was only just made, and a restore into it begun.
const OF_A_NEW_DIRECTORY: [&str; 10] = [
    names::MANIFEST,
    names::MANIFEST_NEW,
    names::MANIFEST_BACKUP,
    names::CATALOG,
    names::CATALOG_TEMPORARY,
    names::CATALOG_BACKUP,
    names::EPOCH,
    names::EPOCH_TEMPORARY,
    names::BLOB_DIR,
    names::RESTORE_DIR,
];

/// Whether nothing is given up that anybody wrote: what an interrupted restore into a new directory leaves is nothing.
fn check_empty(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    let listed = match vfs.names(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(|e| Error::io("cannot list", dir, e))?,
    };
    if swap::is_decided(vfs, dir)? {
        return Ok(());
    }
    let other = listed.iter().find(|(name, _)| OF_A_NEW_DIRECTORY.iter().all(|new| name != *new));
    let mut blob = None;
    paths::visit(vfs, &dir.join(names::BLOB_DIR), |id| blob = Some(id))
        .map_err(|e| Error::io("cannot list", dir, e))?;
    match (other, blob) {
        (None, None) => Ok(()),
        (other, blob) => {
            let found = other.map_or_else(
                || blob.map_or_else(String::new, |id| format!("BLOB {id}")),
                |(name, _)| name.to_string_lossy().into_owned(),
            );
            let text = "with --replace its content is given up for that of the backup";
            Err(Error::InvalidArgument(format!("{} is not empty (it has {found}): {text}", dir.display())))
        }
    }
}

fn put_in_place(vfs: &Arc<dyn Vfs>, backup: &Backup, until: Option<Epoch>, dir: &Path) -> Result<()> {
    let total = match &backup.manifest {
        Ok(Some(manifest)) => manifest.bytes(),
        _ => 0,
    };
    let (progress, ended) = (Restored::default(), AtomicBool::new(false));
    let restored = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let bar = Progress::new(total);
            let mut shown = bar.file();
            while !ended.load(SeqCst) {
                shown.at(progress.get().bytes_done as usize);
                std::thread::park_timeout(LOOK_EVERY);
            }
        });
        let restored = Directory::open(vfs.clone(), dir).and_then(|mut directory| {
            directory.replace(&progress, |target| restore_directory(&Target { until, ..*target }, &backup.files, true))
        });
        ended.store(true, SeqCst);
        watcher.thread().unpark();
        restored
    });
    restored.inspect_err(|_| match progress.get().phase {
        Phase::Failed => log::error!("{}: the next start or restore completes what was begun", dir.display()),
        _ => log::info!("{}: the content is as it was", dir.display()),
    })
}

/// A BLOB of an earlier epoch may have been deleted before the backup.
fn check_restored(vfs: &Arc<dyn Vfs>, dir: &Path, until: Option<Epoch>) -> Result<()> {
    let (mut found, root) = (Findings::default(), dir.join(names::BLOB_DIR));
    try_start(vfs, dir, until, &|id| paths::file(&root, id), &mut found);
    match found.damage.is_empty() {
        true => Ok(()),
        false => {
            let text = format!("{} was restored, but not whole: {}", dir.display(), found.damage.join("; "));
            Err(Error::BrokenMetadata(text))
        }
    }
}

fn report(backup: &Backup, (until, as_of): (Option<Epoch>, Option<SystemTime>), dir: &Path, output: &mut Output<'_>) {
    let whole = backup.manifest.as_ref().ok().and_then(Option::as_ref).map(|manifest| manifest.epoch);
    let epoch = until.or(whole);
    match output.json {
        true => output.print(&format!(
            "{}\n",
            serde_json::json!({
                "directory": dir.to_string_lossy(), "name": backup.label(), "epoch": epoch,
                "as_of": as_of.map(rfc3339),
            })
        )),
        false => {
            let epoch = epoch.map_or_else(String::new, |epoch| format!(" up to epoch {epoch}"));
            let as_of = as_of.map_or_else(String::new, |time| format!(", as of {}", rfc3339(time)));
            output.print(&format!("{} holds what {} has{epoch}{as_of}\n", dir.display(), backup.label()));
        }
    }
}

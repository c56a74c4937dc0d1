// SPDX-License-Identifier: Apache-2.0
//! `tglogutil compaction`: replaces all log files by one with the live entries (§16.2). The directory keeps its place,
//! its identity and its BLOBs; the original makes a new one in its stead.

use super::arguments::CompactionOptions;
use super::inspect::line;
use super::logs::epochs;
use crate::compaction::{build, keep_copy};
use crate::directory::OfflineDirectory;
use crate::error::{Error, Result};
use crate::recovery::Input;
use crate::scrub::Comparison;
use crate::types::Epoch;
use crate::vfs::{crashsafe, FileKind, Vfs};
use crate::wal::names;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// Bound for the index, as for a start.
const MEMORY_BYTES: u64 = 1 << 30;
const GUIDE: &str = "see https://github.com/project-tsurugi/tsurugidb/blob/master/docs/troubleshooting-guide.md";

/// Refuses a symbolic link, whatever slashes stand behind it.
pub fn check_target(location: &Path) -> Result<()> {
    // Components leave slashes at the end out.
    let bare: PathBuf = location.components().collect();
    match std::fs::symlink_metadata(&bare) {
        Ok(found) if found.is_symlink() => {
            let message = "dblogdir is symlink; compaction target must not be symlink";
            Err(Error::InvalidArgument(message.to_owned()))
        }
        _ => Ok(()),
    }
}

pub fn run(
    directory: &OfflineDirectory,
    limit: Option<Epoch>,
    options: &CompactionOptions,
    out: &mut dyn Write,
) -> Result<i32> {
    let vfs = directory.vfs();
    if limit.is_none() {
        let found = epochs(directory)?;
        if let Some(fault) = &found.fault {
            let reason = format!("reading epoch file is failed: {} ({})", fault.reason(), fault.path().display());
            return Err(Error::BrokenMetadata(reason));
        }
        line(out, format_args!("durable-epoch: {}", found.durable.unwrap_or_default()));
    }
    let work = WorkingDirectory::new(&**vfs, directory.location(), options.working_dir.as_deref())?;
    line(out, format_args!("working-directory: \"{}\"", work.path.display()));
    if !options.force && !agreed(out) {
        log::error!("aborted");
        return Ok(0);
    }
    let catalog = directory.catalog().map_err(|e| Error::BrokenMetadata(e.to_string()))?;
    let input = Input {
        vfs: &**vfs,
        location: directory.location(),
        catalog,
        end_markers: directory.has_end_markers(),
        threads: options.common.threads(),
        memory_bytes: MEMORY_BYTES,
        releases: false,
        stopping: None,
        pace: None,
        marks: None,
    };
    compare(directory).inspect_err(|e| log_refusal(e, directory.location()))?;
    let built = build(&input, limit, &work.path).inspect_err(|e| log_refusal(e, directory.location()))?;
    if options.dry_run {
        work.remove(&**vfs)?;
        line(out, format_args!("compaction will be successfully completed (dry-run mode)"));
        return Ok(0);
    }
    if options.make_backup {
        let backup =
            beside(&**vfs, directory.location(), "backup", |path| keep_copy(&**vfs, directory.location(), path))?;
        log::info!("the original directory is kept as \"{}\"", backup.display());
    }
    directory.rotate(|_| true)?;
    if let Some(first) = built.changes_from() {
        directory.disown(first)?;
    }
    built.install(vfs, &input)?;
    work.remove(&**vfs)?;
    log::info!("{} entries are live", built.live);
    line(out, format_args!("compaction was successfully completed: \"{}\"", directory.location().display()));
    Ok(0)
}

/// Compares the log files with what they are known to have held: what is damaged must not come into the new one.
fn compare(directory: &OfflineDirectory) -> Result<()> {
    let (vfs, location) = (&**directory.vfs(), directory.location());
    let comparison = Comparison::new(vfs, location, None, None);
    let listing = vfs.names(location).map_err(|e| Error::io("cannot list", location, e))?;
    let files = listing.into_iter().filter(|(_, kind)| *kind == FileKind::File);
    let detached = directory.catalog().map(|catalog| catalog.detached.clone()).unwrap_or_default();
    let counts = |name: &String| names::is_log(name) && !detached.contains(name);
    files.filter_map(|(name, _)| name.into_string().ok()).filter(counts).try_for_each(|name| comparison.check(&name))
}

/// Says as the original does what is wrong with the directory.
fn log_refusal(error: &Error, location: &Path) {
    if matches!(error, Error::Corrupted(_)) {
        log::error!("{error}");
        log::error!(
            "/:limestone recover process failed. (cause: corruption detected in transaction log data directory), \
             {GUIDE}"
        );
        log::error!("/:limestone dblogdir (transaction log directory): \"{}\"", location.display());
    }
}

/// Asks, and reads one character.
fn agreed(out: &mut dyn Write) -> bool {
    // Without an answer nothing is done, so nothing is lost when nobody can read the question.
    let _ = write!(out, "execute? (y/N) ").and_then(|()| out.flush());
    let mut answer = [0];
    matches!(std::io::stdin().read(&mut answer), Ok(1)) && answer[0].eq_ignore_ascii_case(&b'y')
}

/// Where the result is built. It stays when the compaction fails.
struct WorkingDirectory {
    path: PathBuf,
}

impl WorkingDirectory {
    fn new(vfs: &dyn Vfs, location: &Path, given: Option<&Path>) -> Result<WorkingDirectory> {
        let Some(given) = given else {
            let make = |path: &Path| vfs.create_dir(path).map_err(|e| Error::io("cannot create", path, e));
            return Ok(WorkingDirectory { path: beside(vfs, location, "work", make)? });
        };
        let kind = vfs.kind(given).map_err(|e| Error::io("cannot open", given, e))?;
        if kind != Some(FileKind::Directory) {
            let message = format!("the working directory \"{}\" is no directory", given.display());
            return Err(Error::InvalidArgument(message));
        }
        let content = vfs.names(given).map_err(|e| Error::io("cannot list", given, e))?;
        if !content.is_empty() {
            let message = format!("the working directory \"{}\" is not empty", given.display());
            return Err(Error::InvalidArgument(message));
        }
        Ok(WorkingDirectory { path: given.to_owned() })
    }

    fn remove(&self, vfs: &dyn Vfs) -> Result<()> {
        vfs.remove_dir_all(&self.path).map_err(|e| Error::io("cannot delete", &self.path, e))
    }
}

/// Makes something with a name of its own beside the data directory: `<location>.<what>_` and six characters.
fn beside(vfs: &dyn Vfs, location: &Path, what: &str, make: impl Fn(&Path) -> Result<()>) -> Result<PathBuf> {
    // On a disk that is not the machine's there is nothing to resolve.
    let location = std::fs::canonicalize(location).unwrap_or_else(|_| location.to_owned());
    let name = location.file_name().unwrap_or_default().to_string_lossy().into_owned();
    loop {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let path = crashsafe::parent(&location).join(format!("{name}.{what}_{}", &random[..6]));
        if vfs.kind(&path).map_err(|e| Error::io("cannot open", &path, e))?.is_some() {
            continue;
        }
        match make(&path) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|()| path),
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Compaction of a directory that nobody has open: all logs become the compacted file, and are deleted. Manifest (and
//! with it the identity), BLOBs and BLOB ids stay (W3). At every moment the directory is one that starts and gives
//! the same entries.

use crate::compaction::writer::Consideration;
use crate::compaction::{catalog_file, online, writer};
use crate::error::{Error, Result};
use crate::recovery::{self, Beyond, Input, Selected};
use crate::types::{BlobId, Epoch};
use crate::vfs::{crashsafe, FileKind, Open, Vfs};
use crate::wal::epoch_file::EpochFile;
use crate::wal::names;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// A compacted file in a working directory, which nothing refers to yet.
#[derive(Debug)]
pub struct Built {
    file: PathBuf,
    /// What becomes the only record of the epoch file.
    epoch: Epoch,
    recorded: Epoch,
    max_blob_id: BlobId,
    /// Entries in the file.
    pub live: usize,
}

/// Writes what a start would give to a compacted file in the directory `work`. With `limit`, sessions up to this epoch
/// count instead of those up to the recorded one; nothing else of the directory is used then.
///
/// # Errors
/// [`Error::Corrupted`] when acknowledged data is damaged; the directory has not been changed.
pub fn build(input: &Input<'_>, limit: Option<Epoch>, work: &Path) -> Result<Built> {
    let recorded;
    let (snapshot, max_blob_id, warnings) = match limit {
        None => {
            let found = recovery::recover(input)?;
            recorded = found.durable.unwrap_or_default();
            (found.snapshot, found.max_blob_id, found.warnings)
        }
        Some(limit) => {
            recorded = recovery::durable_epoch(input)?;
            let merged = Selected::open(input, limit, |_| true)?.merge(Beyond::Dropped)?;
            (merged.snapshot, merged.max_blob_id, merged.warnings)
        }
    };
    for warning in &warnings {
        log::warn!("{warning}");
    }
    let file = work.join(names::COMPACTED);
    let consideration = Consideration { stopping: input.stopping, others: input.mapped_bytes_max() };
    writer::write(input.vfs, &file, &snapshot, consideration)?;
    let max_blob_id = max_blob_id.max(input.catalog.max_blob_id);
    Ok(Built { file, epoch: limit.unwrap_or(recorded), recorded, max_blob_id, live: snapshot.len() })
}

impl Built {
    /// From which epoch on the durable content is another one than before; `None` when it is the same.
    pub fn changes_from(&self) -> Option<Epoch> {
        (self.epoch != self.recorded).then(|| self.epoch.min(self.recorded).next())
    }

    /// Puts the file in place of everything that it holds. No log file with content may have an active name any more:
    /// the catalog lists the files as detached until they are deleted, and after a crash in between a new file of such
    /// a name would be taken for one of them. After a failure or a crash the directory starts as before or as after,
    /// and the compaction can be run again.
    ///
    /// # Errors
    /// [`Error::WrongState`] when there is such a file; nothing has been changed then.
    pub fn install(&self, vfs: &Arc<dyn Vfs>, input: &Input<'_>) -> Result<()> {
        let location = input.location;
        check_rotated(&**vfs, location)?;
        let temporary = self.bring(&**vfs, location)?;
        if self.epoch > self.recorded {
            // Sessions up to the epoch must count before their entries are in the compacted file, or some would alone.
            EpochFile::replace(vfs.clone(), location, self.epoch)?;
        }
        online::settle_previous(&**vfs, location)?;
        let mut catalog = input.catalog.clone();
        if !catalog_file::lists_compacted(&catalog) {
            catalog_file::list_compacted(&mut catalog);
            catalog_file::replace(&**vfs, location, &catalog)?;
        }
        let path = location.join(names::COMPACTED);
        crashsafe::rename(&**vfs, &temporary, &path).map_err(|e| Error::io("cannot put in place", &path, e))?;

        let logs = files(&**vfs, location, |name| names::is_log(name) && !names::is_compacted(name))?;
        catalog.detached = logs.iter().filter(|name| !names::is_active_log(name)).cloned().collect();
        catalog.max_epoch = catalog.max_epoch.max(self.epoch);
        catalog.max_blob_id = self.max_blob_id;
        catalog_file::replace(&**vfs, location, &catalog)?;
        EpochFile::replace(vfs.clone(), location, self.epoch)?;

        // From here on only what is useless goes.
        let rotated_epochs = files(&**vfs, location, names::is_rotated_epoch)?;
        for name in logs.iter().chain(&rotated_epochs) {
            let path = location.join(name);
            vfs.unlink(&path).map_err(|e| Error::io("cannot delete", &path, e))?;
        }
        let directory = location.join(names::COMPACTION_DIR);
        vfs.remove_dir_all(&directory).map_err(|e| Error::io("cannot delete", &directory, e))?;
        vfs.sync_dir(location).map_err(|e| Error::io("cannot sync the directory", location, e))?;
        catalog.detached.clear();
        catalog_file::replace(&**vfs, location, &catalog)
    }

    /// Brings the file below the directory, from another file system as a copy.
    fn bring(&self, vfs: &dyn Vfs, location: &Path) -> Result<PathBuf> {
        let temporary = online::temporary(vfs, location)?;
        match vfs.rename(&self.file, &temporary) {
            Err(e) if e.kind() == ErrorKind::CrossesDevices => {
                copy(vfs, &self.file, &temporary).map_err(|e| Error::io("cannot copy to", &temporary, e))?;
            }
            moved => moved.map_err(|e| Error::io("cannot move", &self.file, e))?,
        }
        Ok(temporary)
    }
}

/// Checks that no log file under an active name has content.
fn check_rotated(vfs: &dyn Vfs, location: &Path) -> Result<()> {
    for name in files(vfs, location, names::is_active_log)? {
        let path = location.join(name);
        let len =
            vfs.open(&path, Open::Read).and_then(|file| file.len()).map_err(|e| Error::io("cannot read", &path, e))?;
        if len > 0 {
            return Err(Error::WrongState(format!("{} must get a rotated name first", path.display())));
        }
    }
    Ok(())
}

/// Names of regular files.
fn files(vfs: &dyn Vfs, location: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let listing = vfs.names(location).map_err(|e| Error::io("cannot list", location, e))?;
    let files = listing.into_iter().filter(|(_, kind)| *kind == FileKind::File);
    Ok(files.filter_map(|(name, _)| name.into_string().ok()).filter(|name| wanted(name)).collect())
}

/// Copies a file and syncs the content.
fn copy(vfs: &dyn Vfs, from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (vfs.open(from, Open::Read)?, vfs.open(to, Open::Truncate)?);
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    loop {
        let got = from.read_at(offset, &mut buffer)?;
        if got == 0 {
            return to.sync();
        }
        to.write_at(offset, &buffer[..got])?;
        offset += got as u64;
    }
}

/// Gives the whole directory a second, durable existence at `to`, which must not exist: log files and BLOBs under
/// second names, because nobody changes them any more, and what is changed in place as copies.
pub fn keep_copy(vfs: &dyn Vfs, location: &Path, to: &Path) -> Result<()> {
    let failed = |e| Error::io("cannot make the backup", to, e);
    keep(vfs, location, to, true).map_err(failed)?;
    vfs.sync_dir(crashsafe::parent(to)).map_err(failed)
}

fn keep(vfs: &dyn Vfs, from: &Path, to: &Path, top: bool) -> io::Result<()> {
    vfs.create_dir(to)?;
    for (name, kind) in vfs.names(from)? {
        let (from, to) = (from.join(&name), to.join(&name));
        let changes = top && !name.to_str().is_some_and(names::is_log);
        match kind {
            FileKind::Directory => keep(vfs, &from, &to, false)?,
            FileKind::File if changes => copy(vfs, &from, &to)?,
            FileKind::File => match vfs.hard_link(&from, &to) {
                Err(e)
                    if matches!(
                        e.raw_os_error(),
                        Some(libc::EMLINK | libc::EPERM | libc::EOPNOTSUPP | libc::EXDEV)
                    ) =>
                {
                    copy(vfs, &from, &to)?;
                }
                linked => {
                    linked?;
                    if top {
                        // A process that was killed may have left the end of a log in the cache of the system only.
                        vfs.open(&to, Open::Read)?.sync()?;
                    }
                }
            },
            FileKind::Other => log::warn!("{} is no regular file and not part of the backup", from.display()),
        }
    }
    vfs.sync_dir(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::fixture::{pairs, put, records, rows, session, Dir, LOCATION};
    use crate::recovery::recover;
    use crate::vfs::Loss;
    use crate::wal::catalog::{self, Catalog};

    const ROTATED: &str = "pwal_0000.00000000000001.0";
    const WORK: &str = "/work";

    fn dir() -> Dir {
        let log =
            [session(3, &[put(b"k", 3, "3")]), session(5, &[put(b"k", 5, "5")]), session(6, &[put(b"k", 6, "6")])];
        let dir = Dir::new(5).with(ROTATED, &log.concat()).with("epoch.00000000000001.4", &records(&[4]));
        dir.fs.create_dir(Path::new(WORK)).unwrap();
        dir
    }

    #[test]
    fn the_directory_is_one_file_afterwards_also_after_a_power_cut() {
        for (limit, value, changes_from) in [(None, "5", None), (Some(3), "3", Some(4)), (Some(6), "6", Some(6))] {
            let dir = dir();
            let built = build(&dir.input(), limit.map(Epoch), Path::new(WORK)).unwrap();
            assert_eq!((built.live, built.changes_from()), (1, changes_from.map(Epoch)));
            built.install(&(Arc::new(dir.fs.clone()) as Arc<dyn Vfs>), &dir.input()).unwrap();
            let after = Dir { fs: dir.fs.reboot(Loss::DropUnsynced), catalog: Catalog::default(), threads: 1 };
            let found = recover(&after.input()).unwrap();
            assert_eq!(rows(&found.snapshot), pairs(&[("k", value)]));
            assert_eq!(found.durable, Some(Epoch(limit.unwrap_or(5))));
            let files = files(&after.fs, Path::new(LOCATION), |name| names::is_log(name) || names::is_epoch(name));
            assert_eq!(files.unwrap(), [names::EPOCH, names::COMPACTED]);
            let catalog = catalog::parse(&after.content(names::CATALOG).unwrap()).unwrap();
            assert!(catalog_file::lists_compacted(&catalog) && catalog.detached.is_empty());
        }
    }

    #[test]
    fn a_log_with_content_under_an_active_name_is_refused_before_anything_is_changed() {
        let dir = dir().with("pwal_0001", b"").with("pwal_0002", &session(5, &[]));
        let built = build(&dir.input(), None, Path::new(WORK)).unwrap();
        let before = dir.fs.files();
        let refused = built.install(&(Arc::new(dir.fs.clone()) as Arc<dyn Vfs>), &dir.input());
        assert!(matches!(refused, Err(Error::WrongState(text)) if text.contains("pwal_0002")));
        assert_eq!(dir.fs.files(), before);
    }

    #[test]
    fn a_copy_stays_as_it_is_when_the_directory_changes() {
        let (dir, to) = (dir().with("blob/dir_01/0000000000000001.blob", b"blob"), Path::new("/copy"));
        let before = dir.fs.files();
        keep_copy(&dir.fs, Path::new(LOCATION), to).unwrap();
        assert!(keep_copy(&dir.fs, Path::new(LOCATION), to).is_err(), "it is there");
        dir.fs.open(&Path::new(LOCATION).join(names::EPOCH), Open::Truncate).unwrap();
        dir.fs.unlink(&Path::new(LOCATION).join(ROTATED)).unwrap();
        let after = dir.fs.reboot(Loss::DropUnsynced).files();
        for (path, bytes) in before.iter().filter(|(path, _)| path.starts_with(LOCATION)) {
            let copy = to.join(path.strip_prefix(LOCATION).unwrap());
            assert_eq!(after.get(&copy), Some(bytes), "{}", copy.display());
        }
    }
}

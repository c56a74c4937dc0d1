// SPDX-License-Identifier: Apache-2.0
//! Compaction of log files that nobody writes to any more, in two steps: [`prepare`] reads and writes for as long as it
//! takes and changes nothing that a start looks at; [`Prepared::commit`] is a handful of renames and syncs.

use crate::compaction::writer::Consideration;
use crate::compaction::{catalog_file, writer};
use crate::error::{Error, Result};
use crate::recovery::{Beyond, Input, Selected, Snapshot};
use crate::types::{Epoch, WriteVersion};
use crate::vfs::{crashsafe, FileKind, Vfs};
use crate::wal::catalog::Catalog;
use crate::wal::names;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A compacted file that is written and synced but not in its place yet.
pub struct Prepared<'a> {
    input: &'a Input<'a>,
    selected: Selected<'a>,
    temporary: PathBuf,
    /// What the catalog will say, but for files that are gone by then.
    catalog: Catalog,
    retained: bool,
}

/// What there is to merge.
pub enum Preparation<'a> {
    Done(Prepared<'a>),
    NoLog,
    /// Somebody needs all of the log as it is.
    AllRetained,
}

/// Merges the compacted file and all log files under rotated names, whose sessions must all be in epochs up to
/// `durable` and durable. Files with sessions beyond `retained_epoch` stay in the log, because somebody else needs them
/// there. `compare` gets the name of each file before it is used; when it does not agree, nothing is made of any.
///
/// # Errors
/// Those of `compare`, [`Error::Corrupted`], [`Error::WrongState`] and [`Error::Io`].
pub fn prepare<'a>(
    input: &'a Input<'a>,
    durable: Epoch,
    retained_epoch: Option<Epoch>,
    compare: &dyn Fn(&str) -> Result<()>,
) -> Result<Preparation<'a>> {
    let mut selected = Selected::open(input, durable, |name| !names::is_active_log(name))?;
    let all = selected.logs().count();
    if let Some(floor) = retained_epoch {
        selected.leave_out_beyond(floor);
    }
    let logs: Vec<String> = selected.logs().map(str::to_owned).collect();
    if logs.is_empty() {
        return Ok(if all == 0 { Preparation::NoLog } else { Preparation::AllRetained });
    }
    log::info!("compaction of {} log files up to epoch {durable}, {} bytes", logs.len(), selected.bytes());
    selected.names().try_for_each(compare)?;
    let merged = selected.merge(Beyond::Refused)?;
    for warning in &merged.warnings {
        log::warn!("{warning}");
    }
    let temporary = temporary(input.vfs, input.location)?;
    let written = writer::write(
        input.vfs,
        &temporary,
        &merged.snapshot,
        Consideration { stopping: input.stopping, others: input.mapped_bytes_max() },
    );
    let mut catalog = input.catalog.clone();
    let retained = logs.len() < all;
    catalog_file::list_compacted(&mut catalog);
    catalog.detached.extend(logs);
    catalog.max_epoch = catalog.max_epoch.max(durable);
    catalog.max_blob_id = catalog.max_blob_id.max(merged.max_blob_id);
    let prepared = Prepared { input, selected, temporary, catalog, retained };
    match written {
        Ok(bytes) => {
            log::info!("{} of {} entries are live, {bytes} bytes", merged.snapshot.len(), merged.entries);
            Ok(Preparation::Done(prepared))
        }
        Err(e) => {
            prepared.abandon();
            Err(e)
        }
    }
}

impl Prepared<'_> {
    /// The log files that it takes out of the log.
    pub fn logs(&self) -> impl Iterator<Item = &str> {
        self.selected.logs()
    }

    /// Whether files stay in the log because of the retained epoch.
    pub fn leaves_files_out(&self) -> bool {
        self.retained
    }

    /// See [`Selected::readable_blob_entries`].
    pub fn readable_blob_entries(&self, boundary: WriteVersion) -> Result<Snapshot> {
        self.selected.readable_blob_entries(boundary)
    }

    /// Makes it count. When this returns, the catalog says so on the disk; the files that it lists as detached may be
    /// deleted. After a failure a start gives the same entries as before and as after.
    pub fn commit(&self) -> Result<Catalog> {
        let Input { vfs, location, .. } = *self.input;
        settle_previous(vfs, location)?;
        if !catalog_file::lists_compacted(self.input.catalog) {
            // The original must find the file named as soon as it is there, or removals of its keys are lost (W11).
            let mut named = self.input.catalog.clone();
            catalog_file::list_compacted(&mut named);
            catalog_file::replace(vfs, location, &named)?;
        }
        let path = location.join(names::COMPACTED);
        crashsafe::rename(vfs, &self.temporary, &path).map_err(|e| Error::io("cannot put in place", &path, e))?;
        let mut catalog = self.catalog.clone();
        keep_existing(vfs, location, &mut catalog)?;
        catalog_file::replace(vfs, location, &catalog)?;
        Ok(catalog)
    }

    /// Gives the work up; what cannot be deleted is overwritten by the next compaction.
    pub fn abandon(&self) {
        let _ = self.input.vfs.unlink(&self.temporary);
    }
}

/// Where the new compacted file is written; makes the directory.
pub(super) fn temporary(vfs: &dyn Vfs, location: &Path) -> Result<PathBuf> {
    let directory = location.join(names::COMPACTION_DIR);
    match vfs.create_dir(&directory) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        other => other.map_err(|e| Error::io("cannot create the directory", &directory, e))?,
    }
    Ok(directory.join(names::COMPACTED))
}

/// A compacted file that was being replaced when the original crashed gets its name back, or goes when there is another
/// (W15): the start has read whichever counts.
pub(super) fn settle_previous(vfs: &dyn Vfs, location: &Path) -> Result<()> {
    let (path, previous) = (location.join(names::COMPACTED), location.join(names::COMPACTED_PREVIOUS));
    let settle = || {
        if vfs.kind(&previous)?.is_none() {
            return Ok(());
        }
        match vfs.kind(&path)? {
            Some(_) => crashsafe::unlink(vfs, &previous),
            None => crashsafe::rename(vfs, &previous, &path),
        }
    };
    settle().map_err(|e| Error::io("cannot put right", &previous, e))
}

/// Takes names of files that are gone out of the list.
fn keep_existing(vfs: &dyn Vfs, location: &Path, catalog: &mut Catalog) -> Result<()> {
    let listing = vfs.names(location).map_err(|e| Error::io("cannot list", location, e))?;
    let files = listing.into_iter().filter(|(_, kind)| *kind == FileKind::File);
    let there: std::collections::HashSet<String> = files.filter_map(|(name, _)| name.into_string().ok()).collect();
    catalog.detached.retain(|name| there.contains(name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::fixture::{compacted, pairs, put, rows, session, Dir, LOCATION};
    use crate::recovery::recover;

    const ROTATED: &str = "pwal_0000.00000000000001.0";
    const LATER: &str = "pwal_0001.00000000000002.0";

    fn any(_: &str) -> Result<()> {
        Ok(())
    }

    fn done(preparation: Result<Preparation<'_>>) -> Prepared<'_> {
        match preparation {
            Ok(Preparation::Done(prepared)) => prepared,
            _ => panic!("there is nothing to merge"),
        }
    }

    fn dir() -> Dir {
        let dir = Dir::new(5).with(ROTATED, &session(3, &[put(b"k", 3, "old"), put(b"other", 3, "v")]));
        dir.with(LATER, &session(5, &[put(b"k", 5, "new")])).with("pwal_0000", &session(5, &[put(b"active", 5, "v")]))
    }

    #[test]
    fn nothing_counts_before_the_commit_and_then_only_files_that_are_there_are_detached() {
        let dir = dir();
        let before = recover(&dir.input()).map(|found| rows(&found.snapshot)).unwrap();
        let input = dir.input();
        let prepared = done(prepare(&input, Epoch(5), None, &any));
        assert!(dir.content(names::COMPACTED).is_none() && dir.content(names::CATALOG).is_none());
        assert_eq!(recover(&dir.input()).map(|found| rows(&found.snapshot)).unwrap(), before);
        dir.fs.unlink(&Path::new(LOCATION).join(LATER)).unwrap();
        let catalog = prepared.commit().unwrap();
        assert!(catalog.detached.iter().eq([ROTATED]) && catalog_file::lists_compacted(&catalog));
        assert_eq!(catalog.max_epoch, Epoch(5));
        let after = Dir { fs: dir.fs.clone(), catalog, threads: 1 };
        assert_eq!(recover(&after.input()).map(|found| rows(&found.snapshot)).unwrap(), before);
    }

    #[test]
    fn work_that_is_given_up_leaves_nothing_and_there_is_none_without_rotated_files() {
        let dir = dir();
        let before = dir.fs.files();
        done(prepare(&dir.input(), Epoch(5), None, &any)).abandon();
        assert_eq!(dir.fs.files(), before);
        let dir = Dir::new(5).with("pwal_0000", &session(5, &[put(b"k", 5, "v")]));
        assert!(matches!(prepare(&dir.input(), Epoch(5), None, &any), Ok(Preparation::NoLog)));
    }

    #[test]
    fn with_a_file_that_does_not_agree_with_what_it_was_nothing_is_made_of_any() {
        let dir = dir().with(names::COMPACTED, &compacted(&[put(b"k", 0, "oldest")]));
        let before = dir.fs.files();
        let input = dir.input();
        for damaged in [names::COMPACTED, ROTATED, LATER] {
            let compare = |name: &str| match name == damaged {
                true => Err(Error::NotFound(name.to_owned())),
                false => Ok(()),
            };
            let refused = prepare(&input, Epoch(5), None, &compare);
            assert!(matches!(refused, Err(Error::NotFound(name)) if name == damaged));
            assert_eq!(dir.fs.files(), before);
        }
    }

    #[test]
    fn what_somebody_else_needs_in_the_log_stays_there() {
        let dir = dir();
        let input = dir.input();
        let prepared = done(prepare(&input, Epoch(5), Some(Epoch(3)), &any));
        assert!(prepared.leaves_files_out());
        assert!(prepared.commit().unwrap().detached.iter().eq([ROTATED]));
        assert!(matches!(prepare(&input, Epoch(5), Some(Epoch(2)), &any), Ok(Preparation::AllRetained)));
    }

    #[test]
    fn a_previous_file_gets_its_name_back_or_goes_when_there_is_another() {
        let file = |value: &str| compacted(&[put(b"k", 0, value)]);
        let dir = Dir::new(5).with(names::COMPACTED_PREVIOUS, &file("previous"));
        for expected in ["previous", "new"] {
            settle_previous(&dir.fs, Path::new(LOCATION)).unwrap();
            assert_eq!(dir.content(names::COMPACTED_PREVIOUS), None);
            assert_eq!(rows(&recover(&dir.input()).unwrap().snapshot), pairs(&[("k", expected)]));
            let put = |name: &str, value| dir.fs.put(&Path::new(LOCATION).join(name), &file(value)).unwrap();
            put(names::COMPACTED, "new");
            put(names::COMPACTED_PREVIOUS, "stale");
        }
    }
}

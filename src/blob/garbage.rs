// SPDX-License-Identifier: Apache-2.0
//! Deletes BLOB files that were there at a start and that no live entry refers to. Registrations are not waited for:
//! their ids lie above all that is looked at.
//!
//! Memory is bounded by a number of ids, not by that of files: what does not fit is looked at in a further round.

use super::paths::{self, failed};
use crate::error::Result;
use crate::lock_order::{Condvar, Mutex};
use crate::metrics::Metrics;
use crate::recovery::Snapshot;
use crate::types::BlobId;
use crate::vfs::Vfs;
use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Ids that one round looks at: 8 MiB, for a moment twice as much.
const ROUND_IDS_MAX: usize = 1 << 20;

/// As in the original, whose first thread has this name.
const THREAD_NAME: &str = "lstone_scan_blb";

/// Some of the BLOB files of a directory.
#[derive(Debug, Default)]
pub struct Found {
    /// The smallest ids, ascending.
    ids: Vec<u64>,
    /// Whether there are files with larger ids.
    more: bool,
    /// The largest id of all files, 0 without files.
    pub(super) largest: u64,
}

impl Found {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Keeps the smallest of many ids.
struct Smallest {
    found: Found,
    max: usize,
    bound: u64,
}

impl Smallest {
    fn add(&mut self, id: u64) {
        self.found.largest = self.found.largest.max(id);
        if id > self.bound {
            self.found.more = true;
            return;
        }
        self.found.ids.push(id);
        if self.found.ids.len() >= 2 * self.max {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let Found { ids, more, .. } = &mut self.found;
        ids.sort_unstable();
        ids.dedup();
        if ids.len() > self.max {
            ids.truncate(self.max);
            *more = true;
            self.bound = ids.last().copied().unwrap_or(self.bound);
        }
    }
}

/// Finds the files with ids in the range.
pub(super) fn find(vfs: &dyn Vfs, root: &Path, from: u64, to: u64) -> io::Result<Found> {
    find_some(vfs, root, from, to, ROUND_IDS_MAX)
}

fn find_some(vfs: &dyn Vfs, root: &Path, from: u64, to: u64, max: usize) -> io::Result<Found> {
    let mut smallest = Smallest { found: Found::default(), max, bound: u64::MAX };
    paths::visit(vfs, root, |BlobId(id)| {
        if (from..=to).contains(&id) {
            smallest.add(id);
        }
    })?;
    smallest.cut();
    Ok(smallest.found)
}

/// Where the files are, and whether to leave off.
#[derive(Debug)]
pub(super) struct Job {
    pub vfs: Arc<dyn Vfs>,
    pub root: PathBuf,
    pub stopping: Arc<AtomicBool>,
    /// Ids that are in use though no entry refers to them yet.
    pub owned: HashSet<u64>,
    pub metrics: Arc<Metrics>,
}

/// The thread that deletes, and whether it is at work.
#[derive(Debug, Default)]
pub(super) struct Collection {
    progress: Arc<Progress>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Progress {
    running: Mutex<bool>,
    ended: Condvar,
}

/// Ends the wait for the collection, also when it panics. The state changes under the lock of the condition (W25).
struct EndsCollection(Arc<Progress>);

impl Drop for EndsCollection {
    fn drop(&mut self) {
        *self.0.running.lock() = false;
        self.0.ended.notify_all();
    }
}

impl Collection {
    /// Starts the thread when there is anything to look at; only files with ids up to `limit` are.
    pub(super) fn start(&self, job: Job, found: Found, limit: u64, snapshot: Snapshot) {
        log::info!("start blob files garbage collection");
        if found.ids.is_empty() {
            log::info!("blob files garbage collection finished");
            return;
        }
        *self.progress.running.lock() = true;
        let ends = EndsCollection(self.progress.clone());
        let thread = std::thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(move || {
            let _ends = ends;
            match collect(&job, found, limit, &snapshot, ROUND_IDS_MAX) {
                Ok(()) => log::info!("blob files garbage collection finished"),
                Err(e) => log::error!("blob files garbage collection failed: {e}"),
            }
        });
        match thread {
            Ok(thread) => *self.thread.lock() = Some(thread),
            Err(e) => log::error!("cannot start the thread {THREAD_NAME}, unused BLOB files stay: {e}"),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        *self.progress.running.lock()
    }

    pub(super) fn wait(&self) {
        let mut running = self.progress.running.lock();
        while *running {
            self.progress.ended.wait(&mut running);
        }
    }

    pub(super) fn join(&self) {
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread {THREAD_NAME} panicked");
        }
    }
}

fn collect(job: &Job, mut found: Found, limit: u64, snapshot: &Snapshot, round_max: usize) -> Result<()> {
    while let Some(&last) = found.ids.last() {
        let Some(unused) = unused(job, &found.ids, snapshot)? else { break };
        if delete(job, unused).is_break() || !found.more || last == u64::MAX {
            break;
        }
        found = find_some(&*job.vfs, &job.root, last + 1, limit, round_max)
            .map_err(|e| failed("cannot list the BLOB files in", &job.root, e))?;
    }
    Ok(())
}

/// The ids that no entry of the snapshot refers to; `None` when a shutdown breaks the search off.
fn unused(job: &Job, ids: &[u64], snapshot: &Snapshot) -> Result<Option<Vec<u64>>> {
    let mut used = vec![false; ids.len()];
    let mut cursor = snapshot.cursor();
    while let Some(row) = cursor.next()? {
        if job.stopping.load(SeqCst) {
            return Ok(None);
        }
        for BlobId(id) in row.blobs.iter() {
            if let Ok(at) = ids.binary_search(&id) {
                used[at] = true;
            }
        }
    }
    Ok(Some(ids.iter().zip(used).filter(|(id, used)| !used && !job.owned.contains(id)).map(|(id, _)| *id).collect()))
}

/// Deletes the files; what cannot be deleted stays until the next start. Names come back when the power goes before
/// they are synced, which does no harm.
fn delete(job: &Job, ids: Vec<u64>) -> ControlFlow<()> {
    for id in ids {
        if job.stopping.load(SeqCst) {
            return ControlFlow::Break(());
        }
        let path = paths::file(&job.root, BlobId(id));
        match job.vfs.unlink(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => log::error!("{}", failed("cannot delete", &path, e)),
            _ => {
                job.metrics.deleted_blobs.add(1);
                log::debug!("deleted the unused BLOB {id}");
            }
        }
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::SimFs;

    const ROOT: &str = "/l/blob";

    fn job(fs: &SimFs, stopping: bool) -> Job {
        Job {
            vfs: Arc::new(fs.clone()),
            root: ROOT.into(),
            stopping: Arc::new(AtomicBool::new(stopping)),
            owned: HashSet::new(),
            metrics: Arc::default(),
        }
    }

    fn with_files(ids: &[u64]) -> SimFs {
        let fs = SimFs::new();
        for id in ids {
            fs.put(&paths::file(Path::new(ROOT), BlobId(*id)), b"x").unwrap();
        }
        fs
    }

    #[test]
    fn a_round_takes_the_smallest_ids_and_knows_of_larger_ones() {
        let fs = with_files(&[9, 1, 500, 7, 3, 5, u64::MAX]);
        let found = find_some(&fs, Path::new(ROOT), 2, u64::MAX, 2).unwrap();
        assert_eq!((found.ids, found.more, found.largest), (vec![3, 5], true, u64::MAX));
        let found = find_some(&fs, Path::new(ROOT), 6, 9, 2).unwrap();
        assert_eq!((found.ids, found.more, found.largest), (vec![7, 9], false, 9));
    }

    #[test]
    fn all_rounds_together_delete_all_that_is_unused_up_to_the_limit() {
        let fs = with_files(&(1..=40).collect::<Vec<_>>());
        let found = find_some(&fs, Path::new(ROOT), 0, u64::MAX, 3).unwrap();
        collect(&job(&fs, false), found, 30, &Snapshot::empty(), 3).unwrap();
        let left = find(&fs, Path::new(ROOT), 0, u64::MAX).unwrap().ids;
        assert_eq!(left, (31..=40).collect::<Vec<_>>());
    }

    #[test]
    fn a_shutdown_breaks_the_collection_off() {
        let fs = with_files(&[1, 2, 3]);
        let found = find(&fs, Path::new(ROOT), 0, u64::MAX).unwrap();
        collect(&job(&fs, true), found, 3, &Snapshot::empty(), 3).unwrap();
        assert_eq!(fs.files().len(), 3);
    }
}

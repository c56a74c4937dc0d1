// SPDX-License-Identifier: Apache-2.0
//! Compaction of a replica that is told to: `ctrl/start_compaction`, as on a primary. The session with the primary is
//! ended for its time, so that the directory holds exactly what is durable and nobody writes to it; then it is
//! compacted like a stopped directory. The primary connects again and catches up.

use super::node::Node;
use crate::compaction;
use crate::directory::{make_control_directory, Access, CompactionRequest, OfflineDirectory};
use crate::error::{Error, Result};
use crate::recovery::Input;
use crate::replication::replica_store::STAGING_DIR;
use crate::vfs::Vfs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Bound for the index, as for a start.
const MEMORY_BYTES: u64 = 1 << 30;
/// Where the result is built, below the staging folder.
const WORK_DIR: &str = "compaction";

/// Compacts whenever somebody asks, until the replica is stopped.
pub(super) fn work(node: &Arc<Node>) {
    let (vfs, location) = (node.vfs(), node.location());
    if let Err(e) = make_control_directory(&**vfs, location) {
        log::error!("replication: compaction cannot be asked for: {e}");
        return;
    }
    let mut request = CompactionRequest::new(vfs.clone(), location);
    while !node.is_stopping() {
        // Not while a backup is open, and none begins meanwhile.
        if let Some(_change) = node.backups.try_change() {
            if request.take() {
                node.compact();
            }
        }
        node.sleep(LOOK_EVERY);
    }
}

impl Node {
    /// Compacts the directory; the replica goes on with it as it is when that fails.
    fn compact(&self) {
        if self.store().is_ok_and(|store| store.is_empty()) {
            log::info!("there is nothing to compact");
            return;
        }
        log::info!("replication: the session is ended for a compaction");
        let Some(_apart) = self.set_apart() else { return };
        match compact(self.vfs(), self.location()) {
            Ok(live) => log::info!("compaction finished, {live} entries are live"),
            Err(e) => log::error!("failed to compact: {e}; the replica goes on with its directory as it is"),
        }
    }

    /// Ends the session and closes the store, which is opened anew when the guard goes. `None` when that is not
    /// possible now.
    fn set_apart(&self) -> Option<Apart<'_>> {
        let _accepting = self.accepting.lock();
        self.end_session("the replica compacts its log");
        let store = self.store().ok()?;
        if let Err(e) = store.discard_beyond_durable() {
            self.failed(&e);
            return None;
        }
        self.close_store();
        Some(Apart(self))
    }
}

/// The store is closed as long as this lives.
struct Apart<'a>(&'a Node);

impl Drop for Apart<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.0.open_store() {
            self.0.failed(&e);
        }
    }
}

/// Compacts a directory that nobody has open and returns the number of live entries.
fn compact(vfs: &Arc<dyn Vfs>, location: &Path) -> Result<usize> {
    let directory = OfflineDirectory::open(vfs.clone(), location, Access::Change)?;
    let catalog = directory.catalog().map_err(|e| Error::BrokenMetadata(e.to_string()))?;
    let input = Input {
        vfs: &**vfs,
        location,
        catalog,
        end_markers: directory.has_end_markers(),
        threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
        memory_bytes: MEMORY_BYTES,
        releases: true,
        stopping: None,
        pace: None,
    };
    let work = location.join(STAGING_DIR).join(WORK_DIR);
    let prepare = || {
        // One that was interrupted left it.
        vfs.remove_dir_all(&work)?;
        vfs.create_dir(&work)
    };
    prepare().map_err(|e| Error::io("cannot prepare", &work, e))?;
    let built = compaction::build(&input, None, &work)?;
    directory.rotate(|_| true)?;
    built.install(vfs, &input)?;
    vfs.remove_dir_all(&work).map_err(|e| Error::io("cannot delete", &work, e))?;
    Ok(built.live)
}

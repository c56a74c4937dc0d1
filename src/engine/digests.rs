// SPDX-License-Identifier: Apache-2.0
//! Digests of a running engine's own content, for replicas that compare both sides.

use super::backups;
use crate::compaction::step_back;
use crate::comparison::{work, How, Side};
use crate::datastore::Datastore;
use crate::replication::digests::{DigestWanted, DigestWork, MakesDigests};
use std::sync::{Arc, Weak};

/// The engine has the memory for other things; beyond that sorted pieces go to unnamed files.
const MEMORY_BYTES: u64 = 64 << 20;

/// It is read at least so fast, whatever was asked for: the files are held meanwhile, as for a backup.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;

/// Makes them as long as the data store lives.
pub(super) struct OwnDigests(Weak<Datastore>);

impl OwnDigests {
    pub(super) fn of(store: &Arc<Datastore>) -> Arc<OwnDigests> {
        Arc::new(OwnDigests(Arc::downgrade(store)))
    }
}

impl MakesDigests for OwnDigests {
    fn make(&self, wanted: DigestWanted, watched: &DigestWork) -> Result<Vec<u8>, String> {
        step_back();
        let text = |e: crate::error::Error| e.to_string();
        let held = backups::begin(&self.0)?;
        let (vfs, location) = {
            let store = self.0.upgrade().ok_or("the engine ends")?;
            (store.shared_vfs(), store.location().to_owned())
        };
        let side = Side::of_held(&vfs, &location, (held.epoch, &held.files)).map_err(text)?;
        let how = How {
            with_blobs: wanted.with_blobs,
            bytes_per_second: rate(wanted),
            memory_bytes: MEMORY_BYTES,
            threads: 1,
            read: watched.read.clone(),
        };
        let digest = work(vec![side], wanted.epoch, how, &watched.stop).map_err(text)?.remove(0);
        // Until here nothing of what was read was deleted or replaced.
        drop(held);
        serde_json::to_vec(&digest).map_err(|e| e.to_string())
    }
}

fn rate(wanted: DigestWanted) -> Option<u64> {
    wanted.bytes_per_second.map(|bytes| bytes.max(BYTES_PER_SECOND_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    #[test]
    fn a_replica_cannot_let_the_files_be_held_for_any_time() {
        let asked = |bytes_per_second| rate(DigestWanted { epoch: Epoch(1), with_blobs: false, bytes_per_second });
        assert_eq!([asked(None), asked(Some(1)), asked(Some(9 << 20))], [None, Some(1 << 20), Some(9 << 20)]);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Backups of a replica's directory. A compaction waits for them; a base sync and a rewind do not, and spoil them.

use super::node::Node;
use crate::replication::backup_socket::Held;
use crate::replication::replica_store::begin_backup;

impl Node {
    /// Begins a backup, after a compaction that is at work.
    pub(super) fn begin_backup(&self) -> Result<Held, String> {
        let ticket = self.backups.begin();
        let store = self.store().map_err(|reason| reason.to_string())?;
        let held = begin_backup(&store).map_err(|e| e.to_string())?;
        let spoiled = move || {
            let _open = &ticket;
            (held.spoiled)()
        };
        Ok(Held { epoch: held.epoch, files: held.files, spoiled: Box::new(spoiled) })
    }
}

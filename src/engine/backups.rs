// SPDX-License-Identifier: Apache-2.0
//! Backups that another process makes of a running engine's directory.

use crate::backup::BackupFile;
use crate::datastore::Datastore;
use crate::replication::backup_socket::{BackupSocket, Held, HeldFile, Serves, Serving};
use crate::types::Epoch;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What was written just now gets so long to become durable; whatever was acknowledged is in the backup in any case.
const PATIENCE: Duration = Duration::from_secs(2);

/// Lets backups be made until the result is dropped; the directory is served all the same without.
pub(super) fn listen(store: &Arc<Datastore>) -> Option<BackupSocket> {
    let (location, store) = (store.location().to_owned(), Arc::downgrade(store));
    let asked = store.clone();
    let durable = move || asked.upgrade().map_or(Epoch(0), |store| store.last_epoch());
    BackupSocket::start(&location, Serving { serves: Serves::Engine, begin: move || begin(&store), durable })
        .inspect_err(|e| log::warn!("{} lets nobody make backups: {e}", location.display()))
        .ok()
}

/// Begins a backup; it is open until the result is dropped.
pub(super) fn begin(store: &Weak<Datastore>) -> Result<Held, String> {
    let store = store.upgrade().ok_or("the engine ends")?;
    let backup = store.begin_detailed_backup(PATIENCE).map_err(|e| e.to_string())?;
    let given = store.as_given(store.location());
    let file = |listed: &BackupFile| HeldFile {
        source: listed.source.strip_prefix(&given).unwrap_or(&listed.source).to_owned(),
        destination: listed.destination.clone(),
        bytes: None,
    };
    let (epoch, files) = (backup.log_finish(), backup.files().iter().map(file).collect());
    // As long as it lives, nothing that it lists is deleted or replaced.
    let spoiled = move || {
        let _open = &backup;
        None
    };
    Ok(Held { epoch, files, spoiled: Box::new(spoiled) })
}

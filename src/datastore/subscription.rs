// SPDX-License-Identifier: Apache-2.0
//! Setting a tap, and the log that was written before: together they have every session once.

use super::channel::Channel;
use super::store::{Datastore, State};
use super::tap::{Tap, TapHandle, WrittenLog};
use crate::error::{Error, Result};
use crate::types::{Epoch, WriteVersion};
use crate::vfs::{FileKind, Open, VfsFile};
use crate::wal::names;
use std::io;
use std::sync::Arc;

/// What was there before a tap was set.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// All log files but compacted ones. Every session with an epoch up to `stored_before` and beyond `compacted` is in
    /// them.
    pub logs: Vec<WrittenLog>,
    /// The stored epoch before the first channel got the tap.
    pub stored_before: Epoch,
    /// The logs hold every session beyond this epoch.
    pub compacted: Epoch,
    /// Channels that exist.
    pub channels: u32,
}

impl Datastore {
    /// Sets the tap in place of an earlier one. Each session either ended before and stands in the logs that this
    /// returns, or is given to the tap when it ends. [`Tap::stored`] is called once from in here, for what is stored by
    /// now; the tap has all sessions up to that epoch that the logs do not have. Waits for running syncs.
    ///
    /// # Errors
    /// [`Error::WrongState`] before [`Datastore::ready`], after a shutdown, or without
    /// [`super::Settings::replicated`]; [`Error::Io`].
    pub fn subscribe(&self, tap: Arc<dyn Tap>) -> Result<Subscription> {
        if !self.settings.replicated {
            return Err(Error::WrongState("a tap was set although no replication is configured".to_owned()));
        }
        let lifecycle = self.lifecycle.lock();
        if lifecycle.state != State::Ready {
            return Err(Error::WrongState("a tap can be set only between ready() and shutdown()".to_owned()));
        }
        // No file gets another name meanwhile, no channel is made, and no session begins or ends.
        let _changing = self.names.lock();
        let channels = self.channels.write();
        let mut writers: Vec<_> = channels.iter().map(|channel| channel.lock()).collect();
        let stored_before = self.last_epoch();
        let written = writers.iter().try_fold(Vec::new(), |mut logs, writer| {
            logs.extend(writer.written()?);
            Ok::<_, Error>(logs)
        });
        let logs = self.other_logs(written?, &channels)?;
        // Read when all files are open: it is raised before sessions go.
        let compacted = self.compacted_epoch();
        writers.iter_mut().for_each(|writer| writer.attach(&tap));
        drop(writers);
        self.coordinator.set_tap(Some(TapHandle(tap.clone())));
        // Read after all channels have the tap: each of these sessions is in the logs or was given to the tap.
        let stored = self.last_epoch();
        // A later epoch that a backup has recorded had no writes: the replica would be said to lack something.
        let written = self.coordinator.epochs().written().min(stored);
        if let Some(confirmed) = tap.stored(stored, Some(written)) {
            self.coordinator.epochs().confirm(confirmed);
        }
        Ok(Subscription { logs, stored_before, compacted, channels: channels.len() as u32 })
    }

    /// Takes the tap away.
    pub fn unsubscribe(&self) {
        let channels = self.channels.write();
        self.coordinator.set_tap(None);
        channels.iter().for_each(|channel| channel.detach());
    }

    /// Tells the replicas that versions below `version` are not read any more.
    pub fn note_boundary(&self, version: WriteVersion) {
        if let Some(tap) = self.coordinator.tap() {
            tap.0.boundary(version);
        }
    }

    /// Tells the replicas which version readers use from now on.
    pub fn note_safe_snapshot(&self, version: WriteVersion) {
        if let Some(tap) = self.coordinator.tap() {
            tap.0.safe_snapshot(version);
        }
    }

    /// Adds the log files that no channel of this process writes to.
    fn other_logs(&self, mut logs: Vec<WrittenLog>, channels: &[Arc<Channel>]) -> Result<Vec<WrittenLog>> {
        let location = &self.settings.location;
        let names_of_files = self.names.sync();
        let marks = names_of_files.marks();
        let listing = self.settings.vfs.list(location).map_err(|e| Error::io("cannot list", location, e))?;
        for entry in listing.into_iter().filter(|entry| entry.kind == FileKind::File && entry.len > 0) {
            let Some(name) = entry.name.to_str() else { continue };
            let wanted = names::is_log(name) && !names::is_compacted(name);
            if !wanted || channels.iter().any(|channel| channel.path().ends_with(name)) {
                continue;
            }
            let path = location.join(name);
            let open = || {
                let file: Arc<dyn VfsFile> = self.settings.vfs.open(&path, Open::Read)?.into();
                let len = file.len()?;
                Ok::<_, io::Error>((file, len))
            };
            let (file, len) = match open() {
                Ok(opened) => opened,
                // Its content was compacted before.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::io("cannot open", &path, e)),
            };
            let channel = names::channel_of_log(name).unwrap_or_default();
            logs.push(WrittenLog { name: name.to_owned(), channel, file, len, marks: marks.of(name) });
        }
        marks.retain(|name| logs.iter().any(|log| log.name == name));
        Ok(logs)
    }
}

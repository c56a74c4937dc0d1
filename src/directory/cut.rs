// SPDX-License-Identifier: Apache-2.0
//! Takes a data directory back to an epoch, so that it can follow a primary that went another way from there. What it
//! has above that epoch is saved first. Then the history says that a cut has begun, and whoever opens the directory as
//! a replica's completes it: the epoch record goes down, which makes the sessions above it ones that never count, and
//! the history loses the runs that wrote them. A power cut leaves the old directory or the new one; an engine does not
//! start on one that is in between.

use super::above::Extent;
use super::cut_off::{bound, Keep, Origin};
use super::log_directory::LogDirectory;
use crate::error::Result;
use crate::types::Epoch;
use crate::wal::epoch_marks::LogMarks;
use crate::wal::history_file::{DirectoryHistory, Place, Role};
use std::path::PathBuf;

/// A directory that was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// What went.
    pub extent: Extent,
    /// Where that is now; `None` when it was nothing.
    pub saved: Option<PathBuf>,
}

/// Takes a directory back to `last`, or gives all of it up for a base sync: when `last` is `None`, and when the log
/// does not say any more what was there at `last`. It is open, its durable epoch is `durable`, and nobody appends to
/// it; `marks` say where to begin to read. What went is kept as `keep` says. Of a directory that is given up everything
/// stays in place until the base sync is. It has to be opened again, which completes the cut, also when this returns an
/// error.
///
/// # Errors
/// [`Error::Io`](crate::error::Error::Io) when it cannot be saved: then nothing has changed.
pub fn cut(directory: &LogDirectory, durable: Epoch, marks: &LogMarks, last: Option<Epoch>, keep: Keep) -> Result<Cut> {
    let (vfs, location) = (directory.vfs(), directory.location());
    let extent = Extent::survey(&**vfs, location, last.map(|last| last.min(durable)), durable, marks)?;
    let instance = directory.identity();
    let place = Place { vfs: &**vfs, location, instance: &instance };
    let history = DirectoryHistory::load(place)?;
    let history = history.unwrap_or_else(|| DirectoryHistory::unknown(&instance, Role::Replica));
    let saved = match extent.is_nothing() {
        true => None,
        false => {
            let catalog = directory.catalog();
            Some(Origin { vfs, location, catalog, history: &history, marks }.save(&extent)?)
        }
    };
    match extent.last.filter(|_| !extent.is_all()) {
        Some(last) => history.cutting(last),
        None => history.given_up(),
    }
    .save(&**vfs, location)?;
    bound(&**vfs, location, keep);
    Ok(Cut { extent, saved })
}

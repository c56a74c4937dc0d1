// SPDX-License-Identifier: Apache-2.0
//! The points that backups can be restored to.

use super::folder::{Backup, Folder};
use super::source::threads;
use crate::directory::{compacted_up_to, Access, OfflineDirectory};
use crate::error::{Error, Result};
use crate::replication::epoch_times::TimeOfEpoch;
use crate::stderr_log::rfc3339;
use crate::types::Epoch;
use crate::vfs::Vfs;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// All that the backup has.
    Whole,
    Epoch(Epoch),
    Time(SystemTime),
}

/// A backup, and up to which epoch of it.
#[derive(Debug)]
pub struct Chosen {
    pub backup: Backup,
    /// Less than all that it has.
    pub until: Option<Epoch>,
    /// When that was durable, if a time was wanted.
    pub as_of: Option<SystemTime>,
}

/// Chooses the backup of this name, or the newest that has the point.
///
/// # Errors
/// [`Error::InvalidArgument`] when none has it, and says which points there are; [`Error::NotFound`] when there is
/// none at all.
pub fn choose(vfs: &Arc<dyn Vfs>, folder: &Folder, name: Option<&str>, point: Point) -> Result<Chosen> {
    let backups = match name {
        Some(name) => vec![folder.find(name)?],
        None => folder.backups()?,
    };
    let mut usable = Vec::new();
    for backup in backups {
        match &backup.manifest {
            Ok(_) => usable.push(backup),
            Err(e) if name.is_none() => log::warn!("{} is passed over: {e}", backup.label()),
            Err(e) => return Err(Error::BrokenMetadata(e.to_string())),
        }
    }
    if usable.is_empty() {
        return Err(Error::NotFound("there is no backup that can be used".to_owned()));
    }
    match point {
        Point::Whole => Ok(Chosen { backup: usable.swap_remove(usable.len() - 1), until: None, as_of: None }),
        Point::Epoch(epoch) => with_epoch(vfs, usable, epoch),
        Point::Time(time) => at_time(vfs, usable, time),
    }
}

fn with_epoch(vfs: &Arc<dyn Vfs>, backups: Vec<Backup>, epoch: Epoch) -> Result<Chosen> {
    let mut ranges = Vec::new();
    for backup in backups.into_iter().rev() {
        let (first, last) = range(vfs, &backup)?;
        if (first..=last).contains(&epoch) {
            return Ok(Chosen { backup, until: Some(epoch).filter(|epoch| *epoch < last), as_of: None });
        }
        ranges.push(format!("{}: {first} to {last}", backup.label()));
    }
    let text = format!("epoch {epoch} is in no backup. They can be restored up to these epochs: {}", ranges.join("; "));
    Err(Error::InvalidArgument(text))
}

/// The epochs up to which a backup can be restored: below the one that its log was compacted up to nothing is known of
/// the order.
fn range(vfs: &Arc<dyn Vfs>, backup: &Backup) -> Result<(Epoch, Epoch)> {
    let directory = OfflineDirectory::open(vfs.clone(), &backup.files, Access::Read)?;
    let last = match &backup.manifest {
        Ok(Some(manifest)) => manifest.epoch,
        _ => directory.read_log(threads(), None)?.durable.unwrap_or_default(),
    };
    let compacted = compacted_up_to(&**directory.vfs(), directory.location(), last)?;
    Ok((compacted.unwrap_or_default(), last))
}

/// The last epoch of which is known that it was durable by then, from the backup that knows it or another one that has
/// it.
fn at_time(vfs: &Arc<dyn Vfs>, mut backups: Vec<Backup>, time: SystemTime) -> Result<Chosen> {
    let wanted = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let known = |backup: &Backup| match &backup.manifest {
        Ok(Some(manifest)) => manifest.known_times().collect(),
        _ => Vec::new(),
    };
    let times: Vec<Vec<TimeOfEpoch>> = backups.iter().map(known).collect();
    let last = times.iter().flatten().map(|(ms, _)| *ms).max();
    let found = times.iter().enumerate().filter_map(|(at, times)| {
        let known = times.iter().rev().find(|(ms, _)| u128::from(*ms) <= wanted)?;
        Some((*known, at))
    });
    match found.max() {
        Some(((ms, epoch), at)) if last.is_some_and(|last| wanted <= u128::from(last)) => {
            // It goes first.
            let knows = backups.remove(at);
            backups.push(knows);
            let chosen = with_epoch(vfs, backups, epoch)?;
            Ok(Chosen { as_of: Some(at_ms(ms)), ..chosen })
        }
        _ => {
            let range = |times: &Vec<TimeOfEpoch>| match (times.first(), times.last()) {
                (Some(first), Some(last)) => Some(format!("{} to {}", rfc3339(at_ms(first.0)), rfc3339(at_ms(last.0)))),
                _ => None,
            };
            let known: Vec<String> = times.iter().filter_map(range).collect();
            Err(Error::InvalidArgument(format!(
                "what was durable at {} is not known. The backups know it of these times: {}",
                rfc3339(time),
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )))
        }
    }
}

fn at_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

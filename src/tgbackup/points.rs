// SPDX-License-Identifier: Apache-2.0
//! The points that backups can be restored to.

use super::folder::{Backup, Folder};
use super::source::threads;
use crate::directory::{compacted_up_to, Access, OfflineDirectory};
use crate::error::{Error, Result};
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
            Err(_) if name.is_none() => log::warn!("{} cannot be used and is passed over", backup.label()),
            Err(_) => return backup.manifest.map(|_| unreachable!()),
        }
    }
    if usable.is_empty() {
        return Err(Error::NotFound("there is no backup that can be used".to_owned()));
    }
    match point {
        Point::Whole => Ok(Chosen { backup: usable.pop().ok_or_else(none_left)?, until: None }),
        Point::Epoch(epoch) => with_epoch(vfs, usable, epoch),
        Point::Time(time) => at_time(usable, time),
    }
}

fn none_left() -> Error {
    Error::NotFound("there is no backup that can be used".to_owned())
}

fn with_epoch(vfs: &Arc<dyn Vfs>, backups: Vec<Backup>, epoch: Epoch) -> Result<Chosen> {
    let mut ranges = Vec::new();
    for backup in backups.into_iter().rev() {
        let (first, last) = range(vfs, &backup)?;
        if (first..=last).contains(&epoch) {
            return Ok(Chosen { backup, until: Some(epoch).filter(|epoch| *epoch < last) });
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

fn at_time(backups: Vec<Backup>, time: SystemTime) -> Result<Chosen> {
    let begun = |backup: &Backup| match &backup.manifest {
        Ok(Some(manifest)) => Some(UNIX_EPOCH + Duration::from_millis(manifest.begun_at_ms)),
        _ => None,
    };
    let known: Vec<String> = backups.iter().filter_map(begun).map(rfc3339).collect();
    let is_past = backups.iter().filter_map(begun).all(|begun| begun < time);
    let chosen = backups.into_iter().rev().find(|backup| begun(backup).is_some_and(|begun| begun <= time));
    match chosen {
        Some(backup) if !is_past => Ok(Chosen { backup, until: None }),
        _ => Err(Error::InvalidArgument(format!(
            "what was durable at {} is not known: the backups know it of these times: {}",
            rfc3339(time),
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        ))),
    }
}

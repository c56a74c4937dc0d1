// SPDX-License-Identifier: Apache-2.0
//! What was found in the log files of a directory, for its status.

use super::damage::{Damage, Wrong};
use super::rounds::Scrubbing;
use crate::lock_order::Mutex;
use serde::{Deserialize, Serialize};

/// So often is a file that cannot be read replaced: a disk on which it happens again is broken for good.
const UNREADABLE_MAX: u32 = 3;

/// What was found in the log files since the directory was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// Whole rounds over all files.
    pub rounds: u64,
    /// That were read.
    pub bytes: u64,
    /// Times that damage was found.
    pub found: u64,
    /// The files that are damaged and not replaced yet.
    pub damaged: Vec<String>,
}

/// Kept by the thread that reads them.
#[derive(Debug, Default)]
pub struct Scrubbed(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    told: ScrubStatus,
    /// How often a file could not be read.
    unreadable: u32,
}

impl Scrubbed {
    pub fn told(&self) -> ScrubStatus {
        self.0.lock().told.clone()
    }

    /// For the status; `None` when nobody reads, and nothing was found all the same.
    pub fn status(&self, scrubbing: Option<Scrubbing>) -> Option<ScrubStatus> {
        let told = self.told();
        (scrubbing.is_some() || told.found > 0).then_some(told)
    }

    /// So many bytes were read.
    pub fn read(&self, bytes: u64) {
        self.0.lock().told.bytes += bytes;
    }

    /// All files were, and these are damaged: others have been put right since.
    pub fn round(&self, damaged: &[Damage]) {
        let Found { told, .. } = &mut *self.0.lock();
        told.rounds += 1;
        told.damaged.retain(|name| damaged.iter().any(|damage| damage.name == *name));
    }

    /// Whether a file is damaged and not replaced yet.
    pub fn is_damaged(&self) -> bool {
        !self.0.lock().told.damaged.is_empty()
    }

    /// A file is damaged. Whether that was not known, and whether the file may be replaced.
    pub fn damaged(&self, damage: &Damage) -> (bool, bool) {
        let Found { told, unreadable } = &mut *self.0.lock();
        let (is_new, is_unreadable) =
            (!told.damaged.contains(&damage.name), matches!(damage.wrong, Wrong::Unreadable(_)));
        if is_new {
            told.damaged.push(damage.name.clone());
            told.found += 1;
            *unreadable += u32::from(is_unreadable);
        }
        (is_new, !is_unreadable || *unreadable <= UNREADABLE_MAX)
    }

    /// A base sync has replaced all files.
    pub fn healed(&self) {
        self.0.lock().told.damaged.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_replaced_some_times_and_then_only_said() {
        let scrubbed = Scrubbed::default();
        let unreadable = Damage { name: "a".to_owned(), wrong: Wrong::Unreadable("no".to_owned()) };
        for _ in 0..UNREADABLE_MAX {
            assert_eq!(scrubbed.damaged(&unreadable), (true, true));
            assert_eq!(scrubbed.damaged(&unreadable), (false, true));
            scrubbed.healed();
        }
        assert_eq!(scrubbed.damaged(&unreadable), (true, false));
        assert_eq!(scrubbed.damaged(&unreadable), (false, false));
        let changed = Damage { name: "b".to_owned(), wrong: Wrong::Changed { expected: 1, found: 2 } };
        assert_eq!(scrubbed.damaged(&changed), (true, true));
        let ScrubStatus { found, damaged, .. } = scrubbed.told();
        assert_eq!((found, damaged), (u64::from(UNREADABLE_MAX) + 2, vec!["a".to_owned(), "b".to_owned()]));
    }
}

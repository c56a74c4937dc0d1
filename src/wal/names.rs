// SPDX-License-Identifier: Apache-2.0
//! The names in a data directory (disk format §1.1).

use crate::types::Epoch;
use std::time::{SystemTime, UNIX_EPOCH};

pub const MANIFEST: &str = "limestone-manifest.json";
/// The first manifest of a directory while it is being made.
pub const MANIFEST_NEW: &str = "limestone-manifest.json.new";
pub const MANIFEST_BACKUP: &str = "limestone-manifest.json.back";
pub const CATALOG: &str = "compaction_catalog";
pub const CATALOG_BACKUP: &str = "compaction_catalog.back";
pub const CATALOG_TEMPORARY: &str = "compaction_catalog.tmp";
pub const EPOCH: &str = "epoch";
pub const EPOCH_TEMPORARY: &str = ".epoch.tmp";
pub const COMPACTED: &str = "pwal_0000.compacted";
pub const COMPACTED_PREVIOUS: &str = "pwal_0000.compacted.prev";
/// The names of epochs. Ours: the original ignores it (§1.1).
pub const TAGS: &str = "limestone-tags.json";
pub const TAGS_TEMPORARY: &str = "limestone-tags.json.tmp";
/// Which run wrote which epochs. Ours: the original ignores it (§1.1).
pub const HISTORY: &str = "limestone-history.json";
pub const HISTORY_TEMPORARY: &str = "limestone-history.json.tmp";
/// What log files held. Ours: the original ignores it (§1.1).
pub const CHECKSUMS: &str = "limestone-checksums";
pub const CHECKSUMS_TEMPORARY: &str = "limestone-checksums.tmp";
/// Where to begin to read log files. Ours: the original ignores it (§1.1).
pub const MARKS: &str = "limestone-marks";
pub const MARKS_TEMPORARY: &str = "limestone-marks.tmp";
/// Roles and terms as version 1.0.0 wrote them; read once and deleted.
pub const FORMER_HISTORY: &str = "replication_state";
/// The snapshot of the original, which writes it at each start; never read here, and deleted by a start.
pub const FOREIGN_SNAPSHOT: &str = "data/snapshot";
pub const BLOB_DIR: &str = "blob";
pub const CONTROL_DIR: &str = "ctrl";
/// Below the control directory: whoever makes it asks for an online compaction.
pub const START_COMPACTION: &str = "start_compaction";
/// Below the control directory: names of log files that a compaction deletes which nobody asked for.
pub const OWN_DETACHED: &str = "own_detached";
pub const OWN_DETACHED_TEMPORARY: &str = "own_detached.tmp";
/// Where a compaction writes before its result takes its place.
pub const COMPACTION_DIR: &str = "compaction_temp";
/// Work area of the original's recovery; a leftover is deleted.
pub const SORTING_DIR: &str = "sorting";
/// Where a restore prepares the new content; gone when it is done.
pub const RESTORE_DIR: &str = "restoring";
/// What a rewind took away, in data directories of their own. Ours: a start and the original look at files only (§1.1).
pub const CUT_OFF_DIR: &str = "cut_off";
/// What the original calls the work area of its compaction, and its snapshot.
pub const OTHER_DIRS: [&str; 2] = ["compaction_temp", "data"];

const LOG_PREFIX: &str = "pwal_";
const JOURNAL_PREFIX: &str = "limestone-journal.";

/// Whether the name is that of a log file of any kind.
pub fn is_log(name: &str) -> bool {
    name.starts_with(LOG_PREFIX)
}

/// The name of a segment of the commit journal. Ours: the original ignores it (§1.1).
pub fn journal_segment(number: u32) -> String {
    format!("{JOURNAL_PREFIX}{number:04}")
}

/// Whether the name is that of a segment of the commit journal.
pub fn is_journal_segment(name: &str) -> bool {
    name.strip_prefix(JOURNAL_PREFIX)
        .is_some_and(|digits| digits.len() >= 4 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether the name is that of a compacted file, in place or just replaced.
pub fn is_compacted(name: &str) -> bool {
    name == COMPACTED || name == COMPACTED_PREVIOUS
}

/// Whether the name is one that a channel writes to. The original calls every name of at most nine characters active;
/// the digits decide here as well, so that channel 10000 is not taken for a rotated file.
pub fn is_active_log(name: &str) -> bool {
    name.strip_prefix(LOG_PREFIX).is_some_and(|rest| rest.len() <= 4 || rest.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether the name is that of an epoch file, rotated or not; the original goes by the prefix alone.
pub fn is_epoch(name: &str) -> bool {
    name.starts_with(EPOCH)
}

/// Whether the name is that of a rotated epoch file: `epoch.<ms>.<epoch>`.
pub fn is_rotated_epoch(name: &str) -> bool {
    let mut parts = name.split('.');
    parts.next() == Some(EPOCH)
        && parts.clone().count() == 2
        && parts.all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// The file of a channel.
pub fn log_of_channel(channel: usize) -> String {
    format!("{LOG_PREFIX}{channel:04}")
}

/// The channel that wrote the log file of this name, rotated or not; `None` when the name does not say.
pub fn channel_of_log(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(LOG_PREFIX)?;
    rest.split('.').next().filter(|digits| digits.len() >= 4)?.parse().ok()
}

/// The name a log file gets when it is rotated; `k` makes it unique within a millisecond.
pub fn rotated(active: &str, unix_ms: u128, k: u32) -> String {
    format!("{active}.{unix_ms:014}.{k}")
}

/// The name a rotated epoch file gets; `current` is the epoch at that moment.
pub fn rotated_epoch(unix_ms: u128, current: Epoch) -> String {
    format!("{EPOCH}.{unix_ms:014}.{current}")
}

/// Milliseconds since 1970, as they stand in names.
pub fn unix_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_original() {
        assert_eq!(log_of_channel(7), "pwal_0007");
        assert_eq!(log_of_channel(10000), "pwal_10000");
        assert_eq!(rotated("pwal_0000", 1795356604107, 0), "pwal_0000.01795356604107.0");
    }

    #[test]
    fn the_channel_is_known_from_the_name() {
        for (name, channel) in [("pwal_0007", 7), ("pwal_10000", 10000), ("pwal_0012.01795356604107.3", 12)] {
            assert_eq!(channel_of_log(name), Some(channel), "{name}");
        }
        for name in ["pwal_", "pwal_abc", "pwal_7", "epoch"] {
            assert_eq!(channel_of_log(name), None, "{name}");
        }
    }

    #[test]
    fn only_names_that_a_channel_writes_to_are_active() {
        for active in ["pwal_0000", "pwal_10000", "pwal_abc"] {
            assert!(is_active_log(active), "{active}");
        }
        for other in ["pwal_0000.compacted", "pwal_0000.01795356604107.0", "epoch", "pwal_backup"] {
            assert!(!is_active_log(other), "{other}");
        }
        assert!(is_rotated_epoch("epoch.01795356615900.2"));
        for other in ["epoch", "epoch.bak", "epoch.1.2.3", "epoch..2", "epochs.1.2"] {
            assert!(!is_rotated_epoch(other), "{other}");
        }
    }
}

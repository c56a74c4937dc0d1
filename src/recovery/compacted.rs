// SPDX-License-Identifier: Apache-2.0
//! Reads the compacted file (disk format §6.4): live entries in key order, without sessions that could be torn. All
//! of it was acknowledged, so any damage is refused.

use crate::error::{Damage, Remedy};
use crate::types::StorageId;
use crate::wal::entry::{decode, Entry, Unreadable};
use crate::wal::scanner::{FileScan, Visitor};
use std::path::Path;

/// Hands out the entries; of equal keys the first one counts.
pub fn scan(bytes: &[u8], path: &Path, visitor: &mut impl Visitor) -> Result<FileScan, Box<Damage>> {
    let damage = |offset: usize, reason: String, found: String, expected: &str| {
        Box::new(Damage {
            file: path.to_owned(),
            offset: offset as u64,
            epoch: None,
            reason,
            found,
            expected: expected.to_owned(),
            remedy: Remedy::RestoreFile,
        })
    };
    let mut previous: Option<(StorageId, &[u8])> = None;
    let mut offset = 0;
    while let Some(decoded) = decode(bytes, offset) {
        let (entry, next) = decoded.map_err(|unreadable| {
            let (reason, found) = match unreadable {
                Unreadable::Short(tag) => {
                    ("unexpected EOF".to_owned(), format!("an entry with tag {tag:#04x} that is cut off"))
                }
                Unreadable::Unknown(tag) => (format!("unknown log_entry type {tag}"), format!("tag {tag:#04x}")),
            };
            damage(offset, format!("this compacted file is broken: {reason}"), found, "a whole entry")
        })?;
        if let Entry::Put { storage, key, .. } | Entry::Remove { storage, key, .. } = entry {
            let place = (storage, key);
            let order = previous.map(|(s, k)| (storage.order(), key).cmp(&(s.order(), k)));
            match order {
                Some(std::cmp::Ordering::Less) => {
                    return Err(damage(
                        offset,
                        "this compacted file is broken: Key order violation detected in Compacted".to_owned(),
                        format!("storage {storage}, key {key:02x?} behind a larger key"),
                        "keys in ascending order",
                    ));
                }
                Some(std::cmp::Ordering::Equal) => {}
                _ => visitor.entry(offset, entry),
            }
            previous = Some(place);
        }
        offset = next;
        if visitor.gave_up() {
            break;
        }
    }
    Ok(FileScan::default())
}

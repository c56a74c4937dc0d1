// SPDX-License-Identifier: Apache-2.0
//! Reads the compacted file (disk format §6.4): live entries in key order, without sessions that could be torn. All
//! of it was acknowledged, so any damage is refused.

use crate::error::{Damage, Remedy};
use crate::types::StorageId;
use crate::wal::entry::{decode, Entry, Unreadable};
use crate::wal::epoch_marks::EpochMarks;
use crate::wal::scanner::{FileScan, Visitor};
use std::path::Path;

/// The same for a file that was read before, unless its marks say that it is still that one: then nothing is handed
/// out.
pub fn scan_again(
    bytes: &[u8],
    path: &Path,
    marks: &EpochMarks,
    visitor: &mut impl Visitor,
) -> Result<FileScan, Box<Damage>> {
    if marks.covers(bytes) {
        return Ok(FileScan { marks: marks.clone(), ..FileScan::default() });
    }
    let scan = scan(bytes, path, visitor)?;
    Ok(FileScan { marks: EpochMarks::of_whole(bytes), ..scan })
}

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
                Some(std::cmp::Ordering::Equal) => visitor.passed_over(offset, entry),
                _ => visitor.entry(offset, entry),
            }
            previous = Some(place);
        } else {
            visitor.passed_over(offset, entry);
        }
        offset = next;
        if visitor.gave_up() {
            break;
        }
    }
    Ok(FileScan::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::fixture::{compacted, put};

    /// Collects the values.
    #[derive(Default)]
    struct Values(Vec<String>);

    impl Visitor for Values {
        fn entry(&mut self, _: usize, entry: Entry<'_>) {
            if let Entry::Put { value, .. } = entry {
                self.0.push(String::from_utf8_lossy(value).into_owned());
            }
        }

        fn gave_up(&self) -> bool {
            self.0.len() == 3
        }
    }

    fn read(bytes: &[u8]) -> Result<Vec<String>, Box<Damage>> {
        let mut values = Values::default();
        scan(bytes, Path::new("compacted"), &mut values).map(|_| values.0)
    }

    #[test]
    fn of_equal_keys_the_first_counts_and_a_smaller_one_is_damage() {
        let entries = [put(b"a", 0, "1"), put(b"a", 0, "2"), put(b"b", 0, "3")];
        assert_eq!(read(&compacted(&entries)).unwrap(), ["1", "3"]);
        let mut bytes = compacted(&entries);
        let offset = bytes.len() as u64;
        bytes.extend(put(b"a", 0, "4"));
        let damage = read(&bytes).unwrap_err();
        assert!(damage.reason.contains("Key order violation") && damage.offset == offset, "{}", damage.reason);
    }

    #[test]
    fn anything_that_is_cut_off_or_unknown_is_damage_that_only_another_file_helps_against() {
        let whole = compacted(&[put(b"a", 0, "1"), put(b"b", 0, "2")]);
        for (bytes, reason) in
            [(&whole[..whole.len() - 1], "unexpected EOF"), (&[&whole[..], &[0xee]].concat(), "type 238")]
        {
            let damage = read(bytes).unwrap_err();
            assert!(damage.reason.contains(reason) && damage.remedy == Remedy::RestoreFile, "{}", damage.reason);
        }
    }

    #[test]
    fn whoever_has_enough_is_not_given_more() {
        let entries: Vec<Vec<u8>> = (0..9).map(|n| put(&[n], 0, "v")).collect();
        assert_eq!(read(&compacted(&entries)).unwrap().len(), 3);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What differs between two digests of the same epoch.

use super::digest::{Digest, Range};
use crate::types::StorageId;

/// A range of keys that two directories have differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub storage: StorageId,
    /// The first key that may differ; empty for the begin of the storage.
    pub from: Vec<u8>,
    /// The first key behind it; `None` for the end of the storage.
    pub to: Option<Vec<u8>>,
    /// How many entries each of the two has there.
    pub entries: [u64; 2],
}

/// In the order of the entries.
pub fn differences(first: &Digest, second: &Digest) -> Vec<Difference> {
    let mut found: Vec<Difference> = Vec::new();
    let (mut own, mut other) = (&first.ranges[..], &second.ranges[..]);
    loop {
        let storage = match (own.first(), other.first()) {
            (None, None) => return found,
            (Some(a), Some(b)) if a.place() <= b.place() => a.storage,
            (Some(a), None) => a.storage,
            (_, Some(b)) => b.storage,
        };
        let (a, b) = (take_storage(&mut own, storage), take_storage(&mut other, storage));
        in_storage(StorageId(storage), a, b, &mut found);
    }
}

/// The ranges of a storage that stand first.
fn take_storage<'a>(ranges: &mut &'a [Range], storage: u64) -> &'a [Range] {
    let (taken, left) =
        ranges.split_at(ranges.partition_point(|range| StorageId(range.storage).order() <= StorageId(storage).order()));
    *ranges = left;
    taken
}

/// Both have all that they have of the storage.
fn in_storage(storage: StorageId, mut own: &[Range], mut other: &[Range], found: &mut Vec<Difference>) {
    while let Some(from) = own.first().or(other.first()).map(|range| range.from.clone()) {
        let (mut a, mut b) = (own.len().min(1), other.len().min(1));
        // Up to a key with which both begin a range.
        let to = loop {
            match (own.get(a), other.get(b)) {
                (None, None) => break None,
                (Some(left), Some(right)) if left.from == right.from => break Some(left.from.clone()),
                (Some(left), right) if right.is_none_or(|right| left.from < right.from) => a += 1,
                _ => b += 1,
            }
        };
        let (left, right) = (&own[..a], &other[..b]);
        if left != right {
            let count = |ranges: &[Range]| ranges.iter().map(|range| range.entries).sum::<u64>();
            let entries = [count(left), count(right)];
            match found.last_mut().filter(|last| last.storage == storage && last.to.as_ref() == Some(&from)) {
                Some(last) => {
                    last.to = to;
                    last.entries.iter_mut().zip(entries).for_each(|(sum, more)| *sum += more);
                }
                None => found.push(Difference { storage, from, to, entries }),
            }
        }
        (own, other) = (&own[a..], &other[b..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::digest::tests::{digest_of, range};

    fn found(first: &[Range], second: &[Range]) -> Vec<(u64, String, Option<String>, [u64; 2])> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let found = differences(&digest_of(first.to_vec()), &digest_of(second.to_vec()));
        found.into_iter().map(|d| (d.storage.0, text(d.from), d.to.map(text), d.entries)).collect()
    }

    #[test]
    fn a_difference_reaches_from_one_common_key_to_the_next_and_neighbours_are_one() {
        let ranges = ["", "d", "h", "m"].map(|from| range(1, from, 1));
        assert_eq!(found(&ranges, &ranges), []);
        let mut other = ranges.clone();
        other[1] = range(1, "d", 2);
        assert_eq!(found(&ranges, &other), [(1, "d".into(), Some("h".into()), [10, 10])]);
        other[2] = range(1, "h", 2);
        assert_eq!(found(&ranges, &other), [(1, "d".into(), Some("m".into()), [20, 20])]);
        // One side begins a range where the other does not.
        let finer = ["", "d", "f", "h", "m"].map(|from| range(1, from, 1));
        assert_eq!(found(&ranges, &finer), [(1, "d".into(), Some("h".into()), [10, 20])]);
        assert_eq!(found(&finer, &ranges), [(1, "d".into(), Some("h".into()), [20, 10])]);
        assert_eq!(found(&ranges, &ranges[..3]), [(1, "h".into(), None, [20, 10])]);
    }

    #[test]
    fn a_storage_that_one_side_does_not_have_differs_as_a_whole() {
        let (both, only) = (range(2, "", 1), [range(1, "", 1), range(1, "k", 1)]);
        let all = [&only[..], std::slice::from_ref(&both)].concat();
        assert_eq!(found(&all, std::slice::from_ref(&both)), [(1, String::new(), None, [20, 0])]);
        assert_eq!(found(std::slice::from_ref(&both), &all), [(1, String::new(), None, [0, 20])]);
        assert_eq!(found(&[], &[]), []);
    }
}

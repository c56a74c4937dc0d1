// SPDX-License-Identifier: Apache-2.0
//! Puts entries into ranges. Where a range begins is told by the key that it begins with alone, so that two sides cut
//! alike without a word between them, and one entry more or less changes one range.

use super::digest::Range;
use crate::recovery::Row;
use crate::types::{BlobId, StorageId};
use sha2::{Digest as _, Sha256};

/// A longer key begins no range: keys are told in full.
const KEY_BYTES_MAX: usize = 256;
/// About so many entries are in a range. A change makes digests another format.
const ENTRIES: u64 = 1024;

/// Whether a range begins with this key.
fn begins(key: &[u8]) -> bool {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = key.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    // Keys that are alike have hashes that are, before these steps.
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    key.len() <= KEY_BYTES_MAX && (mixed ^ (mixed >> 33)).is_multiple_of(ENTRIES)
}

/// What a BLOB holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlobContent {
    Missing,
    Is([u8; 32]),
}

/// Takes the entries in their order.
#[derive(Default)]
pub(super) struct Cutter {
    ranges: Vec<Range>,
    open: Option<Open>,
}

struct Open {
    storage: StorageId,
    from: Vec<u8>,
    entries: u64,
    hash: Sha256,
}

impl Open {
    fn close(self) -> Range {
        let Open { storage, from, entries, hash } = self;
        Range { storage: storage.0, from, entries, sha256: hash.finalize().into() }
    }
}

impl Cutter {
    /// `blobs` has a content for each BLOB of the entry, or nothing when contents do not count.
    pub(super) fn add(&mut self, row: &Row<'_>, blobs: &[BlobContent]) {
        let next = match &self.open {
            Some(open) if open.storage == row.storage => begins(row.key).then(|| row.key.to_vec()),
            // All of a storage is in its ranges.
            _ => Some(Vec::new()),
        };
        if let Some(from) = next {
            let open = Open { storage: row.storage, from, entries: 0, hash: Sha256::new() };
            self.ranges.extend(self.open.replace(open).map(Open::close));
        }
        let Some(Open { entries, hash, .. }) = &mut self.open else { return };
        *entries += 1;
        // Every part with its length, so that no two contents read the same.
        for part in [row.key, row.value] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update((row.blobs.iter().count() as u64).to_le_bytes());
        row.blobs.iter().for_each(|BlobId(id)| hash.update(id.to_le_bytes()));
        for content in blobs {
            match content {
                BlobContent::Missing => hash.update([0_u8; 33]),
                BlobContent::Is(sha256) => {
                    hash.update([1_u8]);
                    hash.update(sha256);
                }
            }
        }
    }

    pub(super) fn finish(mut self) -> Vec<Range> {
        self.ranges.extend(self.open.take().map(Open::close));
        self.ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::{differences, digest::tests::digest_of};
    use crate::recovery::fixture::{put, put_with_blobs, session, Dir};
    use crate::recovery::recover;

    fn ranges(entries: &[Vec<u8>], blobs: &[BlobContent]) -> Vec<Range> {
        let dir = Dir::new(5).with("pwal_0000", &session(1, entries));
        let snapshot = recover(&dir.input()).unwrap().snapshot;
        let (mut cursor, mut cutter) = (snapshot.cursor(), Cutter::default());
        while let Some(row) = cursor.next().unwrap() {
            cutter.add(&row, blobs);
        }
        cutter.finish()
    }

    #[test]
    fn ranges_have_about_the_same_size_and_one_entry_changes_one_of_them() {
        let entries: Vec<Vec<u8>> = (0..20_000_u32).map(|n| put(&n.to_be_bytes(), 1, "v")).collect();
        let whole = ranges(&entries, &[]);
        assert!((10..40).contains(&whole.len()), "{}", whole.len());
        assert_eq!(whole.iter().map(|range| range.entries).sum::<u64>(), 20_000);
        for removed in [0, 7_777, 19_999] {
            let without = [&entries[..removed], &entries[removed + 1..]].concat();
            let found = differences(&digest_of(whole.clone()), &digest_of(ranges(&without, &[])));
            assert_eq!(found.len(), 1, "{removed}");
            let key = (removed as u32).to_be_bytes();
            assert!(found[0].from[..] <= key[..] && found[0].to.as_ref().is_none_or(|to| to[..] > key[..]));
        }
        // Also with keys that are counted in digits.
        let digits: Vec<Vec<u8>> = (0..20_000).map(|n| put(format!("0-{n}").as_bytes(), 1, "v")).collect();
        let counts: Vec<u64> = ranges(&digits, &[]).iter().map(|range| range.entries).collect();
        assert!((10..40).contains(&counts.len()) && counts.iter().all(|count| *count < 10_000), "{counts:?}");
        // A key that begins a range: it and the range before are one then.
        let cut = u32::from_be_bytes(whole[3].from[..].try_into().unwrap()) as usize;
        let without = [&entries[..cut], &entries[cut + 1..]].concat();
        let found = differences(&digest_of(whole.clone()), &digest_of(ranges(&without, &[])));
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].from, found[0].to.as_ref()), (&whole[2].from, Some(&whole[4].from)));
    }

    #[test]
    fn keys_values_references_and_contents_of_blobs_count_and_versions_do_not() {
        let of = |entries: &[Vec<u8>]| ranges(entries, &[]);
        let entry = put_with_blobs(b"ab", 1, "c", &[7]);
        let same = of(std::slice::from_ref(&entry));
        assert_eq!(of(&[put_with_blobs(b"ab", 4, "c", &[7])]), same);
        for other in [
            put_with_blobs(b"a", 1, "bc", &[7]),
            put_with_blobs(b"ab", 1, "d", &[7]),
            put_with_blobs(b"ab", 1, "c", &[8]),
            put(b"ab", 1, "c"),
        ] {
            assert_ne!(of(&[other]), same);
        }
        let with = |content| ranges(std::slice::from_ref(&entry), &[content]);
        let contents =
            [with(BlobContent::Missing), with(BlobContent::Is([0; 32])), with(BlobContent::Is([1; 32])), same];
        for (at, one) in contents.iter().enumerate() {
            assert!(contents[at + 1..].iter().all(|other| other != one));
        }
    }
}

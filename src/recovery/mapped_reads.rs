// SPDX-License-Identifier: Apache-2.0
//! Bounds the memory that mapped files take in this process while they are read here and there.

use crate::vfs::Mapping;

/// What the system maps around a byte that is read.
const MAPPED_BY_A_READ: u64 = 64 << 10;

/// Counts the reads, and gives the memory back before it can be too much. That costs time, since what is read next is
/// mapped again: files that are smaller than the bound together are never given back.
#[derive(Debug)]
pub struct MappedReads<'a> {
    files: &'a [Mapping],
    /// `None` where nothing has to be given back.
    every: Option<u64>,
    since: u64,
}

impl<'a> MappedReads<'a> {
    /// `bytes_max` may be mapped at a time; `None` for any number.
    pub fn new(files: &'a [Mapping], bytes_max: Option<u64>) -> MappedReads<'a> {
        let all: u64 = files.iter().map(|file| file.len() as u64).sum();
        let every = bytes_max.filter(|&max| all > max).map(|max| (max / MAPPED_BY_A_READ).max(1));
        MappedReads { files, every, since: 0 }
    }

    /// To be called after so many reads.
    #[inline]
    pub fn count(&mut self, reads: usize) {
        self.since += reads as u64;
        if self.every.is_some_and(|every| self.since >= every) {
            self.since = 0;
            self.files.iter().for_each(Mapping::release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_only_where_the_files_can_take_more_than_they_may() {
        let files = [Mapping::owned(vec![0; 3 << 20]), Mapping::owned(vec![0; 1 << 20])];
        let every = |bytes_max| MappedReads::new(&files, bytes_max).every;
        assert_eq!(every(None), None);
        assert_eq!(every(Some(4 << 20)), None);
        assert_eq!(every(Some((4 << 20) - 1)), Some(63));
        assert_eq!(every(Some(0)), Some(1));
    }

    #[test]
    fn reads_are_counted_from_one_release_to_the_next() {
        let files = [Mapping::owned(vec![0; 1 << 20])];
        let mut reads = MappedReads::new(&files, Some(256 << 10));
        let since: Vec<u64> = [1, 2, 1, 3, 2]
            .map(|count| {
                reads.count(count);
                reads.since
            })
            .to_vec();
        assert_eq!(since, [1, 3, 0, 3, 0]);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Which file it is, and how large: the one rule by which what was written down of a file is believed later.

use super::interface::{Stamp, VfsFile};
use std::io;

/// Which file it is, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct About {
    /// Bytes of it.
    pub size: u64,
    pub stamp: Stamp,
}

impl About {
    /// Of a file as it is now.
    pub fn of(file: &dyn VfsFile) -> io::Result<About> {
        Ok(About { size: file.len()?, stamp: file.stamp()? })
    }

    /// The first bytes of it.
    pub fn begin(self, size: u64) -> About {
        About { size, ..self }
    }

    /// The number of the file, which is another file's when it is gone.
    pub fn inode(&self) -> u64 {
        self.stamp.inode
    }

    /// Whether `now` is the same file, or begins with what it was, whoever may have written to it.
    pub fn is_same_file(&self, now: &About) -> bool {
        let (then, stamp) = (self.stamp, now.stamp);
        // Numbers of files come again; the time of creation tells those apart, where the file system knows it.
        let is_same = (then.inode, then.created_ns) == (stamp.inode, stamp.created_ns);
        is_same && self.size <= now.size && (then.created_ns != 0 || self.is_untouched(now))
    }

    /// Whether nobody has written to the file since.
    pub fn is_untouched(&self, now: &About) -> bool {
        self.stamp == now.stamp && self.size <= now.size
    }

    /// The numbers that it is written down as, and read from again.
    pub fn numbers(self) -> [u64; 4] {
        let Stamp { inode, created_ns, modified_ns } = self.stamp;
        [self.size, inode, created_ns, modified_ns]
    }

    /// The other way round.
    pub fn from_numbers([size, inode, created_ns, modified_ns]: [u64; 4]) -> About {
        About { size, stamp: Stamp { inode, created_ns, modified_ns } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_written_to_is_the_same_and_another_one_with_its_number_is_not() {
        let about = About::from_numbers([10, 11, 12, 13]);
        let with = |change: fn(&mut About)| {
            let mut other = about;
            change(&mut other);
            about.is_same_file(&other)
        };
        assert!(with(|_| ()) && with(|other| other.stamp.modified_ns += 1) && with(|other| other.size += 1));
        assert!(!with(|other| other.size -= 1) && !with(|other| other.stamp.inode += 1));
        assert!(!with(|other| other.stamp.created_ns += 1));
        // Where nobody knows when a file was created.
        let stamp = Stamp { created_ns: 0, ..about.stamp };
        let (unknown, written) =
            (About { stamp, ..about }, About { stamp: Stamp { modified_ns: 99, ..stamp }, ..about });
        assert!(unknown.is_same_file(&unknown) && !unknown.is_same_file(&written));
    }
}

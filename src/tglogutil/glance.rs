// SPDX-License-Identifier: Apache-2.0
//! Looks on while a start reads the log files, so that `inspect` reads those once in which nothing is to be found.

use super::examine::Examined;
use crate::lock_order::{Mutex, Rank};
use crate::progress_bar::{FileProgress, Progress};
use crate::recovery::{Follower, Onlooker};
use crate::types::Epoch;
use crate::vfs::Mapping;
use crate::wal::entry::{self, tag, Entry};
use crate::wal::names;
use crate::wal::scanner::FileScan;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What one file holds.
#[derive(Debug, Default)]
pub struct File {
    pub examined: Examined,
    pub count: Count,
}

/// Data entries of durable sessions.
#[derive(Debug, Default)]
pub struct Count {
    /// Those that the original counts.
    pub counted: u64,
    /// Tags of those that it does not count, in file order.
    pub uncounted: Vec<u8>,
}

impl Count {
    /// Takes the data entry of which `tag` is the first byte.
    #[inline]
    pub fn add(&mut self, tag: u8, entry: &Entry<'_>) {
        match entry {
            Entry::Put { .. } if tag == tag::PUT => self.counted += 1,
            Entry::Remove { .. } => self.counted += 1,
            _ => self.uncounted.push(tag),
        }
    }
}

/// Collects the files in which an examination would find nothing.
pub struct Glance<'a> {
    progress: &'a Progress,
    clean: Mutex<BTreeMap<PathBuf, File>>,
}

impl<'a> Glance<'a> {
    pub fn new(progress: &'a Progress) -> Glance<'a> {
        Glance { progress, clean: Mutex::new(Rank::Leaf, BTreeMap::new()) }
    }

    /// What they hold: the same as an examination with the durable epoch as its limit says, where sessions of epochs up
    /// to the durable one are known to have been ended.
    pub fn clean(&self) -> BTreeMap<PathBuf, File> {
        std::mem::take(&mut *self.clean.lock())
    }
}

impl Onlooker for Glance<'_> {
    fn follow<'a>(&'a self, path: &Path, bytes: &Mapping) -> Box<dyn Follower + 'a> {
        let compacted = path.file_name().is_some_and(|name| names::is_compacted(&name.to_string_lossy()));
        Box::new(Glancing {
            all: &self.clean,
            path: path.to_owned(),
            // Of a compacted file an examination expects one session that is never ended, as whoever writes one does.
            is_odd: compacted && !bytes.starts_with(&entry::marker(tag::BEGIN, Epoch(0))),
            bytes: bytes.clone(),
            count: Count::default(),
            progress: self.progress.file(),
        })
    }
}

/// One file.
struct Glancing<'a> {
    all: &'a Mutex<BTreeMap<PathBuf, File>>,
    path: PathBuf,
    bytes: Mapping,
    count: Count,
    /// It has to be examined, whatever a start says.
    is_odd: bool,
    progress: FileProgress<'a>,
}

impl Follower for Glancing<'_> {
    #[inline]
    fn entry(&mut self, offset: usize, entry: &Entry<'_>) {
        match entry {
            Entry::Begin(_) if offset == 0 => {}
            Entry::Begin(_) | Entry::Invalidated(_) | Entry::End(_) | Entry::Durable(_) => self.is_odd = true,
            _ => self.count.add(self.bytes[offset], entry),
        }
        self.progress.at(offset);
    }

    fn done(self: Box<Self>, scan: &FileScan) {
        let Glancing { all, path, bytes, count, is_odd, progress } = *self;
        progress.done(bytes.len());
        if !is_odd && scan.edits.is_empty() && scan.warnings.is_empty() {
            let examined = Examined { max_epoch: scan.max_epoch, ..Examined::default() };
            all.lock().insert(path, File { examined, count });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::fixture::{clear, compacted, put, put_with_blobs, remove, session, Dir, LOCATION};
    use crate::recovery::read;
    use crate::tglogutil::examine::{examine, Subject};
    use crate::wal::sessions::Origin;

    const DURABLE: Epoch = Epoch(5);

    /// The files that are clean at a glance; of each an examination has to say the same.
    fn clean(files: &[(&str, Vec<u8>)]) -> Vec<(String, u64, Vec<u8>)> {
        let dir = files.iter().fold(Dir::new(DURABLE.0), |dir, (name, bytes)| dir.with(name, bytes));
        let progress = Progress::new(0);
        let glance = Glance::new(&progress);
        read(&dir.input(), false, Some(&glance)).unwrap();
        let found = glance.clean().into_iter().map(|(path, file)| {
            let name = path.strip_prefix(LOCATION).unwrap().to_string_lossy().into_owned();
            let bytes = &files.iter().find(|(other, _)| *other == name).unwrap().1[..];
            let subject = Subject { bytes, path: &path, limit: DURABLE, end_markers: true, origin: Origin::Unknown };
            let mut count = Count::default();
            let examined = examine(subject, |offset, _, entry| count.add(bytes[offset], &entry));
            assert_eq!(examined.max_epoch, file.examined.max_epoch, "{name}");
            assert!(examined.broken.is_empty() && examined.warnings.is_empty(), "{name}: {examined:?}");
            assert!(!examined.needs_repair(subject.is_active()), "{name}: {examined:?}");
            let Count { counted, uncounted } = file.count;
            assert_eq!((counted, &uncounted), (count.counted, &count.uncounted), "{name}");
            (name, counted, uncounted)
        });
        found.collect()
    }

    #[test]
    fn what_is_clean_at_a_glance_holds_what_an_examination_finds() {
        let entries = [put(b"a", 1, "v"), put_with_blobs(b"b", 1, "v", &[7]), remove(b"a", 1), clear(1)];
        let whole = [session(1, &entries), session(5, &[put(b"c", 5, "v")])].concat();
        let beyond = [&whole[..], &session(6, &[])].concat();
        let zeros = [&whole[..], &[0; 20]].concat();
        let unended = [&whole[..], &session(5, &[])[..9]].concat();
        let of_two_keys = compacted(&[put(b"a", 0, "1"), put(b"a", 0, "2"), put(b"b", 0, "1")]);
        let files = [
            ("pwal_0000", whole.clone()),
            ("pwal_0001", beyond),
            ("pwal_0002", zeros),
            ("pwal_0003", unended),
            ("pwal_0004", Vec::new()),
            (names::COMPACTED, of_two_keys),
        ];
        let others = vec![tag::PUT_WITH_BLOBS, tag::CLEAR_STORAGE];
        let expected = [
            ("pwal_0000".to_owned(), 3, others),
            (names::COMPACTED.to_owned(), 3, Vec::new()),
            ("pwal_0004".to_owned(), 0, Vec::new()),
        ];
        let found = clean(&files);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert!(expected.iter().all(|file| found.contains(file)), "{found:?}");
    }

    #[test]
    fn compacted_file_that_is_built_otherwise_is_examined() {
        let entries = [put(b"a", 0, "1"), clear(1), put(b"b", 0, "2")];
        let usual = compacted(&entries);
        assert_eq!(clean(&[(names::COMPACTED, usual.clone())]).len(), 1);
        for other in [entries.concat(), [&usual[..], &session(1, &[])].concat(), session(0, &entries), session(3, &[])]
        {
            assert_eq!(clean(&[(names::COMPACTED, other)]), []);
        }
    }
}

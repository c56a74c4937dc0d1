// SPDX-License-Identifier: Apache-2.0
//! The merge rule (disk format §6.1): of all entries of a key the one with the largest version counts, a later
//! position among equal ones; a removal or an older clear of the storage hides it.

use super::index::{prefix_of, Index, Piece, Position, Prefix, Record, PREFIX_LEN};
use super::input::Input;
use super::mapped_reads::MappedReads;
use super::pool;
use crate::error::{Error, Result};
use crate::types::{StorageId, WriteVersion};
use crate::vfs::Mapping;
use crate::wal::entry::{decode, Entry};
use std::collections::{BTreeMap, HashMap};

/// The largest version that cleared each storage.
pub(super) type Clears = HashMap<StorageId, WriteVersion>;

/// More entries than these with the same bytes in the index are not compared key by key.
const COMPARED_MAX: usize = 1 << 12;
/// Entries of which the next bytes of the key are held at once.
const REFINED_MAX: usize = 1 << 20;

/// Groups between two looks at whether to give up.
const CHECK_GROUPS: u64 = 1 << 12;

/// Positions of live entries in key order.
#[derive(Debug)]
pub enum Segment {
    Held(Vec<Position>),
    Spilled { map: Mapping },
}

impl Segment {
    pub fn len(&self) -> usize {
        match self {
            Segment::Held(positions) => positions.len(),
            Segment::Spilled { map } => map.len() / 8,
        }
    }

    pub fn get(&self, index: usize) -> Position {
        match self {
            Segment::Held(positions) => positions[index],
            Segment::Spilled { map } => Position::from_bytes(&map[index * 8..index * 8 + 8]),
        }
    }
}

/// Decodes an entry that the scan has read before; it fails only when somebody wrote into the file meanwhile.
pub fn entry_at(files: &[Mapping], position: Position) -> Result<Entry<'_>> {
    match decode(&files[position.file()], position.offset()) {
        Some(Ok((entry, _))) => Ok(entry),
        _ => Err(changed(position)),
    }
}

/// The error for an entry that is no longer what the scan has read.
pub fn changed(position: Position) -> Error {
    let (file, offset) = (position.file(), position.offset());
    Error::WrongState(format!(
        "log file number {file} was changed by somebody else at offset {offset} while it was open"
    ))
}

fn key_and_version(files: &[Mapping], position: Position) -> Result<(&[u8], WriteVersion)> {
    match entry_at(files, position)? {
        Entry::Put { key, version, .. } | Entry::Remove { key, version, .. } => Ok((key, version)),
        _ => Err(changed(position)),
    }
}

/// A range of prefixes of one storage.
struct Task<'a> {
    storage: u64,
    pieces: &'a [Piece],
    from: Option<Prefix>,
    to: Option<Prefix>,
}

/// Merges all pieces; the segments together are the live entries in order. `compacted` is whether the first file is a
/// compacted one.
pub fn merge(
    index: Index,
    clears: &Clears,
    files: &[Mapping],
    compacted: bool,
    input: &Input<'_>,
) -> Result<Vec<Segment>> {
    let tasks = split(&index, input.threads);
    let count = tasks.len();
    let live_max = (input.memory_bytes / 4 / 8) as usize / count.max(1);
    let work = pool::Queue::new(tasks.into_iter().enumerate().collect());
    let merged = pool::run(input.threads.clamp(1, count.max(1)), || {
        let mut segments = Vec::new();
        while let Some((number, task)) = work.next() {
            let clear = clears.get(&StorageId(task.storage.swap_bytes())).copied();
            let live = Merger::new(&task, files, compacted, clear).run(input);
            segments.push((number, live.and_then(|live| keep(live, live_max, input))));
        }
        segments
    });
    let mut segments: Vec<(usize, Result<Segment>)> = merged.into_iter().flatten().collect();
    segments.sort_by_key(|(number, _)| *number);
    segments.into_iter().map(|(_, segment)| segment).filter(|s| s.as_ref().map_or(true, |s| s.len() > 0)).collect()
}

/// Keeps positions in memory, or in a file without a name when there are too many.
pub(super) fn keep(live: Vec<Position>, live_max: usize, input: &Input<'_>) -> Result<Segment> {
    if live.len() <= live_max {
        return Ok(Segment::Held(live));
    }
    let write = || {
        let file = input.vfs.temp_file(input.location)?;
        let mut bytes = Vec::new();
        for (i, chunk) in live.chunks(1 << 14).enumerate() {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|position| position.to_bytes()));
            file.write_at((i << 17) as u64, &bytes)?;
        }
        file.map()
    };
    let map = write().map_err(|e| Error::io("cannot write a temporary index file in", input.location, e))?;
    Ok(Segment::Spilled { map })
}

/// Cuts the work so that every thread gets some: at prefixes taken evenly from the largest piece of each storage.
fn split(index: &Index, threads: usize) -> Vec<Task<'_>> {
    let total: usize = index.storages.values().flatten().map(Piece::len).sum();
    let target = (total / (threads.max(1) * 4)).max(1 << 14);
    let mut tasks = Vec::new();
    for (&storage, pieces) in &index.storages {
        let records: usize = pieces.iter().map(Piece::len).sum();
        let mut from = None;
        if let Some(largest) = pieces.iter().max_by_key(|piece| piece.len()) {
            let parts = records.div_ceil(target).max(1);
            for part in 1..parts {
                let to = largest.get(largest.len() * part / parts).prefix;
                if Some(to) > from {
                    tasks.push(Task { storage, pieces, from, to: Some(to) });
                    from = Some(to);
                }
            }
        }
        tasks.push(Task { storage, pieces, from, to: None });
    }
    tasks
}

/// What is left of one piece.
struct Run<'a> {
    piece: &'a Piece,
    next: usize,
    end: usize,
    head: Record,
}

struct Merger<'a> {
    files: &'a [Mapping],
    compacted: bool,
    clear: Option<WriteVersion>,
    runs: Vec<Run<'a>>,
    live: Vec<Position>,
}

impl<'a> Merger<'a> {
    fn new(task: &Task<'a>, files: &'a [Mapping], compacted: bool, clear: Option<WriteVersion>) -> Merger<'a> {
        let mut runs = Vec::new();
        let mut records = 0;
        for piece in task.pieces {
            let next = task.from.map_or(0, |prefix| piece.lower_bound(prefix));
            let end = task.to.map_or(piece.len(), |prefix| piece.lower_bound(prefix));
            if next < end {
                records += end - next;
                runs.push(Run { piece, next, end, head: piece.get(next) });
            }
        }
        Merger { files, compacted, clear, runs, live: Vec::with_capacity(records) }
    }

    fn run(mut self, input: &Input<'_>) -> Result<Vec<Position>> {
        let mut group = Vec::new();
        let mut groups = 0u64;
        let mut reads = MappedReads::new(self.files, input.mapped_bytes_max());
        while let Some(prefix) = self.runs.iter().map(|run| run.head.prefix).min() {
            groups += 1;
            if groups.is_multiple_of(CHECK_GROUPS) {
                input.check()?;
            }
            group.clear();
            self.runs.retain_mut(|run| {
                while run.head.prefix == prefix {
                    group.push(run.head.position);
                    run.next += 1;
                    if run.next == run.end {
                        return false;
                    }
                    run.head = run.piece.get(run.next);
                }
                true
            });
            match group[..] {
                [only] => self.decide(only)?,
                _ => self.resolve(&group, 1)?,
            }
            reads.count(group.len());
        }
        self.live.shrink_to_fit();
        Ok(self.live)
    }

    /// Several entries share the first `depth` times [`PREFIX_LEN`] bytes of the key: the files tell the rest.
    fn resolve(&mut self, group: &[Position], depth: usize) -> Result<()> {
        if let Some(newest) = self.newest_if_one_key(group)? {
            return self.decide(newest);
        }
        if group.len() > COMPARED_MAX {
            return self.refine(group, depth);
        }
        let mut full = Vec::with_capacity(group.len());
        for &position in group {
            let (key, rank) = self.key_and_rank(position)?;
            full.push((key, rank, position));
        }
        full.sort_unstable();
        for (i, (key, _, position)) in full.iter().enumerate() {
            let newest = full.get(i + 1).is_none_or(|(next, _, _)| next != key);
            if newest {
                self.decide(*position)?;
            }
        }
        Ok(())
    }

    /// The newest entry when all are of the same key, as those of a key that is written often.
    fn newest_if_one_key(&self, group: &[Position]) -> Result<Option<Position>> {
        let mut newest = None;
        let mut first = None;
        for &position in group {
            let (key, rank) = self.key_and_rank(position)?;
            if *first.get_or_insert(key) != key {
                return Ok(None);
            }
            newest = newest.max(Some((rank, position)));
        }
        Ok(newest.map(|(_, position)| position))
    }

    /// Sorts a large group by the next bytes of the key, a bounded part of it at a time.
    fn refine(&mut self, group: &[Position], depth: usize) -> Result<()> {
        let files = self.files;
        let next_bytes = |position: Position| -> Result<(Prefix, bool)> {
            let (key, _) = key_and_version(files, position)?;
            let rest = key.get(depth * PREFIX_LEN..).unwrap_or_default();
            Ok((prefix_of(rest), rest.is_empty()))
        };
        let parts = group.len().div_ceil(REFINED_MAX);
        let mut bounds = Vec::new();
        if parts > 1 {
            let step = group.len() / (parts * 64);
            let mut sample = Vec::new();
            for &position in group.iter().step_by(step.max(1)) {
                sample.push(next_bytes(position)?.0);
            }
            sample.sort_unstable();
            bounds.extend((1..parts).map(|part| sample[sample.len() * part / parts]));
            bounds.dedup();
        }
        for part in 0..=bounds.len() {
            let from = part.checked_sub(1).map(|before| bounds[before]);
            let to = bounds.get(part).copied();
            let mut records = Vec::new();
            let mut exhausted = true;
            for &position in group {
                let (prefix, at_end) = next_bytes(position)?;
                if from.is_none_or(|from| from <= prefix) && to.is_none_or(|to| prefix < to) {
                    exhausted &= at_end;
                    records.push(Record { prefix, position });
                }
            }
            records.sort_unstable_by_key(|record| record.prefix);
            for same in records.chunk_by(|a, b| a.prefix == b.prefix) {
                let positions: Vec<Position> = same.iter().map(|record| record.position).collect();
                if exhausted {
                    // Only zeros at the end tell these keys apart.
                    self.resolve_by_length(&positions)?;
                } else {
                    self.resolve(&positions, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// Resolves keys that are equal but for the number of zeros at their end.
    fn resolve_by_length(&mut self, group: &[Position]) -> Result<()> {
        let mut newest: BTreeMap<usize, (Option<WriteVersion>, Position)> = BTreeMap::new();
        for &position in group {
            let (key, rank) = self.key_and_rank(position)?;
            let entry = newest.entry(key.len()).or_insert((rank, position));
            *entry = (*entry).max((rank, position));
        }
        newest.into_values().try_for_each(|(_, position)| self.decide(position))
    }

    /// The key and what decides among its entries before their positions do: the log always wins over the compacted
    /// file (§6.5), which comes first.
    fn key_and_rank(&self, position: Position) -> Result<(&'a [u8], Option<WriteVersion>)> {
        let (key, version) = key_and_version(self.files, position)?;
        let compacted = self.compacted && position.file() == 0;
        Ok((key, (!compacted).then_some(version)))
    }

    /// Keeps the newest entry of a key unless it is a removal or its storage was cleared after it.
    fn decide(&mut self, position: Position) -> Result<()> {
        if position.is_remove() {
            return Ok(());
        }
        if let Some(clear) = self.clear {
            let (_, version) = key_and_version(self.files, position)?;
            if version < clear {
                return Ok(());
            }
        }
        self.live.push(position);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::fixture::{clear, compacted, pairs, put, remove, rows, session, Dir};
    use crate::recovery::recover;
    use crate::wal::names;

    fn merged(dir: &Dir) -> Vec<(String, String)> {
        rows(&recover(&dir.input()).unwrap().snapshot)
    }

    #[test]
    fn the_largest_version_counts_and_among_equal_ones_the_later_position() {
        let first = session(1, &[put(b"a", 9, "newest"), put(b"b", 5, "earlier"), put(b"gone", 5, "x")]);
        let second = session(2, &[put(b"a", 8, "older"), put(b"b", 5, "later"), remove(b"gone", 5)]);
        let dir = Dir::new(5).with("pwal_0000", &first).with("pwal_0001", &second);
        assert_eq!(merged(&dir), pairs(&[("a", "newest"), ("b", "later")]));
    }

    #[test]
    fn a_clear_hides_what_is_older_than_it_wherever_it_stands() {
        let before = session(1, &[clear(5), put(b"new", 6, "v"), put(b"same", 5, "v")]);
        let after = session(2, &[put(b"old", 4, "x")]);
        let dir = Dir::new(5).with("pwal_0000", &before).with("pwal_0001", &after);
        assert_eq!(merged(&dir), pairs(&[("new", "v"), ("same", "v")]));
    }

    #[test]
    fn the_log_wins_over_the_compacted_file_whatever_the_versions() {
        let old = compacted(&[put(b"gone", 9, "x"), put(b"k", 9, "compacted"), put(b"kept", 0, "v")]);
        let log = session(1, &[put(b"k", 0, "log"), remove(b"gone", 0)]);
        let dir = Dir::new(5).with(names::COMPACTED, &old).with("pwal_0000", &log);
        assert_eq!(merged(&dir), pairs(&[("k", "log"), ("kept", "v")]));
    }

    #[test]
    fn keys_that_are_equal_in_the_index_are_told_apart_by_the_files() {
        let mut expected = Vec::new();
        let mut entries = Vec::new();
        // More than are compared key by key; each twice, and some that differ in zeros at the end only.
        for n in 0..COMPARED_MAX {
            let key = format!("the same sixteen bytes {n:06}");
            entries.extend([put(key.as_bytes(), 2, "new"), put(key.as_bytes(), 1, "old")]);
            expected.push((key, "new".to_owned()));
        }
        for n in 0..3 {
            let key = "the same sixteen".to_owned() + &"\0".repeat(n);
            entries.push(put(key.as_bytes(), 1, "zeros"));
            expected.push((key, "zeros".to_owned()));
        }
        expected.sort();
        entries.reverse();
        assert_eq!(merged(&Dir::new(5).with("pwal_0000", &session(1, &entries))), expected);
    }

    #[test]
    fn positions_beyond_the_bound_go_to_a_file_and_are_the_same() {
        let dir = Dir::new(5);
        let live: Vec<Position> =
            (0..40_000).map(|n| Position::new(0, n, super::super::index::Kind::Put).unwrap()).collect();
        let (held, spilled) = (keep(live.clone(), live.len(), &dir.input()), keep(live.clone(), 1, &dir.input()));
        let (Ok(held @ Segment::Held(_)), Ok(spilled @ Segment::Spilled { .. })) = (held, spilled) else {
            panic!("kept elsewhere")
        };
        assert_eq!((held.len(), spilled.len()), (live.len(), live.len()));
        assert!((0..live.len()).all(|n| held.get(n) == live[n] && spilled.get(n) == live[n]));
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What has ended and is not yet in the journal: sessions are added by the threads that end them, already in the form
//! of a group's body, and taken by the one that writes.

use super::format::{piece_bytes, NewGroup, Piece};
use crate::error::Result;
use crate::lock_order::{Condvar, Mutex, Rank};
use crate::types::Epoch;
use crate::wal::file_sync::{FileSync, PendingSync};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

/// A log file whose sessions go through the journal. Its name must not change before all of it is settled.
#[derive(Debug)]
pub struct LogFile {
    pub(super) name: String,
    sync: Arc<FileSync>,
    /// What must be synced so that everything that was gathered of it is on the disk.
    changes: AtomicU64,
    /// It is among the files of what is gathered.
    gathered: AtomicBool,
    /// The last group with a piece of it; `u64::MAX` while one is gathered.
    pub(super) last: AtomicU64,
}

impl LogFile {
    /// The file that `written` is about. `name` is its name in the data directory.
    pub fn new(name: String, written: &PendingSync) -> LogFile {
        let (changes, gathered, last) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
        LogFile { name, sync: written.file.clone(), changes, gathered, last }
    }

    /// Whether `written` is about this file, opened once.
    pub fn is(&self, written: &PendingSync) -> bool {
        Arc::ptr_eq(&self.sync, &written.file)
    }

    /// The first `changes` changes are on the disk when this returns, and its name; if that takes a sync, it counts for
    /// everything that was gathered before.
    pub(super) fn sync(&self, changes: u64) -> Result<()> {
        self.sync.content_and_name(changes, self.changes.load(SeqCst))
    }
}

/// A session, or so much of it as the journal takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    Bytes(&'a [u8]),
    /// The length of one that is on the disk.
    Synced(u64),
}

/// Sessions for one group, and the files that they are in.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub group: NewGroup,
    pub files: Vec<Gathered>,
    /// Durable with it.
    pub epoch: Epoch,
}

/// A file of a group, and what must be synced of it so that all pieces up to this group are on the disk.
#[derive(Clone, Debug)]
pub(super) struct Gathered {
    pub file: Arc<LogFile>,
    pub changes: u64,
}

#[derive(Debug)]
struct State {
    batch: Batch,
    /// With so much waiting for the next group, whoever has added waits for it.
    enough: usize,
    /// All sessions up to `due` were added; `durable` with the last group. 0 before the first epoch is.
    due: Epoch,
    durable: Epoch,
    /// Somebody is about to write a group, or does.
    writing: bool,
    /// Nothing is taken any more.
    closed: bool,
}

impl State {
    fn has_enough(&self) -> bool {
        self.batch.group.body_len() >= self.enough
    }

    fn much(&self) -> usize {
        self.enough / 2
    }
}

/// What waits for the next group after a piece was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Not much, or it has been said before.
    Some,
    /// Just now so much that it should not wait for an epoch.
    Much,
    /// Whoever holds nothing should wait until it is written: see [`super::Journal::wait_for_room`].
    Enough,
}

/// Why a piece was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no room for so many bytes before the next group is written.
    NoRoom(usize),
    /// Nothing is taken any more.
    Closed,
}

#[derive(Debug)]
pub(super) struct Gather {
    state: Mutex<State>,
    /// A batch was taken, or written, or nothing is taken any more.
    changed: Condvar,
    /// So much waits that it is enough.
    is_full: AtomicBool,
    /// For those who wait for room. With a lock of their own, that nobody else takes: of many that wake up each has to
    /// be given a processor to let the next one go on, and whoever commits would stand in line behind them.
    room: Mutex<()>,
    emptied: Condvar,
    /// No group has a larger body.
    bytes_max: usize,
}

impl Gather {
    /// Groups with bodies of `bytes_max` at most; `enough` of it before it waits for the first one.
    pub(super) fn new(bytes_max: usize, enough: usize) -> Gather {
        let (due, durable) = (Epoch(0), Epoch(0));
        let state = State { batch: Batch::default(), enough, due, durable, writing: false, closed: false };
        Gather {
            is_full: AtomicBool::new(state.has_enough()),
            state: Mutex::new(Rank::Leaf, state),
            changed: Condvar::new(),
            room: Mutex::new(Rank::Leaf, ()),
            emptied: Condvar::new(),
            bytes_max,
        }
    }

    /// Adds a piece that was written with the first `changes` changes of its file.
    pub(super) fn add(
        &self,
        file: &Arc<LogFile>,
        changes: u64,
        offset: u64,
        content: Content<'_>,
    ) -> std::result::Result<Fill, Refused> {
        let (len, bytes) = match content {
            Content::Bytes(bytes) => (bytes.len() as u64, Some(bytes)),
            Content::Synced(len) => (len, None),
        };
        let piece = Piece { file: &file.name, offset, len, bytes };
        let needed = piece_bytes(&piece);
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if !self.has_room(&state, needed) {
            return Err(Refused::NoRoom(needed));
        }
        let much = state.much();
        let batch = &mut state.batch;
        let before = batch.group.body_len();
        batch.group.add(&piece);
        if !file.gathered.swap(true, SeqCst) {
            batch.files.push(Gathered { file: file.clone(), changes });
        }
        file.changes.fetch_max(changes, SeqCst);
        file.last.store(u64::MAX, SeqCst);
        Ok(match state.has_enough() {
            true => {
                self.is_full.store(true, SeqCst);
                Fill::Enough
            }
            false if before < much && before + needed >= much => Fill::Much,
            false => Fill::Some,
        })
    }

    fn has_room(&self, state: &State, bytes: usize) -> bool {
        state.closed || state.batch.group.body_len() + bytes <= self.bytes_max
    }

    /// Whether so many bytes more fit into the next group.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.has_room(&self.state.lock(), bytes)
    }

    /// Whether so much waits for the next group that somebody should write it.
    pub(super) fn has_much(&self) -> bool {
        let state = self.state.lock();
        state.batch.group.body_len() >= state.much()
    }

    /// Waits while so much waits for the next group that it is enough. False when nobody has begun to write one for
    /// `patience`: the caller is to do it.
    pub(super) fn wait_for_room(&self, patience: Duration) -> bool {
        while self.is_full.load(SeqCst) {
            if !self.was_emptied_within(patience) {
                let mut state = self.state.lock();
                if !state.has_enough() || state.closed {
                    return true;
                }
                if !state.writing {
                    state.writing = true;
                    return false;
                }
            }
        }
        true
    }

    /// Whoever empties it does not wait for `room`, and may come between a look and a wait: what is written then wakes
    /// as well.
    fn was_emptied_within(&self, patience: Duration) -> bool {
        let mut room = self.room.lock();
        !self.is_full.load(SeqCst) || !self.emptied.wait_for(&mut room, patience).timed_out()
    }

    /// Lets the next group make `epoch` durable, and waits until one has. False when nobody else writes one: the caller
    /// is to do it.
    pub(super) fn wait_for(&self, epoch: Epoch) -> bool {
        let mut state = self.state.lock();
        state.due = state.due.max(epoch);
        // Nobody is given the right to write before others: a thread that has to be woken first would hold all up.
        while state.durable < epoch && !state.closed {
            if !state.writing {
                state.writing = true;
                return false;
            }
            self.changed.wait(&mut state);
        }
        true
    }

    /// Bytes that wait for the next group.
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().batch.group.body_len()
    }

    /// Takes what is there, and the epoch that is due, to be written. `spare` is an empty group whose memory is used
    /// again. From now on `enough` waits for the next one.
    pub(super) fn take(&self, spare: NewGroup, enough: usize) -> Batch {
        let mut state = self.state.lock();
        (state.writing, state.enough) = (true, enough);
        let mut batch = mem::replace(&mut state.batch, Batch { group: spare, ..Batch::default() });
        self.is_full.store(state.has_enough(), SeqCst);
        batch.epoch = state.due;
        for Gathered { file, changes } in &mut batch.files {
            file.gathered.store(false, SeqCst);
            *changes = file.changes.load(SeqCst);
        }
        self.changed.notify_all();
        drop(state);
        self.emptied.notify_all();
        batch
    }

    /// The files' last pieces are in the group `sequence`, unless others were gathered meanwhile.
    pub(super) fn written(&self, batch: &Batch, sequence: u64) {
        let mut state = self.state.lock();
        for Gathered { file, .. } in batch.files.iter().filter(|gathered| !gathered.file.gathered.load(SeqCst)) {
            file.last.store(sequence, SeqCst);
        }
        (state.writing, state.durable) = (false, batch.epoch);
        self.changed.notify_all();
        drop(state);
        self.emptied.notify_all();
    }

    /// Lets nobody add anything any more.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.is_full.store(false, SeqCst);
        self.changed.notify_all();
        self.emptied.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const LONG: Duration = Duration::from_secs(3600);

    fn waits<T>(thread: &thread::ScopedJoinHandle<'_, T>) -> bool {
        thread::sleep(Duration::from_millis(20));
        !thread.is_finished()
    }

    #[test]
    fn an_epoch_that_is_due_comes_with_the_next_group_whoever_writes_it() {
        let gather = Gather::new(1000, 100);
        assert!(!gather.wait_for(Epoch(3)), "nobody else writes");
        thread::scope(|scope| {
            let first = gather.take(NewGroup::default(), 100);
            let due = [3, 4].map(|epoch| {
                let gather = &gather;
                scope.spawn(move || gather.wait_for(Epoch(epoch)))
            });
            assert!(due.iter().all(waits));
            assert_eq!(first.epoch, Epoch(3));
            gather.written(&first, 1);
            let [three, four] = due;
            assert!(three.join().unwrap());
            assert!(!four.join().unwrap(), "was due after the group was taken");
        });
        let second = gather.take(NewGroup::default(), 100);
        assert_eq!(second.epoch, Epoch(4));
        gather.written(&second, 2);
        assert!(gather.wait_for(Epoch(4)));
    }

    #[test]
    fn whoever_waits_for_room_leaves_the_group_to_others_until_patience_is_over() {
        let gather = Gather::new(1000, 0);
        assert!(!gather.wait_for_room(Duration::from_millis(1)), "nobody writes");
        // The right was given.
        gather.written(&gather.take(NewGroup::default(), 0), 1);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| gather.wait_for_room(LONG));
            assert!(waits(&waiting), "although nobody writes yet");
            let batch = gather.take(NewGroup::default(), 1);
            assert!(waiting.join().unwrap(), "what waited was taken");
            gather.written(&batch, 2);
        });
    }

    #[test]
    fn nobody_waits_for_a_gather_that_is_closed() {
        let gather = Gather::new(1000, 0);
        assert!(!gather.wait_for_room(Duration::ZERO), "nobody else writes");
        thread::scope(|scope| {
            let waiting = [scope.spawn(|| gather.wait_for_room(LONG)), scope.spawn(|| gather.wait_for(Epoch(1)))];
            assert!(waiting.iter().all(waits));
            gather.close();
            assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
        });
    }
}

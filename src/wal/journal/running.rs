// SPDX-License-Identifier: Apache-2.0
//! The journal in use: groups are written by whoever commits, one at a time, and settled by a thread of its own.
//!
//! Locks are taken in the order of [`Rank`]: `writer`, `settling`, `turn`, then the epoch file.

use super::format::{group_bytes, JournalId, NewGroup, BLOCK_BYTES};
use super::gather::{Batch, Content, Fill, Gather, Gathered, LogFile, Refused};
use super::pace::{Pace, PATIENCE};
use super::segments::{Segment, Settings, Unsettled};
use super::{host::Host, redo};
use crate::error::{Error, Result};
use crate::lock_order::{Condvar, Mutex, MutexGuard, Rank};
use crate::types::Epoch;
use crate::vfs::Vfs;
use crate::wal::epoch_file::EpochFile;
use crate::wal::file_sync::PendingSync;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;
use std::{collections::VecDeque, fmt};

/// A journal; it begins with its first group. After an error it refuses everything.
pub struct Journal {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    settings: Settings,
    host: Arc<dyn Host>,
    epoch_file: Arc<Mutex<EpochFile>>,
    gather: Gather,
    writer: Mutex<Writer>,
    /// Held by whoever settles.
    settling: Mutex<()>,
    turn: Mutex<Turn>,
    /// There is something to settle or to prepare, or the end has come.
    work: Condvar,
    /// Groups up to this one are settled.
    settled: AtomicU64,
    failure: OnceLock<String>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Writer {
    journal: JournalId,
    current: Option<Segment>,
    /// Of the last group, 0 before the first.
    sequence: u64,
    /// What its header says.
    settled: u64,
    /// The last group that is more than a word that others are settled.
    content: u64,
    /// Durable with the last group; 0 before the first epoch is.
    epoch: Epoch,
    /// The manifest says that the journal is in use.
    open: bool,
    /// So many want the directory to be without a journal.
    paused: u32,
    spare: NewGroup,
    pace: Pace,
}

/// Segments that nobody writes to.
#[derive(Default)]
struct Turn {
    free: Vec<Segment>,
    /// To be settled, in the order of their groups; with the segment that is free afterwards, if it is full.
    full: VecDeque<(Unsettled, Option<Segment>)>,
    /// Segments that exist.
    count: u32,
    /// Another one will soon be needed.
    wanted: bool,
    ended: bool,
}

impl Journal {
    /// A journal for this directory, which is settled. Nothing is written before the first group.
    pub fn new(
        vfs: Arc<dyn Vfs>,
        location: &Path,
        settings: Settings,
        host: Arc<dyn Host>,
        epoch_file: Arc<Mutex<EpochFile>>,
    ) -> Journal {
        let writer = Writer {
            journal: JournalId::default(),
            current: None,
            sequence: 0,
            settled: 0,
            content: 0,
            epoch: Epoch(0),
            open: false,
            paused: 0,
            spare: NewGroup::default(),
            pace: Pace::new(settings.enough_bytes_max()),
        };
        Journal {
            vfs,
            location: location.to_owned(),
            gather: Gather::new(settings.group_bytes_max(), settings.enough_bytes_max()),
            settings,
            host,
            epoch_file,
            writer: Mutex::new(Rank::JournalWriter, writer),
            settling: Mutex::new(Rank::Settling, ()),
            turn: Mutex::new(Rank::JournalTurn, Turn::default()),
            work: Condvar::new(),
            settled: AtomicU64::new(0),
            failure: OnceLock::new(),
            thread: Mutex::default(),
        }
    }

    /// Starts the thread that settles, if there is to be one.
    pub fn start(self: &Arc<Self>) -> Result<()> {
        if !self.settings.has_thread() {
            return Ok(());
        }
        let journal = self.clone();
        let thread = std::thread::Builder::new().name("lstone_settle".to_owned()).spawn(move || journal.settle_ahead());
        let failed = |e| Error::io("cannot start the thread that settles the journal of", &self.location, e);
        *self.thread.lock() = Some(thread.map_err(failed)?);
        Ok(())
    }

    /// A session with this many bytes is too large for the journal: see [`Self::add_by_name`].
    pub fn large_bytes(&self) -> usize {
        self.settings.large_bytes()
    }

    /// Takes a session that has ended: `bytes` at `offset` of a file, with all before it, is what `written` is about.
    /// When it does not fit into the next group the caller writes that one itself: it waits for the disk and for
    /// nothing else, so it may hold what others need.
    pub fn add(&self, file: &Arc<LogFile>, written: &PendingSync, offset: u64, bytes: &[u8]) -> Result<Fill> {
        self.gather(file, written, offset, Content::Bytes(bytes))
    }

    /// The same for a session that is only named: it is synced in its own file first, if it is not yet.
    pub(super) fn add_named(&self, file: &Arc<LogFile>, written: &PendingSync, offset: u64, len: u64) -> Result<Fill> {
        written.run()?;
        self.gather(file, written, offset, Content::Synced(len))
    }

    fn gather(&self, file: &Arc<LogFile>, written: &PendingSync, offset: u64, content: Content<'_>) -> Result<Fill> {
        loop {
            match self.gather.add(file, written.changes, offset, content) {
                Ok(fill) => return Ok(fill),
                Err(Refused::NoRoom(bytes)) => {
                    let mut writer = self.writer.lock();
                    if !self.gather.has_room_for(bytes) {
                        self.commit_locked(&mut writer)?;
                    }
                }
                Err(Refused::Closed) => {
                    self.check()?;
                    return Err(Error::WrongState("the commit journal is closed".to_owned()));
                }
            }
        }
    }

    /// Waits while too much waits for the next group, which somebody was asked for; writes it if nobody begins soon. To
    /// be called without any lock: the epoch of what was added does not wait for the caller.
    pub fn wait_for_room(&self) -> Result<()> {
        self.commit_unless(self.gather.wait_for_room(PATIENCE))
    }

    /// Writes a group if much waits for one.
    pub fn make_room(&self) -> Result<()> {
        self.commit_unless(!self.gather.has_much())
    }

    /// Makes everything durable that was added before this call, or without sessions of epochs behind `epoch`, which is
    /// then durable: all its sessions were added.
    pub fn commit(&self, epoch: Option<Epoch>) -> Result<()> {
        self.commit_unless(epoch.is_some_and(|epoch| self.gather.wait_for(epoch)))
    }

    fn commit_unless(&self, done: bool) -> Result<()> {
        match done {
            true => self.check(),
            false => self.commit_locked(&mut self.writer.lock()),
        }
    }

    /// Bytes that were added and wait for the next group.
    pub fn waiting_bytes(&self) -> usize {
        self.gather.waiting()
    }

    /// Fails when a write or sync of the journal has failed before.
    pub fn check(&self) -> Result<()> {
        match self.failure.get() {
            Some(failure) => Err(Error::Poisoned(failure.clone())),
            None => Ok(()),
        }
    }

    /// Refuses everything from now on, because something has failed that is no part of it.
    pub fn refuse(&self, reason: &str) {
        // The first reason counts.
        let _ = self.failure.set(reason.to_owned());
        self.gather.close();
        self.work.notify_all();
    }

    fn fail(&self, error: Error) -> Error {
        self.refuse(&error.to_string());
        error
    }

    fn commit_locked(&self, writer: &mut Writer) -> Result<()> {
        self.check()?;
        let mut batch = self.gather.take(std::mem::take(&mut writer.spare), writer.pace.bytes_max());
        if !batch.group.is_empty() || batch.epoch > writer.epoch {
            writer.epoch = batch.epoch;
            self.write(writer, &mut batch).map_err(|e| self.fail(e))?;
        }
        self.gather.written(&batch, writer.sequence);
        writer.spare = batch.group;
        writer.spare.clear(self.settings.group_bytes_max());
        Ok(())
    }

    fn write(&self, writer: &mut Writer, batch: &mut Batch) -> Result<()> {
        self.host.before_group()?;
        if writer.paused > 0 {
            let mut unsettled = Unsettled::default();
            unsettled.add(&batch.files, writer.sequence, writer.epoch);
            return self.settle_files(&unsettled);
        }
        self.open(writer)?;
        let (bytes, size) = (group_bytes(batch.group.body_len()) as u64, self.settings.segment_bytes());
        // The last block is for the word that the next segment is settled.
        if writer.current.as_ref().is_none_or(|segment| segment.used + bytes + BLOCK_BYTES as u64 > size) {
            self.turn(writer)?;
        }
        let begin = Instant::now();
        self.append(writer, &mut batch.group, &batch.files)?;
        writer.pace.note(bytes as usize, begin.elapsed());
        writer.content = writer.sequence;
        Ok(())
    }

    /// Makes the first segment and says that the journal is in use.
    fn open(&self, writer: &mut Writer) -> Result<()> {
        if !writer.open {
            // An earlier use of the directory may have left groups.
            writer.journal = *uuid::Uuid::new_v4().as_bytes();
            self.settled.store(writer.sequence, SeqCst);
            writer.current = self.another_segment()?;
            self.host.set_in_use(Some(&writer.journal))?;
            writer.open = true;
        }
        Ok(())
    }

    /// Makes another segment, if there may be one.
    fn another_segment(&self) -> Result<Option<Segment>> {
        let mut turn = self.turn.lock();
        let number = turn.count;
        if u64::from(number) == self.settings.segments_max() {
            return Ok(None);
        }
        turn.count += 1;
        // Without the lock: it takes its time.
        drop(turn);
        let segment = Segment::prepare(&*self.vfs, &self.location, number, self.settings.segment_bytes())?;
        let synced = self.vfs.sync_dir(&self.location);
        synced.map_err(|e| Error::io("cannot sync the directory", &self.location, e))?;
        Ok(Some(segment))
    }

    /// Appends a group to the current segment.
    fn append(&self, writer: &mut Writer, group: &mut NewGroup, files: &[Gathered]) -> Result<()> {
        let Writer { journal, current: Some(segment), sequence, epoch, .. } = writer else {
            return Err(Error::WrongState("the commit journal has no segment".to_owned()));
        };
        let (settled, next, epoch) = (self.settled.load(SeqCst), *sequence + 1, *epoch);
        segment.append(group.sealed(journal, next, settled, epoch), next)?;
        segment.unsettled.add(files, next, epoch);
        (writer.sequence, writer.settled) = (next, settled);
        Ok(())
    }

    /// Says in a group of its own what is settled.
    fn append_settled(&self, writer: &mut Writer) -> Result<()> {
        self.append(writer, &mut NewGroup::default(), &[])
    }

    /// Goes on in another segment. Before the first byte of an old one is overwritten the journal says, synced, that
    /// nothing of it is needed: a torn write takes old groups with it.
    fn turn(&self, writer: &mut Writer) -> Result<()> {
        let next = self.next_segment()?;
        if next.last > writer.settled {
            self.append_settled(writer)?;
        }
        if let Some(mut full) = writer.current.replace(next) {
            let unsettled = std::mem::take(&mut full.unsettled);
            self.retire(unsettled, Some(full));
        }
        self.prepare_ahead();
        Ok(())
    }

    /// Lets the thread that settles make another segment when none is free.
    fn prepare_ahead(&self) {
        let mut turn = self.turn.lock();
        if turn.free.is_empty() && !turn.wanted {
            turn.wanted = true;
            self.work.notify_all();
        }
    }

    fn retire(&self, unsettled: Unsettled, segment: Option<Segment>) {
        self.turn.lock().full.push_back((unsettled, segment));
        self.work.notify_all();
    }

    /// A segment all of which is settled; settles the oldest when there may be no more.
    fn next_segment(&self) -> Result<Segment> {
        loop {
            if let Some(segment) = self.turn.lock().free.pop() {
                return Ok(segment);
            }
            if let Some(segment) = self.another_segment()? {
                return Ok(segment);
            }
            self.settle_next(&self.settling.lock())?;
        }
    }

    /// Settles the oldest that is to be settled, if any.
    fn settle_next(&self, _settling: &MutexGuard<'_, ()>) -> Result<bool> {
        self.check()?;
        let Some((unsettled, segment)) = self.turn.lock().full.pop_front() else {
            return Ok(false);
        };
        self.settle_files(&unsettled).map_err(|e| self.fail(e))?;
        self.settled.fetch_max(unsettled.last, SeqCst);
        if let Some(mut segment) = segment {
            segment.used = 0;
            self.turn.lock().free.push(segment);
        }
        Ok(true)
    }

    /// Syncs the files and their names first, then records the epoch that they make durable.
    fn settle_files(&self, Unsettled { files, epoch, .. }: &Unsettled) -> Result<()> {
        files.values().try_for_each(|Gathered { file, changes }| file.sync(*changes))?;
        match epoch {
            Epoch(0) => Ok(()),
            epoch => self.epoch_file.lock().record(*epoch),
        }
    }

    /// Lets what is in the current segment be settled while it is in use.
    fn retire_unsettled(&self, writer: &mut Writer) {
        if let Some(segment) = &mut writer.current {
            self.retire(std::mem::take(&mut segment.unsettled), None);
        }
    }

    fn settle_full(&self) -> Result<()> {
        while self.settle_next(&self.settling.lock())? {}
        // Another thread may be at work on the last one.
        drop(self.settling.lock());
        self.check()
    }

    /// Makes everything that was added before this call durable in the files themselves, with an epoch record: a start
    /// writes nothing of it again. Files that nobody adds to meanwhile may then be renamed or cut.
    pub fn settle(&self) -> Result<()> {
        let content = {
            let mut writer = self.writer.lock();
            self.commit_locked(&mut writer)?;
            if writer.content <= writer.settled {
                return Ok(());
            }
            self.retire_unsettled(&mut writer);
            writer.content
        };
        self.settle_full()?;
        let mut writer = self.writer.lock();
        if writer.open && writer.settled < content {
            self.check()?;
            self.append_settled(&mut writer).map_err(|e| self.fail(e))?;
        }
        Ok(())
    }

    /// As [`Self::settle`], if anything of this file is not settled.
    pub fn settle_file(&self, file: &LogFile) -> Result<()> {
        // Not before the journal says so.
        let settled = self.writer.lock().settled;
        match file.last.load(SeqCst) > settled {
            true => self.settle(),
            false => Ok(()),
        }
    }

    /// Settles everything, lets the manifest say that no journal is in use, and deletes the segments; until the pause
    /// ends what is committed is synced in its own files. For copies of the directory.
    pub fn pause(self: &Arc<Self>) -> Result<Pause> {
        let mut writer = self.writer.lock();
        self.put_away(&mut writer)?;
        writer.paused += 1;
        Ok(Pause(self.clone()))
    }

    /// The same for good; nothing can be added any more. After a failure nothing is done but to end the thread: the
    /// next start writes all again that was in the journal.
    pub fn close(&self) -> Result<()> {
        self.turn.lock().ended = true;
        self.gather.close();
        self.work.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            // A panic there has been reported by its hook; there is nothing left to do.
            let _ = thread.join();
        }
        self.put_away(&mut self.writer.lock())
    }

    fn put_away(&self, writer: &mut Writer) -> Result<()> {
        self.commit_locked(writer)?;
        self.retire_unsettled(writer);
        self.settle_full()?;
        if std::mem::take(&mut writer.open) {
            // Nobody prepares a segment meanwhile.
            let _settling = self.settling.lock();
            let put_away = self.host.set_in_use(None).and_then(|()| redo::delete(&*self.vfs, &self.location));
            put_away.map_err(|e| self.fail(e))?;
            writer.current = None;
            writer.settled = writer.sequence;
            let mut turn = self.turn.lock();
            *turn = Turn { ended: turn.ended, ..Turn::default() };
        }
        Ok(())
    }

    /// Settles full segments, prepares others, and settles all when nothing was written for a while, until the end.
    fn settle_ahead(&self) {
        let mut seen = 0;
        loop {
            let mut turn = self.turn.lock();
            let mut idle = false;
            while !turn.ended && self.failure.get().is_none() && turn.full.is_empty() && !turn.wanted && !idle {
                match self.settings.idle_time() {
                    Some(time) => idle = self.work.wait_for(&mut turn, time).timed_out(),
                    None => self.work.wait(&mut turn),
                }
            }
            if turn.ended || self.failure.get().is_some() {
                return;
            }
            drop(turn);
            if let Err(error) = self.work_ahead(idle, &mut seen) {
                self.host.failed(error);
                return;
            }
        }
    }

    fn work_ahead(&self, idle: bool, seen: &mut u64) -> Result<()> {
        if idle {
            let written = self.writer.lock().sequence;
            return match std::mem::replace(seen, written) == written {
                true => self.settle(),
                false => Ok(()),
            };
        }
        let settling = self.settling.lock();
        let needed = {
            let mut turn = self.turn.lock();
            std::mem::take(&mut turn.wanted) && turn.free.is_empty()
        };
        if needed {
            // First: whoever writes the next group but one may need it, and settling takes longer.
            let another = self.another_segment().map_err(|e| self.fail(e))?;
            self.turn.lock().free.extend(another);
        }
        self.settle_next(&settling).map(drop)
    }
}

/// While it lives no journal is in use, and everything that is durable is so in its own file.
#[derive(Debug)]
pub struct Pause(Arc<Journal>);

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.writer.lock().paused -= 1;
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Journal({})", self.location.display())
    }
}

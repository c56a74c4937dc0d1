// SPDX-License-Identifier: Apache-2.0
//! The journal in use: groups are written by whoever commits, one at a time, and settled by a thread of its own.
//!
//! Locks are taken in this order: `writer`, `settling`, `turn`, then the epoch file.

use super::format::{encode_group, group_bytes, Header, JournalId, BLOCK_BYTES};
use super::gather::{Batch, Content, Gather, LogFile, Refused};
use super::redo;
use super::segments::{Segment, Settings, Unsettled};
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::Vfs;
use crate::wal::epoch_file::EpochFile;
use crate::wal::file_sync::PendingSync;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

/// What surrounds a journal. Calls may come from any thread and must not call back into the journal.
pub trait Host: Send + Sync {
    /// Makes durable what sessions refer to that were gathered before this call.
    fn before_group(&self) -> Result<()>;
    /// Says in the manifest, durably, that this journal is in use, or that none is.
    fn set_in_use(&self, journal: Option<&JournalId>) -> Result<()>;
    /// A failure in the background: nothing may be acknowledged from now on.
    fn failed(&self, error: Error);
}

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
    spare: Vec<u8>,
    group: Vec<u8>,
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
            spare: Vec::new(),
            group: Vec::new(),
        };
        Journal {
            vfs,
            location: location.to_owned(),
            gather: Gather::new(settings.unwritten_bytes_max(), settings.group_bytes_max()),
            settings,
            host,
            epoch_file,
            writer: Mutex::new(writer),
            settling: Mutex::default(),
            turn: Mutex::default(),
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

    /// A session with this many bytes is too large for the journal: see [`Self::add_synced`].
    pub fn large_bytes(&self) -> usize {
        self.settings.large_bytes()
    }

    /// Takes a session that has ended: `bytes` at `offset` of a file, with all before it, is what `written` is about.
    /// Returns whether it is time for a group, whatever epochs do. While too much is not yet in the journal the caller
    /// writes a group itself: it waits for the disk and for no other thread, so it may hold what others need.
    pub fn add(&self, file: &Arc<LogFile>, written: &PendingSync, offset: u64, bytes: &[u8]) -> Result<bool> {
        self.gather(file, written, offset, Content::Bytes(bytes))
    }

    /// Takes a session by name only, in the same way: `synced` was run.
    pub fn add_synced(&self, file: &Arc<LogFile>, synced: &PendingSync, offset: u64, len: u64) -> Result<bool> {
        self.gather(file, synced, offset, Content::Synced(len))
    }

    fn gather(&self, file: &Arc<LogFile>, written: &PendingSync, offset: u64, content: Content<'_>) -> Result<bool> {
        loop {
            match self.gather.add(file, written.changes, offset, content) {
                Ok(unwritten) => return Ok(unwritten >= self.settings.group_bytes_max()),
                Err(Refused::Full) => self.commit(None)?,
                Err(Refused::Closed) => {
                    self.check()?;
                    return Err(Error::WrongState("the commit journal is closed".to_owned()));
                }
            }
        }
    }

    /// Makes everything that was added before this call durable, and `epoch` if given, whose sessions it completes.
    pub fn commit(&self, epoch: Option<Epoch>) -> Result<()> {
        let mut writer = self.writer.lock();
        self.commit_locked(&mut writer, epoch)
    }

    /// Bytes that were added and are not yet in a group.
    pub fn unwritten_bytes(&self) -> usize {
        self.gather.unwritten()
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

    fn commit_locked(&self, writer: &mut Writer, epoch: Option<Epoch>) -> Result<()> {
        self.check()?;
        let batch = self.gather.take(std::mem::take(&mut writer.spare));
        let epoch = epoch.filter(|epoch| *epoch > writer.epoch);
        if batch.is_empty() && epoch.is_none() {
            writer.spare = batch.body;
            return Ok(());
        }
        self.write(writer, &batch, epoch).map_err(|e| self.fail(e))?;
        self.gather.written(&batch, writer.sequence);
        writer.spare = batch.body;
        writer.spare.clear();
        writer.spare.shrink_to(4 * self.settings.group_bytes_max());
        Ok(())
    }

    fn write(&self, writer: &mut Writer, batch: &Batch, epoch: Option<Epoch>) -> Result<()> {
        self.host.before_group()?;
        if writer.paused > 0 {
            writer.epoch = epoch.unwrap_or(writer.epoch);
            let files = batch.files.iter().map(|file| (Arc::as_ptr(file) as usize, file.clone())).collect();
            return self.settle_files(&Unsettled { files, last: writer.sequence, epoch: writer.epoch });
        }
        self.open(writer)?;
        let mut begin = 0;
        for &(end, pieces) in &batch.cuts {
            self.write_group(writer, &batch.body[begin..end], pieces, &batch.files)?;
            begin = end;
        }
        writer.epoch = epoch.unwrap_or(writer.epoch);
        self.write_group(writer, &batch.body[begin..], batch.pieces, &batch.files)?;
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

    fn write_group(&self, writer: &mut Writer, body: &[u8], pieces: u32, files: &[Arc<LogFile>]) -> Result<()> {
        let (bytes, size) = (group_bytes(body.len()) as u64, self.settings.segment_bytes());
        // The last block is for the word that the next segment is settled.
        if writer.current.as_ref().is_none_or(|segment| segment.used + bytes + BLOCK_BYTES as u64 > size) {
            self.turn(writer)?;
        }
        self.append(writer, body, pieces, files)?;
        if writer.current.as_ref().is_some_and(|segment| segment.used > size / 2) {
            self.prepare_ahead();
        }
        Ok(())
    }

    /// Appends a group to the current segment.
    fn append(&self, writer: &mut Writer, body: &[u8], pieces: u32, files: &[Arc<LogFile>]) -> Result<()> {
        let Writer { journal, current: Some(segment), sequence, epoch, group, .. } = writer else {
            return Err(Error::WrongState("the commit journal has no segment".to_owned()));
        };
        let (settled, next, epoch) = (self.settled.load(SeqCst), *sequence + 1, *epoch);
        encode_group(group, &Header { journal: *journal, sequence: next, settled, epoch, pieces }, body);
        segment.append(group, next)?;
        segment.unsettled.add(files, next, epoch);
        (writer.sequence, writer.settled) = (next, settled);
        Ok(())
    }

    /// Goes on in another segment. Before the first byte of an old one is overwritten the journal says, synced, that
    /// nothing of it is needed: a torn write takes old groups with it.
    fn turn(&self, writer: &mut Writer) -> Result<()> {
        let next = self.next_segment()?;
        if next.last > writer.settled {
            self.append(writer, &[], 0, &[])?;
        }
        if let Some(mut full) = writer.current.replace(next) {
            let unsettled = std::mem::take(&mut full.unsettled);
            self.retire(unsettled, Some(full));
        }
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
            let free = self.turn.lock().free.pop();
            if let Some(segment) = free {
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
        files.values().try_for_each(|file| file.sync())?;
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
            self.commit_locked(&mut writer, None)?;
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
            self.append(&mut writer, &[], 0, &[]).map_err(|e| self.fail(e))?;
        }
        Ok(())
    }

    /// As [`Self::settle`], if anything of this file is not settled.
    pub fn settle_file(&self, file: &LogFile) -> Result<()> {
        match file.last.load(SeqCst) > self.settled_for_good() {
            true => self.settle(),
            false => Ok(()),
        }
    }

    /// Groups up to this one are settled, and the journal says so.
    fn settled_for_good(&self) -> u64 {
        self.writer.lock().settled
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
        self.commit_locked(writer, None)?;
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
        self.settle_full()?;
        let _settling = self.settling.lock();
        let needed = {
            let mut turn = self.turn.lock();
            std::mem::take(&mut turn.wanted) && turn.free.is_empty()
        };
        if needed {
            let another = self.another_segment().map_err(|e| self.fail(e))?;
            self.turn.lock().free.extend(another);
        }
        Ok(())
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

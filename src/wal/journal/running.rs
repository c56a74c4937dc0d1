// SPDX-License-Identifier: Apache-2.0
//! The journal in use: groups are written by whoever commits, one at a time, and settled by a thread of its own.
//!
//! Locks are taken in the order of [`Rank`]: `writer`, those of the [`Settler`], then the epoch file.

use super::format::{group_bytes, JournalId, NewGroup, BLOCK_BYTES};
use super::gather::{Batch, Content, Fill, Gather, Gathered, LogFile, Refused};
use super::pace::{Pace, PATIENCE};
use super::segments::{Segment, Settings, Unsettled};
use super::settler::{Settler, Work};
use super::{host::Host, redo};
use crate::error::{catch_panic, Error, Result};
use crate::lock_order::{Mutex, Rank};
use crate::types::Epoch;
use crate::vfs::Vfs;
use crate::wal::epoch_file::EpochFile;
use crate::wal::file_sync::PendingSync;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// A journal; it begins with its first group. After an error it refuses everything.
pub struct Journal {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    settings: Settings,
    host: Arc<dyn Host>,
    gather: Gather,
    writer: Mutex<Writer>,
    settler: Settler,
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
            gather: Gather::new(settings.group_bytes_max(), settings.enough_bytes_max()),
            settler: Settler::new(vfs.clone(), location, settings, epoch_file),
            vfs,
            location: location.to_owned(),
            settings,
            host,
            writer: Mutex::new(Rank::JournalWriter, writer),
            thread: Mutex::default(),
        }
    }

    /// Starts the thread that settles, if there is to be one.
    pub fn start(self: &Arc<Self>) -> Result<()> {
        if !self.settings.has_thread() {
            return Ok(());
        }
        let journal = self.clone();
        let thread =
            std::thread::Builder::new().name("lstone_settle".to_owned()).spawn(move || journal.settle_in_background());
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
        self.settler.check()
    }

    /// Refuses everything from now on, because something has failed that is no part of it.
    pub fn refuse(&self, reason: &str) {
        self.settler.refuse(reason);
        self.gather.close();
    }

    fn fail(&self, error: Error) -> Error {
        self.refuse(&error.cause());
        error
    }

    /// Writes to the journal: an error or a panic on the way stops it.
    fn guarded(&self, write: impl FnOnce() -> Result<()>) -> Result<()> {
        catch_panic("who writes to the commit journal", write).and_then(|written| written).map_err(|e| self.fail(e))
    }

    fn commit_locked(&self, writer: &mut Writer) -> Result<()> {
        self.check()?;
        let mut batch = self.gather.take(std::mem::take(&mut writer.spare), writer.pace.bytes_max());
        if !batch.group.is_empty() || batch.epoch > writer.epoch {
            writer.epoch = batch.epoch;
            // Others wait for the group, whoever writes it.
            self.guarded(|| self.write(writer, &mut batch))?;
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
            return self.settler.settle_files(&unsettled);
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
            self.settler.begin_behind(writer.sequence);
            writer.current = self.settler.another_segment()?;
            self.host.set_in_use(Some(&writer.journal))?;
            writer.open = true;
        }
        Ok(())
    }

    /// Appends a group to the current segment.
    fn append(&self, writer: &mut Writer, group: &mut NewGroup, files: &[Gathered]) -> Result<()> {
        let Writer { journal, current: Some(segment), sequence, epoch, .. } = writer else {
            return Err(Error::WrongState("the commit journal has no segment".to_owned()));
        };
        let (settled, next, epoch) = (self.settler.settled(), *sequence + 1, *epoch);
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
        let next = self.settler.next_segment()?;
        if next.last > writer.settled {
            self.append_settled(writer)?;
        }
        if let Some(mut full) = writer.current.replace(next) {
            let unsettled = std::mem::take(&mut full.unsettled);
            self.settler.retire(unsettled, Some(full));
        }
        self.settler.prepare_ahead();
        Ok(())
    }

    /// Lets what is in the current segment be settled while it is in use.
    fn retire_unsettled(&self, writer: &mut Writer) {
        if let Some(segment) = &mut writer.current {
            self.settler.retire(std::mem::take(&mut segment.unsettled), None);
        }
    }

    fn settle_full(&self) -> Result<()> {
        self.settler.settle_full().map_err(|e| self.fail(e))
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
            self.guarded(|| self.append_settled(&mut writer))?;
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
        self.gather.close();
        self.settler.end();
        if let Some(thread) = self.thread.lock().take() {
            // Its panics are caught.
            let _ = thread.join();
        }
        self.put_away(&mut self.writer.lock())
    }

    fn put_away(&self, writer: &mut Writer) -> Result<()> {
        self.commit_locked(writer)?;
        self.retire_unsettled(writer);
        self.settle_full()?;
        if std::mem::take(&mut writer.open) {
            let delete = || self.host.set_in_use(None).and_then(|()| redo::delete(&*self.vfs, &self.location));
            self.guarded(|| self.settler.put_away(delete))?;
            writer.current = None;
            writer.settled = writer.sequence;
        }
        Ok(())
    }

    fn settle_in_background(&self) {
        let settled = catch_panic("the thread that settles the commit journal", || self.settle_ahead());
        if let Err(error) = settled.and_then(|settled| settled) {
            self.host.failed(self.fail(error));
        }
    }

    /// Settles full segments, prepares others, and settles all when nothing was written for a while, until the end.
    fn settle_ahead(&self) -> Result<()> {
        let mut seen = 0;
        loop {
            match self.settler.wait(self.settings.idle_time()) {
                Work::Ended => return Ok(()),
                Work::Idle => self.settle_if_idle(&mut seen)?,
                Work::Segments => self.settler.work()?,
            }
        }
    }

    /// Settles all if nothing was written since the group `seen`.
    fn settle_if_idle(&self, seen: &mut u64) -> Result<()> {
        let written = self.writer.lock().sequence;
        match std::mem::replace(seen, written) == written {
            true => self.settle(),
            false => Ok(()),
        }
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

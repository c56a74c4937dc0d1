// SPDX-License-Identifier: Apache-2.0
//! Settles what groups have made durable and keeps the segments that nobody writes to.
//!
//! Locks are taken in the order of [`Rank`]: `settling`, `turn`, then the epoch file.

use super::gather::Gathered;
use super::segments::{Segment, Settings, Unsettled};
use crate::error::{catch_panic, Error, Result};
use crate::lock_order::{Condvar, Mutex, MutexGuard, Rank};
use crate::types::Epoch;
use crate::vfs::Vfs;
use crate::wal::epoch_file::EpochFile;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Settles the oldest groups first; may be asked by several threads. After an error it refuses everything.
pub(super) struct Settler {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    settings: Settings,
    epoch_file: Arc<Mutex<EpochFile>>,
    /// Held by whoever settles.
    settling: Mutex<()>,
    turn: Mutex<Turn>,
    /// There is something to settle or to prepare, or the end has come.
    work: Condvar,
    /// Groups up to this one are settled.
    settled: AtomicU64,
    failure: OnceLock<String>,
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

/// What the thread that settles has waited for.
pub(super) enum Work {
    /// Something is to be settled or prepared: [`Settler::work`].
    Segments,
    /// There was nothing for as long as it was to wait.
    Idle,
    Ended,
}

impl Settler {
    pub(super) fn new(
        vfs: Arc<dyn Vfs>,
        location: &Path,
        settings: Settings,
        epoch_file: Arc<Mutex<EpochFile>>,
    ) -> Settler {
        Settler {
            vfs,
            location: location.to_owned(),
            settings,
            epoch_file,
            settling: Mutex::new(Rank::Settling, ()),
            turn: Mutex::new(Rank::JournalTurn, Turn::default()),
            work: Condvar::new(),
            settled: AtomicU64::new(0),
            failure: OnceLock::new(),
        }
    }

    /// Fails when something has failed before.
    pub(super) fn check(&self) -> Result<()> {
        match self.failure.get() {
            Some(failure) => Err(Error::Poisoned(failure.clone())),
            None => Ok(()),
        }
    }

    /// Refuses everything from now on; the first reason counts.
    pub(super) fn refuse(&self, reason: &str) {
        let _ = self.failure.set(reason.to_owned());
        self.work.notify_all();
    }

    fn fail(&self, error: Error) -> Error {
        self.refuse(&error.cause());
        error
    }

    /// The sequence of the last group that is settled, with all before it.
    pub(super) fn settled(&self) -> u64 {
        self.settled.load(SeqCst)
    }

    /// A use of the journal begins behind this group.
    pub(super) fn begin_behind(&self, sequence: u64) {
        self.settled.store(sequence, SeqCst);
    }

    /// Makes another segment, if there may be one.
    pub(super) fn another_segment(&self) -> Result<Option<Segment>> {
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

    /// A segment all of which is settled; settles the oldest when there may be no more.
    pub(super) fn next_segment(&self) -> Result<Segment> {
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

    /// Lets the thread that settles make another segment when none is free.
    pub(super) fn prepare_ahead(&self) {
        let mut turn = self.turn.lock();
        if turn.free.is_empty() && !turn.wanted {
            turn.wanted = true;
            self.work.notify_all();
        }
    }

    /// Lets this be settled in its turn, and the segment be used again afterwards.
    pub(super) fn retire(&self, unsettled: Unsettled, segment: Option<Segment>) {
        self.turn.lock().full.push_back((unsettled, segment));
        self.work.notify_all();
    }

    /// Settles the oldest that is to be settled, if any.
    fn settle_next(&self, _settling: &MutexGuard<'_, ()>) -> Result<bool> {
        self.check()?;
        let Some((unsettled, segment)) = self.turn.lock().full.pop_front() else {
            return Ok(false);
        };
        // What comes next must not count as settled with it.
        let settled = catch_panic("who settles the commit journal", || self.settle_files(&unsettled));
        settled.and_then(|settled| settled).map_err(|e| self.fail(e))?;
        self.settled.fetch_max(unsettled.last, SeqCst);
        if let Some(mut segment) = segment {
            segment.used = 0;
            self.turn.lock().free.push(segment);
        }
        Ok(true)
    }

    /// Syncs the files and their names first, then records the epoch that they make durable.
    pub(super) fn settle_files(&self, Unsettled { files, epoch, .. }: &Unsettled) -> Result<()> {
        files.values().try_for_each(|Gathered { file, changes }| file.sync(*changes))?;
        match epoch {
            Epoch(0) => Ok(()),
            epoch => self.epoch_file.lock().record(*epoch),
        }
    }

    /// Settles all that was retired before this call.
    pub(super) fn settle_full(&self) -> Result<()> {
        while self.settle_next(&self.settling.lock())? {}
        // Another thread may be at work on the last one.
        drop(self.settling.lock());
        self.check()
    }

    /// Forgets the segments; `delete` deletes them, and nobody prepares one meanwhile.
    pub(super) fn put_away(&self, delete: impl FnOnce() -> Result<()>) -> Result<()> {
        let _settling = self.settling.lock();
        delete()?;
        let mut turn = self.turn.lock();
        *turn = Turn { ended: turn.ended, ..Turn::default() };
        Ok(())
    }

    /// Nobody waits for work any more.
    pub(super) fn end(&self) {
        self.turn.lock().ended = true;
        self.work.notify_all();
    }

    /// Waits for work, at most `idle` if there is a bound.
    pub(super) fn wait(&self, idle: Option<Duration>) -> Work {
        let mut turn = self.turn.lock();
        loop {
            if turn.ended || self.failure.get().is_some() {
                return Work::Ended;
            }
            if !turn.full.is_empty() || turn.wanted {
                return Work::Segments;
            }
            match idle {
                Some(time) if self.work.wait_for(&mut turn, time).timed_out() => return Work::Idle,
                Some(_) => {}
                None => self.work.wait(&mut turn),
            }
        }
    }

    /// Prepares a segment that was wanted, and settles the oldest that is full.
    pub(super) fn work(&self) -> Result<()> {
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

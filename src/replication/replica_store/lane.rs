// SPDX-License-Identifier: Apache-2.0
//! The log file of one lane: whole sessions one after the other, appended as they arrive. Small ones are gathered
//! before they are written. A sync holds nobody up who appends meanwhile. With a commit journal what has ended is
//! handed over to it, and counts as synced here: whoever records an epoch writes the group.

use super::held_back::{Held, HeldBack};
use super::sessions::{rescan, Beyond, Changes, Sessions};
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::lock_order::{Mutex, MutexGuard, Rank};
use crate::types::Epoch;
use crate::vfs::Open;
use crate::wal::journal::LogFile;
use crate::wal::names;
use crate::wal::session_file::{Ended, OldContent, SessionFile};
use crate::wal::sessions::SessionCheck;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// With so much in one sync the replica is catching up, and the log must not take the memory of everything else.
const BULK_BYTES: u64 = 4 << 20;
/// So much that has ended is handed over to the journal while it is in memory.
const HAND_OVER_BYTES: u64 = 64 << 10;

/// Appends the sessions of one lane to `pwal_NNNN`. Calls may come from any thread; frames come in order.
#[derive(Debug)]
pub struct LaneLog {
    shared: Arc<Shared>,
    path: PathBuf,
    /// Held by whoever syncs what has been appended: what one has begun to sync, the next one takes for synced. To be
    /// locked before `writer`.
    turn: Mutex<()>,
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    file: SessionFile,
    open: Option<OpenSession>,
    /// The smallest epoch of the ended sessions that no sync has begun for.
    unsynced: Option<Epoch>,
    /// The smallest epoch of those that are being synced.
    syncing: Option<Epoch>,
    /// What has ended and was not handed over to the journal.
    ended: Option<Ended>,
    /// The file as the journal knows it.
    journaled: Option<Arc<LogFile>>,
    sessions: Sessions,
    held_back: HeldBack,
}

#[derive(Debug)]
struct OpenSession {
    epoch: Epoch,
    start: u64,
    check: SessionCheck,
}

impl LaneLog {
    pub(super) fn new(shared: Arc<Shared>, lane: u32) -> LaneLog {
        let path = shared.location.join(names::log_of_channel(lane as usize));
        let file = SessionFile::new(shared.vfs.clone(), path.clone(), shared.names.clone());
        let (open, unsynced, syncing, ended, journaled) = (None, None, None, None, None);
        let (sessions, held_back) = (Sessions::default(), HeldBack::default());
        let writer = Writer { file, open, unsynced, syncing, ended, journaled, sessions, held_back };
        LaneLog { shared, path, turn: Mutex::new(Rank::LaneTurn, ()), writer: Mutex::new(Rank::LaneWriter, writer) }
    }

    /// Appends a piece of a session's bytes as they stand in a log file. `first` and `last` say whether the session
    /// begins and ends with it. Nothing is durable before [`Self::sync`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the bytes are not a session of that epoch; then nothing was written.
    pub fn append(&self, epoch: Epoch, first: bool, last: bool, bytes: &[u8]) -> Result<()> {
        self.shared.check()?;
        if first && bytes.is_empty() {
            return Err(self.wrong(format!("a session of epoch {epoch} begins with an empty piece")));
        }
        loop {
            let mut writer = self.writer.lock();
            self.let_in(&mut writer)?;
            let unfinished = writer.held_back.unfinished();
            let is_held_back = if first { self.shared.gate.is_closed_for(epoch) } else { unfinished.is_some() };
            if unfinished.is_some_and(|open| first || open != epoch) {
                return Err(self.wrong(format!("a piece of epoch {epoch} inside another session")));
            }
            if !is_held_back {
                return self.write(&mut writer, epoch, (first, last), bytes);
            }
            if writer.held_back.push(epoch, (first, last), bytes) {
                return Ok(());
            }
            drop(writer);
            self.shared.gate.wait(epoch);
        }
    }

    /// Writes what was held back and is so no more, unless a session is open: then whoever writes its end, or comes
    /// next, does that.
    fn let_in(&self, writer: &mut Writer) -> Result<()> {
        let may_begin = |epoch| !self.shared.gate.is_closed_for(epoch);
        while writer.open.is_none() {
            let Some(Held { epoch, bytes, ended }) = writer.held_back.next(may_begin) else { break };
            self.write(writer, epoch, (true, ended), &bytes)?;
        }
        Ok(())
    }

    /// Lets what is committed with this epoch into the log, behind a cut when that cannot move.
    fn let_in_up_to(&self, epoch: Epoch) -> Result<()> {
        loop {
            let mut writer = self.writer.lock();
            self.let_in(&mut writer)?;
            let Some(lowest) = writer.held_back.lowest().filter(|lowest| *lowest <= epoch) else { return Ok(()) };
            if writer.open.is_some() {
                return Err(self.wrong(format!("epoch {epoch} is committed while a session is unended")));
            }
            drop(writer);
            if !self.shared.gate.move_behind(epoch) {
                self.shared.gate.wait(lowest);
            }
        }
    }

    fn write(&self, writer: &mut Writer, epoch: Epoch, (first, last): (bool, bool), bytes: &[u8]) -> Result<()> {
        match (&mut writer.open, first) {
            (Some(open), true) => {
                let message = format!("a session of epoch {epoch} begins inside one of epoch {}", open.epoch);
                return Err(self.wrong(message));
            }
            (Some(open), false) if open.epoch != epoch => {
                let message = format!("a piece of epoch {epoch} inside a session of epoch {}", open.epoch);
                return Err(self.wrong(message));
            }
            // What was written of it stays unended and is cut off by the discard at the end of the connection.
            (Some(open), false) => self.feed(open, last, bytes)?,
            (None, true) => {
                let mut open = OpenSession { epoch, start: 0, check: SessionCheck::new(epoch) };
                self.feed(&mut open, last, bytes)?;
                self.begin(writer, open)?;
            }
            (None, false) => return Err(self.wrong(format!("a session of epoch {epoch} goes on that never began"))),
        }
        writer.file.append(bytes).map_err(|e| self.shared.fail(e))?;
        if last {
            let ended = writer.file.end().map_err(|e| self.shared.fail(e))?.with_mark();
            writer.open = None;
            writer.unsynced = Some(writer.unsynced.map_or(epoch, |unsynced| unsynced.min(epoch)));
            if self.shared.journal.is_some() {
                let ended = writer.ended.map_or(ended, |first| first.through(ended));
                writer.ended = Some(ended);
                if ended.len >= HAND_OVER_BYTES {
                    self.hand_over_small(writer)?;
                }
            }
        }
        Ok(())
    }

    /// Hands over to the journal what has ended, unless that costs a sync or somebody is at it. Never waits for the
    /// disk, but when too much is not yet in the journal.
    fn hand_over_small(&self, writer: &mut Writer) -> Result<()> {
        let (Some(journal), Some(ended), Some(_turn)) = (&self.shared.journal, writer.ended, self.turn.try_lock())
        else {
            return Ok(());
        };
        if !journal.is_by_name(ended) {
            let added = journal.add_ended(&mut writer.file, ended, &mut writer.journaled);
            added.map_err(|e| self.shared.fail(e))?;
            (writer.ended, writer.unsynced) = (None, None);
        }
        Ok(())
    }

    /// Hands over to the journal what has ended; what it takes by name only is synced, while others may append.
    /// Without a journal this does nothing.
    pub(super) fn hand_over(&self) -> Result<()> {
        self.hand_over_in_turn(&self.turn.lock())
    }

    fn hand_over_in_turn(&self, _turn: &MutexGuard<'_, ()>) -> Result<()> {
        let Some(journal) = &self.shared.journal else { return Ok(()) };
        self.shared.check()?;
        let mut writer = self.writer.lock();
        let Some(ended) = writer.ended.take() else { return Ok(()) };
        let Writer { file, journaled, .. } = &mut *writer;
        if !journal.is_by_name(ended) {
            journal.add_ended(file, ended, journaled).map_err(|e| self.shared.fail(e))?;
            writer.unsynced = None;
            return Ok(());
        }
        let Some(pending) = file.start_sync().map_err(|e| self.shared.fail(e))? else { return Ok(()) };
        writer.syncing = writer.unsynced.take();
        drop(writer);
        pending.run().map_err(|e| self.shared.fail(e))?;
        pending.release_cache(BULK_BYTES);
        let mut writer = self.writer.lock();
        let Writer { file, journaled, .. } = &mut *writer;
        journal.add_by_name(file, &pending, ended, journaled).map_err(|e| self.shared.fail(e))?;
        writer.syncing = None;
        Ok(())
    }

    /// Whether what has ended goes into a commit journal.
    pub fn has_journal(&self) -> bool {
        self.shared.journal.is_some()
    }

    /// Does for a COMMIT of `epoch` what costs no sync; whether [`StandbyStore::record`] is all that is left.
    ///
    /// [`StandbyStore::record`]: super::StandbyStore::record
    pub fn prepare(&self, epoch: Epoch) -> Result<bool> {
        self.shared.check()?;
        self.let_in_up_to(epoch)?;
        self.hand_over_small(&mut self.writer.lock())?;
        Ok(self.is_synced_up_to(epoch))
    }

    /// Checks that the session goes on with these bytes.
    fn feed(&self, open: &mut OpenSession, last: bool, bytes: &[u8]) -> Result<()> {
        let epoch = open.epoch;
        let fed = open.check.feed(bytes).and_then(|()| match open.check.is_whole() == last {
            true => Ok(()),
            false if last => Err(format!("the session of epoch {epoch} has no end marker")),
            false => Err(format!("the session of epoch {epoch} ends before its last piece")),
        });
        fed.map_err(|message| self.wrong(message))
    }

    fn begin(&self, writer: &mut Writer, open: OpenSession) -> Result<()> {
        // The directory is put right, so an old file ends with an ended session.
        writer.file.open(OldContent::Append).map_err(|e| self.shared.fail(e))?;
        let start = writer.file.begin(open.epoch <= self.shared.covered()).map_err(|e| self.shared.fail(e))?;
        writer.sessions.begin(start, open.epoch, self.shared.recorded());
        writer.open = Some(OpenSession { start, ..open });
        Ok(())
    }

    /// All sessions that have ended are on the disk when this returns, but for those that a cut of the log holds back.
    pub fn sync(&self) -> Result<()> {
        self.sync_in_turn(&self.turn.lock())
    }

    fn sync_in_turn(&self, turn: &MutexGuard<'_, ()>) -> Result<()> {
        // Whoever had the turn before may have failed.
        self.shared.check()?;
        if let Some(journal) = &self.shared.journal {
            self.hand_over_in_turn(turn)?;
            return journal.commit(None).map_err(|e| self.shared.fail(e));
        }
        let pending = {
            let mut writer = self.writer.lock();
            // What has come of a session that has not ended is synced too, so that its end has not all to wait for.
            if writer.unsynced.is_none() && writer.open.is_none() {
                return Ok(());
            }
            writer.syncing = writer.unsynced.take();
            writer.file.start_sync().map_err(|e| self.shared.fail(e))?
        };
        if let Some(pending) = pending {
            pending.run().map_err(|e| self.shared.fail(e))?;
            pending.release_cache(BULK_BYTES);
        }
        self.writer.lock().syncing = None;
        Ok(())
    }

    /// Whether every session with an epoch up to `epoch` that has ended is on the disk, or was handed over. Never
    /// waits.
    pub fn is_synced_up_to(&self, epoch: Epoch) -> bool {
        let writer = self.writer.lock();
        // After a failure `syncing` stays.
        let smallest = [writer.unsynced, writer.syncing, writer.held_back.lowest()].into_iter().flatten().min();
        smallest.is_none_or(|smallest| smallest > epoch) && writer.open.as_ref().is_none_or(|open| open.epoch > epoch)
    }

    /// Makes every session with an epoch up to `epoch` durable, or a part of the journal's next group.
    pub fn sync_up_to(&self, epoch: Epoch) -> Result<()> {
        if self.is_synced_up_to(epoch) {
            return self.shared.check();
        }
        self.let_in_up_to(epoch)?;
        // A sync that began before ends before.
        let turn = self.turn.lock();
        self.shared.check()?;
        let unsynced = {
            let writer = self.writer.lock();
            if let Some(open) = writer.open.as_ref().filter(|open| open.epoch <= epoch) {
                let message = format!("epoch {epoch} is committed while a session of epoch {} is unended", open.epoch);
                return Err(self.wrong(message));
            }
            writer.unsynced
        };
        match unsynced {
            Some(unsynced) if unsynced <= epoch && self.shared.journal.is_none() => self.sync_in_turn(&turn),
            _ => self.hand_over_in_turn(&turn),
        }
    }

    /// Whether sessions beyond the epoch record were appended whose epochs are not beyond `epoch`.
    pub(super) fn has_sessions_up_to(&self, epoch: Epoch) -> bool {
        self.writer.lock().sessions.any_up_to(epoch)
    }

    /// The epoch record says `epoch` now.
    pub(super) fn recorded(&self, epoch: Epoch) {
        self.writer.lock().sessions.recorded(epoch);
    }

    /// Takes away every session beyond the durable epoch and what has not ended, durably. Nothing is appended behind
    /// marked sessions: the file gets a rotated name then.
    pub(super) fn discard(&self) -> Result<()> {
        let durable = self.shared.recorded();
        let _turn = self.turn.lock();
        let mut writer = self.writer.lock();
        writer.held_back.clear();
        let Writer { file, open, sessions, .. } = &mut *writer;
        let Some(written) = file.end_offset() else {
            return Ok(());
        };
        file.flush()?;
        let mut end = written;
        if let Some(open) = open.take() {
            end = open.start;
            sessions.forget_from(open.start);
        }
        let beyond = self.beyond(file, sessions, end, durable)?;
        *sessions = Sessions::default();
        end = beyond.cut_at.unwrap_or(end);
        if end == written && beyond.marks.is_empty() {
            return Ok(());
        }
        file.discard(end, &beyond.marks)?;
        (writer.unsynced, writer.syncing, writer.ended) = (None, None, None);
        log::info!(
            "\"{}\": discarded what came behind epoch {durable}: cut at {end}, {} sessions marked",
            self.path.display(),
            beyond.marks.len()
        );
        match beyond.marks.is_empty() {
            true => Ok(()),
            false => {
                self.shared.count_renamed();
                writer.file.rotate()
            }
        }
    }

    /// The last epoch of its sessions beyond the durable epoch.
    pub(super) fn highest(&self) -> Option<Epoch> {
        self.writer.lock().sessions.highest()
    }

    /// Whether no session is open and none is beyond the durable epoch.
    pub(super) fn is_recorded(&self) -> bool {
        let writer = self.writer.lock();
        writer.open.is_none() && writer.ended.is_none() && writer.sessions.highest().is_none()
    }

    /// Gives the file a rotated name. All in it is recorded, and settled where there is a journal.
    pub(super) fn rotate(&self) -> Result<()> {
        let _turn = self.turn.lock();
        let mut writer = self.writer.lock();
        match writer.file.end_offset() {
            Some(_) => writer.file.rotate(),
            None => Ok(()),
        }
    }

    /// What of the sessions up to `end` is beyond the durable epoch.
    fn beyond(&self, file: &SessionFile, sessions: &Sessions, end: u64, durable: Epoch) -> Result<Changes> {
        match (sessions.beyond(durable), file.ended()) {
            (Beyond::Known(beyond), _) => Ok(beyond),
            (Beyond::RescanFrom(offset), Some((file, _))) => rescan(&*file, offset, end, durable, &self.path),
            (Beyond::RescanFrom(_), None) => Ok(Changes::default()),
        }
    }

    /// See [`StandbyStore::settled_bytes`](super::StandbyStore::settled_bytes): all before the first session that is
    /// beyond the durable epoch, or open.
    pub(super) fn settled_bytes(&self) -> u64 {
        let writer = self.writer.lock();
        let open = writer.open.as_ref().map(|open| open.start);
        open.into_iter().chain(writer.sessions.first()).min().unwrap_or(u64::MAX)
    }

    /// The bytes of the file that are durable and in it; [`Self::discard`] leaves at least them. For whoever has paused
    /// the journal.
    pub(super) fn durable_bytes(&self) -> Result<u64> {
        let durable = self.shared.recorded();
        let _turn = self.turn.lock();
        let mut writer = self.writer.lock();
        let Some(written) = writer.file.end_offset() else {
            let len = || self.shared.vfs.open(&self.path, Open::Read)?.len();
            return len().map_err(|e| Error::io("cannot open", &self.path, e));
        };
        writer.file.flush().map_err(|e| self.shared.fail(e))?;
        let end = writer.open.as_ref().map_or(written, |open| open.start);
        Ok(self.beyond(&writer.file, &writer.sessions, end, durable)?.cut_at.unwrap_or(end))
    }

    /// The file that sessions are appended to; it may not exist yet.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn wrong(&self, what: String) -> Error {
        Error::InvalidArgument(format!("{what} (for \"{}\")", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::fixture::session;
    use crate::replication::replica_store::StandbyStore;
    use crate::vfs::{Fault, SimFs};
    use crate::wal::sessions::Origin;

    #[test]
    fn an_epoch_is_synced_when_all_its_ended_sessions_are_and_none_is_open() {
        let fs = SimFs::new();
        let store = StandbyStore::open(Arc::new(fs.clone()), Path::new("/log")).unwrap();
        let log = store.lane(0);
        assert!(log.is_synced_up_to(Epoch(9)), "there is nothing");
        log.append(Epoch(5), true, true, &session(5, &[])).unwrap();
        assert!(!log.is_synced_up_to(Epoch(5)) && log.is_synced_up_to(Epoch(4)));
        log.sync().unwrap();
        assert!(log.is_synced_up_to(Epoch(9)));
        let bytes = session(7, &[]);
        log.append(Epoch(7), true, false, &bytes[..9]).unwrap();
        log.sync().unwrap();
        assert!(!log.is_synced_up_to(Epoch(7)) && log.is_synced_up_to(Epoch(6)), "it is open");
        log.append(Epoch(7), false, true, &bytes[9..]).unwrap();
        log.sync_up_to(Epoch(7)).unwrap();
        assert!(log.is_synced_up_to(Epoch(7)));
    }

    #[test]
    fn what_may_still_be_cut_off_is_not_settled() {
        let fs = SimFs::new();
        let store = StandbyStore::open(Arc::new(fs.clone()), Path::new("/log")).unwrap();
        let settled = || store.settled_bytes("pwal_0000");
        let log = store.lane(0);
        assert_eq!(settled(), u64::MAX, "nobody appends");
        log.append(Epoch(5), true, true, &session(5, &[])).unwrap();
        assert_eq!(settled(), 0);
        store.record(Epoch(5)).unwrap();
        assert_eq!(settled(), u64::MAX);
        let end = fs.files()[log.path()].len() as u64;
        for (first, last, bytes) in [(true, true, session(7, &[])), (true, false, session(7, &[])[..9].to_vec())] {
            log.append(Epoch(7), first, last, &bytes).unwrap();
            let mark = Origin::Ours.mark().len() as u64;
            assert!((end..=end + mark).contains(&settled()), "{}", settled());
        }
        assert_eq!(store.settled_bytes("pwal_0000.00000000000001.0"), u64::MAX);
    }

    #[test]
    fn what_a_failed_sync_may_have_lost_never_counts_as_synced() {
        let fs = SimFs::new();
        let store = StandbyStore::open(Arc::new(fs.clone()), Path::new("/log")).unwrap();
        let log = store.lane(0);
        log.append(Epoch(5), true, true, &session(5, &[])).unwrap();
        // The first call writes, the second syncs.
        fs.fail_at(fs.operations() + 1, Fault::SyncLoses);
        assert!(matches!(log.sync(), Err(Error::Io { .. })));
        assert!(!log.is_synced_up_to(Epoch(5)));
        let before = fs.operations();
        assert!(matches!(log.sync_up_to(Epoch(5)), Err(Error::Poisoned(_))));
        assert!(matches!(store.record(Epoch(5)), Err(Error::Poisoned(_))));
        assert_eq!((fs.operations(), store.durable()), (before, Epoch(0)), "nothing is tried again");
    }

    #[test]
    fn small_sessions_are_written_together_and_all_of_them_before_a_sync() {
        let fs = SimFs::new();
        let store = StandbyStore::open(Arc::new(fs.clone()), Path::new("/log")).unwrap();
        let log = store.lane(0);
        log.append(Epoch(5), true, true, &session(5, &[])).unwrap();
        let before = fs.operations();
        for _ in 0..1000 {
            log.append(Epoch(5), true, true, &session(5, &[])).unwrap();
        }
        assert_eq!(fs.operations(), before);
        log.sync().unwrap();
        let expected = [session(5, &[]), Origin::Ours.mark(), session(5, &[]).repeat(1000)].concat();
        assert!(fs.files()[log.path()] == expected);
    }
}

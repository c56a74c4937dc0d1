// SPDX-License-Identifier: Apache-2.0
//! The log file of one lane: whole sessions one after the other, appended as they arrive. Small ones are gathered before
//! they are written. A sync holds nobody up who appends meanwhile.

use super::session_check::SessionCheck;
use super::sessions::{rescan, Beyond, Sessions};
use super::Shared;
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::{crashsafe, Open, VfsFile};
use crate::wal::entry::tag;
use crate::wal::names;
use parking_lot::{Mutex, MutexGuard};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// With so much the buffer is written; a sync writes it in any case. Larger writes cost more: the system gives the file
/// large pages for them, which are seldom at hand.
const BUFFER_BYTES: usize = 128 << 10;

/// With so much in one sync the replica is catching up, and the log must not take the memory of everything else.
const BULK_BYTES: u64 = 4 << 20;

/// Appends the sessions of one lane to `pwal_NNNN`. Calls may come from any thread; frames come in order.
#[derive(Debug)]
pub struct LaneLog {
    shared: Arc<Shared>,
    path: PathBuf,
    /// Held by whoever syncs: the system reports a failure to one of several callers only, so the others must not take
    /// their success for that of the data. To be locked before `writer`.
    turn: Mutex<()>,
    writer: Mutex<Writer>,
}

#[derive(Debug, Default)]
struct Writer {
    file: Option<LogFile>,
    open: Option<OpenSession>,
    /// The smallest epoch of the ended sessions that no sync has begun for.
    unsynced: Option<Epoch>,
    /// The smallest epoch of those that are being synced.
    syncing: Option<Epoch>,
    sessions: Sessions,
}

#[derive(Debug)]
struct LogFile {
    file: Arc<dyn VfsFile>,
    /// A sync has begun for what is before.
    synced: u64,
    written: u64,
    /// Comes behind what is written.
    buffer: Vec<u8>,
    /// The name is not durable yet.
    unnamed: bool,
}

impl LogFile {
    fn len(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < BUFFER_BYTES {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.file.write_at(self.written, &self.buffer)?;
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

#[derive(Debug)]
struct OpenSession {
    epoch: Epoch,
    start: u64,
    /// The epoch record covers it already: it must not count before it is whole, so its begin marker is an
    /// invalidated one until then.
    covered: bool,
    check: SessionCheck,
}

impl LaneLog {
    pub(super) fn new(shared: Arc<Shared>, lane: u32) -> LaneLog {
        let path = shared.location.join(names::log_of_channel(lane as usize));
        LaneLog { shared, path, turn: Mutex::default(), writer: Mutex::default() }
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
        let mut writer = self.writer.lock();
        // The end of such a session syncs; this is the only caller that appends.
        let covered =
            if first { epoch <= self.shared.covered() } else { writer.open.as_ref().is_some_and(|o| o.covered) };
        let _turn = match covered && last {
            true => Some(MutexGuard::unlocked(&mut writer, || self.turn.lock())),
            false => None,
        };
        let writer = &mut *writer;
        let start = match (&writer.file, first) {
            (Some(file), _) => file.len(),
            (None, true) => {
                let file = self.open_file().map_err(|e| self.shared.fail(e))?;
                writer.file.insert(file).len()
            }
            (None, false) => 0,
        };
        let new = match (&writer.open, first) {
            (None, true) => {
                let check = SessionCheck::new(epoch);
                Some(OpenSession { epoch, start, covered, check })
            }
            (Some(_), false) => None,
            (Some(open), true) => {
                return Err(self.wrong(format!("a session of epoch {epoch} begins inside one of epoch {}", open.epoch)))
            }
            (None, false) => return Err(self.wrong(format!("a session of epoch {epoch} goes on that never began"))),
        };
        let begins = new.is_some();
        let Writer { file: Some(file), open, .. } = &mut *writer else {
            return Err(self.wrong("no file is open".to_owned()));
        };
        let mut session = match new.or_else(|| open.take()) {
            Some(session) if session.epoch == epoch => session,
            Some(session) => {
                let message = format!("a piece of epoch {epoch} inside a session of epoch {}", session.epoch);
                *open = Some(session);
                return Err(self.wrong(message));
            }
            None => return Err(self.wrong("no session is open".to_owned())),
        };
        let fed = session.check.feed(bytes).and_then(|()| match session.check.is_whole() == last {
            true => Ok(()),
            false if last => Err(format!("the session of epoch {epoch} has no end marker")),
            false => Err(format!("the session of epoch {epoch} ends before its last piece")),
        });
        let Err(message) = fed else {
            let marked = begins && session.covered;
            self.write(file, marked, bytes)
                .map_err(|e| self.shared.fail(Error::io("cannot write to", &self.path, e)))?;
            if begins {
                writer.sessions.begin(session.start, epoch, self.shared.recorded());
            }
            return match last {
                true => self.end(writer, session).map_err(|e| self.shared.fail(e)),
                false => {
                    writer.open = Some(session);
                    Ok(())
                }
            };
        };
        // What was written of it stays unended and is cut off by the discard at the end of the connection.
        writer.open = (!begins).then_some(session);
        Err(self.wrong(message))
    }

    fn write(&self, file: &mut LogFile, marked: bool, bytes: &[u8]) -> io::Result<()> {
        match bytes.split_first() {
            Some((_, rest)) if marked => {
                file.append(&[tag::INVALIDATED])?;
                file.append(rest)
            }
            _ => file.append(bytes),
        }
    }

    fn end(&self, writer: &mut Writer, session: OpenSession) -> Result<()> {
        if session.covered {
            let Some(file) = &mut writer.file else {
                return Err(self.wrong("no file is open".to_owned()));
            };
            let written = file.flush().and_then(|()| file.file.sync());
            written.map_err(|e| Error::io("cannot sync", &self.path, e))?;
            let flip = file.file.write_at(session.start, &[tag::BEGIN]);
            flip.map_err(|e| Error::io("cannot write to", &self.path, e))?;
        }
        writer.unsynced = Some(writer.unsynced.map_or(session.epoch, |epoch| epoch.min(session.epoch)));
        Ok(())
    }

    /// Opens the file to append; the directory is put right, so it ends with an ended session.
    fn open_file(&self) -> Result<LogFile> {
        let failed = |e| Error::io("cannot open", &self.path, e);
        let file: Arc<dyn VfsFile> = self.shared.vfs.open(&self.path, Open::Create).map_err(failed)?.into();
        let written = file.len().map_err(failed)?;
        Ok(LogFile { file, synced: written, written, buffer: Vec::new(), unnamed: true })
    }

    /// All sessions that have ended are on the disk when this returns.
    pub fn sync(&self) -> Result<()> {
        self.sync_in_turn(&self.turn.lock())
    }

    fn sync_in_turn(&self, _turn: &MutexGuard<'_, ()>) -> Result<()> {
        // Whoever had the turn before may have failed.
        self.shared.check()?;
        let (file, range, unnamed) = {
            let mut writer = self.writer.lock();
            let Writer { file: Some(file), unsynced, syncing, open, .. } = &mut *writer else {
                return Ok(());
            };
            // What has come of a session that has not ended is synced too, so that its end has not all to wait for.
            if unsynced.is_none() && open.is_none() {
                return Ok(());
            }
            *syncing = unsynced.take();
            file.flush().map_err(|e| self.shared.fail(Error::io("cannot write to", &self.path, e)))?;
            let range = std::mem::replace(&mut file.synced, file.written)..file.written;
            (file.file.clone(), range, file.unnamed)
        };
        let synced = file.sync().map_err(|e| Error::io("cannot sync", &self.path, e)).and_then(|()| {
            if unnamed {
                let directory = crashsafe::parent(&self.path);
                let synced = self.shared.vfs.sync_dir(directory);
                synced.map_err(|e| Error::io("cannot sync the directory", directory, e))?;
            }
            Ok(())
        });
        synced.map_err(|e| self.shared.fail(e))?;
        if range.end - range.start >= BULK_BYTES {
            file.release_cache(range.start, range.end - range.start);
        }
        let mut writer = self.writer.lock();
        writer.syncing = None;
        if let Some(file) = &mut writer.file {
            file.unnamed = false;
        }
        Ok(())
    }

    /// Whether every session with an epoch up to `epoch` that has ended is on the disk. Never waits.
    pub fn is_synced_up_to(&self, epoch: Epoch) -> bool {
        let writer = self.writer.lock();
        // After a failure `syncing` stays.
        let smallest = [writer.unsynced, writer.syncing].into_iter().flatten().min();
        smallest.is_none_or(|smallest| smallest > epoch) && writer.open.as_ref().is_none_or(|open| open.epoch > epoch)
    }

    /// Makes every session with an epoch up to `epoch` durable.
    pub fn sync_up_to(&self, epoch: Epoch) -> Result<()> {
        if self.is_synced_up_to(epoch) {
            return self.shared.check();
        }
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
            Some(unsynced) if unsynced <= epoch => self.sync_in_turn(&turn),
            _ => Ok(()),
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
        let Writer { file: Some(file), open, sessions, .. } = &mut *writer else {
            return Ok(());
        };
        let failed = |e| Error::io("cannot put right", &self.path, e);
        file.flush().map_err(failed)?;
        let mut end = file.written;
        if let Some(open) = open.take() {
            end = open.start;
            sessions.forget_from(open.start);
        }
        let beyond = match sessions.beyond(durable) {
            Beyond::Known(beyond) => beyond,
            Beyond::RescanFrom(offset) => rescan(&*file.file, offset, end, durable, &self.path)?,
        };
        end = beyond.cut_at.unwrap_or(end);
        if end == file.written && beyond.marks.is_empty() {
            *sessions = Sessions::default();
            return Ok(());
        }
        for offset in &beyond.marks {
            file.file.write_at(*offset, &[tag::INVALIDATED]).map_err(failed)?;
        }
        if end < file.written {
            file.file.set_len(end).map_err(failed)?;
            file.written = end;
            file.synced = file.synced.min(end);
        }
        file.file.sync().map_err(failed)?;
        log::info!(
            "\"{}\": discarded what came behind epoch {durable}: cut at {end}, {} sessions marked",
            self.path.display(),
            beyond.marks.len()
        );
        let rotate = !beyond.marks.is_empty();
        *writer = Writer { file: writer.file.take().filter(|_| !rotate), ..Writer::default() };
        match rotate {
            true => self.shared.rotate(&self.path),
            false => Ok(()),
        }
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
    use crate::replication::replica_store::StandbyStore;
    use crate::vfs::{Fault, SimFs};
    use crate::wal::entry::{encode_end, marker};

    fn session(epoch: u64) -> Vec<u8> {
        let mut bytes = marker(tag::BEGIN, Epoch(epoch)).to_vec();
        encode_end(&mut bytes, Epoch(epoch));
        bytes
    }

    #[test]
    fn an_epoch_is_synced_when_all_its_ended_sessions_are_and_none_is_open() {
        let fs = SimFs::new();
        let store = StandbyStore::open(Arc::new(fs.clone()), Path::new("/log")).unwrap();
        let log = store.lane(0);
        assert!(log.is_synced_up_to(Epoch(9)), "there is nothing");
        log.append(Epoch(5), true, true, &session(5)).unwrap();
        assert!(!log.is_synced_up_to(Epoch(5)) && log.is_synced_up_to(Epoch(4)));
        log.sync().unwrap();
        assert!(log.is_synced_up_to(Epoch(9)));
        let bytes = session(7);
        log.append(Epoch(7), true, false, &bytes[..9]).unwrap();
        log.sync().unwrap();
        assert!(!log.is_synced_up_to(Epoch(7)) && log.is_synced_up_to(Epoch(6)), "it is open");
        log.append(Epoch(7), false, true, &bytes[9..]).unwrap();
        log.sync_up_to(Epoch(7)).unwrap();
        assert!(log.is_synced_up_to(Epoch(7)));
    }

    #[test]
    fn what_a_failed_sync_may_have_lost_never_counts_as_synced() {
        let fs = SimFs::new();
        let store = StandbyStore::open(Arc::new(fs.clone()), Path::new("/log")).unwrap();
        let log = store.lane(0);
        log.append(Epoch(5), true, true, &session(5)).unwrap();
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
        log.append(Epoch(5), true, true, &session(5)).unwrap();
        let before = fs.operations();
        for _ in 0..1000 {
            log.append(Epoch(5), true, true, &session(5)).unwrap();
        }
        assert_eq!(fs.operations(), before);
        log.sync().unwrap();
        assert_eq!(fs.files()[log.path()], session(5).repeat(1001));
    }
}

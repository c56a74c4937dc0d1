// SPDX-License-Identifier: Apache-2.0
//! A log channel: one session at a time, appended to one file.
//!
//! Entries are encoded into a buffer; the end of a session is one write and one sync. A large session is written out
//! in parts before, which does no harm: it has not ended, so a start cuts it off.

use super::coordinator::Coordinator;
use super::file_names::FileNames;
use super::open_sessions::Slot;
use super::tap::{EndedSession, Tap, TapHandle, WrittenLog};
use crate::blob::paths::Directories;
use crate::blob::BlobStore;
use crate::error::{Error, Result};
use crate::lock_order::{Mutex, MutexGuard, Rank};
use crate::types::{BlobId, Epoch, StorageId, WriteVersion};
use crate::vfs::{Open, Vfs};
use crate::wal::entry::{self, tag};
use crate::wal::journal::{Fill, LogFile};
use crate::wal::session_file::{Ended, OldContent, SessionFile};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// A log channel of a data store. Calls may come from any thread; those of one session belong to one caller.
#[derive(Debug)]
pub struct Channel {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    number: u32,
    coordinator: Arc<Coordinator>,
    names: Arc<FileNames>,
    blob_store: Arc<BlobStore>,
    slot: Arc<Slot>,
    finished: AtomicU64,
    writer: Mutex<Writer>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Idle,
    Open(Session),
    Closed,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    epoch: Epoch,
    /// The epoch file already covers its epoch: it began before the first switch of epochs.
    late: bool,
}

#[derive(Debug)]
struct Writer {
    state: State,
    file: SessionFile,
    /// Where the BLOBs of the open session are.
    blobs: Directories,
    /// The BLOBs of the open session, one for each time that an entry refers to it.
    blob_ids: Vec<BlobId>,
    tap: Option<TapHandle>,
    /// The file as the journal knows it.
    journaled: Option<Arc<LogFile>>,
    /// The last cut of the log that this channel has made.
    cut: Option<Epoch>,
    /// Entries of the open session.
    entries: u64,
}

impl Channel {
    pub(super) fn new(
        vfs: Arc<dyn Vfs>,
        path: PathBuf,
        number: u32,
        coordinator: Arc<Coordinator>,
        names: Arc<FileNames>,
        blob_store: Arc<BlobStore>,
    ) -> Channel {
        let file = SessionFile::new(vfs.clone(), path.clone(), names.sync());
        let (state, tap, blobs, blob_ids) = (State::Idle, coordinator.tap(), Directories::default(), Vec::new());
        let parts = Writer { state, file, blobs, blob_ids, tap, journaled: None, cut: None, entries: 0 };
        let writer = Mutex::new(Rank::Channel, parts);
        let slot = Arc::new(Slot::new());
        Channel { vfs, path, number, coordinator, names, blob_store, slot, finished: AtomicU64::new(0), writer }
    }

    pub(super) fn slot(&self) -> Arc<Slot> {
        self.slot.clone()
    }

    /// Its number, as in the name of its file.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The file that sessions are appended to; it may not exist yet.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a session is open.
    pub fn is_open(&self) -> bool {
        matches!(self.writer.lock().state, State::Open(_))
    }

    /// Whether a session is open whose epoch was recorded before it began.
    pub(super) fn has_covered_session(&self) -> bool {
        matches!(self.writer.lock().state, State::Open(session) if session.late)
    }

    /// Epoch of the last ended session, 0 before the first.
    pub fn finished_epoch(&self) -> Epoch {
        Epoch(self.finished.load(Ordering::Acquire))
    }

    /// Begins a session in the current epoch and returns that epoch.
    pub fn begin_session(&self) -> Result<Epoch> {
        let mut writer = self.writer.lock();
        match writer.state {
            State::Idle => {}
            State::Open(session) => {
                return Err(self.wrong(&format!("begin_session() inside an open session of epoch {}", session.epoch)));
            }
            State::Closed => return Err(self.wrong("begin_session() after shutdown()")),
        }
        self.coordinator.check()?;
        if self.coordinator.progress.is_replicated() && !self.coordinator.is_started() {
            // Its epoch would be 0, which every replica already has.
            return Err(self.wrong("with replication, begin_session() before ready()"));
        }
        self.opened(&mut writer)?;
        let epoch = self.coordinator.begin(&self.slot);
        if let Some(cut) = self.names.cut_before(epoch) {
            if let Err(e) = self.cut_idle(&mut writer, cut) {
                self.names.note_failure(e);
            }
        }
        let late = epoch <= self.coordinator.epochs().recorded();
        if let Err(e) = self.opened(&mut writer).and_then(|()| writer.file.begin(late)) {
            self.slot.clear();
            return Err(e);
        }
        writer.state = State::Open(Session { epoch, late });
        writer.blobs = Directories::default();
        writer.blob_ids.clear();
        writer.entries = 0;
        writer.file.buffer().extend_from_slice(&entry::marker(tag::BEGIN, epoch));
        Ok(epoch)
    }

    /// Opens the file unless it is open. Before the start has looked at the directory nobody knows how an old file
    /// ends.
    fn opened(&self, writer: &mut Writer) -> Result<()> {
        let old = if self.coordinator.is_started() { OldContent::Append } else { OldContent::Rotate };
        writer.file.open(old).map_err(|e| self.coordinator.poison(e))
    }

    /// Ends the session. Without a commit journal its bytes are on the disk when this returns, and count when the epoch
    /// becomes durable; with one they are when it does.
    pub fn end_session(&self) -> Result<()> {
        let (epoch, fill) = {
            let mut writer = self.writer.lock();
            let session = self.open_session(&writer, "end_session")?;
            let fill = self.finish(&mut writer, session).map_err(|e| self.coordinator.poison(e))?;
            writer.state = State::Idle;
            self.finished.store(session.epoch.0, Ordering::Release);
            self.coordinator.sessions.end(&self.slot, session.epoch);
            (session.epoch, fill)
        };
        log::trace!("{}: session of epoch {epoch} ended", self.path.display());
        self.coordinator.advance()?;
        match fill {
            Fill::Some => Ok(()),
            Fill::Much => self.coordinator.ask_for_group(),
            Fill::Enough => self.coordinator.wait_for_room(),
        }
    }

    /// Ends the session with nothing written: no start sees it, and it no longer holds its epoch back. What was written
    /// out of it is cut off, and the cut synced, before that: a later session must not stand behind, or over, entries
    /// that nobody ended. A crash before that leaves a session without an end, as any crash does. BLOBs that only it
    /// refers to go with their pool; if that was released before, the next start deletes them.
    pub fn abort_session(&self) -> Result<()> {
        let epoch = {
            let mut writer = self.writer.lock();
            let session = self.open_session(&writer, "abort_session")?;
            writer.file.cut_off().map_err(|e| self.coordinator.poison(e))?;
            self.blob_store.forget_entries(&writer.blob_ids);
            writer.blob_ids.clear();
            writer.state = State::Idle;
            self.slot.clear();
            self.coordinator.metrics.aborted_sessions.add(1);
            session.epoch
        };
        log::debug!("{}: session of epoch {epoch} aborted", self.path.display());
        self.coordinator.advance()
    }

    /// The open session for `call`, which ends it.
    fn open_session(&self, writer: &Writer, call: &str) -> Result<Session> {
        match writer.state {
            State::Open(session) => self.coordinator.check().map(|()| session),
            State::Idle => Err(self.wrong(&format!("{call}() without an open session"))),
            State::Closed => Err(self.wrong(&format!("{call}() after shutdown()"))),
        }
    }

    /// Writes what the session still has in its buffer, and syncs it or gives it to the journal. Returns how much
    /// waits for a group of it.
    fn finish(&self, writer: &mut Writer, session: Session) -> Result<Fill> {
        let journaling = self.coordinator.journaling().filter(|_| !session.late);
        if journaling.is_none() {
            // A session that counts has its BLOBs (W14).
            self.blob_store.sync_names(writer.blobs)?;
        }
        entry::encode_end(writer.file.buffer(), session.epoch);
        let ended = writer.file.end()?;
        writer.file.flush()?;
        self.tell_tap(writer, session.epoch, ended);
        let fill = match journaling {
            Some(journaling) => {
                journaling.add(&mut writer.file, ended.with_mark(), writer.blobs, &mut writer.journaled)?
            }
            None => writer.file.sync().map(|()| Fill::Some)?,
        };
        self.coordinator.metrics.count_session(writer.entries, ended.len);
        if let Some(TapHandle(tap)) = &writer.tap {
            tap.session_synced(self.number);
        }
        Ok(fill)
    }

    /// What the journal has of the file is settled: it may get another name.
    fn settle(&self, writer: &Writer) -> Result<()> {
        match (self.coordinator.journaling(), &writer.journaled) {
            (Some(journaling), Some(file)) => journaling.journal.settle_file(file),
            _ => Ok(()),
        }
    }

    fn rotate_file(&self, writer: &mut Writer) -> Result<()> {
        self.settle(writer).map_err(|e| self.coordinator.poison(e))?;
        writer.file.rotate()
    }

    /// Gives the session to the replicas while it is synced here.
    fn tell_tap(&self, writer: &mut Writer, epoch: Epoch, ended: Ended) {
        if let (Some(TapHandle(tap)), Some((file, _))) = (&writer.tap, writer.file.ended()) {
            let blobs = std::mem::take(&mut writer.blob_ids).into();
            let (start, len) = (ended.start, ended.len);
            tap.session_ended(EndedSession { epoch, channel: self.number, file, start, len, blobs });
        }
    }

    /// Lets no session begin or end.
    pub(super) fn lock(&self) -> LockedChannel<'_> {
        LockedChannel { channel: self, writer: self.writer.lock() }
    }

    /// Where what has ended ends in the present file; `None` when this process has not written to it.
    pub(super) fn settled_bytes(&self) -> Option<u64> {
        self.writer.lock().file.ended().map(|(_, ended)| ended)
    }

    /// Takes the tap away.
    pub(super) fn detach(&self) {
        self.writer.lock().tap = None;
    }

    /// Runs `encode` on the writer of the open session.
    #[inline]
    fn append(&self, call: &str, encode: impl FnOnce(&mut Writer)) -> Result<()> {
        let mut writer = self.writer.lock();
        if !matches!(writer.state, State::Open(_)) {
            return Err(self.wrong(&format!("{call}() without an open session")));
        }
        encode(&mut writer);
        writer.entries += 1;
        if writer.file.is_full() {
            self.coordinator.check()?;
            writer.file.flush().map_err(|e| self.coordinator.poison(e))?;
        }
        Ok(())
    }

    /// Appends an upsert; key, value and the list of BLOB ids may be empty. The BLOBs count as needed from this call
    /// on.
    #[inline]
    pub fn add_entry(
        &self,
        storage: StorageId,
        key: &[u8],
        value: &[u8],
        version: WriteVersion,
        blobs: &[BlobId],
    ) -> Result<()> {
        check_len("a key", key.len())?;
        check_len("a value", value.len())?;
        check_len("a list of BLOB ids", blobs.len())?;
        let directories = Directories::of(blobs);
        if !blobs.is_empty() {
            // From here on the release of their pool must not delete them.
            self.blob_store.mark_persistent(blobs);
        }
        self.append("add_entry", |writer| {
            if !blobs.is_empty() {
                writer.blobs = writer.blobs.with(directories);
                writer.blob_ids.extend_from_slice(blobs);
            }
            entry::encode_put(writer.file.buffer(), storage, key, value, version, blobs);
        })
    }

    /// Appends the removal of a key.
    pub fn remove_entry(&self, storage: StorageId, key: &[u8], version: WriteVersion) -> Result<()> {
        check_len("a key", key.len())?;
        self.append("remove_entry", |writer| entry::encode_remove(writer.file.buffer(), storage, key, version))
    }

    /// Appends the creation of a storage, which recovery does not look at.
    pub fn add_storage(&self, storage: StorageId, version: WriteVersion) -> Result<()> {
        self.append("add_storage", |writer| {
            entry::encode_storage(writer.file.buffer(), tag::ADD_STORAGE, storage, version)
        })
    }

    /// Hides every entry of the storage with an older version.
    pub fn remove_storage(&self, storage: StorageId, version: WriteVersion) -> Result<()> {
        self.append("remove_storage", |writer| {
            entry::encode_storage(writer.file.buffer(), tag::REMOVE_STORAGE, storage, version)
        })
    }

    /// Hides every entry of the storage with an older version.
    pub fn truncate_storage(&self, storage: StorageId, version: WriteVersion) -> Result<()> {
        self.append("truncate_storage", |writer| {
            entry::encode_storage(writer.file.buffer(), tag::CLEAR_STORAGE, storage, version)
        })
    }

    /// Puts the file aside under a rotated name. What an open session has written moves to the new file: the old one
    /// then ends with an ended session. A crash in between leaves that session incomplete in one file or in both.
    pub(super) fn rotate(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        if matches!(writer.state, State::Closed) {
            return Ok(());
        }
        self.coordinator.check()?;
        self.rotate_file(&mut writer).map_err(|e| self.coordinator.poison(e))
    }

    /// Makes the cut behind `epoch`, of which all sessions have ended unless they began before the first switch of
    /// epochs; tells whether such a session was open. Nothing has changed after an error, or the data store is
    /// poisoned.
    pub(super) fn cut(&self, epoch: Epoch) -> Result<bool> {
        let mut writer = self.writer.lock();
        match writer.state {
            _ if writer.cut == Some(epoch) => Ok(false),
            State::Closed => Ok(false),
            State::Idle => self.cut_idle(&mut writer, epoch).map(|()| false),
            State::Open(_) => {
                self.coordinator.check()?;
                self.rotate_file(&mut writer).map_err(|e| self.coordinator.poison(e))?;
                writer.cut = Some(epoch);
                Ok(true)
            }
        }
    }

    /// The next session begins in a new file.
    fn cut_idle(&self, writer: &mut Writer, epoch: Epoch) -> Result<()> {
        if writer.cut == Some(epoch) {
            return Ok(());
        }
        if !writer.file.is_empty() {
            if let Err(e) = self.rotate_file(writer) {
                return Err(if writer.file.has_failed() { self.coordinator.poison(e) } else { e });
            }
        }
        writer.cut = Some(epoch);
        Ok(())
    }

    /// Waits until no call on this channel is at work that began before.
    pub(super) fn pass(&self) {
        drop(self.writer.lock());
    }

    /// Ends the channel; an open session is dropped without an end.
    pub(super) fn close(&self) {
        let mut writer = self.writer.lock();
        self.slot.clear();
        writer.state = State::Closed;
        writer.file.forget();
        writer.tap = None;
    }

    fn wrong(&self, what: &str) -> Error {
        Error::WrongState(format!("{what} on {}", self.path.display()))
    }
}

/// A channel in which no session begins or ends.
pub(super) struct LockedChannel<'a> {
    channel: &'a Channel,
    writer: MutexGuard<'a, Writer>,
}

impl LockedChannel<'_> {
    /// What ended sessions have written to the present file; `None` when there is none.
    pub(super) fn written(&self) -> Result<Option<WrittenLog>> {
        let path = &self.channel.path;
        let failed = |e| Error::io("cannot open", path, e);
        let (file, len) = match self.writer.file.ended() {
            _ if matches!(self.writer.state, State::Closed) => return Ok(None),
            Some(ended) => ended,
            // This process has not written to it yet; an earlier one may have.
            None => match self.channel.vfs.open(path, Open::Read) {
                Ok(file) => {
                    let len = file.len().map_err(failed)?;
                    (file.into(), len)
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(failed(e)),
            },
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let marks = self.channel.names.sync().marks().of(&name);
        Ok(Some(WrittenLog { name, channel: self.channel.number, file, len, marks }))
    }

    /// Fails when a session is open, which is in the way of `call`.
    pub(super) fn check_idle(&self, call: &str) -> Result<()> {
        match self.writer.state {
            State::Open(_) => Err(self.channel.wrong(&format!("{call} while a session is open"))),
            State::Idle | State::Closed => Ok(()),
        }
    }

    /// Lets the next session open its file anew, which may have been cut, rotated or replaced.
    pub(super) fn forget_file(&mut self) {
        self.writer.file.forget();
        (self.writer.journaled, self.writer.cut) = (None, None);
    }

    /// Sessions can begin; nothing of a former run counts.
    pub(super) fn begin_run(&mut self) {
        self.forget_file();
        self.writer.state = State::Idle;
    }

    /// Sets the tap: sessions that end from now on reach it.
    pub(super) fn attach(&mut self, tap: &Arc<dyn Tap>) {
        if !matches!(self.writer.state, State::Closed) {
            self.writer.tap = Some(TapHandle(tap.clone()));
        }
    }
}

#[inline]
fn check_len(what: &'static str, len: usize) -> Result<()> {
    if len > u32::MAX as usize {
        return Err(Error::TooLarge { what, len });
    }
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0
//! A log channel: one session at a time, appended to one file.
//!
//! Entries are encoded into a buffer; the end of a session is one write and one sync. A large session is written out
//! in parts before, which does no harm: it has not ended, so a start cuts it off.

use super::coordinator::{Coordinator, Slot};
use super::file_names::FileNames;
use super::tap::{EndedSession, Tap, TapHandle, WrittenLog};
use crate::blob::paths::Directories;
use crate::blob::BlobStore;
use crate::error::{Error, Result};
use crate::types::{BlobId, Epoch, StorageId, WriteVersion};
use crate::vfs::{crashsafe, FileKind, Open, Vfs, VfsFile};
use crate::wal::entry::{self, tag, MARKER_LEN};
use crate::wal::rotation;
use parking_lot::{Mutex, MutexGuard};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// A session that has more than this in its buffer is written out in part.
const BUFFER_BYTES: usize = 256 << 10;
/// A buffer that a huge entry made larger than this is given back at the end of the session.
const BUFFER_BYTES_KEPT: usize = 4 * BUFFER_BYTES;

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
    /// Where its begin marker stands or will stand.
    start: u64,
    /// The epoch file already covers its epoch (a session before the first switch of epochs), so it must not count
    /// before it is whole: its begin marker is an invalidated one until then.
    covered: bool,
}

#[derive(Debug)]
struct Writer {
    state: State,
    buffer: Vec<u8>,
    /// Where the BLOBs of the open session are.
    blobs: Directories,
    /// The BLOBs of the open session, one for each time that an entry refers to it.
    blob_ids: Vec<BlobId>,
    file: Option<LogFile>,
    tap: Option<TapHandle>,
    /// The last cut of the log that this channel has made.
    cut: Option<Epoch>,
}

impl Writer {
    fn new(state: State) -> Writer {
        let (buffer, blob_ids) = (Vec::new(), Vec::new());
        Writer { state, buffer, blobs: Directories::default(), blob_ids, file: None, tap: None, cut: None }
    }

    /// Empties the buffer at the end of a session.
    fn release_buffer(&mut self) {
        self.buffer.clear();
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
    }
}

#[derive(Debug)]
struct LogFile {
    file: Arc<dyn VfsFile>,
    /// Bytes written so far.
    len: u64,
    /// The name is not durable yet.
    unnamed: bool,
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
        let mut writer = Writer::new(State::Idle);
        writer.tap = coordinator.tap();
        let writer = Mutex::new(writer);
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
        matches!(self.writer.lock().state, State::Open(session) if session.covered)
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
        let start = match self.opened(&mut writer) {
            Ok(start) => start,
            Err(e) => {
                self.coordinator.drop_session(&self.slot);
                return Err(e);
            }
        };
        let covered = epoch <= self.coordinator.recorded();
        writer.state = State::Open(Session { epoch, start, covered });
        let marker = if covered { tag::INVALIDATED } else { tag::BEGIN };
        writer.buffer.clear();
        writer.blobs = Directories::default();
        writer.blob_ids.clear();
        writer.buffer.extend_from_slice(&entry::marker(marker, epoch));
        Ok(epoch)
    }

    /// Opens the file unless it is open; returns its length.
    fn opened(&self, writer: &mut Writer) -> Result<u64> {
        if let Some(file) = &writer.file {
            return Ok(file.len);
        }
        let file = self.open_file().map_err(|e| self.coordinator.poison(e))?;
        Ok(writer.file.insert(file).len)
    }

    /// Ends the session: when this returns, its bytes are on the disk. They count when the epoch becomes durable.
    pub fn end_session(&self) -> Result<()> {
        let epoch = {
            let mut writer = self.writer.lock();
            let session = self.open_session(&writer, "end_session")?;
            self.finish(&mut writer, session).map_err(|e| self.coordinator.poison(e))?;
            writer.state = State::Idle;
            self.finished.store(session.epoch.0, Ordering::Release);
            self.coordinator.end(&self.slot, session.epoch);
            session.epoch
        };
        log::trace!("{}: session of epoch {epoch} ended", self.path.display());
        self.coordinator.advance()
    }

    /// Ends the session with nothing written: no start sees it, and it no longer holds its epoch back. What was written
    /// out of it is cut off, and the cut synced, before that: a later session must not stand behind, or over, entries
    /// that nobody ended. A crash before that leaves a session without an end, as any crash does. BLOBs that only it
    /// refers to go with their pool; if that was released before, the next start deletes them.
    pub fn abort_session(&self) -> Result<()> {
        let epoch = {
            let mut writer = self.writer.lock();
            let session = self.open_session(&writer, "abort_session")?;
            self.cut_off(&mut writer, session).map_err(|e| self.coordinator.poison(e))?;
            writer.state = State::Idle;
            self.coordinator.drop_session(&self.slot);
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

    /// Takes away what the session has written out and what it has in its buffer.
    fn cut_off(&self, writer: &mut Writer, session: Session) -> Result<()> {
        let file = self.file(writer)?;
        if file.len > session.start {
            let failed = |e| Error::io("cannot cut off an aborted session of", &self.path, e);
            file.file.set_len(session.start).map_err(failed)?;
            file.file.sync().map_err(failed)?;
            file.len = session.start;
        }
        self.blob_store.forget_entries(&writer.blob_ids);
        writer.blob_ids.clear();
        writer.release_buffer();
        Ok(())
    }

    /// Writes and syncs what the session still has in its buffer.
    fn finish(&self, writer: &mut Writer, session: Session) -> Result<()> {
        // A session that counts has its BLOBs (W14).
        self.blob_store.sync_names(writer.blobs)?;
        entry::encode_end(&mut writer.buffer, session.epoch);
        self.write_out(writer, session)?;
        self.tell_tap(writer, session)?;
        let file = self.file(writer)?;
        let sync = |file: &LogFile| file.file.sync().map_err(|e| Error::io("cannot sync", &self.path, e));
        sync(file)?;
        if session.covered {
            let write = file.file.write_at(session.start, &[tag::BEGIN]);
            let marked = write.map_err(|e| Error::io("cannot write to", &self.path, e)).and_then(|()| sync(file));
            if marked.is_err() {
                // The next start must not see a mark that the system may have failed to write for good. The error that
                // made this necessary is the one to report.
                let _ = file.file.write_at(session.start, &[tag::INVALIDATED]);
            }
            marked?;
        }
        if file.unnamed {
            let directory = crashsafe::parent(&self.path);
            self.vfs.sync_dir(directory).map_err(|e| Error::io("cannot sync the directory", directory, e))?;
            file.unnamed = false;
        }
        if let Some(TapHandle(tap)) = &writer.tap {
            tap.session_synced(self.number);
        }
        writer.release_buffer();
        Ok(())
    }

    /// Gives the session to the replicas while it is synced here.
    fn tell_tap(&self, writer: &mut Writer, session: Session) -> Result<()> {
        if let Some(TapHandle(tap)) = writer.tap.clone() {
            let blobs = std::mem::take(&mut writer.blob_ids).into();
            let LogFile { file, len, .. } = self.file(writer)?;
            let (start, len) = (session.start, *len - session.start);
            let (epoch, channel, file) = (session.epoch, self.number, file.clone());
            tap.session_ended(EndedSession { epoch, channel, file, start, len, blobs });
        }
        Ok(())
    }

    /// Lets no session begin or end.
    pub(super) fn lock(&self) -> LockedChannel<'_> {
        LockedChannel { channel: self, writer: self.writer.lock() }
    }

    /// Takes the tap away.
    pub(super) fn detach(&self) {
        self.writer.lock().tap = None;
    }

    fn write_out(&self, writer: &mut Writer, session: Session) -> Result<()> {
        let Writer { buffer, file: Some(file), .. } = writer else {
            return Err(self.wrong("no file is open"));
        };
        let failed = |e| Error::io("cannot write to", &self.path, e);
        if session.covered && file.len == session.start {
            // A power cut may keep the end of the session and take its beginning: without the marker that it does not
            // count, that would look like the loss of a session that does.
            file.file.write_at(file.len, &buffer[..MARKER_LEN]).map_err(failed)?;
            file.file.sync().map_err(failed)?;
        }
        file.file.write_at(file.len, buffer).map_err(failed)?;
        file.len += buffer.len() as u64;
        buffer.clear();
        Ok(())
    }

    fn file<'a>(&self, writer: &'a mut Writer) -> Result<&'a mut LogFile> {
        writer.file.as_mut().ok_or_else(|| self.wrong("no file is open"))
    }

    /// Opens the file to append. Before the start has looked at the directory nobody knows how an old file ends, so
    /// that one is put aside.
    fn open_file(&self) -> Result<LogFile> {
        let failed = |e| Error::io("cannot open", &self.path, e);
        let mut file = self.vfs.open(&self.path, Open::Create).map_err(failed)?;
        let mut len = file.len().map_err(failed)?;
        if !self.coordinator.is_started() && len > 0 {
            rotation::rename_to_rotated(&*self.vfs, &self.path)?;
            file = self.vfs.open(&self.path, Open::Create).map_err(failed)?;
            len = 0;
        }
        // Even an old name may not be durable: a process that was killed created it and synced nothing.
        Ok(LogFile { file: file.into(), len, unnamed: true })
    }

    /// Runs `encode` on the writer of the open session.
    #[inline]
    fn append(&self, call: &str, encode: impl FnOnce(&mut Writer)) -> Result<()> {
        let mut writer = self.writer.lock();
        let State::Open(session) = writer.state else {
            return Err(self.wrong(&format!("{call}() without an open session")));
        };
        encode(&mut writer);
        if writer.buffer.len() >= BUFFER_BYTES {
            self.coordinator.check()?;
            self.write_out(&mut writer, session).map_err(|e| self.coordinator.poison(e))?;
        }
        Ok(())
    }

    /// Appends an upsert; key, value and the list of BLOB ids may be empty. The BLOBs count as needed from this call on.
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
            entry::encode_put(&mut writer.buffer, storage, key, value, version, blobs);
        })
    }

    /// Appends the removal of a key.
    pub fn remove_entry(&self, storage: StorageId, key: &[u8], version: WriteVersion) -> Result<()> {
        check_len("a key", key.len())?;
        self.append("remove_entry", |writer| entry::encode_remove(&mut writer.buffer, storage, key, version))
    }

    /// Appends the creation of a storage, which recovery does not look at.
    pub fn add_storage(&self, storage: StorageId, version: WriteVersion) -> Result<()> {
        self.append("add_storage", |writer| {
            entry::encode_storage(&mut writer.buffer, tag::ADD_STORAGE, storage, version)
        })
    }

    /// Hides every entry of the storage with an older version.
    pub fn remove_storage(&self, storage: StorageId, version: WriteVersion) -> Result<()> {
        self.append("remove_storage", |writer| {
            entry::encode_storage(&mut writer.buffer, tag::REMOVE_STORAGE, storage, version)
        })
    }

    /// Hides every entry of the storage with an older version.
    pub fn truncate_storage(&self, storage: StorageId, version: WriteVersion) -> Result<()> {
        self.append("truncate_storage", |writer| {
            entry::encode_storage(&mut writer.buffer, tag::CLEAR_STORAGE, storage, version)
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
        self.put_aside(&mut writer).map_err(|e| self.coordinator.poison(e))
    }

    /// Makes the cut behind `epoch`, of which all sessions have ended unless they began before the first switch of
    /// epochs; tells whether such a session was open. Nothing has changed after an error, or the data store is poisoned.
    pub(super) fn cut(&self, epoch: Epoch) -> Result<bool> {
        let mut writer = self.writer.lock();
        match writer.state {
            _ if writer.cut == Some(epoch) => Ok(false),
            State::Closed => Ok(false),
            State::Idle => self.cut_idle(&mut writer, epoch).map(|()| false),
            State::Open(_) => {
                self.coordinator.check()?;
                self.put_aside(&mut writer).map_err(|e| self.coordinator.poison(e))?;
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
        let empty = writer.file.as_ref().is_some_and(|file| file.len == 0);
        if !empty {
            writer.file = None;
            if let Err(e) = rotation::rotate_file(&*self.vfs, &self.path) {
                // Under its old name the file goes on as before. Otherwise nobody knows which name is durable.
                return match self.vfs.kind(&self.path) {
                    Ok(Some(FileKind::File)) => Err(e),
                    _ => Err(self.coordinator.poison(e)),
                };
            }
        }
        writer.cut = Some(epoch);
        Ok(())
    }

    /// Waits until no call on this channel is at work that began before.
    pub(super) fn pass(&self) {
        drop(self.writer.lock());
    }

    fn put_aside(&self, writer: &mut Writer) -> Result<()> {
        let failed = |e| Error::io("cannot rotate", &self.path, e);
        let State::Open(mut session) = writer.state else {
            writer.file = None;
            return rotation::rotate_file(&*self.vfs, &self.path);
        };
        let Some(old) = writer.file.take() else {
            return Err(self.wrong("no file is open"));
        };
        if session.start == 0 {
            // All of it belongs to the open session.
            writer.file = Some(old);
            return Ok(());
        }
        let mut moved = vec![0; (old.len - session.start) as usize];
        let got = old.file.read_at(session.start, &mut moved).map_err(failed)?;
        if got != moved.len() {
            let message = format!("found {got} of {} written bytes", moved.len());
            return Err(failed(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, message)));
        }
        if !moved.is_empty() {
            old.file.set_len(session.start).map_err(failed)?;
            old.file.sync().map_err(failed)?;
        }
        drop(old);
        rotation::rename_to_rotated(&*self.vfs, &self.path)?;
        let mut new = self.open_file()?;
        new.file.write_at(0, &moved).map_err(failed)?;
        new.len = moved.len() as u64;
        writer.file = Some(new);
        session.start = 0;
        writer.state = State::Open(session);
        Ok(())
    }

    /// Lets the next session open its file anew, because the start may have cut or rotated it.
    pub(super) fn forget_file(&self) {
        self.writer.lock().file = None;
    }

    /// Ends the channel; an open session is dropped without an end.
    pub(super) fn close(&self) {
        let mut writer = self.writer.lock();
        self.coordinator.drop_session(&self.slot);
        *writer = Writer::new(State::Closed);
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
        let (file, len) = match (&self.writer.file, self.writer.state) {
            (_, State::Closed) => return Ok(None),
            (Some(LogFile { file, .. }), State::Open(session)) => (file.clone(), session.start),
            (Some(LogFile { file, len, .. }), _) => (file.clone(), *len),
            // This process has not written to it yet; an earlier one may have.
            (None, _) => match self.channel.vfs.open(path, Open::Read) {
                Ok(file) => {
                    let len = file.len().map_err(failed)?;
                    (file.into(), len)
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(failed(e)),
            },
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Some(WrittenLog { name, channel: self.channel.number, file, len }))
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

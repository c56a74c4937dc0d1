// SPDX-License-Identifier: Apache-2.0
//! The one writer of session files: appends sessions to a log file, rotates it, and takes away what must not stay.
//!
//! A file has these positions, each an offset:
//!
//! * `ended ≤ end`: behind the last session that was ended; where the next byte goes. Between the two stands the open
//!   session, with its mark.
//! * `synced ≤ written ≤ end`: what is on the disk; what the system has; behind it is what waits in the buffer.
//!
//! A session is on the disk when it lies before `ended` and before `synced`, and the name is synced. Appending, ending
//! and syncing are calls of their own: whoever ends a session may sync it at once ([`SessionFile::sync`]), leave that
//! to somebody else ([`SessionFile::start_sync`]), or put its bytes somewhere else ([`Ended`],
//! [`SessionFile::buffered`]).
//!
//! **Late sessions.** A session of an epoch that the epoch record covers already counts as soon as its begin marker can
//! be read. So that one is an invalidated marker until the session is whole: the marker is on the disk before anything
//! is written behind it, the whole session before the marker is made valid, and that before anything is written behind
//! the session. A power cut at any moment leaves either a session that does not count or one that is whole. The same
//! holds when a rotation moves the session.
//!
//! **The mark.** Before the first session that a writer appends behind others stands a mark that says who wrote what
//! follows ([`Origin::Ours`]); it is written with the session and costs no sync. A file with one session has none: it
//! is byte for byte the original's.
//!
//! After a write, sync or cut has failed every later call is refused: nobody knows what is on the disk.

use super::file_sync::{Failure, FileSync, NameSync, PendingSync};
use super::sessions::Origin;
use crate::error::{Error, Result};
use crate::vfs::{Open, Vfs, VfsFile};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// With so much in the buffer it is written. Larger writes cost more: the system gives the file large pages for them,
/// which are seldom at hand.
pub(super) const BUFFER_BYTES: usize = 128 << 10;
/// A buffer that a huge entry made larger than this is given back.
const BUFFER_BYTES_KEPT: usize = 8 * BUFFER_BYTES;

/// Appends sessions to a log file. For one caller at a time; a sync may run beside it.
#[derive(Debug)]
pub struct SessionFile {
    vfs: Arc<dyn Vfs>,
    pub(super) path: PathBuf,
    pub(super) names: Arc<NameSync>,
    pub(super) failure: Failure,
    pub(super) log: Option<Log>,
    pub(super) session: Option<Session>,
    /// The last bytes of the file, written or not.
    pub(super) buffer: Vec<u8>,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) sync: Arc<FileSync>,
    /// Where the buffer begins.
    pub(super) buffer_at: u64,
    pub(super) written: u64,
    pub(super) ended: u64,
    /// A sync has been asked for what is before.
    pub(super) sync_asked: u64,
    /// A mark stands before what this writer appends.
    pub(super) marked: bool,
    /// Counts what changes the file; never falls, as offsets do when something is cut off.
    pub(super) changes: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    /// Where the mark begins that was written with it; its begin marker if there was none.
    pub(super) from: u64,
    /// Where its begin marker stands or will stand.
    pub(super) start: u64,
    pub(super) late: Late,
}

/// How a session stands that may be covered by the epoch record before it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    No,
    /// Nothing behind the invalidated marker may be written before that is synced.
    MarkerUnsynced,
    MarkerSynced,
}

/// How to treat what stands in the file when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldContent {
    /// It consists of ended sessions: go on behind it.
    Append,
    /// Nobody knows how it ends: give it a rotated name.
    Rotate,
}

/// A session that has ended: where its bytes stand in the file, from the begin marker to the end marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    from: u64,
    pub start: u64,
    pub len: u64,
    /// The bytes are on the disk already, but for the name of the file.
    pub synced: bool,
}

impl Ended {
    /// The same with the mark that was written with it: all that the file has grown by.
    pub fn with_mark(self) -> Ended {
        Ended { start: self.from, len: self.start + self.len - self.from, ..self }
    }

    /// All from here to the end of `last`, which ended in the same file behind this one.
    pub fn through(self, last: Ended) -> Ended {
        Ended { len: last.start + last.len - self.start, synced: self.synced || last.synced, ..self }
    }
}

impl SessionFile {
    /// A writer for the file at `path`, which is neither created nor opened here. `names` makes names in its directory
    /// durable; all writers in that directory share it.
    pub fn new(vfs: Arc<dyn Vfs>, path: PathBuf, names: Arc<NameSync>) -> SessionFile {
        let (failure, buffer) = (Failure::default(), Vec::new());
        SessionFile { vfs, path, names, failure, log: None, session: None, buffer }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file to append, unless it is open; creates it if it is missing.
    pub fn open(&mut self, old: OldContent) -> Result<()> {
        self.failure.check()?;
        if self.log.is_none() {
            let log = self.open_log(old).map_err(|e| self.failure.note(e))?;
            self.buffer.clear();
            self.log = Some(log);
        }
        Ok(())
    }

    pub(super) fn open_log(&self, old: OldContent) -> Result<Log> {
        let failed = |e| Error::io("cannot open", &self.path, e);
        let mut file = self.vfs.open(&self.path, Open::Create).map_err(failed)?;
        let mut len = file.len().map_err(failed)?;
        if old == OldContent::Rotate && len > 0 {
            self.names.rotate(&self.path)?;
            file = self.vfs.open(&self.path, Open::Create).map_err(failed)?;
            len = 0;
        }
        // Even an old name may not be durable: a process that was killed created it and synced nothing.
        let sync = FileSync::new(file.into(), &self.path, self.names.clone(), self.failure.clone());
        Ok(Log {
            sync: sync.into(),
            buffer_at: len,
            written: len,
            ended: len,
            sync_asked: len,
            marked: false,
            changes: 0,
        })
    }

    /// Whether the file is open and no session in it was ended.
    pub fn is_empty(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.ended == 0)
    }

    /// Begins a session in the open file: what is appended from now on, beginning with its begin marker, belongs to it.
    /// `late` is whether the epoch record covers its epoch. Returns the offset of the begin marker.
    pub fn begin(&mut self, late: bool) -> Result<u64> {
        self.failure.check()?;
        if self.session.is_some() {
            return Err(self.wrong("a session begins inside another one"));
        }
        self.drop_written();
        let from = self.log()?.buffer_at + self.buffer.len() as u64;
        self.mark();
        let start = self.log()?.buffer_at + self.buffer.len() as u64;
        let late = if late { Late::MarkerUnsynced } else { Late::No };
        self.session = Some(Session { from, start, late });
        Ok(start)
    }

    fn mark(&mut self) {
        if let Some(log) = self.log.as_mut().filter(|log| !log.marked && log.ended > 0) {
            log.marked = true;
            self.buffer.extend(Origin::Ours.mark());
        }
    }

    /// Where bytes of the open session are appended. Call [`Self::flush`] when the file [`Self::is_full`].
    #[inline]
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Whether so much is in the buffer that it should be flushed.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= BUFFER_BYTES
    }

    /// Appends bytes of the open session; they are written when there are many.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.failure.check()?;
        self.buffer.extend_from_slice(bytes);
        if self.is_full() {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes out what is in the buffer: the system has it when this returns, not the disk.
    pub fn flush(&mut self) -> Result<()> {
        self.failure.check()?;
        self.write_out().map_err(|e| self.failure.note(e))?;
        if self.session.is_some() || self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.drop_written();
        }
        Ok(())
    }

    /// Ends the open session; its end marker has been appended. A late one is on the disk when this returns; of another
    /// one, nothing more than before has been written.
    pub fn end(&mut self) -> Result<Ended> {
        self.failure.check()?;
        let Some(Session { from, start, late }) = self.session else {
            return Err(self.wrong("no session is open"));
        };
        let end = self.log()?.buffer_at + self.buffer.len() as u64;
        if late != Late::No {
            self.write_out().and_then(|()| self.make_valid(start)).map_err(|e| self.failure.note(e))?;
        }
        self.session = None;
        self.log_mut()?.ended = end;
        Ok(Ended { from, start, len: end - start, synced: late != Late::No })
    }

    /// The bytes of an ended session as long as they are in the buffer: until the next session begins, if it is small.
    pub fn buffered(&self, ended: Ended) -> Option<&[u8]> {
        let at = ended.start.checked_sub(self.log.as_ref()?.buffer_at)? as usize;
        self.buffer.get(at..at + ended.len as usize)
    }

    /// The bytes of an ended session as the system has them, also when they are not in the buffer any more.
    pub fn read_back(&self, ended: Ended) -> Result<Vec<u8>> {
        let failed = |e| Error::io("cannot read back", &self.path, e);
        let mut bytes = vec![0; ended.len as usize];
        let got = self.log()?.sync.file.read_at(ended.start, &mut bytes).map_err(failed)?;
        match got == bytes.len() {
            true => Ok(bytes),
            false => Err(failed(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// All that was appended is on the disk when this returns, and so is the name.
    pub fn sync(&mut self) -> Result<()> {
        self.start_sync()?.map_or(Ok(()), |pending| pending.run())
    }

    /// Writes out what is in the buffer. Whoever runs what is returned makes it durable; the writer may go on
    /// meanwhile. `None` when no file is open.
    pub fn start_sync(&mut self) -> Result<Option<PendingSync>> {
        self.flush()?;
        Ok(self.log.as_mut().map(|log| {
            let asked = std::mem::replace(&mut log.sync_asked, log.written);
            PendingSync { file: log.sync.clone(), changes: log.changes, range: (asked, log.written) }
        }))
    }

    /// Whether something has failed, so that every call is refused.
    pub fn has_failed(&self) -> bool {
        self.failure.check().is_err()
    }

    /// Closes the file: it is opened anew for the next session. An open session is dropped without an end.
    pub fn forget(&mut self) {
        self.log = None;
        self.session = None;
        self.buffer = Vec::new();
    }

    /// The open file and where the ended sessions in it end.
    pub fn ended(&self) -> Option<(Arc<dyn VfsFile>, u64)> {
        self.log.as_ref().map(|log| (log.sync.file.clone(), log.ended))
    }

    /// Where the next byte goes; `None` when no file is open.
    pub fn end_offset(&self) -> Option<u64> {
        self.log.as_ref().map(|log| log.buffer_at + self.buffer.len() as u64)
    }

    /// Empties the buffer if all of it has been written.
    pub(super) fn drop_written(&mut self) {
        let Some(log) = &mut self.log else {
            return;
        };
        if log.written == log.buffer_at + self.buffer.len() as u64 {
            log.buffer_at = log.written;
            self.buffer.clear();
            if self.buffer.capacity() > BUFFER_BYTES_KEPT {
                self.buffer = Vec::new();
            }
        }
    }

    fn log(&self) -> Result<&Log> {
        self.log.as_ref().ok_or_else(|| self.wrong("the file is not open"))
    }

    pub(super) fn log_mut(&mut self) -> Result<&mut Log> {
        match &mut self.log {
            Some(log) => Ok(log),
            None => Err(Error::WrongState(format!("the file is not open: {}", self.path.display()))),
        }
    }

    fn wrong(&self, what: &str) -> Error {
        Error::WrongState(format!("{what}: {}", self.path.display()))
    }
}

impl Log {
    /// Writes what the buffer holds before `to`.
    pub(super) fn write(&mut self, path: &Path, buffer: &[u8], to: u64) -> Result<()> {
        if to > self.written {
            let bytes = &buffer[(self.written - self.buffer_at) as usize..(to - self.buffer_at) as usize];
            self.changes += 1;
            self.sync.file.write_at(self.written, bytes).map_err(|e| Error::io("cannot write to", path, e))?;
            self.written = to;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "session_file_tests.rs"]
mod tests;

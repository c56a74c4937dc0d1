// SPDX-License-Identifier: Apache-2.0
//! The log file of one lane: whole sessions one after the other, appended as they arrive.

use super::session_check::SessionCheck;
use super::sessions::{rescan, Beyond, Sessions};
use super::Shared;
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::{crashsafe, Open, VfsFile};
use crate::wal::entry::tag;
use crate::wal::names;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Appends the sessions of one lane to `pwal_NNNN`. Calls may come from any thread; frames come in order.
#[derive(Debug)]
pub struct LaneLog {
    shared: Arc<Shared>,
    path: PathBuf,
    writer: Mutex<Writer>,
}

#[derive(Debug, Default)]
struct Writer {
    file: Option<LogFile>,
    open: Option<OpenSession>,
    /// The smallest epoch of the ended sessions that are not synced.
    unsynced: Option<Epoch>,
    sessions: Sessions,
}

#[derive(Debug)]
struct LogFile {
    file: Box<dyn VfsFile>,
    /// Bytes written so far.
    len: u64,
    /// The name is not durable yet.
    unnamed: bool,
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
        LaneLog { shared, path, writer: Mutex::default() }
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
        let writer = &mut *writer;
        let start = match (&writer.file, first) {
            (Some(file), _) => file.len,
            (None, true) => {
                let file = self.open_file().map_err(|e| self.shared.fail(e))?;
                writer.file.insert(file).len
            }
            (None, false) => 0,
        };
        let new = match (&writer.open, first) {
            (None, true) => {
                let check = SessionCheck::new(epoch);
                Some(OpenSession { epoch, start, covered: epoch <= self.shared.covered(), check })
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

    fn write(&self, file: &mut LogFile, marked: bool, bytes: &[u8]) -> std::io::Result<()> {
        match bytes.split_first() {
            Some((_, rest)) if marked => {
                file.file.write_at(file.len, &[tag::INVALIDATED])?;
                file.file.write_at(file.len + 1, rest)?;
            }
            _ => file.file.write_at(file.len, bytes)?,
        }
        file.len += bytes.len() as u64;
        Ok(())
    }

    fn end(&self, writer: &mut Writer, session: OpenSession) -> Result<()> {
        if session.covered {
            let Some(file) = &writer.file else {
                return Err(self.wrong("no file is open".to_owned()));
            };
            file.file.sync().map_err(|e| Error::io("cannot sync", &self.path, e))?;
            let flip = file.file.write_at(session.start, &[tag::BEGIN]);
            flip.map_err(|e| Error::io("cannot write to", &self.path, e))?;
        }
        writer.unsynced = Some(writer.unsynced.map_or(session.epoch, |epoch| epoch.min(session.epoch)));
        Ok(())
    }

    /// Opens the file to append; the directory is put right, so it ends with an ended session.
    fn open_file(&self) -> Result<LogFile> {
        let failed = |e| Error::io("cannot open", &self.path, e);
        let file = self.shared.vfs.open(&self.path, Open::Create).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        Ok(LogFile { file, len, unnamed: true })
    }

    /// All sessions that have ended are on the disk when this returns.
    pub fn sync(&self) -> Result<()> {
        self.shared.check()?;
        self.sync_locked(&mut self.writer.lock())
    }

    fn sync_locked(&self, writer: &mut Writer) -> Result<()> {
        let (Some(file), Some(_)) = (&mut writer.file, writer.unsynced) else {
            return Ok(());
        };
        let synced = file.file.sync().map_err(|e| Error::io("cannot sync", &self.path, e)).and_then(|()| {
            if file.unnamed {
                let directory = crashsafe::parent(&self.path);
                let synced = self.shared.vfs.sync_dir(directory);
                synced.map_err(|e| Error::io("cannot sync the directory", directory, e))?;
            }
            Ok(())
        });
        synced.map_err(|e| self.shared.fail(e))?;
        file.unnamed = false;
        writer.unsynced = None;
        Ok(())
    }

    /// Makes every session with an epoch up to `epoch` durable.
    pub fn sync_up_to(&self, epoch: Epoch) -> Result<()> {
        let mut writer = self.writer.lock();
        if let Some(open) = writer.open.as_ref().filter(|open| open.epoch <= epoch) {
            let message = format!("epoch {epoch} is committed while a session of epoch {} is unended", open.epoch);
            return Err(self.wrong(message));
        }
        match writer.unsynced {
            Some(unsynced) if unsynced <= epoch => self.sync_locked(&mut writer),
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
        let mut writer = self.writer.lock();
        let Writer { file: Some(file), open, sessions, .. } = &mut *writer else {
            return Ok(());
        };
        let failed = |e| Error::io("cannot put right", &self.path, e);
        let mut end = file.len;
        if let Some(open) = open.take() {
            end = open.start;
            sessions.forget_from(open.start);
        }
        let beyond = match sessions.beyond(durable) {
            Beyond::Known(beyond) => beyond,
            Beyond::RescanFrom(offset) => rescan(&*file.file, offset, end, durable, &self.path)?,
        };
        end = beyond.cut_at.unwrap_or(end);
        if end == file.len && beyond.marks.is_empty() {
            *sessions = Sessions::default();
            return Ok(());
        }
        for offset in &beyond.marks {
            file.file.write_at(*offset, &[tag::INVALIDATED]).map_err(failed)?;
        }
        if end < file.len {
            file.file.set_len(end).map_err(failed)?;
            file.len = end;
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

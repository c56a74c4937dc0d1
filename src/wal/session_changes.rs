// SPDX-License-Identifier: Apache-2.0
//! What was written to a session file and must not stay there: an open session is cut off, sessions are cut off or
//! marked, and a rotation moves an open session to a new file.

use super::entry::tag;
use super::session_file::{Late, Log, OldContent, Session, SessionFile, BUFFER_BYTES};
use crate::error::{Error, Result};
use std::io;

impl SessionFile {
    /// Gives the open session up. What was written of it is cut off, and the cut synced: nothing must stand behind, or
    /// over, entries that nobody ended. Returns whether there was a session.
    pub fn cut_off(&mut self) -> Result<bool> {
        self.failure.check()?;
        let Some(session) = self.session.take() else {
            return Ok(false);
        };
        let log = self.log_mut()?;
        // A mark that came with it goes with it.
        log.marked &= session.start == log.ended;
        let end = log.ended;
        self.take_away(end, &[]).map_err(|e| self.failure.note(e))?;
        Ok(true)
    }

    /// Ends the file at `end`, where a session begins or ends, and marks the sessions that begin at `marks` as ones
    /// that do not count, durably. An open session is given up.
    pub fn discard(&mut self, end: u64, marks: &[u64]) -> Result<()> {
        self.failure.check()?;
        self.session = None;
        self.write_out().and_then(|()| self.take_away(end, marks)).map_err(|e| self.failure.note(e))
    }

    /// Gives the file a rotated name. What an open session has written moves to a new file, and the old one ends with
    /// an ended session. A crash in between leaves that session unended in one file or in both. Nothing happens where
    /// no session was ended.
    ///
    /// # Errors
    /// When the file still has its old name afterwards, and no session is open, the writer goes on as before.
    pub fn rotate(&mut self) -> Result<()> {
        self.failure.check()?;
        match (self.session, &self.log) {
            (_, Some(Log { ended: 0, .. })) => Ok(()),
            (Some(session), Some(_)) => self.move_session(session).map_err(|e| self.failure.note(e)),
            _ => {
                // Nobody can ask for a sync of the old file afterwards.
                self.sync()?;
                self.forget();
                let rotated = self.names.rotate(&self.path);
                rotated.map_err(|e| if self.names.has_failed() { self.failure.note(e) } else { e })
            }
        }
    }

    /// Marks sessions, ends the file at `end`, and syncs it, if any of that changes what was written.
    fn take_away(&mut self, end: u64, marks: &[u64]) -> Result<()> {
        let SessionFile { log: Some(log), buffer, path, .. } = self else {
            return Ok(());
        };
        let failed = |e| Error::io("cannot cut off what does not count in", path, e);
        buffer.truncate(end.saturating_sub(log.buffer_at) as usize);
        log.buffer_at = log.buffer_at.min(end);
        log.ended = log.ended.min(end);
        if log.written <= end && marks.is_empty() {
            return Ok(());
        }
        log.changes += 1;
        for offset in marks {
            log.sync.file.write_at(*offset, &[tag::INVALIDATED]).map_err(failed)?;
        }
        if log.written > end {
            log.sync.file.set_len(end).map_err(failed)?;
            log.written = end;
            log.sync_asked = log.sync_asked.min(end);
        }
        log.sync.content(log.changes)
    }

    /// Rotates below an open session.
    fn move_session(&mut self, session: Session) -> Result<()> {
        let Some(mut old) = self.log.take() else {
            return Ok(());
        };
        // What the old file keeps is complete before it gets out of reach.
        old.write(&self.path, &self.buffer, old.ended)?;
        old.sync.content_and_name(old.changes, old.changes)?;
        let unwritten = self.buffer.split_off((old.written.max(session.start) - old.buffer_at) as usize);
        self.names.rotate(&self.path)?;
        self.log = Some(self.open_log(OldContent::Append)?);
        self.buffer.clear();
        let late = if session.late == Late::No { Late::No } else { Late::MarkerUnsynced };
        self.session = Some(Session { from: 0, start: 0, late });
        self.copy(&old, session.start)?;
        self.buffer.extend_from_slice(&unwritten);
        if old.written > old.ended {
            let failed = |e| Error::io("cannot rotate", &self.path, e);
            old.sync.file.set_len(old.ended).map_err(failed)?;
            old.sync.content(old.changes + 1)?;
        }
        Ok(())
    }

    /// Appends what stands in `old` from `start` on.
    fn copy(&mut self, old: &Log, start: u64) -> Result<()> {
        let mut at = start;
        while at < old.written {
            let from = self.buffer.len();
            let piece = (old.written - at).min(BUFFER_BYTES as u64);
            self.buffer.resize(from + piece as usize, 0);
            let failed = |e| Error::io("cannot rotate", &self.path, e);
            let got = old.sync.file.read_at(at, &mut self.buffer[from..]).map_err(failed)? as u64;
            if got != piece {
                let message = format!("found {got} of {piece} written bytes at offset {at}");
                return Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, message)));
            }
            at += piece;
            if self.is_full() {
                self.write_out()?;
                self.drop_written();
            }
        }
        Ok(())
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What is in the buffer of a session file gets to the file: at once, or, for a late session, in the order in which a
//! power cut at any moment leaves either a session that does not count or a whole one.

use super::entry::{tag, MARKER_LEN};
use super::session_file::{Late, Session, SessionFile};
use crate::error::{Error, Result};

impl SessionFile {
    pub(super) fn write_out(&mut self) -> Result<()> {
        let SessionFile { log: Some(log), session, buffer, path, .. } = self else {
            return Ok(());
        };
        let end = log.buffer_at + buffer.len() as u64;
        if let Some(Session { start, late, .. }) = session.as_mut().filter(|session| session.late != Late::No) {
            if *start >= log.buffer_at && *start < end {
                buffer[(*start - log.buffer_at) as usize] = tag::INVALIDATED;
            }
            if *late == Late::MarkerUnsynced {
                // A power cut may keep the end of the session and take its beginning: without the marker that it does
                // not count, that would look like the loss of a session that does.
                let marker_end = *start + MARKER_LEN as u64;
                log.write(path, buffer, end.min(marker_end))?;
                if end < marker_end {
                    return Ok(());
                }
                log.sync.content(log.changes)?;
                *late = Late::MarkerSynced;
            }
        }
        log.write(path, buffer, end)
    }

    /// Lets a whole late session count. It is on the disk before its marker says so, and the marker before this
    /// returns.
    pub(super) fn make_valid(&mut self, start: u64) -> Result<()> {
        let path = self.path.clone();
        let log = self.log_mut()?;
        log.sync.content(log.changes)?;
        let file = log.sync.file.clone();
        log.changes += 1;
        let marked = file.write_at(start, &[tag::BEGIN]).map_err(|e| Error::io("cannot write to", &path, e));
        let marked = marked.and_then(|()| log.sync.content(log.changes));
        if marked.is_err() {
            // The next start must not see a mark that the system may have failed to write for good. The error that made
            // this necessary is the one to report.
            let _ = file.write_at(start, &[tag::INVALIDATED]);
        }
        marked?;
        let at = start.checked_sub(log.buffer_at);
        if let Some(marker) = at.and_then(|at| self.buffer.get_mut(at as usize)) {
            *marker = tag::BEGIN;
        }
        Ok(())
    }
}

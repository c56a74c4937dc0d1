// SPDX-License-Identifier: Apache-2.0
//! How a writer of a log file hands over what has ended in it.

use super::gather::{Fill, LogFile};
use super::running::Journal;
use crate::error::{Error, Result};
use crate::wal::file_sync::PendingSync;
use crate::wal::session_file::{Ended, SessionFile};
use std::sync::Arc;

impl Journal {
    /// Takes what has ended in a file, one session or several behind each other, and is not on the disk; all before it
    /// was taken. Much at once, and what is synced already, is named only, and synced in the file with its name.
    /// `known` is what was returned for the file before; one that was opened anew is another one. Returns how much
    /// waits for the next group.
    pub fn add_ended(&self, file: &mut SessionFile, ended: Ended, known: &mut Option<Arc<LogFile>>) -> Result<Fill> {
        let Some(written) = file.start_sync()? else {
            return Err(Error::WrongState(format!("the file is not open: {}", file.path().display())));
        };
        if self.is_by_name(ended) {
            return self.add_by_name(file, &written, ended, known);
        }
        let log = known_as(file, &written, known);
        match file.buffered(ended) {
            Some(bytes) => self.add(&log, &written, ended.start, bytes),
            None => self.add(&log, &written, ended.start, &file.read_back(ended)?),
        }
    }

    /// Whether so much is only named, or because it is synced already.
    pub fn is_by_name(&self, ended: Ended) -> bool {
        ended.synced || ended.len >= self.large_bytes() as u64
    }

    /// As [`Self::add_ended`] for what is only named; `written` has been run, or is.
    pub fn add_by_name(
        &self,
        file: &SessionFile,
        written: &PendingSync,
        ended: Ended,
        known: &mut Option<Arc<LogFile>>,
    ) -> Result<Fill> {
        self.add_named(&known_as(file, written, known), written, ended.start, ended.len)
    }
}

/// The file as the journal knows it.
fn known_as(file: &SessionFile, written: &PendingSync, known: &mut Option<Arc<LogFile>>) -> Arc<LogFile> {
    match known {
        Some(log) if log.is(written) => log.clone(),
        other => {
            let name = file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
            other.insert(Arc::new(LogFile::new(name, written))).clone()
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! How a writer of a log file hands over what has ended in it.

use super::gather::LogFile;
use super::running::Journal;
use crate::error::{Error, Result};
use crate::wal::session_file::{Ended, SessionFile};
use std::sync::Arc;

impl Journal {
    /// Takes what has ended in a file, one session or several behind each other, and is not on the disk; all before it
    /// was taken. Much at once, and what is synced already, is named only, and synced in the file with its name.
    /// `known` is what was returned for the file before; one that was opened anew is another one. Returns whether it
    /// is time for a group.
    pub fn add_ended(&self, file: &mut SessionFile, ended: Ended, known: &mut Option<Arc<LogFile>>) -> Result<bool> {
        let by_name = ended.synced || ended.len >= self.large_bytes() as u64;
        let Some(written) = file.start_sync()? else {
            return Err(Error::WrongState(format!("the file is not open: {}", file.path().display())));
        };
        if by_name {
            written.run()?;
        }
        let log = match known {
            Some(log) if log.is(&written) => log,
            other => {
                let name = file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
                other.insert(Arc::new(LogFile::new(name, &written)))
            }
        };
        if by_name {
            return self.add_synced(log, &written, ended.start, ended.len);
        }
        match file.buffered(ended) {
            Some(bytes) => self.add(log, &written, ended.start, bytes),
            None => self.add(log, &written, ended.start, &file.read_back(ended)?),
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Whether a start opens a directory, for those who only look at it. It is a start that ends before it changes
//! anything: the same checks of manifest, catalog and history, the same reading of the log.

use super::offline::OfflineDirectory;
use super::start::{read_log, recorded, Reading};
use crate::error::{Error, Result};
use crate::recovery::{Onlooker, Recovered};
use crate::types::Epoch;

/// What a start would make of a directory.
#[derive(Debug)]
pub struct Verdict {
    /// What it reads of the log, or why it refuses to.
    pub outcome: Result<Recovered>,
    /// Why it refuses the directory whatever the log holds: the history cannot be used, or lets no engine start.
    pub barred: Option<Error>,
    /// What it would warn of.
    pub warnings: Vec<String>,
}

impl Verdict {
    /// Why a start refuses the directory.
    pub fn refusals(&self) -> impl Iterator<Item = &Error> {
        self.outcome.as_ref().err().into_iter().chain(&self.barred)
    }
}

impl OfflineDirectory {
    /// What a start would make of this directory as it is now. Without `snapshot_memory_bytes` the snapshot is empty.
    ///
    /// # Errors
    /// [`Error::Io`] when that cannot be known.
    pub fn verdict(&self, threads: usize, snapshot_memory_bytes: Option<u64>) -> Result<Verdict> {
        self.judge(self.read_log(threads, snapshot_memory_bytes))
    }

    /// The same, without a snapshot; `onlooker` looks on while the log is read.
    ///
    /// # Errors
    /// As those of [`OfflineDirectory::verdict`].
    pub fn verdict_before(&self, threads: usize, onlooker: &dyn Onlooker) -> Result<Verdict> {
        self.judge(self.read(Reading { threads, snapshot_memory_bytes: None, marks: None }, Some(onlooker)))
    }

    fn judge(&self, outcome: Result<Recovered>) -> Result<Verdict> {
        let mut warnings = self.warnings().to_vec();
        match outcome {
            Err(e @ Error::Io { .. }) => Err(e),
            outcome => {
                warnings.extend(outcome.iter().flat_map(|recovered| recovered.warnings.iter().cloned()));
                let durable = match &outcome {
                    Ok(recovered) => Some(recovered.durable.unwrap_or_default()),
                    Err(_) => self.catalog().ok().and_then(|it| recorded(&**self.vfs(), self.location(), it)),
                };
                Ok(Verdict { outcome, barred: self.barred(durable)?, warnings })
            }
        }
    }

    /// What a start reads of the log, whatever the history says. Without `snapshot_memory_bytes` the snapshot is empty.
    ///
    /// # Errors
    /// What a start refuses the log for; [`Error::Io`] when that cannot be known.
    pub fn read_log(&self, threads: usize, snapshot_memory_bytes: Option<u64>) -> Result<Recovered> {
        self.read(Reading { threads, snapshot_memory_bytes, marks: None }, None)
    }

    fn read(&self, reading: Reading, onlooker: Option<&dyn Onlooker>) -> Result<Recovered> {
        let catalog = self.catalog().map_err(|broken| Error::BrokenMetadata(broken.to_string()))?;
        read_log(&**self.vfs(), self.location(), catalog, self.has_end_markers(), reading, onlooker)
    }

    /// Why the history lets no engine start.
    fn barred(&self, durable: Option<Epoch>) -> Result<Option<Error>> {
        let checked = self.history().and_then(|history| match history {
            Some(history) => history.check_start(self.location(), durable),
            None => Ok(()),
        });
        match checked {
            Err(e @ Error::Io { .. }) => Err(e),
            checked => Ok(checked.err()),
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The history of a data directory: which run of an engine wrote which epochs. A *run* is one start of an engine, known
//! by a random id. Two directories are compared by their runs and by nothing else: an epoch number that was used twice
//! has two runs. Pure; the file is in `history_file.rs`.
//!
//! Runs stand in the order of their first epochs, which grow strictly. A run has the epochs from its first one up to
//! the one before the first of the next run, the last run those up to the durable epoch. A run that begins where an
//! earlier one began takes its place: nothing that the earlier one wrote from there on is left, or can be told from the
//! new one's.

use crate::types::Epoch;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Beyond this many runs the oldest are forgotten; a replica that has nothing later needs a base sync.
pub const RUNS_MAX: usize = 512;

/// The random name of a run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RunId(pub u128);

impl RunId {
    pub fn random() -> RunId {
        RunId(uuid::Uuid::new_v4().as_u128())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for RunId {
    type Error = String;

    fn try_from(text: String) -> Result<RunId, String> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let id = digits.then(|| u128::from_str_radix(&text, 16).ok()).flatten();
        id.map(RunId).ok_or_else(|| format!("the id of a run was expected to be 32 hexadecimal digits, found {text:?}"))
    }
}

/// One start of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub id: RunId,
    /// Raised by each takeover.
    pub term: u64,
    /// The first epoch that it may have written to.
    pub first_epoch: u64,
}

/// The runs of a directory, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Runs before the first of the list are not known any more.
    forgotten: bool,
    runs: Vec<Run>,
}

/// What two directories have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Common {
    /// All epochs up to this one, and none above it.
    UpTo(Epoch),
    /// Not a single run.
    Nothing,
    /// One of them ends before what the other still knows.
    Forgotten,
}

impl History {
    /// A history as it came from a file or a peer.
    ///
    /// # Errors
    /// Says what was expected and what was found.
    pub fn new(runs: Vec<Run>, forgotten: bool) -> Result<History, String> {
        let history = History { forgotten, runs };
        history.check().map(|()| history)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.runs.len() > RUNS_MAX {
            return Err(format!("at most {RUNS_MAX} runs were expected, found {}", self.runs.len()));
        }
        let grows = |pair: &[Run]| pair[0].first_epoch < pair[1].first_epoch && pair[0].term <= pair[1].term;
        match self.runs.windows(2).all(grows) {
            true => Ok(()),
            false => Err("runs were expected whose first epochs grow and whose terms do not fall".to_owned()),
        }
    }

    /// Oldest first.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The run that has an epoch, as far as it is known.
    pub fn run_at(&self, epoch: Epoch) -> Option<&Run> {
        self.runs.iter().rev().find(|run| run.first_epoch <= epoch.0)
    }

    /// Whether runs before the first of the list have been forgotten.
    pub fn has_forgotten(&self) -> bool {
        self.forgotten
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Begins a run that writes to epochs from `first_epoch` on. The first run of a directory has all epochs.
    pub fn begin(&mut self, id: RunId, term: u64, first_epoch: Epoch) {
        self.runs.retain(|run| run.first_epoch < first_epoch.0);
        let first_epoch = if self.runs.is_empty() && !self.forgotten { 0 } else { first_epoch.0 };
        self.runs.push(Run { id, term, first_epoch });
        let surplus = self.runs.len().saturating_sub(RUNS_MAX);
        self.forgotten |= surplus > 0;
        self.runs.drain(..surplus);
    }

    /// Nothing above `last` is left of what the runs wrote: those that began above it are gone, and the last one that
    /// is left ends with it.
    pub fn cut(&mut self, last: Epoch) {
        self.runs.retain(|run| run.first_epoch <= last.0);
    }

    /// The last run has not written to epochs before this one.
    pub(super) fn raise_last(&mut self, first_epoch: Epoch) {
        if let [.., before, last] = &mut self.runs[..] {
            last.first_epoch = last.first_epoch.max(first_epoch.0);
            debug_assert!(before.first_epoch < last.first_epoch);
        }
    }

    /// The highest common point of two directories with these histories and durable epochs: what the longest common
    /// beginning of their lists covers, up to the smaller of what follows.
    pub fn common(&self, durable: Epoch, other: &History, other_durable: Epoch) -> Common {
        let Some((mine, others)) = self.aligned(other) else {
            let ends_before = |durable: Epoch, known: &History| {
                known.forgotten && known.runs.first().is_some_and(|first| durable.0 < first.first_epoch)
            };
            return match ends_before(other_durable, self) || ends_before(durable, other) {
                true => Common::Forgotten,
                false => Common::Nothing,
            };
        };
        let same = mine.iter().zip(others).take_while(|(a, b)| a == b).count();
        let end = |runs: &[Run], durable: Epoch| match runs.get(same) {
            Some(next) => durable.0.min(next.first_epoch.saturating_sub(1)),
            None => durable.0,
        };
        Common::UpTo(Epoch(end(mine, durable).min(end(others, other_durable))))
    }

    /// Both lists from the first run on that both know; a run has the same predecessors wherever it stands.
    fn aligned<'a>(&'a self, other: &'a History) -> Option<(&'a [Run], &'a [Run])> {
        let position = |runs: &[Run], wanted: Option<&Run>| wanted.and_then(|w| runs.iter().position(|run| run == w));
        if let Some(at) = position(&other.runs, self.runs.first()) {
            return Some((&self.runs, &other.runs[at..]));
        }
        position(&self.runs, other.runs.first()).map(|at| (&self.runs[at..], &*other.runs))
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;

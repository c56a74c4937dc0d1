// SPDX-License-Identifier: Apache-2.0
//! What a data directory has, so that of several the one can be found that has all that was PROPAGATED.

use super::history::History;
use crate::types::Epoch;
use serde::{Deserialize, Serialize};

/// What a directory has, to be compared with others of the same database: the larger one has everything of the smaller
/// one that was PROPAGATED.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// The last term of which the directory has all that its primary began with. 0 when it says nothing of what else
    /// there may have been: see [`Self::counts`].
    pub term: u64,
    /// The last epoch that is there and may have been PROPAGATED.
    pub epoch: u64,
}

impl Claim {
    /// By the runs of a directory: the term of the last run that begins at most one above the durable epoch. What its
    /// primary began with was below that run.
    pub fn by(history: &History, durable: Epoch) -> Claim {
        let mut latest = history.runs().iter().rev();
        match durable {
            Epoch(0) => Claim::default(),
            _ => {
                let run = latest.find(|run| run.first_epoch <= durable.next().0);
                Claim { term: run.map_or(1, |run| run.term), epoch: durable.0 }
            }
        }
    }

    /// The same of a directory that has less.
    pub fn up_to(self, durable: Epoch) -> Claim {
        match self.epoch.min(durable.0) {
            0 => Claim::default(),
            epoch => Claim { epoch, ..self },
        }
    }

    /// Whether the directory counts as heard. One that was empty may be a new disk: it does not before it has
    /// everything that there was when it began to be filled.
    pub fn counts(&self) -> bool {
        self.term > 0
    }

    /// Whether there is nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Claim::default()
    }
}

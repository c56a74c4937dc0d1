// SPDX-License-Identifier: Apache-2.0
//! What a replica's directory is known to lack: by the runs of its primary, which begin above what that one had, and by
//! what the primary said that it had told its engine. Whether it was PROPAGATED only who has compared all directories
//! knows. And whether it was empty and is being filled: then it may stand in the place of a directory that had more.

use super::history_file::DirectoryHistory;
use crate::types::Epoch;

/// What a primary has told a replica of its epochs.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Up to where it has stored everything.
    pub stored: Epoch,
    /// The last one up to there that wrote something, once it has said so.
    pub written: Option<Epoch>,
    /// The last one with writes that it has told its engine of.
    pub reported: Epoch,
}

impl DirectoryHistory {
    /// The same directory when it is empty and follows a primary that has everything up to `stored`: it may be a new
    /// disk in the place of one that counted for something which was PROPAGATED, so it does not count before it has
    /// all.
    pub fn filling(mut self, stored: Epoch) -> DirectoryHistory {
        self.counts_from = Some(stored.0);
        self
    }

    /// Whether it does not count yet; `durable` is its durable epoch.
    pub fn is_filling(&self, durable: Epoch) -> bool {
        self.counts_from.is_some_and(|from| durable.0 < from)
    }

    /// The same directory when it has everything up to `durable` and its primary has told it this: it is known to lack
    /// what the engine was told of, and one that was empty counts when it lacks nothing of what is stored. `None` when
    /// that is nothing new.
    pub fn told(&self, told: Told, durable: Epoch) -> Option<DirectoryHistory> {
        let Told { stored, written, reported } = told;
        // What is here now does not stay.
        if self.awaits_base_sync {
            return None;
        }
        let mut file = self.clone();
        if written.is_some_and(|written| written <= durable) {
            file.counts_from.take_if(|from| *from <= stored.0);
        }
        if reported > durable {
            file.reported = self.reported.max(Some(reported.0));
        }
        (file != *self).then_some(file)
    }

    /// The same directory, which goes on from `before` with everything up to `durable`: it lacks what that one lacked
    /// of a run that both have, and counts when that one would.
    pub fn going_on_from(mut self, before: &DirectoryHistory, durable: Epoch) -> DirectoryHistory {
        if before.is_filling(durable) {
            self.counts_from = before.counts_from;
        }
        let run_of = |file: &DirectoryHistory, epoch| file.history.run_at(Epoch(epoch)).map(|run| run.id);
        self.reported = before.reported.filter(|&epoch| run_of(before, epoch) == run_of(&self, epoch));
        self
    }

    /// The last epoch that the primary is known to have told its engine of when it was not here.
    pub fn reported(&self) -> Option<Epoch> {
        self.reported.map(Epoch)
    }

    /// Says what a replica's directory that has everything up to `durable` is known to lack; `None` when nothing is.
    pub fn known_lack(&self, durable: Epoch) -> Option<String> {
        let begun = self.run().map_or(0, |run| run.first_epoch);
        let primary = match self.reported() {
            Some(reported) if reported > durable => format!("had told its engine that {reported} is durable"),
            _ if self.is_filling(durable) => {
                let from = self.counts_from.unwrap_or_default();
                format!("had {from} when it began to be filled, so it is not known to have all of that")
            }
            _ if begun > durable.next().0 => format!("had {} before it last started", begun - 1),
            _ => return None,
        };
        Some(format!("it has epochs up to {durable} only, and the primary {primary}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::history::{History, Run, RunId};

    fn follows(runs: &[(u128, u64)]) -> DirectoryHistory {
        let runs = runs.iter().map(|&(id, first_epoch)| Run { id: RunId(id), term: 1, first_epoch });
        DirectoryHistory::following("u", 1, History::new(runs.collect(), false).unwrap())
    }

    fn stored(stored: u64, written: Option<u64>, reported: u64) -> Told {
        Told { stored: Epoch(stored), written: written.map(Epoch), reported: Epoch(reported) }
    }

    #[test]
    fn what_was_told_is_lacking_until_it_is_there_or_is_no_part_of_what_is_followed() {
        let told = |file: &DirectoryHistory, reported| file.told(stored(60, None, reported), Epoch(49));
        let behind = told(&follows(&[(1, 0), (2, 30)]), 50).unwrap();
        assert_eq!((told(&behind, 50), told(&behind, 45), told(&follows(&[(1, 0)]), 49)), (None, None, None));
        assert_eq!(told(&follows(&[(1, 0)]).awaiting_base_sync(), 50), None);
        assert!(behind.known_lack(Epoch(49)).unwrap().contains("50"));
        assert_eq!(behind.known_lack(Epoch(50)), None);
        let file = DirectoryHistory::parse(&behind.encode()).unwrap();
        assert_eq!(file, behind);
        // The same primary, started again; and one that took over without it.
        for (runs, lacks) in [([(1, 0), (2, 30), (3, 60)], true), ([(1, 0), (2, 30), (9, 45)], false)] {
            let next = follows(&runs).going_on_from(&behind, Epoch(49));
            assert_eq!(next.reported(), lacks.then_some(Epoch(50)), "{runs:?}");
        }
        let mut promoted = behind;
        promoted.promote(Epoch(49));
        assert_eq!(promoted.reported(), None);
    }

    #[test]
    fn one_that_was_empty_counts_when_it_has_all_that_there_was_also_in_later_sessions() {
        let fresh = follows(&[(1, 0)]).filling(Epoch(90));
        assert!(fresh.claim(Epoch(0)).is_nothing());
        let partly = fresh.claim(Epoch(60));
        assert!(!partly.counts() && !partly.is_nothing() && partly.epoch == 60, "{partly:?}");
        assert!(partly < follows(&[(1, 0)]).claim(Epoch(10)));
        let next = follows(&[(1, 0)]).going_on_from(&fresh, Epoch(60));
        assert!(!next.claim(Epoch(89)).counts() && next.claim(Epoch(90)).counts());
        assert!(follows(&[(1, 0)]).going_on_from(&fresh, Epoch(90)).claim(Epoch(90)).counts());
        // Nothing was written in the last epochs.
        assert!(next.known_lack(Epoch(80)).unwrap().contains("had 90 when"));
        let told = |epoch, written| next.told(stored(epoch, written, 0), Epoch(80));
        assert_eq!((told(89, Some(80)), told(90, Some(81)), told(90, None)), (None, None, None));
        let whole = told(90, Some(80)).unwrap();
        assert!(whole.claim(Epoch(80)).counts() && whole.known_lack(Epoch(80)).is_none());
    }
}

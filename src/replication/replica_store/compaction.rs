// SPDX-License-Identifier: Apache-2.0
//! Compaction while sessions come in. The log is cut between two epochs: sessions of later ones are held back until
//! what has come is recorded and its files have rotated names. Then those are merged beside everything else.

use super::store::StandbyStore;
use crate::backup::InProgress;
use crate::compaction::{self, own, Preparation, Sizes};
use crate::directory::make_control_directory;
use crate::error::Result;
use crate::recovery::Input;
use crate::scrub::{Comparison, Damage};
use crate::types::Epoch;
use crate::wal::marks_file;
use crate::wal::rotation;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const BACKUP: &str = "a backup is in progress";
const REPLACED: &str = "the directory was replaced";
const POLL: Duration = Duration::from_millis(1);

/// What has become of a compaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    NothingToDo,
    /// A log file does not hold any more what was written; nothing was changed.
    Damaged(Damage),
    /// This was in the way; to be tried again.
    Postponed(&'static str),
}

/// How one is done.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// Who copies files; waits for none of them.
    pub backups: &'a InProgress,
    /// Bounds the memory for sorting, in bytes.
    pub memory_bytes: u64,
    /// How long later sessions are held back at most: an epoch whose sessions are on their way ends sooner.
    pub patience: Duration,
    /// Breaks it off.
    pub stopping: &'a AtomicBool,
}

impl StandbyStore {
    /// Puts one compacted file in the place of everything that is durable, and deletes the log files that it replaces.
    /// One at a time. `hold` gives what keeps the directory from being replaced until the result counts, or `None` when
    /// it was replaced: then nothing is changed.
    ///
    /// # Errors
    /// When the log cannot be read or the disk fails; the directory gives the same entries as before.
    pub fn compact<G>(&self, work: Work<'_>, hold: impl Fn() -> Option<G>) -> Result<Outcome> {
        if self.is_empty() {
            return Ok(Outcome::NothingToDo);
        }
        let epoch = {
            let Some(_change) = work.backups.try_change() else { return Ok(Outcome::Postponed(BACKUP)) };
            match self.cut(work.patience)? {
                Some(epoch) => epoch,
                None => return Ok(Outcome::Postponed("no epoch has ended in time")),
            }
        };
        let (catalog, end_markers) = self.shared.with_directory(|directory| {
            let catalog = directory.catalog().clone();
            (catalog, directory.has_end_markers())
        })?;
        let input = Input {
            vfs: &**self.vfs(),
            location: self.location(),
            catalog: &catalog,
            end_markers,
            threads: 1,
            memory_bytes: work.memory_bytes,
            releases: true,
            stopping: Some(work.stopping),
            pace: None,
            marks: None,
        };
        let comparison = Comparison::new(&**self.vfs(), self.location(), self.known(), Some(work.stopping));
        let prepare = || compaction::prepare(&input, epoch, None, &|name| comparison.check(name));
        let prepared = match compaction::behind_others(self.location(), prepare) {
            Ok(Preparation::Done(prepared)) => prepared,
            Ok(Preparation::NoLog | Preparation::AllRetained) => return Ok(Outcome::NothingToDo),
            // What was read is gone.
            Err(_) if hold().is_none() => return Ok(Outcome::Postponed(REPLACED)),
            Err(e) => return comparison.damage().map(Outcome::Damaged).ok_or(e),
        };
        let obstacle = |what| {
            prepared.abandon();
            Ok(Outcome::Postponed(what))
        };
        let Some(_change) = work.backups.try_change() else { return obstacle(BACKUP) };
        let Some(_held) = hold() else { return obstacle(REPLACED) };
        let (vfs, location) = (&**self.vfs(), self.location());
        make_control_directory(vfs, location)?;
        // What is written down from an earlier one would else be taken for what is detached now.
        own::delete(vfs, location, &catalog)?;
        let logs: Vec<String> = prepared.logs().map(str::to_owned).collect();
        own::intend(vfs, location, &logs)?;
        let committed = prepared.commit()?;
        marks_file::note_compacted(vfs, location, self.marks());
        // Before anything is deleted: what is left of those files must never be merged again, because it would win over
        // the compacted file.
        self.shared.with_directory(|directory| directory.set_catalog(committed.clone()))?;
        let deleted = own::delete(vfs, location, &committed)?;
        let saved = marks_file::save(vfs, location, self.marks(), marks_file::Which::Complete);
        saved.map_err(|e| self.shared.fail(e))?;
        log::info!("compaction finished; {deleted} log files that were compacted are deleted");
        Ok(Outcome::Done)
    }

    /// What log and compacted file take on the disk.
    ///
    /// # Errors
    /// [`Error::Io`](crate::error::Error::Io).
    pub(crate) fn sizes(&self) -> Result<Sizes> {
        let catalog = self.shared.with_directory(|directory| directory.catalog().clone())?;
        Sizes::of(&**self.vfs(), self.location(), |name| catalog.detached.contains(name))
    }

    /// Gives every log file a rotated name at a moment at which all of its sessions are recorded, and returns the
    /// durable epoch of that moment: all sessions of it and of those before are in rotated files. `None` when there was
    /// no such moment soon.
    fn cut(&self, patience: Duration) -> Result<Option<Epoch>> {
        // What takes long is done while sessions come in.
        self.settle()?;
        let closed = self.shared.gate.close_behind(self.highest());
        // What began before it was closed.
        closed.raise(self.highest());
        let deadline = Instant::now() + patience;
        let _recording = loop {
            self.shared.check()?;
            // Whoever records a later epoch may wait for the end of this.
            match self.pause_recording().filter(|_| closed.seal(self.durable())) {
                Some(pause) => break pause,
                None if Instant::now() > deadline => return Ok(None),
                None => std::thread::sleep(POLL),
            }
        };
        self.settle()?;
        let lanes = self.lanes();
        if !lanes.iter().all(|lane| lane.is_recorded()) {
            return Ok(None);
        }
        // Before a file gets another name: nobody who copies takes another one for it.
        self.shared.count_renamed();
        let rotate = || {
            lanes.iter().try_for_each(|lane| lane.rotate())?;
            // Those that no lane has written to.
            rotation::rotate_idle(&**self.vfs(), self.location(), |_| true).map(drop)
        };
        rotate().map_err(|e| self.shared.fail(e))?;
        Ok(Some(self.durable()))
    }

    /// The last epoch of which there are sessions, or the durable one.
    fn highest(&self) -> Epoch {
        let lanes = self.lanes();
        lanes.iter().filter_map(|lane| lane.highest()).fold(self.durable(), Epoch::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::Commit;
    use crate::recovery::fixture::{pairs, put, rows, session, Dir, LOCATION};
    use crate::recovery::recover;
    use crate::vfs::{Fault, SimFs, Vfs};
    use crate::wal::{journal, names};
    use std::path::Path;
    use std::sync::Arc;

    const LONG: Duration = Duration::from_secs(60);

    fn open(fs: &SimFs, commit: Commit) -> Arc<StandbyStore> {
        Arc::new(StandbyStore::open_with(Arc::new(fs.clone()), Path::new(LOCATION), commit).unwrap())
    }

    fn ways() -> [Commit; 2] {
        let small = journal::Settings::default().bytes_max(0).idle(None).settles_ahead(false);
        [Commit::Direct, Commit::Journal(small)]
    }

    fn append(store: &StandbyStore, lane: u32, epoch: u64, value: &str) {
        let bytes = session(epoch, &[put(b"k", epoch, value), put(format!("{lane}").as_bytes(), epoch, value)]);
        store.lane(lane).append(Epoch(epoch), true, true, &bytes).unwrap();
    }

    fn compact_beside(store: &StandbyStore, backups: &InProgress, patience: Duration, is_there: bool) -> Outcome {
        let stopping = AtomicBool::new(false);
        let work = Work { backups, memory_bytes: 1 << 20, patience, stopping: &stopping };
        store.compact(work, || is_there.then_some(())).unwrap()
    }

    fn compact(store: &StandbyStore) -> Outcome {
        compact_beside(store, &InProgress::default(), LONG, true)
    }

    /// Does this while the log is being cut behind epoch 5, of which a session is there.
    fn while_it_is_cut(commit: Commit, meanwhile: impl FnOnce(&StandbyStore)) -> (SimFs, Arc<StandbyStore>) {
        let fs = SimFs::new();
        let store = open(&fs, commit);
        append(&store, 0, 4, "older");
        store.record(Epoch(4)).unwrap();
        append(&store, 0, 5, "old");
        std::thread::scope(|scope| {
            let compacted = scope.spawn(|| compact(&store));
            while !store.shared.gate.is_closed_for(Epoch(6)) {
                assert!(!compacted.is_finished());
                std::thread::yield_now();
            }
            meanwhile(&store);
            assert_eq!(compacted.join().unwrap(), Outcome::Done);
        });
        (fs, store)
    }

    fn content(fs: &SimFs, store: &StandbyStore) -> Vec<(String, String)> {
        store.settle().unwrap();
        let catalog = store.shared.with_directory(|directory| directory.catalog().clone()).unwrap();
        rows(&recover(&Dir { fs: fs.clone(), catalog, threads: 1 }.input()).unwrap().snapshot)
    }

    fn rotated(fs: &SimFs) -> usize {
        let is_rotated = |name: &str| names::is_log(name) && !names::is_compacted(name) && !names::is_active_log(name);
        fs.names(Path::new(LOCATION)).unwrap().iter().filter(|(name, _)| is_rotated(name.to_str().unwrap())).count()
    }

    #[test]
    fn sessions_go_on_while_everything_recorded_becomes_one_file() {
        for commit in ways() {
            let fs = SimFs::new();
            let store = open(&fs, commit);
            append(&store, 0, 5, "a");
            append(&store, 1, 5, "b");
            store.record(Epoch(5)).unwrap();
            assert_eq!(compact(&store), Outcome::Done);
            assert_eq!(rotated(&fs), 0, "what was compacted is deleted");
            append(&store, 1, 6, "c");
            store.record(Epoch(6)).unwrap();
            let expected = pairs(&[("0", "a"), ("1", "c"), ("k", "c")]);
            assert_eq!(content(&fs, &store), expected, "{commit:?}");
            assert_eq!(compact(&store), Outcome::Done);
            assert_eq!(content(&fs, &store), expected);
            assert_eq!(compact(&store), Outcome::NothingToDo);
            store.close();
            let store = open(&fs, commit);
            assert_eq!((content(&fs, &store), store.durable()), (expected, Epoch(6)), "{commit:?}");
        }
    }

    #[test]
    fn the_log_is_cut_between_two_epochs_while_later_sessions_wait() {
        for commit in ways() {
            let (fs, store) = while_it_is_cut(commit, |store| {
                // A session of the epoch that is on its way comes in, and one of the next does not.
                append(store, 1, 5, "new");
                append(store, 0, 6, "next");
                // Of another channel on the same lane.
                let bytes = session(5, &[put(b"same lane", 5, "v")]);
                store.lane(0).append(Epoch(5), true, true, &bytes).unwrap();
                assert!(!store.lane(0).is_synced_up_to(Epoch(5)), "it is written");
                store.lane(0).sync_up_to(Epoch(5)).unwrap();
                assert!(store.lane(0).is_synced_up_to(Epoch(5)));
                assert!(!store.lane(0).is_synced_up_to(Epoch(6)), "it is held back");
                store.lane(0).sync().unwrap();
                assert!(!store.lane(0).is_synced_up_to(Epoch(6)), "it is held back");
                store.record(Epoch(5)).unwrap();
            });
            assert_eq!(
                content(&fs, &store),
                pairs(&[("0", "old"), ("1", "new"), ("k", "new"), ("same lane", "v")]),
                "{commit:?}"
            );
            store.record(Epoch(6)).unwrap();
            assert_eq!(
                content(&fs, &store),
                pairs(&[("0", "next"), ("1", "new"), ("k", "next"), ("same lane", "v")]),
                "{commit:?}"
            );
        }
    }

    #[test]
    fn the_cut_moves_behind_epochs_that_are_committed_together_but_once() {
        for commit in ways() {
            let (fs, store) = while_it_is_cut(commit, |store| {
                for epoch in 6..=9 {
                    append(store, 0, epoch, &epoch.to_string());
                }
                store.lane(0).sync_up_to(Epoch(7)).unwrap();
                assert!(!store.shared.gate.is_closed_for(Epoch(7)) && store.shared.gate.is_closed_for(Epoch(8)));
                std::thread::scope(|scope| {
                    let next = scope.spawn(|| store.lane(0).sync_up_to(Epoch(9)).unwrap());
                    std::thread::sleep(Duration::from_millis(20));
                    assert!(!next.is_finished() && store.shared.gate.is_closed_for(Epoch(8)), "it moves once");
                    store.record(Epoch(7)).unwrap();
                });
            });
            assert_eq!(content(&fs, &store), pairs(&[("0", "7"), ("k", "7")]), "{commit:?}");
            store.record(Epoch(9)).unwrap();
            assert_eq!(content(&fs, &store), pairs(&[("0", "9"), ("k", "9")]), "{commit:?}");
        }
    }

    #[test]
    fn one_that_fails_at_any_call_leaves_what_the_next_one_compacts_rightly() {
        // The older value is in the file that is deleted last.
        let prepared = |fs: &SimFs| {
            let store = open(fs, Commit::Direct);
            append(&store, 1, 5, "older");
            store.record(Epoch(5)).unwrap();
            append(&store, 0, 6, "newer");
            store.record(Epoch(6)).unwrap();
            store
        };
        let calls = {
            let fs = SimFs::new();
            let store = prepared(&fs);
            let before = fs.operations();
            assert_eq!(compact(&store), Outcome::Done);
            fs.operations() - before
        };
        for call in 1..=calls {
            let fs = SimFs::new();
            let store = prepared(&fs);
            fs.fail_at(fs.operations() + call, Fault::IoError);
            let (backups, stopping) = (InProgress::default(), AtomicBool::new(false));
            let work = Work { backups: &backups, memory_bytes: 1 << 20, patience: LONG, stopping: &stopping };
            // It may be a call that it can do without.
            let _ = store.compact(work, || Some(()));
            let store = match store.failure() {
                None => store,
                Some(_) => {
                    store.close();
                    open(&fs, Commit::Direct)
                }
            };
            store.lane(2).append(Epoch(7), true, true, &session(7, &[put(b"other", 7, "v")])).unwrap();
            store.record(Epoch(7)).unwrap();
            assert_eq!(compact(&store), Outcome::Done, "call {call}");
            let expected = pairs(&[("0", "newer"), ("1", "older"), ("k", "newer"), ("other", "v")]);
            assert_eq!(content(&fs, &store), expected, "call {call}");
        }
    }

    #[test]
    fn an_epoch_that_does_not_end_holds_sessions_up_for_a_moment_only() {
        let fs = SimFs::new();
        let store = open(&fs, Commit::Direct);
        append(&store, 0, 5, "a");
        store.record(Epoch(5)).unwrap();
        append(&store, 0, 6, "b");
        let before = fs.files();
        let patience = Duration::from_millis(50);
        assert_eq!(
            compact_beside(&store, &InProgress::default(), patience, true),
            Outcome::Postponed("no epoch has ended in time")
        );
        append(&store, 0, 7, "c");
        store.record(Epoch(7)).unwrap();
        assert!(fs.files().keys().eq(before.keys()), "nothing has got another name");
        assert_eq!(content(&fs, &store), pairs(&[("0", "c"), ("k", "c")]));
    }

    #[test]
    fn a_directory_that_was_replaced_meanwhile_or_is_copied_is_left_alone() {
        let fs = SimFs::new();
        let store = open(&fs, Commit::Direct);
        append(&store, 0, 5, "a");
        store.record(Epoch(5)).unwrap();
        let backups = Arc::new(InProgress::default());
        assert_eq!(compact_beside(&store, &backups, LONG, false), Outcome::Postponed(REPLACED));
        let compacted = Path::new(LOCATION).join(names::COMPACTED);
        assert!(!fs.files().contains_key(&compacted) && rotated(&fs) == 1);
        let ticket = backups.begin();
        assert_eq!(compact_beside(&store, &backups, LONG, true), Outcome::Postponed(BACKUP));
        drop(ticket);
        assert_eq!(compact_beside(&store, &backups, LONG, true), Outcome::Done);
        assert!(fs.files().contains_key(&compacted) && rotated(&fs) == 0);
    }
}

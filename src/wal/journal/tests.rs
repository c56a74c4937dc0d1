// SPDX-License-Identifier: Apache-2.0
//! A journal on a simulated disk, with files that only this test writes to: whatever call is the last before the power
//! goes, what was committed is in the files after a redo.

use super::*;
use crate::error::{Error, Result};
use crate::lock_order::{Mutex, Rank};
use crate::types::Epoch;
use crate::vfs::{crashsafe, Fault, Loss, Open, SimFs, Vfs, VfsFile};
use crate::wal::epoch_file::{self, EpochFile};
use crate::wal::file_sync::{Failure, FileSync, NameSync, PendingSync};
use crate::wal::names;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LOCATION: &str = "/log";
/// Stands for the manifest.
const MARK: &str = "mark";

struct TestHost(SimFs);

impl Host for TestHost {
    fn before_group(&self) -> Result<()> {
        Ok(())
    }

    fn set_in_use(&self, journal: Option<&JournalId>) -> Result<()> {
        let path = Path::new(LOCATION).join(MARK);
        let bytes = journal.map_or(Vec::new(), |journal| journal.to_vec());
        crashsafe::replace(&self.0, &path.with_extension("tmp"), &path, &bytes)
            .map_err(|e| Error::io("cannot mark", &path, e))
    }

    fn failed(&self, error: Error) {
        panic!("{error}");
    }
}

struct OpenFile {
    journaled: Arc<LogFile>,
    file: Arc<dyn VfsFile>,
    sync: Arc<FileSync>,
    /// Its length.
    end: u64,
    changes: u64,
}

/// Writes to files through a journal, and knows what they must hold.
struct Bench {
    fs: SimFs,
    journal: Arc<Journal>,
    files: BTreeMap<String, OpenFile>,
    names: Arc<NameSync>,
    /// Written, by file.
    written: BTreeMap<String, Vec<u8>>,
    /// The same when the last commit returned, and the epoch.
    committed: (BTreeMap<String, Vec<u8>>, u64),
    epoch: u64,
    round: u8,
}

fn path(name: &str) -> PathBuf {
    Path::new(LOCATION).join(name)
}

impl Bench {
    fn new(fs: &SimFs) -> Result<Bench> {
        let failed = |e| Error::io("cannot create", Path::new(LOCATION), e);
        fs.create_dir(Path::new(LOCATION)).map_err(failed)?;
        fs.sync_dir(Path::new("/")).map_err(failed)?;
        let vfs = Arc::new(fs.clone());
        let epoch_file = EpochFile::replace(vfs.clone(), Path::new(LOCATION), Epoch(0))?;
        let settings = Settings::default().bytes_max(1 << 20).idle(None);
        let host = Arc::new(TestHost(fs.clone()));
        let journal =
            Journal::new(vfs, Path::new(LOCATION), settings, host, Arc::new(Mutex::new(Rank::EpochFile, epoch_file)));
        Ok(Bench {
            fs: fs.clone(),
            journal: Arc::new(journal),
            files: BTreeMap::new(),
            names: Arc::new(NameSync::new(Arc::new(fs.clone()), Path::new(LOCATION))),
            written: BTreeMap::new(),
            committed: Default::default(),
            epoch: 0,
            round: 0,
        })
    }

    /// Appends a session; one too large for the journal is synced in its own file.
    fn session(&mut self, name: &str, len: usize) -> Result<()> {
        self.round = self.round.wrapping_add(1);
        let bytes = vec![self.round; len];
        if !self.files.contains_key(name) {
            let opened = self.open(name)?;
            self.files.insert(name.to_owned(), opened);
        }
        let OpenFile { journaled, file, sync, end, changes } = self.files.get_mut(name).unwrap();
        file.write_at(*end, &bytes).map_err(|e| Error::io("cannot write", &path(name), e))?;
        *changes += 1;
        let written = PendingSync { file: sync.clone(), changes: *changes, range: (*end, *end + len as u64) };
        if len < self.journal.large_bytes() {
            self.journal.add(journaled, &written, *end, &bytes)?;
        } else {
            self.journal.add_named(journaled, &written, *end, len as u64)?;
        }
        *end += len as u64;
        self.written.entry(name.to_owned()).or_default().extend(bytes);
        Ok(())
    }

    fn open(&self, name: &str) -> Result<OpenFile> {
        let file = self.fs.open(&path(name), Open::Create).map_err(|e| Error::io("cannot open", &path(name), e))?;
        let file: Arc<dyn VfsFile> = file.into();
        let sync = Arc::new(FileSync::new(file.clone(), &path(name), self.names.clone(), Failure::default()));
        let nothing = PendingSync { file: sync.clone(), changes: 0, range: (0, 0) };
        let journaled = Arc::new(LogFile::new(name.to_owned(), &nothing));
        Ok(OpenFile { journaled, file, sync, end: 0, changes: 0 })
    }

    fn commit(&mut self) -> Result<()> {
        self.epoch += 1;
        self.journal.commit(Some(Epoch(self.epoch)))?;
        self.committed = (self.written.clone(), self.epoch);
        Ok(())
    }

    /// Gives a file another name, as a rotation does.
    fn rotate(&mut self, name: &str, to: &str) -> Result<()> {
        let file = self.files.remove(name).unwrap();
        self.journal.settle_file(&file.journaled)?;
        // From here on everything is durable, whatever was committed; where it is depends on the rename.
        for contents in [&mut self.written, &mut self.committed.0] {
            let content = contents.remove(name).unwrap_or_default();
            contents.insert(to.to_owned(), content);
        }
        crashsafe::rename(&self.fs, &path(name), &path(to)).map_err(|e| Error::io("cannot rename", &path(name), e))
    }
}

/// Turns through all segments, with large sessions, new files, a rotation, settling and the end.
fn workload(bench: &mut Bench) -> Result<()> {
    bench.session("pwal_0000", 100)?;
    bench.session("pwal_0001", 5000)?;
    bench.commit()?;
    bench.session("pwal_0000", 70_000)?;
    bench.session("pwal_0000", 33)?;
    bench.commit()?;
    // More than the segments hold together, and more than one group at once.
    for _ in 0..8 {
        for name in ["pwal_0000", "pwal_0002", "pwal_0001"] {
            bench.session(name, 60_000)?;
        }
        bench.commit()?;
    }
    bench.session("pwal_0000", 700)?;
    bench.rotate("pwal_0000", "pwal_0000.1.0")?;
    bench.session("pwal_0000", 10)?;
    bench.commit()?;
    bench.session("pwal_0001", 10)?;
    bench.journal.commit(None)?;
    bench.journal.settle()?;
    bench.session("pwal_0000", 20)?;
    bench.commit()?;
    bench.journal.close()
}

fn mark(fs: &SimFs) -> Option<JournalId> {
    fs.read(&path(MARK), 100).ok()?.try_into().ok()
}

/// What a start does.
fn redo_all(fs: &SimFs) -> Result<()> {
    if let Some(journal) = mark(fs) {
        redo::read(fs, Path::new(LOCATION), &journal)?.settle(&(Arc::new(fs.clone()) as Arc<dyn Vfs>))?;
        TestHost(fs.clone()).set_in_use(None)?;
    }
    redo::delete(fs, Path::new(LOCATION))
}

/// The files hold at least what was committed, and nothing else before its end.
fn check(fs: &SimFs, (files, epoch): &(BTreeMap<String, Vec<u8>>, u64)) {
    let there = fs.files();
    let recorded = epoch_file::parse(&there[&path(names::EPOCH)], Path::new("epoch")).unwrap().max.unwrap();
    assert!(recorded >= Epoch(*epoch), "epoch {epoch} was committed, {recorded} is recorded");
    for (name, content) in files {
        let old = name.trim_end_matches(".1.0");
        let found = [name, old].iter().any(|name| there.get(&path(name)).is_some_and(|now| now.starts_with(content)));
        assert!(found, "{name} has not the {} bytes that were committed", content.len());
    }
}

fn run(fs: &SimFs) -> (Result<()>, Option<Bench>) {
    match Bench::new(fs) {
        Ok(mut bench) => (workload(&mut bench), Some(bench)),
        Err(e) => (Err(e), None),
    }
}

#[test]
fn power_cut_at_any_call_loses_nothing_that_was_committed() {
    let whole = SimFs::new();
    run(&whole).0.unwrap();
    let calls = whole.operations();
    for n in 1..=calls {
        let fs = SimFs::new();
        fs.fail_at(n, Fault::PowerCut);
        let (result, bench) = run(&fs);
        assert!(result.is_err() || n == calls);
        let Some(bench) = bench else { continue };
        for loss in [Loss::DropUnsynced, Loss::KeepUnsynced, Loss::Torn { seed: 2 * n }, Loss::Torn { seed: 2 * n + 1 }]
        {
            let image = fs.reboot(loss);
            redo_all(&image).unwrap_or_else(|e| panic!("call {n}, {loss:?}: {e}"));
            let image = image.reboot(Loss::DropUnsynced);
            check(&image, &bench.committed);
            assert_eq!(redo::segments(&image, Path::new(LOCATION)).unwrap(), Vec::<PathBuf>::new());
        }
    }
}

#[test]
fn failed_write_or_sync_stops_the_journal_and_loses_nothing_that_was_committed() {
    let whole = SimFs::new();
    run(&whole).0.unwrap();
    for n in 1..=whole.operations() {
        for fault in [Fault::SyncLoses, Fault::NoSpace] {
            let fs = SimFs::new();
            fs.fail_at(n, fault);
            let (result, bench) = run(&fs);
            let (Some(bench), Err(_)) = (bench, result) else { continue };
            let before = fs.operations();
            if bench.journal.check().is_err() {
                assert!(bench.journal.commit(Some(Epoch(99))).is_err() && bench.journal.settle().is_err());
                assert!(bench.journal.close().is_err());
                assert_eq!(fs.operations(), before, "nothing is tried again");
            }
            redo_all(&fs).unwrap_or_else(|e| panic!("call {n}, {fault:?}: {e}"));
            check(&fs.reboot(Loss::DropUnsynced), &bench.committed);
        }
    }
}

#[test]
fn a_panic_at_any_call_is_an_error_that_stops_the_journal_and_loses_nothing_that_was_committed() {
    let mut caught = 0;
    loop {
        let fs = SimFs::new();
        let mut bench = Bench::new(&fs).unwrap();
        bench.session("pwal_0000", 100).unwrap();
        bench.commit().unwrap();
        bench.session("pwal_0000", 50).unwrap();
        bench.session("pwal_0001", 5000).unwrap();
        fs.fail_at(fs.operations() + caught + 1, Fault::Panic);
        let commit_settle_close =
            bench.commit().and_then(|()| bench.journal.settle()).and_then(|()| bench.journal.close());
        let Err(error) = commit_settle_close else { break };
        assert!(error.to_string().contains("panicked"), "{error}");
        caught += 1;
        let before = fs.operations();
        // Nobody takes the panic for the end of what was under way.
        let later = [bench.journal.commit(Some(Epoch(9))), bench.journal.settle(), bench.journal.close()];
        assert!(later.iter().all(Result::is_err), "call {caught}: {later:?}");
        assert_eq!(fs.operations(), before, "nothing is tried again");
        let image = fs.reboot(Loss::DropUnsynced);
        redo_all(&image).unwrap_or_else(|e| panic!("call {caught}: {e}"));
        check(&image, &bench.committed);
    }
    assert!(caught >= 10, "{caught} calls");
}

#[test]
fn a_large_session_whose_sync_failed_is_in_no_group() {
    let fs = SimFs::new();
    let mut bench = Bench::new(&fs).unwrap();
    bench.session("pwal_0000", 100).unwrap();
    bench.commit().unwrap();
    // It is written, then synced.
    fs.fail_at(fs.operations() + 2, Fault::SyncLoses);
    bench.session("pwal_0000", 70_000).unwrap_err();
    // A thread that does not know of it yet.
    bench.journal.commit(Some(Epoch(2))).unwrap();
    let image = fs.reboot(Loss::DropUnsynced);
    redo_all(&image).unwrap();
    assert_eq!(image.files()[&path("pwal_0000")].len(), 100);
}

#[test]
fn redo_that_is_cut_off_at_any_call_is_done_again() {
    let fs = SimFs::new();
    let mut bench = Bench::new(&fs).unwrap();
    bench.session("pwal_0000", 100).unwrap();
    bench.session("pwal_0001", 5000).unwrap();
    bench.commit().unwrap();
    bench.session("pwal_0000", 70_000).unwrap();
    bench.commit().unwrap();
    bench.session("pwal_0001", 30_000).unwrap();
    let left = fs.reboot(Loss::Torn { seed: 3 });
    let undisturbed = left.reboot(Loss::DropUnsynced);
    redo_all(&undisturbed).unwrap();
    for n in 1..=undisturbed.operations() {
        let image = left.reboot(Loss::DropUnsynced);
        image.fail_at(n, Fault::PowerCut);
        assert!(redo_all(&image).is_err());
        for loss in [Loss::DropUnsynced, Loss::KeepUnsynced, Loss::Torn { seed: n }] {
            let again = image.reboot(loss);
            redo_all(&again).unwrap();
            check(&again, &bench.committed);
            assert_eq!(again.files(), undisturbed.files(), "call {n}, {loss:?}");
        }
    }
}

/// The journal after three groups, and where they stand in its only segment.
fn three_groups() -> (SimFs, JournalId, PathBuf) {
    let fs = SimFs::new();
    let mut bench = Bench::new(&fs).unwrap();
    for _ in 0..3 {
        bench.session("pwal_0000", 100).unwrap();
        bench.commit().unwrap();
    }
    (fs.reboot(Loss::DropUnsynced), mark(&fs).unwrap(), path(&names::journal_segment(0)))
}

fn damage(fs: &SimFs, segment: &Path, group: u64) {
    fs.open(segment, Open::Existing).unwrap().write_at(group * format::BLOCK_BYTES as u64 + 80, b"damage").unwrap();
}

#[test]
fn damaged_group_with_a_valid_one_behind_it_is_refused_and_nothing_is_changed() {
    let (fs, journal, segment) = three_groups();
    damage(&fs, &segment, 1);
    let before = fs.files();
    let message = redo::read(&fs, Path::new(LOCATION), &journal).unwrap_err().to_string();
    assert!(message.contains("found group 3 behind it, expected group 2, which was durable"), "{message}");
    assert_eq!(fs.files(), before);
}

#[test]
fn group_at_the_end_that_is_not_whole_was_never_acknowledged() {
    let (fs, journal, segment) = three_groups();
    damage(&fs, &segment, 2);
    let unsettled = redo::read(&fs, Path::new(LOCATION), &journal).unwrap();
    assert_eq!((unsettled.groups(), unsettled.epoch()), (2, Epoch(2)));
    unsettled.settle(&(Arc::new(fs.clone()) as Arc<dyn Vfs>)).unwrap();
    assert_eq!(fs.files()[&path("pwal_0000")].len(), 200);
}

#[test]
fn journal_that_is_gone_or_does_not_fit_its_files_is_refused() {
    let (fs, journal, segment) = three_groups();
    let other = redo::read(&fs, Path::new(LOCATION), &[0; 16]).unwrap();
    assert_eq!((other.groups(), other.epoch()), (0, Epoch(0)), "groups of another journal count for nothing");
    fs.unlink(&segment).unwrap();
    let message = redo::read(&fs, Path::new(LOCATION), &journal).unwrap_err().to_string();
    assert!(message.contains("the commit journal is missing"), "{message}");

    let fs = SimFs::new();
    let mut bench = Bench::new(&fs).unwrap();
    bench.session("pwal_0000", 70_000).unwrap();
    bench.commit().unwrap();
    fs.open(&path("pwal_0000"), Open::Existing).unwrap().set_len(69_999).unwrap();
    let message = redo::read(&fs, Path::new(LOCATION), &mark(&fs).unwrap()).unwrap_err().to_string();
    assert!(message.contains("found 69999 bytes in pwal_0000, expected at least 70000"), "{message}");
}

#[test]
fn what_is_settled_is_not_written_again_over_a_newer_file() {
    let fs = SimFs::new();
    let mut bench = Bench::new(&fs).unwrap();
    bench.session("pwal_0000", 100).unwrap();
    bench.commit().unwrap();
    bench.rotate("pwal_0000", "pwal_0000.1.0").unwrap();
    let image = fs.reboot(Loss::DropUnsynced);
    let unsettled = redo::read(&image, Path::new(LOCATION), &mark(&image).unwrap()).unwrap();
    assert_eq!(unsettled.groups(), 1, "only the word that all is settled");
    redo_all(&image).unwrap();
    assert!(!image.files().contains_key(&path("pwal_0000")));
}

#[test]
fn settling_twice_writes_nothing_the_second_time() {
    let fs = SimFs::new();
    let mut bench = Bench::new(&fs).unwrap();
    bench.journal.settle().unwrap();
    bench.session("pwal_0000", 100).unwrap();
    bench.commit().unwrap();
    bench.journal.settle().unwrap();
    let before = fs.operations();
    bench.journal.settle().unwrap();
    bench.journal.settle_file(&bench.files["pwal_0000"].journaled).unwrap();
    assert_eq!(fs.operations(), before);
}

/// Adds to one file from several threads.
fn add_in_threads(bench: &mut Bench, len: usize, times: u64, after: impl Fn(Fill) -> Result<()> + Sync) {
    bench.session("pwal_0000", 100).unwrap();
    let OpenFile { journaled, sync, .. } = bench.files.remove("pwal_0000").unwrap();
    let written = PendingSync { file: sync, changes: 2, range: (0, 0) };
    let add = |n: u64| bench.journal.add(&journaled, &written, 100 + n, &vec![1; len]).and_then(&after);
    std::thread::scope(|scope| {
        let adding = [(); 4].map(|()| scope.spawn(|| (0..times).try_for_each(add)));
        adding.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
    });
}

#[test]
fn what_does_not_fit_into_a_group_waits_for_one_that_its_thread_writes() {
    let mut bench = Bench::new(&SimFs::new()).unwrap();
    let journal = bench.journal.clone();
    add_in_threads(&mut bench, 50_000, 30, |_| {
        assert!(journal.waiting_bytes() < 256 << 10);
        Ok(())
    });
}

#[test]
fn whoever_has_added_much_waits_until_it_is_written() {
    let mut bench = Bench::new(&SimFs::new()).unwrap();
    let journal = bench.journal.clone();
    add_in_threads(&mut bench, 10_000, 100, |fill| {
        if fill == Fill::Enough {
            return journal.wait_for_room();
        }
        // Each of the others may have added one more.
        assert!(journal.waiting_bytes() < (128 << 10) + 5 * 10_100);
        Ok(())
    });
}

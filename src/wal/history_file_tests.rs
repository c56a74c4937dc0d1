// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::vfs::SimFs;
use crate::wal::history::Common;

const DIR: &str = "/log";

fn directory() -> SimFs {
    let fs = SimFs::new();
    crashsafe::create_dir(&fs, Path::new(DIR)).unwrap();
    fs
}

fn place(fs: &SimFs) -> Place<'_> {
    Place { vfs: fs, location: Path::new(DIR), instance: "one" }
}

fn begin(fs: &SimFs, durable: u64) -> DirectoryHistory {
    DirectoryHistory::begin_run(place(fs), Epoch(durable), Epoch(durable + 1)).unwrap()
}

fn put(fs: &SimFs, name: &str, text: &str) {
    fs.put(&Path::new(DIR).join(name), text.as_bytes()).unwrap();
}

fn firsts(file: &DirectoryHistory) -> Vec<u64> {
    file.history.runs().iter().map(|run| run.first_epoch).collect()
}

#[test]
fn each_start_is_a_run_and_one_that_wrote_nothing_leaves_no_trace() {
    let fs = directory();
    let first = begin(&fs, 0);
    assert_eq!((firsts(&first), first.term, first.role), (vec![0], 1, Role::Primary));
    begin(&fs, 20);
    begin(&fs, 20);
    let last = begin(&fs, 20);
    assert_eq!(firsts(&last), [0, 21]);
    assert_eq!(last.history.runs()[0], first.history.runs()[0]);
    assert_eq!(DirectoryHistory::load(place(&fs)).unwrap(), Some(last.clone()));
    assert_eq!(first.history.common(Epoch(20), &last.history, Epoch(30)), Common::UpTo(Epoch(20)));
}

#[test]
fn the_run_is_on_the_disk_when_it_may_write() {
    let fs = directory();
    let begun = begin(&fs, 0);
    let after = fs.reboot(crate::vfs::Loss::DropUnsynced);
    assert_eq!(DirectoryHistory::load(place(&after)).unwrap(), Some(begun));
}

#[test]
fn an_engine_on_a_replicas_directory_begins_a_term_above_what_is_durable() {
    let fs = directory();
    let primary = begin(&fs, 0);
    DirectoryHistory::following("one", 3, primary.history.clone()).save(&fs, Path::new(DIR)).unwrap();
    let taken_over = begin(&fs, 41);
    assert_eq!((taken_over.role, taken_over.term, firsts(&taken_over)), (Role::Primary, 4, vec![0, 42]));
    assert_eq!(taken_over.history.runs()[1].term, 4);
    assert_eq!(begin(&fs, 50).term, 4, "a later start of the same engine goes on in its term");
}

#[test]
fn two_takeovers_of_one_history_are_told_apart() {
    let (one, other) = (directory(), directory());
    let replica = DirectoryHistory::following("one", 1, begin(&one, 0).history);
    replica.save(&one, Path::new(DIR)).unwrap();
    replica.save(&other, Path::new(DIR)).unwrap();
    let (a, b) = (begin(&one, 10), begin(&other, 10));
    assert_eq!(a.term, b.term);
    assert_eq!(a.history.common(Epoch(20), &b.history, Epoch(20)), Common::UpTo(Epoch(10)));
}

#[test]
fn what_a_program_wrote_that_records_no_runs_is_in_common_with_nobody() {
    // After an orderly end; after a crash, where only the trace that the original leaves is seen.
    for (orderly, durable, traces, expected) in [
        (true, 30, false, 20),
        (true, 20, false, 20),
        (true, 20, true, 19),
        (true, 30, true, 19),
        (false, 30, true, 10),
        (false, 30, false, 30),
    ] {
        let fs = directory();
        begin(&fs, 0);
        let mut run = begin(&fs, 10);
        let other = run.clone();
        if orderly {
            run.leave(Epoch(20), None);
            run.save(&fs, Path::new(DIR)).unwrap();
        }
        if traces {
            put(&fs, names::FOREIGN_SNAPSHOT, "");
        }
        // A copy went another way from epoch 20 on.
        let next = begin(&fs, durable);
        let common = next.history.common(Epoch(40), &other.history, Epoch(30));
        let expected = if orderly && durable == 30 { expected.min(19) } else { expected };
        assert_eq!(common, Common::UpTo(Epoch(expected)), "orderly {orderly}, {durable}, {traces}");
        assert!(!fs.files().contains_key(&Path::new(DIR).join(names::FOREIGN_SNAPSHOT)));
        assert_eq!(begin(&fs, 50).history.runs().len(), next.history.runs().len() + 1, "it is seen once");
    }
}

#[test]
fn an_orderly_end_says_that_the_recovered_epoch_was_not_written_to() {
    let fs = directory();
    begin(&fs, 0);
    let shared = |fs: &SimFs| DirectoryHistory::begin_run(place(fs), Epoch(20), Epoch(20)).unwrap();
    let mut run = shared(&fs);
    assert_eq!(firsts(&run), [0, 20]);
    run.leave(Epoch(20), Some(Epoch(21)));
    run.save(&fs, Path::new(DIR)).unwrap();
    assert_eq!(firsts(&begin(&fs, 20)), [0, 21]);
    let mut run = shared(&fs);
    run.leave(Epoch(20), Some(Epoch(20)));
    run.save(&fs, Path::new(DIR)).unwrap();
    assert_eq!(firsts(&begin(&fs, 20)), [0, 20, 21]);
}

#[test]
fn a_fenced_directory_starts_no_engine_until_it_follows_or_is_forced() {
    let fs = directory();
    let mut file = begin(&fs, 0);
    file.fenced = Some("a replica has seen term 2".to_owned());
    file.save(&fs, Path::new(DIR)).unwrap();
    for _ in 0..2 {
        let error = DirectoryHistory::begin_run(place(&fs), Epoch(5), Epoch(6)).unwrap_err().to_string();
        assert!(error.contains("term 2") && error.contains("tgreplica promote --force /log"), "{error}");
    }
    assert_eq!(DirectoryHistory::load(place(&fs)).unwrap().as_ref(), Some(&file), "nothing is changed");
    let mut forced = file.clone();
    forced.promote(Epoch(5));
    forced.save(&fs, Path::new(DIR)).unwrap();
    assert_eq!(begin(&fs, 5).term, 2);
    let follows = DirectoryHistory::following("one", 2, file.history.clone());
    assert_eq!(follows.fenced, None);
}

#[test]
fn directories_of_version_1_0_0_get_what_is_provable() {
    let state = |role, term| {
        format!(r#"{{"format":1,"role":"{role}","term":{term},"history":[{{"term":{term},"first_epoch":0}}]}}"#)
    };
    let fs = directory();
    put(&fs, names::FORMER_HISTORY, &state("primary", 3));
    let file = begin(&fs, 20);
    assert_eq!((file.term, firsts(&file)), (3, vec![0]), "all so far is this directory's own");
    assert!(!fs.files().contains_key(&Path::new(DIR).join(names::FORMER_HISTORY)));

    // A replica's numbers prove nothing; it is known what it is.
    let fs = directory();
    put(&fs, names::FORMER_HISTORY, &state("replica", 3));
    let file = DirectoryHistory::open_replica(place(&fs), Epoch(20), false).unwrap();
    assert_eq!((file.role, file.term, file.history.is_empty()), (Role::Replica, 3, true));
    assert_eq!(DirectoryHistory::load(place(&fs)).unwrap(), Some(file));
    assert_eq!(begin(&fs, 20).term, 4);

    // What an engine wrote without any record, opened as a replica.
    let fs = directory();
    let file = DirectoryHistory::open_replica(place(&fs), Epoch(20), false).unwrap();
    assert_eq!((file.role, firsts(&file)), (Role::Primary, vec![0]));
    let again = DirectoryHistory::open_replica(place(&fs), Epoch(20), false).unwrap();
    assert_eq!(again, file);
}

#[test]
fn an_empty_replica_has_no_file_and_the_trace_of_another_program_goes() {
    let fs = directory();
    put(&fs, names::FOREIGN_SNAPSHOT, "");
    let file = DirectoryHistory::open_replica(place(&fs), Epoch(0), true).unwrap();
    assert!(file.history.is_empty());
    assert!(fs.files().is_empty(), "{:?}", fs.files());
}

#[test]
fn a_restore_takes_the_backups_runs_and_forgets_neither_term_nor_fence() {
    let fs = directory();
    let backup = begin(&fs, 0);
    let mut before = DirectoryHistory { term: 4, ..begin(&fs, 10) };
    before.fenced = Some("why".to_owned());
    let restored = DirectoryHistory::restored(Some(backup.clone()), "one", Some(before.clone())).unwrap();
    assert_eq!((restored.term, &restored.history, restored.fenced.as_deref()), (4, &backup.history, Some("why")));
    let unknown = DirectoryHistory::restored(None, "one", Some(before.clone())).unwrap();
    assert_eq!((unknown.term, unknown.history.is_empty()), (4, true));
    assert_eq!(DirectoryHistory::restored(Some(backup.clone()), "one", None), Some(backup.clone()));
    assert_eq!(DirectoryHistory::restored(Some(backup), "two", Some(before)), None, "of another instance");
}

#[test]
fn a_file_of_another_instance_does_not_count() {
    let fs = directory();
    begin(&fs, 0);
    assert_eq!(DirectoryHistory::load(Place { instance: "two", ..place(&fs) }).unwrap(), None);
}

#[test]
fn what_is_not_a_history_is_refused_with_a_reason() {
    let fs = directory();
    let id = "0".repeat(32);
    let with_run = |run: &str| {
        format!(
            r#"{{"format":1,"instance":"one","role":"primary","term":1,"history":{{"forgotten":false,"runs":[{run}]}}}}"#
        )
    };
    for text in [
        String::new(),
        "{}".to_owned(),
        r#"{"format":2,"instance":"one","role":"primary","term":1,"history":{"forgotten":false,"runs":[]}}"#.to_owned(),
        r#"{"format":1,"instance":"one","role":"other","term":1,"history":{"forgotten":false,"runs":[]}}"#.to_owned(),
        with_run(&format!(r#"{{"id":"{id}","term":2,"first_epoch":0}}"#)),
        with_run(&format!(r#"{{"id":"x{id}","term":1,"first_epoch":0}}"#)),
    ] {
        put(&fs, names::HISTORY, &text);
        let error = DirectoryHistory::begin_run(place(&fs), Epoch(0), Epoch(1)).unwrap_err();
        assert!(matches!(&error, Error::BrokenMetadata(text) if text.contains(names::HISTORY)), "{error}");
    }
}

/// The history of a replica with runs of these terms from these epochs on.
fn claimant(terms: &[(u64, u64)]) -> DirectoryHistory {
    let run = |&(term, first_epoch): &(u64, u64)| Run { id: RunId(first_epoch.into()), term, first_epoch };
    let last = terms.last().map_or(1, |last| last.0);
    DirectoryHistory::following("one", last, History::new(terms.iter().map(run).collect(), false).unwrap())
}

fn claims(file: &DirectoryHistory, durable: u64) -> (u64, u64) {
    let Claim { term, epoch } = file.claim(Epoch(durable));
    (term, epoch)
}

#[test]
fn a_directory_claims_the_last_term_of_which_it_has_all_that_it_began_with() {
    let replica = claimant(&[(1, 0), (2, 101)]);
    assert_eq!(claims(&replica, 99), (1, 99), "it lacks some of what the term began with");
    assert_eq!(claims(&replica, 100), (2, 100), "it has nothing of the term, and all before");
    assert_eq!((claims(&replica, 101), replica.term_began_with()), ((2, 101), Epoch(100)));
    assert!(replica.claim(Epoch(99)) < claimant(&[(1, 0)]).claim(Epoch(100)));
    assert!(replica.claim(Epoch(0)).is_nothing() && replica.clone().given_up().claim(Epoch(101)).is_nothing());
}

#[test]
fn what_a_promoted_directory_wrote_before_its_replicas_know_of_the_term_is_no_claim() {
    let mut promoted = claimant(&[(1, 0)]);
    promoted.promote(Epoch(100));
    assert_eq!((promoted.is_unknown(), claims(&promoted, 110)), (true, (1, 100)));
    promoted.promote(Epoch(110));
    assert_eq!(claims(&promoted, 120), (1, 100), "promoted again, and still alone");
    let cut = promoted.clone().cutting(Epoch(105)).cut(Epoch(105));
    assert_eq!(claims(&cut, 105), (1, 100));
    promoted.become_known();
    assert_eq!((promoted.is_unknown(), claims(&promoted, 120)), (false, (3, 120)));
    let replica = claimant(&[(1, 0), (2, 101)]).claiming(Claim { term: 1, epoch: 90 });
    assert_eq!((replica.is_unknown(), claims(&replica, 105)), (false, (1, 90)));
}

#[test]
fn a_directory_that_goes_back_to_what_a_term_began_with_still_claims_it() {
    let file = claimant(&[(1, 0), (2, 101)]).cutting(Epoch(100)).cut(Epoch(100));
    assert_eq!((claims(&file, 100), file.history.runs().len()), ((2, 100), 1));
}

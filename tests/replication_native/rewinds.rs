// SPDX-License-Identifier: Apache-2.0
//! A directory that went another way than the primary becomes a replica again.

use crate::pair::{content, free_port, options, replica, settings, Engine, Undamaged};
use crate::unlocked::unlocked;
use limestone_core::directory::Keep;
use limestone_core::replication::native::replica as native;
use limestone_core::replication::net::listener;
use limestone_core::replication::promotion::promote;
use limestone_core::replication::secret::Secret;
use limestone_core::replication::settings::Endpoint;
use limestone_core::replication::status::LinkState;
use limestone_core::types::Epoch;
use limestone_core::vfs::RealFs;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A replica that goes back when it has to.
fn rewinding(dir: &Path, keep: Keep) -> Undamaged {
    served(dir, |opened| opened.allow_rewind(keep))
}

/// A replica whose durable epoch may go down.
fn served(dir: &Path, told: impl Fn(native::Opened) -> native::Opened) -> Undamaged {
    let options = options();
    let listener = listener::listen(&Endpoint { host: "127.0.0.1".to_owned(), port: free_port() }).unwrap();
    let opened = told(unlocked(|| native::open(Arc::new(RealFs), dir, options.clone())));
    Undamaged(opened.serve(listener).unwrap())
}

fn write(engine: &mut Engine, tag: &str, count: usize) -> Epoch {
    (0..count).map(|n| engine.write(&[&format!("{tag}{n}")])).last().unwrap()
}

fn keys(dir: &Path) -> BTreeSet<String> {
    content(dir).into_keys().collect()
}

fn tags(tags: &[(&str, usize)]) -> BTreeSet<String> {
    tags.iter().flat_map(|&(tag, count)| (0..count).map(move |n| format!("{tag}{n}"))).collect()
}

/// What was saved below `cut_off/`, oldest first.
fn saved(dir: &Path) -> Vec<PathBuf> {
    let Ok(listing) = std::fs::read_dir(dir.join("cut_off")) else { return Vec::new() };
    let mut saved: Vec<PathBuf> = listing.map(|entry| entry.unwrap().path()).collect();
    saved.sort();
    saved
}

/// A former primary with what only it has, and the directory of the one that has taken over.
fn parted(first: &Path, second: &Path) {
    let server = replica(second, 0, &Secret::default());
    let mut former = Engine::start(first, settings(server.address().port(), &[]));
    let shared = write(&mut former, "shared", 5);
    former.wait_propagated(shared);
    drop(server);
    write(&mut former, "only here", 4);
    former.shutdown();
    unlocked(|| promote(Arc::new(RealFs), second, false, None));
}

/// Waits until the replica has everything of the engine, and ends both.
fn follow<T>(mut engine: Engine, server: T, tag: &str) {
    let last = write(&mut engine, tag, 3);
    engine.wait_propagated(last);
    engine.shutdown();
    drop(server);
}

#[test]
fn a_former_primary_that_is_told_to_saves_what_only_it_has_and_follows() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    parted(first.path(), second.path());
    let server = rewinding(first.path(), Keep::default());
    let mut new = Engine::start(second.path(), settings(server.address().port(), &[]));
    let last = write(&mut new, "there", 3);
    new.wait_propagated(last);
    let cut = server.rewound().expect("it went back");
    assert_eq!((cut.extent.entries, cut.extent.is_all()), (4, false), "{}", cut.extent);
    follow(new, server, "later");
    let expected = tags(&[("shared", 5), ("there", 3), ("later", 3)]);
    assert_eq!((keys(first.path()), keys(second.path())), (expected.clone(), expected));
    assert_eq!(saved(first.path()), [cut.saved.unwrap()]);
    assert_eq!(keys(&saved(first.path())[0]), tags(&[("only here", 4)]));
}

#[test]
fn one_that_is_not_told_to_refuses_and_says_what_would_go_and_how() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    parted(first.path(), second.path());
    let server = replica(first.path(), 0, &Secret::default());
    let new = Engine::start(second.path(), settings(server.address().port(), &[]));
    let error = new.wait_state(LinkState::Refused).last_error.unwrap();
    let command = format!("tgreplica rejoin {}", first.path().display());
    for expected in ["diverged", "4 epochs", "8 sessions, 4 entries", &command] {
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
    new.shutdown();
    drop(server);
    assert_eq!(saved(first.path()), Vec::<PathBuf>::new());
    assert_eq!(keys(first.path()), tags(&[("shared", 5), ("only here", 4)]));
}

#[test]
fn epochs_in_which_nothing_was_written_are_no_reason_to_refuse() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = replica(second.path(), 0, &Secret::default());
    let mut former = Engine::start(first.path(), settings(server.address().port(), &[]));
    let shared = write(&mut former, "shared", 5);
    former.wait_propagated(shared);
    drop(server);
    (0..7).for_each(|_| former.next_epoch());
    former.shutdown();
    unlocked(|| promote(Arc::new(RealFs), second.path(), false, None));
    let server = replica(first.path(), 0, &Secret::default());
    let new = Engine::start(second.path(), settings(server.address().port(), &[]));
    follow(new, server, "there");
    assert_eq!(keys(first.path()), tags(&[("shared", 5), ("there", 3)]));
    assert_eq!(saved(first.path()), Vec::<PathBuf>::new());
}

#[test]
fn what_would_go_is_counted_again_once_the_directory_has_gone_back() {
    let [first, second, third] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let server = replica(second.path(), 0, &Secret::default());
    let mut former = Engine::start(first.path(), settings(server.address().port(), &[]));
    let shared = write(&mut former, "shared", 2);
    former.wait_propagated(shared);
    drop(server);
    (0..20).for_each(|_| _ = former.write(&[]));
    former.shutdown();
    copy_files(second.path(), third.path());
    for (told, dir) in [(1, second.path()), (2, third.path())] {
        unlocked(|| promote(Arc::new(RealFs), dir, false, Some(told)));
    }
    let server = served(first.path(), |opened| opened);
    let durable = server.durable();
    // The sessions of its last epochs wrote nothing: it goes back without being told to.
    let mut new = Engine::start(second.path(), settings(server.address().port(), &[]));
    new.wait_state(LinkState::Streaming);
    (new.epoch..durable.0).for_each(|_| new.next_epoch());
    assert_eq!(write(&mut new, "there", 1), durable);
    new.wait_propagated(durable);
    new.shutdown();
    assert_eq!((server.durable(), server.rewound().is_some()), (durable, true), "it is as far as before");
    let newest = Engine::recovered(third.path(), settings(server.address().port(), &[]));
    let error = newest.wait_state(LinkState::Refused).last_error.unwrap();
    assert!(error.contains("1 entries"), "{error}");
    newest.shutdown();
    drop(server);
    assert_eq!(keys(first.path()), tags(&[("shared", 2), ("there", 1)]));
}

/// The files of a directory without BLOBs.
fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_directory_that_is_compacted_beyond_the_common_point_is_saved_whole_and_gets_a_base_sync() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    parted(first.path(), second.path());
    let compact = ["tglogutil", "compaction", "--force", &first.path().to_string_lossy()].map(str::to_owned);
    assert_eq!(limestone_core::tglogutil::run(compact, Arc::new(RealFs), &mut Vec::new()), 0);
    let server = rewinding(first.path(), Keep::default());
    let new = Engine::start(second.path(), settings(server.address().port(), &[]));
    follow(new, server, "there");
    assert_eq!(keys(first.path()), tags(&[("shared", 5), ("there", 3)]));
    let saved = saved(first.path());
    assert_eq!(saved.len(), 1);
    assert_eq!(keys(&saved[0]), tags(&[("shared", 5), ("only here", 4)]));
}

#[test]
fn a_directory_of_a_newer_term_never_goes_back_for_an_older_primary() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    parted(first.path(), second.path());
    let mut new = Engine::start(second.path(), settings(free_port(), &[("MODE", "async")]));
    write(&mut new, "there", 3);
    new.shutdown();
    let server = rewinding(second.path(), Keep::default());
    let former = Engine::recovered(first.path(), settings(server.address().port(), &[("MODE", "async")]));
    let error = former.wait_state(LinkState::Refused).last_error.unwrap();
    assert!(error.contains("fenced"), "{error}");
    former.shutdown();
    drop(server);
    assert_eq!(keys(second.path()), tags(&[("shared", 5), ("there", 3)]));
    assert_eq!(saved(second.path()), Vec::<PathBuf>::new());
}

#[test]
fn of_what_was_cut_off_the_oldest_goes() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let go_back = |round: usize, keep: Keep| {
        parted_again([first.path(), second.path()], round);
        let server = rewinding(first.path(), keep);
        let new = Engine::start(second.path(), settings(server.address().port(), &[]));
        follow(new, server, &format!("there{round}."));
    };
    (0..3).for_each(|round| go_back(round, Keep { directories: 2, bytes: 1 << 30 }));
    let kept = saved(first.path());
    let found: Vec<BTreeSet<String>> = kept.iter().map(|dir| keys(dir)).collect();
    assert_eq!(found, [tags(&[("only1.", 2)]), tags(&[("only2.", 2)])]);
    // The newest stays, whatever the bounds are.
    go_back(3, Keep { directories: 2, bytes: 0 });
    let kept = saved(first.path());
    assert_eq!(kept.iter().map(|dir| keys(dir)).collect::<Vec<_>>(), [tags(&[("only3.", 2)])]);
}

/// The first becomes the primary, writes what the second gets and what it does not get; the second takes over.
fn parted_again([first, second]: [&Path; 2], round: usize) {
    let server = replica(second, 0, &Secret::default());
    if round > 0 {
        unlocked(|| promote(Arc::new(RealFs), first, false, None));
    }
    let mut former = Engine::start(first, settings(server.address().port(), &[]));
    let shared = write(&mut former, &format!("shared{round}."), 2);
    former.wait_propagated(shared);
    drop(server);
    write(&mut former, &format!("only{round}."), 2);
    former.shutdown();
    unlocked(|| promote(Arc::new(RealFs), second, false, None));
}

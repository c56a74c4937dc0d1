// SPDX-License-Identifier: Apache-2.0
//! The command line, and directories that the tool cannot handle.

use crate::engine_run::{open, quick_dir};
use crate::golden_data::tree;
use crate::tool::{directory, epoch_record, on, session, tool};

#[test]
fn wrong_use_ends_with_1_and_says_how_it_is_done() {
    for (args, message) in [
        (&[][..], "missing parameters"),
        (&["inspect"], "missing parameters"),
        (&["look", "d"], "unknown subcommand: look"),
    ] {
        let run = tool(args);
        assert_eq!(run.exit, 1, "{args:?}");
        assert!(run.stderr.contains(message), "{args:?}: {}", run.stderr);
        let usage = &run.stdout[0];
        assert!(usage.starts_with("usage: ") && usage.ends_with("} [options] <dblogdir>"), "{usage}");
    }
    let run = tool(&["inspect", "--what", "d"]);
    assert_eq!((run.exit, run.stdout.len()), (1, 0));
    assert!(run.stderr.contains("unknown command line flag 'what'"), "{}", run.stderr);
}

#[test]
fn help_and_version() {
    for flag in ["--help", "-h", "--h"] {
        let run = tool(&[flag]);
        assert_eq!(run.exit, 1, "{flag}");
        assert!(run.stdout.iter().any(|line| line.contains("--give_up_damaged")), "{flag}");
    }
    let run = tool(&["--version"]);
    assert_eq!((run.exit, &run.stdout[..]), (0, &["tglogutil".to_owned()][..]));
}

#[test]
fn a_bad_epoch_is_refused_before_anything_is_printed() {
    for value in ["x", "1x", "-1", "+1", "99999999999999999999"] {
        let run = tool(&["inspect", "--epoch", value, "d"]);
        assert_eq!((run.exit, run.stdout.len()), (64, 0), "{value}");
        assert!(run.stderr.contains("invalid value for --epoch option"), "{value}: {}", run.stderr);
    }
}

#[test]
fn a_directory_that_is_missing_or_in_use_ends_with_64() {
    let dir = quick_dir();
    let missing = dir.path().join("nothing");
    for subcommand in ["inspect", "repair", "verify"] {
        let run = on(&missing, &[subcommand]);
        assert_eq!((run.exit, &run.stdout[0]), (64, &format!("dblogdir: \"{}\"", missing.display())));
        assert!(run.stderr.contains("dblogdir not exists"), "{}", run.stderr);
    }
    let (store, _) = open(dir.path(), 1).unwrap();
    let before = tree(dir.path());
    for subcommand in ["inspect", "repair", "verify", "dump"] {
        let run = on(dir.path(), &[subcommand]);
        assert_eq!(run.exit, 64, "{subcommand}");
        let location = dir.path().display();
        let message = format!("Log directory \"{location}\" is already in use by another process. Operation aborted.");
        assert!(run.stderr.contains(&message), "{subcommand}: {}", run.stderr);
        assert_eq!(tree(dir.path()), before, "{subcommand}");
    }
    store.shutdown();
    assert_eq!(on(dir.path(), &["inspect"]).exit, 0);
}

#[test]
fn options_may_stand_anywhere_and_further_words_are_ignored() {
    let dir = directory(&epoch_record(1), &[("pwal_0000", session(1, "k", "v"))]);
    let path = dir.path().to_str().unwrap();
    for args in [
        &["--thread-num", "4", "inspect", path][..],
        &["inspect", "-verbose", path, "more", "words"],
        &["inspect", path, "--epoch=1", "--noverbose"],
    ] {
        let run = tool(args);
        assert_eq!((run.exit, run.status()), (0, "status: OK"), "{args:?}");
    }
}

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

const SUBCOMMANDS: [&str; 6] = ["repair", "compaction", "inspect", "verify", "dump", "diff"];

#[test]
fn help_shows_every_option_and_the_exit_codes() {
    for flag in ["--help", "-h", "--h"] {
        let run = tool(&[flag]);
        assert_eq!(run.exit, 1, "{flag}");
        let text = run.stdout.join("\n");
        let options = ["--give_up_damaged", "--key_prefix", "--thread_num", "--epoch", "--cut", "--json"];
        for part in SUBCOMMANDS.iter().chain(&options).chain(&["Exit codes:"]) {
            assert!(text.contains(part), "{flag}: {part} is missing in {text}");
        }
    }
    for subcommand in SUBCOMMANDS {
        let run = tool(&[subcommand, "--help"]);
        let text = run.stdout.join("\n");
        assert_eq!(run.exit, 1, "{subcommand}");
        assert!(text.contains(&format!("Usage: tglogutil {subcommand} [OPTIONS] <DBLOGDIR>")), "{text}");
        assert!(text.contains("Exit codes: 0 "), "{text}");
        assert_eq!(text.contains("--give_up_damaged"), subcommand == "repair", "{text}");
    }
}

#[test]
fn the_version_option_prints_the_name_first_as_the_original_does_and_the_number() {
    let run = tool(&["--version"]);
    assert_eq!((run.exit, &run.stdout[..]), (0, &[concat!("tglogutil ", env!("CARGO_PKG_VERSION")).to_owned()][..]));
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
        &["-thread-num=0", "inspect", path, "--rotate=all", "--output_format", "human-readable", "--cut"],
    ] {
        let run = tool(args);
        assert_eq!((run.exit, run.status()), (0, "status: OK"), "{args:?}");
    }
}

#[test]
fn an_option_without_meaning_for_the_subcommand_is_refused_and_the_directory_left_alone() {
    let dir = directory(&epoch_record(1), &[("pwal_0000", session(1, "k", "v"))]);
    let before = tree(dir.path());
    for args in [&["repair", "--json"][..], &["verify", "--epoch=1"], &["inspect", "--give_up_damaged"]] {
        let run = on(dir.path(), args);
        assert_eq!((run.exit, run.stdout.len()), (1, 0), "{args:?}");
        assert!(run.stderr.contains("unexpected argument"), "{args:?}: {}", run.stderr);
    }
    assert_eq!(tree(dir.path()), before);
}

#[test]
fn man_pages_name_every_subcommand_and_its_options() {
    let dir = quick_dir();
    let run = tool(&["--generate_man", dir.path().to_str().unwrap()]);
    assert_eq!((run.exit, run.stdout.len(), run.stderr.as_str()), (0, 0, ""));
    let page = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap().replace("\\-", "-");
    let whole = page("tglogutil.1");
    for subcommand in SUBCOMMANDS {
        let name = format!("tglogutil-{subcommand}");
        assert!(whole.contains(&format!("{name}(1)")), "{whole}");
        let page = page(&format!("{name}.1"));
        assert!(page.contains("--thread_num") && page.contains("Exit codes"), "{page}");
    }
    let nowhere = dir.path().join("nowhere");
    assert_eq!(tool(&["--generate_man", nowhere.to_str().unwrap()]).exit, 1);
}

// SPDX-License-Identifier: Apache-2.0
//! Messages, exit codes and pages.

use crate::program::{json, run, text};

const COMMANDS: [&str; 5] = ["create", "list", "verify", "restore", "expire"];

#[test]
fn the_help_and_the_man_pages_name_every_command_with_its_options_and_exit_codes() {
    let help = run(&["--help"]);
    assert_eq!(help.exit, 0);
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for code in 1..=4 {
        assert!(flat(&help.stdout).contains(&format!("; {code} ")), "{code}: {}", help.stdout);
    }
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(&["--generate_man", text(dir.path())]).exit, 0);
    let page = |name: &str| {
        let page = std::fs::read_to_string(dir.path().join(format!("{name}.1"))).unwrap();
        page.replace("\\-", "-")
    };
    let whole = page("tgbackup");
    for command in COMMANDS {
        assert!(help.stdout.contains(command) && whole.contains(&format!("tgbackup-{command}")), "{command}");
        let (help, page) = (run(&[command, "--help"]), page(&format!("tgbackup-{command}")));
        assert_eq!(help.exit, 0, "{command}");
        assert!(flat(&help.stdout).contains("Exit codes: 0 ") && page.contains("Exit codes: 0 "), "{command}");
        let options = help.stdout.split_whitespace().filter_map(|word| word.strip_prefix("--"));
        for option in options.map(|word| word.trim_end_matches(|c: char| !c.is_alphanumeric())) {
            assert!(page.contains(&format!("--{option}")), "{command} --{option}");
        }
    }
    let version = run(&["--version"]);
    assert_eq!((version.exit, version.stdout), (0, format!("tgbackup {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn wrong_use_is_answered_with_the_reason_and_the_usage() {
    let dir = tempfile::tempdir().unwrap();
    let (here, gone) = (text(dir.path()), format!("{}/gone", dir.path().display()));
    let cases: [(&[&str], &str); 10] = [
        (&[], "a command was expected, found none"),
        (&["explode"], "unrecognized subcommand"),
        (&["create", here], "required arguments were not provided"),
        (&["create", &gone, here], "there is no directory"),
        (&["create", here, &format!("{here}/in")], "lies in the data directory itself"),
        (&["verify", &gone], "there is no directory"),
        (&["verify", here, "x"], "has no backup \"x\""),
        (&["restore", here, &gone], "there is no backup"),
        (&["restore", here, &gone, "--until-time", "noon"], "2026-01-31T12:00:00Z was expected"),
        (&["expire", here, "--keep", "0"], "0 is not in 1.."),
    ];
    for (args, expected) in cases {
        let plain = run(args);
        assert_eq!(plain.exit, 1, "{args:?}: {plain:?}");
        assert!(plain.stderr.starts_with("Error: ") && plain.stderr.contains(expected), "{args:?}: {}", plain.stderr);
        let (exit, document) = json(args);
        let error = document["error"].as_str().unwrap();
        assert!(exit == 1 && document["exit"] == 1 && error.contains(expected), "{args:?}: {document}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
}

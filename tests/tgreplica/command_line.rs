// SPDX-License-Identifier: Apache-2.0
//! Messages and exit codes.

use crate::program::{run, status, Replica};
use std::net::TcpListener;

const ENDPOINT: &str = "TSURUGI_REPLICATION_ENDPOINT";
const USAGE: &str = "Usage: tgreplica <logdir>\n\
                     Note: The environment variable TSURUGI_REPLICATION_ENDPOINT must be set with the endpoint URL.\n";

#[test]
fn wrong_use_is_answered_with_the_reason_and_the_usage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let endpoint = [(ENDPOINT, "tcp://127.0.0.1:0")];
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], String, &'a str);
    let cases: [Case<'_>; 6] = [
        (&["/does/not/exist"], &endpoint, "Directory does not exist: /does/not/exist".to_owned(), ""),
        (
            &["promote"],
            &endpoint,
            "expected: tgreplica promote <LOGDIR> (a directory of this name is ./promote)".to_owned(),
            "",
        ),
        (&[file], &endpoint, format!("Specified path is not a directory: {file}"), ""),
        (&[path], &[], format!("{ENDPOINT} environment variable is not set."), ""),
        (&[path], &[(ENDPOINT, "x")], format!("Invalid endpoint specified in {ENDPOINT}."), "Endpoint: 0.0.0.0:0\n"),
        (&[path, path], &endpoint, "expected one argument, found 2".to_owned(), ""),
    ];
    for (args, environment, message, stdout) in cases {
        let run = run(args, environment);
        assert_eq!((run.exit, run.stdout.as_str()), (1, stdout), "{args:?}");
        assert!(run.stderr.starts_with(&format!("Error: {message}\n{USAGE}")), "{}", run.stderr);
    }
    for args in [&[][..], &["--nonsense", path]] {
        let run = run(args, &endpoint);
        assert_eq!(run.exit, 1, "{args:?}");
        assert!(run.stderr.contains(USAGE), "{}", run.stderr);
    }
    let unknown = run(&[path], &[endpoint[0], ("TSURUGI_REPLICATION_LANE", "1")]);
    assert_eq!(unknown.exit, 1);
    assert!(unknown.stderr.contains("TSURUGI_REPLICATION_LANE"), "{}", unknown.stderr);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was created");
}

#[test]
fn an_address_that_is_taken_ends_it_with_the_message_of_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", taken.local_addr().unwrap());
    let run = run(&[dir.path().to_str().unwrap()], &[(ENDPOINT, &endpoint)]);
    assert_eq!(run.exit, 1);
    assert!(run.stderr.contains("Error: Failed to bind socket to the specified address"), "{}", run.stderr);
}

#[test]
fn a_directory_in_use_or_damaged_is_refused_with_a_code_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let replica = Replica::start(dir.path());
    let endpoint = [(ENDPOINT, "tcp://127.0.0.1:0")];
    assert_eq!(run(&[path], &endpoint).exit, 3);
    replica.stop();
    std::fs::write(dir.path().join("pwal_0000"), [0xff; 100]).unwrap();
    let damaged = run(&[path], &endpoint);
    assert_eq!(damaged.exit, 2);
    assert!(damaged.stderr.contains("tglogutil repair"), "{}", damaged.stderr);
}

#[test]
fn the_man_page_is_written_where_the_build_wants_it() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(&["--generate_man", dir.path().to_str().unwrap()], &[]).exit, 0);
    let page = std::fs::read_to_string(dir.path().join("tgreplica.1")).unwrap();
    assert!(page.contains("secret") && page.contains("Exit codes"), "{page}");
}

#[test]
fn help_names_every_exit_code_and_the_status_says_whether_somebody_serves() {
    let help = run(&["--help"], &[]);
    assert_eq!(help.exit, 0);
    let text = help.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for code in 1..=6 {
        assert!(text.contains(&format!("; {code} ")), "{code}: {text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let (exit, document) = status(dir.path());
    assert_eq!((exit, document["state"].as_str()), (6, Some("stopped")));
    let replica = Replica::start(dir.path());
    let (exit, document) = status(dir.path());
    assert_eq!((exit, document["state"].as_str()), (0, Some("connecting")));
    assert_eq!(document["last_error"], serde_json::Value::Null);
    let text = run(&["--status", dir.path().to_str().unwrap()], &[]);
    assert!(text.exit == 0 && text.stdout.contains("state:      connecting"), "{}", text.stdout);
    replica.stop();
    assert_eq!(status(dir.path()).0, 6);
}

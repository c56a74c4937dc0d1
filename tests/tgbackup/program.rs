// SPDX-License-Identifier: Apache-2.0
//! Runs the program.

use crate::unlocked::unlocked;
use limestone_core::datastore::{Datastore, Settings};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The exit code when another process uses the directory.
const IN_USE: i32 = 3;
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What a run showed.
#[derive(Debug)]
pub struct Run {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tgbackup"));
    command.args(args);
    command
}

/// Runs it to its end.
pub fn run(args: &[&str]) -> Run {
    let output = command(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Run { exit: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Runs it with `--json`; the exit code and the document.
pub fn json(args: &[&str]) -> (i32, Value) {
    let run = run(&[args, &["--json"]].concat());
    (run.exit, serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:?}")))
}

/// Runs it with `--json`, which must succeed. A process that another test starts just now has, for a moment, the lock
/// of a directory that was closed here.
pub fn done(args: &[&str]) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let (exit, document) = json(args);
        if exit != IN_USE || Instant::now() > deadline {
            assert_eq!(exit, 0, "{args:?}: {document}");
            return document;
        }
    }
}

pub fn open(dir: &Path) -> Arc<Datastore> {
    unlocked(|| Datastore::open(Settings::new(dir)))
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes a backup; what it is called.
pub fn create(dir: &Path, target: &Path) -> String {
    done(&["create", text(dir), text(target)])["name"].as_str().unwrap().to_owned()
}

/// Waits until something is so.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

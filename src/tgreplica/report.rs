// SPDX-License-Identifier: Apache-2.0
//! Exit codes of the program, and how it says why it ended.

use std::ffi::OsString;
use std::io::Write;

/// Ended because it was told to.
pub const DONE: i32 = 0;
/// Wrong use, a setting that is not understood, an address that cannot be listened on.
pub const USAGE: i32 = 1;
/// The directory cannot be used: damaged, of another version, unreadable.
pub const DIRECTORY: i32 = 2;
/// Another process has the directory.
pub const IN_USE: i32 = 3;
/// The disk failed while serving.
pub const DISK: i32 = 4;
/// `--once`: the session did not end in good order.
pub const SESSION: i32 = 5;
/// `status`: nobody serves the directory.
pub const NOT_RUNNING: i32 = 6;
/// `status`: who has the directory does not answer.
pub const NO_ANSWER: i32 = 7;

/// Where results go, and in which form the reason of a failure.
pub struct Output<'a> {
    pub out: &'a mut dyn Write,
    pub json: bool,
}

impl Output<'_> {
    pub fn print(&mut self, text: &str) {
        // There is nowhere to tell that stdout is gone.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }

    /// Says why it ends; with `--json` on stdout as well. Returns the exit code.
    pub fn fail(&mut self, exit: i32, text: &str) -> i32 {
        complain(&format!("Error: {text}\n"));
        if self.json {
            self.print(&format!("{}\n", serde_json::json!({ "error": text, "exit": exit })));
        }
        exit
    }

    /// Says how it is used.
    pub fn misused(&mut self, text: &str) -> i32 {
        let exit = self.fail(USAGE, text);
        complain(&format!(
            "Usage: tgreplica <logdir>\n\
             Note: The environment variable {ENDPOINT} must be set with the endpoint URL.\n      \
             For example: tcp://localhost:1234\n      \
             tgreplica --help tells more.\n"
        ));
        exit
    }
}

fn complain(text: &str) {
    // There is nowhere to tell that stderr is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Variables that options stand in for.
pub const ENDPOINT: &str = "TSURUGI_REPLICATION_ENDPOINT";
pub const SECRET_FILE: &str = "TSURUGI_REPLICATION_SECRET_FILE";

/// Names of the environment with their values.
pub type Environment = Vec<(OsString, OsString)>;

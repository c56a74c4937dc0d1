// SPDX-License-Identifier: Apache-2.0
//! Exit codes of the program, and how it says how it is used.

use crate::error::Error;
pub use crate::program_output::Output;
use std::ffi::OsString;

/// Ended because it was told to.
pub const DONE: i32 = 0;
/// Wrong use, a setting that is not understood, an address that cannot be listened on.
pub const USAGE: i32 = 1;
/// The directory cannot be used: damaged, of another version, unreadable.
pub const DIRECTORY: i32 = 2;
/// Another process has the directory.
pub const IN_USE: i32 = 3;
/// The disk failed or is full, or the system lacks something else for now.
pub const DISK: i32 = 4;
/// `--once`: the session did not end in good order.
pub const SESSION: i32 = 5;
/// `status`: nobody serves the directory.
pub const NOT_RUNNING: i32 = 6;
/// `status`: who has the directory does not answer.
pub const NO_ANSWER: i32 = 7;

/// How the program ends that cannot use a directory for this reason. What may pass can be tried again before a person
/// has looked.
pub fn exit_of(error: &Error) -> i32 {
    match error {
        Error::Locked { .. } => IN_USE,
        error if error.may_pass() => DISK,
        _ => DIRECTORY,
    }
}

impl Output<'_> {
    /// Says how it is used.
    pub fn misused(&mut self, exit: i32, text: &str) -> i32 {
        let exit = self.fail(exit, text);
        self.complain(&format!(
            "Usage: tgreplica <logdir>\n\
             Note: The environment variable {ENDPOINT} must be set with the endpoint URL.\n      \
             For example: tcp://localhost:1234\n      \
             tgreplica --help tells more.\n"
        ));
        exit
    }
}

/// Variables that options stand in for.
pub const ENDPOINT: &str = "TSURUGI_REPLICATION_ENDPOINT";
pub const SECRET_FILE: &str = "TSURUGI_REPLICATION_SECRET_FILE";
pub const TLS_CERT: &str = "TSURUGI_REPLICATION_TLS_CERT";
pub const TLS_KEY: &str = "TSURUGI_REPLICATION_TLS_KEY";
pub const TLS_CA: &str = "TSURUGI_REPLICATION_TLS_CA";
pub const TLS_CRL: &str = "TSURUGI_REPLICATION_TLS_CRL";
pub const TLS_PEER_NAME: &str = "TSURUGI_REPLICATION_TLS_PEER_NAME";

/// Names of the environment with their values.
pub type Environment = Vec<(OsString, OsString)>;

// SPDX-License-Identifier: Apache-2.0
//! How the data stores of tests commit. Those on a simulated disk do it in both ways; those on the real one as
//! `LIMESTONE_COMMIT` says, so that their tests can be run with each way.

use limestone_core::datastore::{environment, Commit};
use limestone_core::wal::journal;

/// As the environment says; a journal unless it says something.
pub fn as_told() -> Commit {
    environment::commit(std::env::var_os).unwrap()
}

/// A journal as small as it may be, so that segments are used again, and without a thread of its own: the calls to the
/// disk have one order.
pub fn small_journal() -> Commit {
    Commit::Journal(journal::Settings::default().bytes_max(0).idle(None).settles_ahead(false))
}

/// Each way to commit.
pub fn ways() -> [Commit; 2] {
    [Commit::Direct, small_journal()]
}

// SPDX-License-Identifier: Apache-2.0
//! Makes a stopped replica's directory a primary's.

use super::report::{Output, DIRECTORY, DONE, IN_USE};
use crate::error::Error;
use crate::replication::promotion::{promote, Promotion};
use crate::vfs::RealFs;
use std::path::Path;
use std::sync::Arc;

/// Promotes the directory and says what it has become.
pub fn run(logdir: &Path, force: bool, output: &mut Output<'_>) -> i32 {
    let (dir, result) = (logdir.display(), promote(Arc::new(RealFs), logdir, force));
    match result {
        Ok(Promotion { durable, term, run }) => {
            let text = match output.json {
                true => {
                    let run = run.to_string();
                    serde_json::json!({ "durable_epoch": durable.0, "term": term, "run": run }).to_string()
                }
                false => format!("{dir} is promoted: durable epoch {durable}, term {term}, run {run}"),
            };
            output.print(&format!("{text}\n"));
            DONE
        }
        Err(e @ Error::Locked(_)) => output.fail(IN_USE, &e.to_string()),
        Err(e) => output.fail(DIRECTORY, &e.to_string()),
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Makes a replica's directory a primary's: a stopped one here, one that a `tgreplica` serves by telling that.

use super::report::{exit_of, Output, DONE};
use super::tell::Answer;
use crate::replication::promotion::{promote, Promotion};
use crate::vfs::RealFs;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// What is wanted; also how a running process is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    command: Command,
    /// Whatever the directory lacks.
    pub force: bool,
    /// Why, for the log.
    pub reason: Option<String>,
    /// The largest term of all directories, of which this one has the largest claim.
    pub above: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Command {
    Promote,
}

/// What the directory has become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promoted {
    durable_epoch: u64,
    term: u64,
    run: String,
}

impl Request {
    pub fn new(force: bool, reason: Option<String>, above: Option<u64>) -> Request {
        Request { command: Command::Promote, force, reason, above }
    }

    /// Carries it out on a directory that nobody has open.
    pub fn carry_out(&self, logdir: &Path) -> Answer<Promoted> {
        if self.force {
            let reason = self.reason.as_deref().unwrap_or("none was given");
            log::warn!("{} is promoted whatever it lacks; reason: {}", logdir.display(), reason.escape_debug());
        }
        match promote(Arc::new(RealFs), logdir, self.force, self.above) {
            Ok(Promotion { durable, term, run }) => {
                Answer::Done(Promoted { durable_epoch: durable.0, term, run: run.to_string() })
            }
            Err(e) => Answer::Failed { error: e.to_string(), exit: exit_of(&e) },
        }
    }
}

/// Promotes the directory and says what it has become.
pub fn run(logdir: &Path, request: &Request, output: &mut Output<'_>) -> i32 {
    let answer = request.carry_out(logdir).unless_in_use(logdir, request);
    let text = match &answer {
        Answer::Failed { error, exit } => return output.fail(*exit, error),
        promoted if output.json => serde_json::json!(promoted).to_string(),
        Answer::Done(Promoted { durable_epoch, term, run }) => {
            format!("{} is promoted: durable epoch {durable_epoch}, term {term}, run {run}", logdir.display())
        }
    };
    output.print(&format!("{text}\n"));
    DONE
}

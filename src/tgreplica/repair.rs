// SPDX-License-Identifier: Apache-2.0
//! Lets a replica's directory get its content anew: a stopped one here, one that a `tgreplica` serves by telling that.

use super::report::{Environment, Output, DIRECTORY, DONE, IN_USE, USAGE};
use crate::directory::Keep;
use crate::error::Error;
use crate::replication::control_socket;
use crate::replication::repair::repair;
use crate::replication::settings::ReplicationSettings;
use crate::vfs::RealFs;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// How a running process is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Command {
    Repair,
}

/// What has come of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// A base sync replaces the content; where that is saved.
    GivenUp {
        durable_epoch: u64,
        entries: u64,
        saved: Option<String>,
    },
    Failed {
        error: String,
        exit: i32,
    },
}

/// Carries it out on a directory that nobody has open.
pub fn carry_out(logdir: &Path, keep: Keep) -> Answer {
    match repair(&(Arc::new(RealFs) as _), logdir, keep) {
        Ok(cut) => Answer::GivenUp {
            durable_epoch: cut.extent.durable.0,
            entries: cut.extent.entries,
            saved: cut.saved.map(|saved| saved.display().to_string()),
        },
        Err(e) => {
            let exit = if matches!(e, Error::Locked { .. }) { IN_USE } else { DIRECTORY };
            Answer::Failed { error: e.to_string(), exit }
        }
    }
}

/// Repairs the directory and says what becomes of it.
pub fn run(logdir: &Path, environment: Environment, output: &mut Output<'_>) -> i32 {
    let keep = match ReplicationSettings::parse_keep_cut_off(environment) {
        Ok(keep) => keep,
        Err(e) => return output.fail(USAGE, &e.to_string()),
    };
    let answer = match carry_out(logdir, keep) {
        Answer::Failed { error, exit: IN_USE } => match tell(logdir) {
            Ok(Some(answer)) => answer,
            Ok(None) => Answer::Failed { error: format!("{error}; it is no tgreplica that can be told"), exit: IN_USE },
            Err(reason) => Answer::Failed { error: format!("{error}, and cannot be told: {reason}"), exit: IN_USE },
        },
        answer => answer,
    };
    let text = match &answer {
        Answer::Failed { error, exit } => return output.fail(*exit, error),
        given_up if output.json => serde_json::json!(given_up).to_string(),
        Answer::GivenUp { durable_epoch, entries, saved } => {
            let saved = saved.as_ref().map_or("nothing".to_owned(), |saved| format!("what it had is in {saved}"));
            let dir = logdir.display();
            format!("{dir} waits for a base sync; {saved}: {entries} entries up to epoch {durable_epoch}")
        }
    };
    output.print(&format!("{text}\n"));
    DONE
}

/// Tells the process that serves the directory.
fn tell(logdir: &Path) -> Result<Option<Answer>, String> {
    let line = serde_json::json!(Request { command: Command::Repair }).to_string();
    let Some(answer) = control_socket::tell(logdir, &line).map_err(|e| e.to_string())? else { return Ok(None) };
    serde_json::from_str(&answer).map(Some).map_err(|e| format!("{answer:?} is no answer: {e}"))
}

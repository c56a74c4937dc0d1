// SPDX-License-Identifier: Apache-2.0
//! Lets a replica's directory get its content anew: a stopped one here, one that a `tgreplica` serves by telling that.

use super::report::{exit_of, Environment, Output, DONE, USAGE};
use super::tell::Answer;
use crate::directory::Keep;
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

/// A base sync replaces the content; where that is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    durable_epoch: u64,
    entries: u64,
    saved: Option<String>,
}

/// Carries it out on a directory that nobody has open.
pub fn carry_out(logdir: &Path, keep: Keep) -> Answer<GivenUp> {
    match repair(&(Arc::new(RealFs) as _), logdir, keep) {
        Ok(cut) => Answer::Done(GivenUp {
            durable_epoch: cut.extent.durable.0,
            entries: cut.extent.entries,
            saved: cut.saved.map(|saved| saved.display().to_string()),
        }),
        Err(e) => Answer::Failed { error: e.to_string(), exit: exit_of(&e) },
    }
}

/// Repairs the directory and says what becomes of it.
pub fn run(logdir: &Path, environment: Environment, output: &mut Output<'_>) -> i32 {
    let keep = match ReplicationSettings::parse_keep_cut_off(environment) {
        Ok(keep) => keep,
        Err(e) => return output.fail(USAGE, &e.to_string()),
    };
    let answer = carry_out(logdir, keep).unless_in_use(logdir, &Request { command: Command::Repair });
    let text = match &answer {
        Answer::Failed { error, exit } => return output.fail(*exit, error),
        given_up if output.json => serde_json::json!(given_up).to_string(),
        Answer::Done(GivenUp { durable_epoch, entries, saved }) => {
            let saved = saved.as_ref().map_or("nothing".to_owned(), |saved| format!("what it had is in {saved}"));
            let dir = logdir.display();
            format!("{dir} waits for a base sync; {saved}: {entries} entries up to epoch {durable_epoch}")
        }
    };
    output.print(&format!("{text}\n"));
    DONE
}

// SPDX-License-Identifier: Apache-2.0
//! The replicas of a running engine: they come and go by calls, and by commands on the control socket.

use super::replication::Replication;
use crate::error::{Error, Result};
use crate::replication::addresses::parse_replica;
use crate::replication::commands::{Answer, Request};
use crate::replication::native::primary::Primary;
use std::sync::{Arc, Weak};

/// Exit codes of the program that asks: a wrong command, and a directory that something else is to happen to first.
const WRONG: i32 = 1;
const IN_USE: i32 = 3;

pub(super) fn add(replication: Option<&Replication>, replica: &str) -> Result<()> {
    let primary = primary(replication)?;
    let parsed = parse_replica(replica).map_err(|e| Error::InvalidArgument(format!("\"{replica}\": {e}")))?;
    primary.add_replica(parsed)
}

pub(super) fn remove(replication: Option<&Replication>, name: &str) -> Result<()> {
    primary(replication)?.remove_replica(name)
}

fn primary(replication: Option<&Replication>) -> Result<Arc<Primary>> {
    let none = || {
        Error::WrongState(
            "the engine was started without replication: set TSURUGI_REPLICATION_REPLICAS or \
             TSURUGI_REPLICATION_ENDPOINT and start it again"
                .to_owned(),
        )
    };
    replication.ok_or_else(none)?.native()
}

/// The answer to a line of the control socket.
pub(super) fn carry_out(line: &str, replication: Option<&Weak<Replication>>) -> String {
    let replication = replication.and_then(Weak::upgrade);
    let answer = match serde_json::from_str(line) {
        Ok(request) => answer(&request, replication.as_deref()).unwrap_or_else(|e| failed(e.to_string(), WRONG)),
        Err(_) => {
            failed("an engine serves the directory, which is told of replicas only: end it first".to_owned(), IN_USE)
        }
    };
    serde_json::json!(answer).to_string()
}

fn answer(request: &Request, replication: Option<&Replication>) -> Result<Answer> {
    match request {
        Request::ListReplicas => {}
        Request::AddReplica { replica } => add(replication, replica)?,
        Request::RemoveReplica { name } => remove(replication, name)?,
    }
    let (replicas, quorum) = primary(replication)?.replicas();
    Ok(Answer::Replicas { replicas, quorum })
}

fn failed(error: String, exit: i32) -> Answer {
    Answer::Failed { error, exit }
}

// SPDX-License-Identifier: Apache-2.0
//! What a serving `tgreplica` is told through its control socket.

use super::promote;
use super::repair;
use super::report::USAGE;
use super::tell::Answer;
use crate::directory::Keep;
use crate::replication::control_socket::ControlSocket;
use serde::Deserialize;
use serde_json::{json, Value};
use std::path::Path;
use std::sync::mpsc::{channel, Receiver, Sender};

/// What it is told to do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Request {
    Promote(promote::Request),
    Repair(repair::Request),
}

/// Somebody waits for the answer.
#[derive(Debug)]
pub struct Pending {
    request: Request,
    answer: Sender<Value>,
}

impl Pending {
    /// What is to become of the directory.
    pub fn what(&self) -> &'static str {
        match &self.request {
            Request::Promote(_) => "promoted",
            Request::Repair(_) => "repaired",
        }
    }

    /// Does it to a directory that nobody has open, and answers.
    pub fn carry_out(self, logdir: &Path, keep: Keep) -> After {
        let (answer, after) = match &self.request {
            Request::Promote(request) => match request.carry_out(logdir) {
                promoted @ Answer::Done(_) => (json!(promoted), After::End),
                failed => (json!(failed), After::GoOn),
            },
            Request::Repair(_) => (json!(repair::carry_out(logdir, keep)), After::GoOn),
        };
        match &answer["error"] {
            Value::String(error) => log::error!("{error}; the replica goes on"),
            _ => log::warn!("{} is {}", logdir.display(), self.what()),
        }
        // Whoever asked may have gone.
        let _ = self.answer.send(answer);
        after
    }
}

/// What comes after something was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The directory is no replica's any more.
    End,
    GoOn,
}

/// Where requests arrive. Dropped in this order: whoever waits is let go before the socket is.
#[derive(Debug)]
pub struct Told {
    requests: Receiver<Pending>,
    _socket: Option<ControlSocket>,
}

impl Told {
    /// Listens; the caller has the directory open. A replica without the socket serves all the same.
    pub fn listen(logdir: &Path) -> Told {
        let (sender, requests) = channel();
        let socket = ControlSocket::start(logdir, move |line| answer(line, &sender).unwrap_or_else(failed));
        let socket =
            socket.inspect_err(|e| log::warn!("{} cannot be told to promote or to repair: {e}", logdir.display()));
        Told { requests, _socket: socket.ok() }
    }

    /// The next request, if there is one.
    pub fn next(&self) -> Option<Pending> {
        self.requests.try_recv().ok()
    }
}

fn answer(line: &str, requests: &Sender<Pending>) -> Result<String, String> {
    let only = "a tgreplica serves the directory, which has no replicas and can be promoted or repaired only";
    let request = serde_json::from_str(line).map_err(|e| format!("{only} ({line:?}: {e})"))?;
    let (answer, answers) = channel();
    let gone = "the process ends";
    requests.send(Pending { request, answer }).map_err(|_| gone)?;
    let answer = answers.recv().map_err(|_| gone)?;
    Ok(answer.to_string())
}

fn failed(error: String) -> String {
    serde_json::json!(Answer::<()>::Failed { error, exit: USAGE }).to_string()
}

// SPDX-License-Identifier: Apache-2.0
//! What a serving `tgreplica` is told through its control socket.

use super::promote::{Answer, Request};
use super::report::USAGE;
use crate::replication::control_socket::ControlSocket;
use std::path::Path;
use std::sync::mpsc::{channel, Receiver, Sender};

/// Somebody waits for the answer.
#[derive(Debug)]
pub struct Pending {
    pub request: Request,
    answer: Sender<Answer>,
}

impl Pending {
    pub fn answer(self, answer: Answer) {
        // Whoever asked may have gone.
        let _ = self.answer.send(answer);
    }
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
        let socket = socket.inspect_err(|e| log::warn!("{} cannot be told to promote: {e}", logdir.display()));
        Told { requests, _socket: socket.ok() }
    }

    /// The next request, if there is one.
    pub fn next(&self) -> Option<Pending> {
        self.requests.try_recv().ok()
    }
}

fn answer(line: &str, requests: &Sender<Pending>) -> Result<String, String> {
    let request = serde_json::from_str(line).map_err(|e| {
        format!("a tgreplica serves the directory, which has no replicas and can be promoted only ({line:?}: {e})")
    })?;
    let (answer, answers) = channel();
    let gone = "the process ends";
    requests.send(Pending { request, answer }).map_err(|_| gone)?;
    let answer = answers.recv().map_err(|_| gone)?;
    Ok(serde_json::json!(answer).to_string())
}

fn failed(error: String) -> String {
    serde_json::json!(Answer::Failed { error, exit: USAGE }).to_string()
}

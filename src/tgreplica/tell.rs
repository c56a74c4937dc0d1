// SPDX-License-Identifier: Apache-2.0
//! What is done to a directory here when nobody has it open, and else by the `tgreplica` that serves it.

use super::report::IN_USE;
use crate::replication::control_socket;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What has come of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer<D> {
    Done(D),
    Failed { error: String, exit: i32 },
}

impl<D: DeserializeOwned> Answer<D> {
    /// This answer, or that of the process that has the directory when it was in use.
    pub fn unless_in_use(self, logdir: &Path, request: &impl Serialize) -> Answer<D> {
        let Answer::Failed { error, exit: IN_USE } = self else { return self };
        let text = match tell(logdir, request) {
            Ok(Some(answer)) => return answer,
            Ok(None) => "; it is no tgreplica that can be told, or one that starts or ends: end it first".to_owned(),
            Err(reason) => format!(", and cannot be told: {reason}"),
        };
        Answer::Failed { error: error + &text, exit: IN_USE }
    }
}

fn tell<D: DeserializeOwned>(logdir: &Path, request: &impl Serialize) -> Result<Option<Answer<D>>, String> {
    let line = serde_json::json!(request).to_string();
    let Some(answer) = control_socket::tell(logdir, &line).map_err(|e| e.to_string())? else { return Ok(None) };
    serde_json::from_str(&answer).map(Some).map_err(|e| format!("{answer:?} is no answer: {e}"))
}

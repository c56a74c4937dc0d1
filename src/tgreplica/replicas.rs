// SPDX-License-Identifier: Apache-2.0
//! Shows and changes the replicas of a running engine.

use super::report::{Output, DIRECTORY, DONE, NOT_RUNNING, NO_ANSWER, USAGE};
use super::status::silent_holder;
use crate::replication::commands::{Answer, Request};
use crate::replication::control_socket;
use crate::replication::status::ListedReplica;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The request that words of the command line stand for.
///
/// # Errors
/// What was expected.
pub fn request(words: &[PathBuf]) -> Result<Request, String> {
    let text = |word: &PathBuf| word.to_str().map(str::to_owned).ok_or("text in UTF-8 was expected");
    let expected = "replicas <LOGDIR> [list | add [NAME=]tcp://HOST:PORT | remove NAME] was expected";
    match words {
        [] => Ok(Request::ListReplicas),
        [word] if word == OsStr::new("list") => Ok(Request::ListReplicas),
        [word, replica] if word == OsStr::new("add") => Ok(Request::AddReplica { replica: text(replica)? }),
        [word, name] if word == OsStr::new("remove") => Ok(Request::RemoveReplica { name: text(name)? }),
        _ => Err(expected.to_owned()),
    }
}

/// Tells the engine that serves the directory, and shows its replicas as they are then.
pub fn run(logdir: &Path, request: &Request, output: &mut Output<'_>) -> i32 {
    let answer = match control_socket::tell(logdir, &serde_json::json!(request).to_string()) {
        Ok(Some(answer)) => answer,
        Ok(None) => {
            if let Some(text) = silent_holder(logdir) {
                return output.fail(NO_ANSWER, &text);
            }
            let text = format!("no engine serves {}: its settings hold when it starts", logdir.display());
            return output.fail(NOT_RUNNING, &text);
        }
        Err(e) => {
            let exit = if e.kind() == ErrorKind::TimedOut { NO_ANSWER } else { DIRECTORY };
            return output.fail(exit, &format!("the engine that serves {} cannot be told: {e}", logdir.display()));
        }
    };
    match serde_json::from_str(&answer) {
        Ok(Answer::Replicas { .. }) if output.json => output.print(&format!("{answer}\n")),
        Ok(Answer::Replicas { replicas, quorum }) => output.print(&table(&replicas, quorum)),
        Ok(Answer::Failed { error, exit }) => return output.fail(exit, &error),
        Err(_) => return output.fail(USAGE, &format!("no answer of an engine: {answer}")),
    }
    DONE
}

fn table(replicas: &[ListedReplica], quorum: usize) -> String {
    let mut text = format!("{quorum} of {} must have an epoch\n", replicas.len());
    for ListedReplica { name, addresses, state, propagated_epoch, last_error } in replicas {
        let epoch = propagated_epoch.map_or("-".to_owned(), |epoch| epoch.to_string());
        let error = last_error.as_ref().map_or_else(String::new, |error| format!("; {error}"));
        text.push_str(&format!("{name} {addresses}: {state}, epoch {epoch}{error}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_a_request_or_wrong_use() {
        let of = |words: &[&str]| request(&words.iter().map(PathBuf::from).collect::<Vec<_>>());
        for words in [&[][..], &["list"]] {
            assert_eq!(of(words), Ok(Request::ListReplicas), "{words:?}");
        }
        let (replica, name) = ("b=tcp://h:1".to_owned(), "b".to_owned());
        assert_eq!(of(&["add", "b=tcp://h:1"]), Ok(Request::AddReplica { replica }));
        assert_eq!(of(&["remove", "b"]), Ok(Request::RemoveReplica { name }));
        for words in [&["add"][..], &["remove"], &["list", "b"], &["drop", "b"], &["add", "b", "c"]] {
            assert!(of(words).unwrap_err().contains("was expected"), "{words:?}");
        }
    }
}

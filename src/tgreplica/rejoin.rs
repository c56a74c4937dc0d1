// SPDX-License-Identifier: Apache-2.0
//! How a directory has become a replica again.

use super::report::{Output, DONE, SESSION};
use crate::directory::Cut;
use crate::replication::status::{LinkState, Status};
use std::path::Path;

/// Says what has become of the directory, and what of it was cut off.
pub fn report(logdir: &Path, status: &Status, cut: Option<Cut>, output: &mut Output<'_>) -> i32 {
    if status.state != LinkState::Streaming {
        let reason = status.last_error.clone().unwrap_or_else(|| "it was ended before a primary came".to_owned());
        return output.fail(SESSION, &format!("{} has not rejoined: {reason}", logdir.display()));
    }
    let durable = status.propagated_epoch.unwrap_or_default();
    let saved = cut.as_ref().and_then(|cut| cut.saved.as_ref());
    let text = match output.json {
        true => serde_json::json!({
            "durable_epoch": durable, "term": status.term, "cut_off": saved.map(|saved| saved.display().to_string()),
            "sessions": cut.as_ref().map_or(0, |cut| cut.extent.sessions),
            "entries": cut.as_ref().map_or(0, |cut| cut.extent.entries),
        })
        .to_string(),
        false => {
            let term = status.term.map_or("-".to_owned(), |term| term.to_string());
            let went = match (&cut, saved) {
                (Some(cut), Some(saved)) => format!("; cut off and saved in {}: {}", saved.display(), cut.extent),
                _ => "; nothing was cut off".to_owned(),
            };
            format!("{} has rejoined: durable epoch {durable}, term {term}{went}", logdir.display())
        }
    };
    output.print(&format!("{text}\n"));
    DONE
}

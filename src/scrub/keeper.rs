// SPDX-License-Identifier: Apache-2.0
//! Rounds one after the other, as long as somebody has the directory.

use super::damage::Damage;
use super::known::Known;
use super::rounds::{Reading, Round, Scrub, Scrubbing, Which};
use super::scrubbed::Scrubbed;
use crate::error::Error;
use crate::vfs::Vfs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often new files are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Who has the directory.
pub trait Host {
    /// One opening of the directory, from which on it stays open until it is closed.
    type Opening: Clone;

    /// The present one; `None` while the directory is closed.
    fn opening(&self) -> Option<Self::Opening>;

    /// Whether the directory has been open without a break since then, and is to stay so.
    fn is_open_as(&self, opening: &Self::Opening) -> bool;

    /// Whether it is over.
    fn is_stopping(&self) -> bool;

    /// Waits, at most until it is over.
    fn sleep(&self, time: Duration);

    /// How many bytes at the begin of the log file of this name stay as they are while the directory is open.
    fn settled_bytes(&self, name: &str) -> u64;

    /// What is told of it.
    fn scrubbed(&self) -> &Scrubbed;

    /// What files are known to hold as long as the directory stays open, for those who make other files of them.
    fn knows(&self, known: &Arc<Known>, opening: &Self::Opening);
    /// A file is damaged, in this opening of the directory.
    fn damaged(&self, damage: &Damage, opening: &Self::Opening);
}

/// Scrubs until the host says that it is over; ends within the reading of a piece then. The thread should have stepped
/// back behind others.
pub fn keep(host: &impl Host, (vfs, location): (Arc<dyn Vfs>, &Path), scrubbing: Scrubbing) {
    let mut scrub = Scrub::open(vfs, location);
    let (mut seen, mut due, mut failure) = (None, Instant::now(), None);
    while !host.is_stopping() {
        host.sleep(LOOK_EVERY.min(scrubbing.period));
        // While it is closed somebody changes the directory.
        let Some(opening) = host.opening().filter(|_| !host.is_stopping()) else { continue };
        let is_same = seen.as_ref().is_some_and(|seen| host.is_open_as(seen));
        let opening = match seen.take().filter(|_| is_same) {
            Some(seen) => seen,
            None => {
                scrub.reopened();
                host.knows(scrub.known(), &opening);
                opening
            }
        };
        seen = Some(opening.clone());
        let which = if Instant::now() >= due { Which::All } else { Which::New };
        let settled = |name: &str| host.settled_bytes(name);
        let mut go_on = |bytes, rest| {
            host.scrubbed().read(bytes);
            host.sleep(rest);
            host.is_open_as(&opening)
        };
        let round = scrub.round(which, Reading { rate: scrubbing.rate, settled: &settled, go_on: &mut go_on });
        let Round { damaged, is_complete } = match round {
            Ok(round) => round,
            Err(e) => {
                note(&mut failure, &e);
                continue;
            }
        };
        failure = None;
        damaged.iter().for_each(|damage| host.damaged(damage, &opening));
        if is_complete && which == Which::All {
            host.scrubbed().round(&damaged);
            due = Instant::now() + scrubbing.period;
        }
    }
}

/// Says what has failed, once.
fn note(failure: &mut Option<String>, error: &Error) {
    let text = error.to_string();
    if failure.as_ref() != Some(&text) {
        log::warn!("the log files are not scrubbed: {text}");
    }
    *failure = Some(text);
}

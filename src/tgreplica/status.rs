// SPDX-License-Identifier: Apache-2.0
//! How a directory stands: what whoever serves it says, and else what its files say.

use super::report::{Output, DIRECTORY, DONE, NOT_RUNNING, NO_ANSWER};
use super::signals::Signals;
use crate::error::Error;
use crate::monitoring::families;
use crate::monitoring::text::{self, Form};
use crate::replication::replica_store::{versions, STAGING_DIR};
use crate::replication::report::Report;
use crate::replication::status::{Known, Side, Status};
use crate::replication::status_socket;
use crate::types::Epoch;
use crate::vfs::{is_held, RealFs, Vfs};
use crate::wal::history_file::{DirectoryHistory, Place, Role};
use crate::wal::journal::redo;
use crate::wal::{epoch_file, manifest, names};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// How often a watching program looks whether it shall end.
const POLL: Duration = Duration::from_millis(50);

/// What whoever serves the directory tells, or else its files, with the exit code that says which; or the exit code of
/// a failure that was told.
fn report(logdir: &Path, output: &mut Output<'_>) -> Result<(Report, i32), i32> {
    match status_socket::ask(logdir) {
        Ok(Some(report)) => Ok((report, DONE)),
        Ok(None) => {
            // Who has taken the directory meanwhile may have changed what was read.
            let silent = silent_holder(logdir);
            let found = stopped(logdir);
            match (silent.or_else(|| silent_holder(logdir)), found) {
                (Some(text), _) => Err(output.fail(NO_ANSWER, &text)),
                (None, Ok(status)) => Ok((Report { status, counted: None }, NOT_RUNNING)),
                (None, Err(e)) => Err(output.fail(DIRECTORY, &e.to_string())),
            }
        }
        Err(e) if e.kind() == ErrorKind::TimedOut => {
            let text = format!("the process that serves {} does not answer: {e}", logdir.display());
            Err(output.fail(NO_ANSWER, &text))
        }
        Err(e) => Err(output.fail(DIRECTORY, &format!("{} cannot be asked: {e}", logdir.display()))),
    }
}

/// What to say of a process that has the directory and listens to nobody; `None` when no process has it.
pub fn silent_holder(logdir: &Path) -> Option<String> {
    // Without a manifest, or one that can be read, nobody is seen to have it.
    let is_held = is_held(&logdir.join(names::MANIFEST)).unwrap_or(false);
    is_held.then(|| format!("a process has {} and does not answer: it starts, ends, or is a tool", logdir.display()))
}

/// Prints the metrics of the directory.
pub fn metrics(logdir: &Path, openmetrics: bool, output: &mut Output<'_>) -> i32 {
    let form = if openmetrics { Form::OpenMetrics } else { Form::Prometheus };
    match report(logdir, output) {
        Ok((report, exit)) => {
            output.print(&text::write(&families::of(&report), form));
            exit
        }
        Err(exit) => exit,
    }
}

/// Says once how the directory stands.
pub fn show(logdir: &Path, output: &mut Output<'_>) -> i32 {
    let (Report { status, .. }, exit) = match report(logdir, output) {
        Ok(report) => report,
        Err(exit) => return exit,
    };
    let text = if output.json { format!("{}\n", status.to_json()) } else { format!("{status}\n") };
    output.print(&text);
    exit
}

/// Says it again and again until the program is to end.
pub fn watch(logdir: &Path, every: Duration, signals: &Signals, output: &mut Output<'_>) -> i32 {
    loop {
        let exit = show(logdir, output);
        if !output.json {
            output.print("\n");
        }
        let next = Instant::now() + every;
        while Instant::now() < next {
            if signals.stop.load(SeqCst) {
                return exit;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// What the files of a directory say that nobody serves; nothing is locked or changed.
fn stopped(logdir: &Path) -> Result<Status, Error> {
    let read = |name: &str, max: u64| match RealFs.read(&logdir.join(name), max) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|e| Error::io("cannot read", &logdir.join(name), e)),
    };
    let epochs = read(names::EPOCH, 1 << 20)?;
    let recorded = epoch_file::parse(&epochs, &logdir.join(names::EPOCH)).map_err(Error::Corrupted)?.max;
    let manifest = manifest::parse(&read(names::MANIFEST, manifest::MAX_BYTES)?).ok();
    // What a killed process left in a commit journal counts for the next start.
    let journal = manifest.as_ref().and_then(|manifest| manifest.journal.as_ref());
    let journaled = match journal {
        Some(journal) => redo::read(&RealFs, logdir, journal)?.record(&RealFs)?,
        None => None,
    };
    let durable = journaled.or(recorded);
    let identity = manifest.and_then(|manifest| manifest.instance_uuid).unwrap_or_default();
    let state = DirectoryHistory::load(Place { vfs: &RealFs, location: logdir, instance: &identity })?;
    // A replica of the original's protocol has no history, nor has a directory that no engine has started on since.
    let has_staging = RealFs.kind(&logdir.join(STAGING_DIR)).is_ok_and(|kind| kind.is_some());
    let role = match state.as_ref().map(|state| state.role) {
        None if has_staging => Some(Role::Replica),
        None if durable.is_some() => Some(Role::Primary),
        role => role,
    };
    Ok(match role {
        Some(Role::Replica) => of_replica(logdir, Known::default(), durable.unwrap_or_default(), identity),
        role => Known {
            role: role.map(|_| Side::Primary),
            instance_uuid: identity,
            term: state.as_ref().map(|state| state.term),
            claim: state.map(|state| state.claim(durable.unwrap_or_default())),
            stored: durable,
            ..Known::default()
        }
        .document(),
    })
}

/// The document of a replica's directory of which only that much is known.
pub fn of_replica(logdir: &Path, known: Known, durable: Epoch, identity: String) -> Status {
    let state = DirectoryHistory::load(Place { vfs: &RealFs, location: logdir, instance: &identity }).ok().flatten();
    let found = versions::load(&RealFs, logdir, &identity);
    Known {
        role: Some(Side::Replica),
        instance_uuid: identity,
        term: state.as_ref().map(|state| state.term),
        claim: state.map(|state| state.claim(durable)),
        propagated: Some(durable),
        boundary: found.boundary,
        safe_snapshot: found.safe_snapshot,
        ..known
    }
    .document()
}

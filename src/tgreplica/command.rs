// SPDX-License-Identifier: Apache-2.0
//! The program `tgreplica` (API specification §16.3): what is wanted of it, and on which directory.

use super::arguments::{Arguments, Wanted, COMPARE};
use super::report::{exit_of, Environment, Output, DONE, USAGE};
use super::serve::Until;
use super::{compare, digest, promote, repair, replicas, serve, status};
use crate::error::Error;
use crate::program_output::Ended;
use crate::vfs::{FileKind, RealFs, Vfs};
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::signals::Signals;

/// Runs the program; returns its exit code.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    environment: Environment,
    signals: &Signals,
    out: &mut dyn Write,
) -> i32 {
    let args: Vec<OsString> = args.into_iter().collect();
    let misused = match args.iter().any(|arg| arg == COMPARE) {
        true => compare::CANNOT_TELL,
        false => USAGE,
    };
    let errors = &mut std::io::stderr();
    let mut output = Output::as_asked(&args, out, errors);
    let arguments: Arguments = match output.begin(&args, |arguments: &Arguments| &arguments.about) {
        Ok(arguments) => arguments,
        Err(Ended::Done) => return DONE,
        Err(Ended::Misused(text)) => return output.misused(misused, &text),
        Err(Ended::Failed(text)) => return output.fail(USAGE, &text),
    };
    let wanted = match arguments.wanted() {
        Ok(wanted) => wanted,
        Err(text) => return output.misused(misused, &text),
    };
    let (Wanted::Serve(logdir)
    | Wanted::Status(logdir)
    | Wanted::Metrics(logdir)
    | Wanted::Promote(logdir)
    | Wanted::Rejoin(logdir)
    | Wanted::Repair(logdir)
    | Wanted::Replicas(logdir, _)
    | Wanted::Digest(logdir)) = wanted
    else {
        return compare::run(&arguments, signals, &mut output);
    };
    if let Err(exit) = check_directory(logdir, &mut output) {
        return exit;
    }
    match (&wanted, arguments.watch) {
        (Wanted::Promote(_), _) => {
            let request = promote::Request::new(arguments.force, arguments.reason.clone(), arguments.above);
            promote::run(logdir, &request, &mut output)
        }
        (Wanted::Serve(_) | Wanted::Rejoin(_), _) => {
            let until = match wanted {
                Wanted::Rejoin(_) => Until::Rejoined,
                _ if arguments.once => Until::FirstSession,
                _ => Until::Stopped,
            };
            serve::run(logdir, &arguments, until, environment, signals, &mut output)
        }
        (Wanted::Digest(_) | Wanted::Compare(..) | Wanted::CompareWithPrimary(_), _) => {
            digest::run(logdir, &arguments, signals, &mut output)
        }
        (Wanted::Repair(_), _) => repair::run(logdir, environment, &mut output),
        (Wanted::Replicas(_, request), _) => replicas::run(logdir, request, &mut output),
        (Wanted::Metrics(_), _) => status::metrics(logdir, arguments.openmetrics, &mut output),
        (Wanted::Status(_), None) => status::show(logdir, &mut output),
        (Wanted::Status(_), Some(s)) => status::watch(logdir, Duration::from_secs(s.into()), signals, &mut output),
    }
}

fn check_directory(logdir: &Path, output: &mut Output<'_>) -> Result<(), i32> {
    match RealFs.kind(logdir) {
        Ok(Some(FileKind::Directory)) => Ok(()),
        Ok(None) => Err(output.misused(USAGE, &format!("Directory does not exist: {}", logdir.display()))),
        Ok(Some(_)) => Err(output.misused(USAGE, &format!("Specified path is not a directory: {}", logdir.display()))),
        Err(e) => {
            let e = Error::io("cannot look at", logdir, e);
            Err(output.fail(exit_of(&e), &e.to_string()))
        }
    }
}

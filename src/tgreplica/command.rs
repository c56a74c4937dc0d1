// SPDX-License-Identifier: Apache-2.0
//! The program `tgreplica` (API specification §16.3): what is wanted of it, and on which directory.

use super::arguments::{Arguments, Wanted};
use super::report::{Environment, Output, DIRECTORY, DONE, USAGE};
use super::serve::Until;
use super::{promote, replicas, serve, status};
use crate::vfs::{FileKind, RealFs, Vfs};
use clap::{CommandFactory, Parser};
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
    let json = args.iter().any(|arg| arg == "--json");
    let mut output = Output { out, errors: &mut std::io::stderr(), json };
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(e) if e.use_stderr() => {
            let text = e.render().to_string();
            return output.misused(text.trim_start_matches("error: ").lines().next().unwrap_or_default());
        }
        Err(help) => {
            output.print(&help.render().to_string());
            return DONE;
        }
    };
    if arguments.version {
        output.print(&format!("tgreplica {}\n", env!("CARGO_PKG_VERSION")));
        return DONE;
    }
    if let Some(dir) = &arguments.generate_man {
        return match clap_mangen::generate_to(Arguments::command(), dir) {
            Ok(()) => DONE,
            Err(e) => output.fail(USAGE, &format!("cannot write the man page to {}: {e}", dir.display())),
        };
    }
    let wanted = match arguments.wanted() {
        Ok(wanted) => wanted,
        Err(text) => return output.misused(&text),
    };
    let (Wanted::Serve(logdir)
    | Wanted::Status(logdir)
    | Wanted::Metrics(logdir)
    | Wanted::Promote(logdir)
    | Wanted::Rejoin(logdir)
    | Wanted::Replicas(logdir, _)) = wanted;
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
        (Wanted::Replicas(_, request), _) => replicas::run(logdir, request, &mut output),
        (Wanted::Metrics(_), _) => status::metrics(logdir, arguments.openmetrics, &mut output),
        (Wanted::Status(_), None) => status::show(logdir, &mut output),
        (Wanted::Status(_), Some(s)) => status::watch(logdir, Duration::from_secs(s.into()), signals, &mut output),
    }
}

fn check_directory(logdir: &Path, output: &mut Output<'_>) -> Result<(), i32> {
    match RealFs.kind(logdir) {
        Ok(Some(FileKind::Directory)) => Ok(()),
        Ok(None) => Err(output.misused(&format!("Directory does not exist: {}", logdir.display()))),
        Ok(Some(_)) => Err(output.misused(&format!("Specified path is not a directory: {}", logdir.display()))),
        Err(e) => Err(output.fail(DIRECTORY, &format!("cannot look at {}: {e}", logdir.display()))),
    }
}

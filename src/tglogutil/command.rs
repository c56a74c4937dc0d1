// SPDX-License-Identifier: Apache-2.0
//! From the command line to a subcommand and its exit code (§16.1).

use super::arguments::{Arguments, Command};
use super::inspect::line;
use crate::directory::{Access, OfflineDirectory};
use crate::error::Error;
use crate::tglogutil::{compaction, diff, dump, gflags, inspect, repair, verify};
use crate::types::Epoch;
use crate::vfs::Vfs;
use clap::{CommandFactory, Parser};
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

const USAGE_ERROR: i32 = 1;
const CANNOT_HANDLE: i32 = 64;

/// Runs the tool with the arguments of the program, its name first; returns the exit code. Results go to `out`, all
/// else to the log. `vfs` is the disk that the directory is on.
pub fn run<A: Into<OsString>>(args: impl IntoIterator<Item = A>, vfs: Arc<dyn Vfs>, out: &mut dyn Write) -> i32 {
    let mut args = args.into_iter().map(Into::into);
    let program = args.next().unwrap_or_default();
    let mut tool = Arguments::command();
    tool.build();
    let given = match gflags::parse(&tool, args) {
        Ok(given) => given,
        Err(message) => {
            log::error!("{message}");
            return USAGE_ERROR;
        }
    };
    if given.is("version") {
        line(out, format_args!("tglogutil {}", env!("CARGO_PKG_VERSION")));
        return 0;
    }
    if let Some(dir) = given.value("generate_man") {
        return generate_man(Path::new(dir));
    }
    if given.is("help") || given.is("h") {
        let subcommand = given.words.first().and_then(|word| tool.find_subcommand_mut(word)).cloned();
        line(out, format_args!("{}", subcommand.unwrap_or(tool).render_long_help()));
        return USAGE_ERROR;
    }
    let [word, _, ..] = &given.words[..] else {
        return misused(&tool, &program, "missing parameters", out);
    };
    let Some(subcommand) = tool.find_subcommand(word) else {
        return misused(&tool, &program, &format!("unknown subcommand: {}", word.display()), out);
    };
    let arguments = match Arguments::try_parse_from(given.for_clap(subcommand)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let text = error.render().to_string();
            log::error!("{}", text.strip_prefix("error: ").unwrap_or(&text).trim_end());
            // There 1 is an answer.
            return if word == "diff" { diff::CANNOT_COMPARE } else { USAGE_ERROR };
        }
    };
    if arguments.subcommand.common().verbose {
        log::set_max_level(log::LevelFilter::Debug);
    }
    match run_on(vfs, &arguments.subcommand, out) {
        Ok(exit) => exit,
        Err(error) => {
            log::error!("{error}");
            if arguments.subcommand.wants_json() {
                line(out, format_args!("{}", cannot_check(&arguments.subcommand.common().dblogdir, &error)));
            }
            match arguments.subcommand {
                Command::Diff(_) => diff::CANNOT_COMPARE,
                _ => CANNOT_HANDLE,
            }
        }
    }
}

/// What is printed for programs when a directory cannot be handled.
fn cannot_check(directory: &Path, error: &Error) -> serde_json::Value {
    serde_json::json!({
        "directory": directory.to_string_lossy(), "status": "cannot-check", "warnings": [],
        "damage": [error.to_string()],
    })
}

fn misused(tool: &clap::Command, program: &OsString, message: &str, out: &mut dyn Write) -> i32 {
    log::error!("{message}");
    let names: Vec<&str> = tool.get_subcommands().map(clap::Command::get_name).collect();
    line(out, format_args!("usage: {} {{{}}} [options] <dblogdir>", program.display(), names.join(" | ")));
    USAGE_ERROR
}

/// The man pages of the tool and its subcommands, for the build.
fn generate_man(dir: &Path) -> i32 {
    match clap_mangen::generate_to(Arguments::command(), dir) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("cannot write man pages to {}: {error}", dir.display());
            USAGE_ERROR
        }
    }
}

type Job<'a> = Box<dyn FnOnce(&OfflineDirectory, &mut dyn Write) -> Result<i32, Error> + 'a>;

fn run_on(vfs: Arc<dyn Vfs>, subcommand: &Command, out: &mut dyn Write) -> Result<i32, Error> {
    // The directory is looked at only when the options are right.
    let job: Job<'_> = match subcommand {
        Command::Inspect(options) => {
            let limit = limit(options.epoch.as_deref())?;
            Box::new(move |directory, out| inspect::run(directory, limit, options, out))
        }
        Command::Repair(options) => {
            let limit = limit(options.epoch.as_deref())?;
            Box::new(move |directory, out| repair::run(directory, limit, options, out))
        }
        Command::Compaction(options) => {
            let limit = limit(options.epoch.as_deref())?;
            Box::new(move |directory, out| compaction::run(directory, limit, options, out))
        }
        Command::Verify(options) => Box::new(move |directory, out| verify::run(directory, options, out)),
        Command::Dump(options) => {
            let filter = dump::Filter::new(options)?;
            Box::new(move |directory, out| dump::run(directory, &filter, options, out))
        }
        Command::Diff(options) => {
            let vfs = vfs.clone();
            Box::new(move |directory, out| {
                diff::run(directory, &open(vfs, &options.other, Access::Read)?, options, out)
            })
        }
        Command::Settle(_) => Box::new(|directory, out| {
            match directory.settled() {
                Some(groups) => line(out, format_args!("settled: {groups} groups of the commit journal")),
                None => line(out, format_args!("settled: no commit journal is in use")),
            }
            Ok(0)
        }),
    };
    let location = subcommand.common().dblogdir.as_path();
    if !subcommand.prints_data() {
        line(out, format_args!("dblogdir: \"{}\"", location.display()));
    }
    if matches!(subcommand, Command::Compaction(_)) && is_there(&*vfs, location)? {
        compaction::check_target(location)?;
    }
    job(&open(vfs, location, subcommand.access())?, out)
}

fn is_there(vfs: &dyn Vfs, location: &Path) -> Result<bool, Error> {
    vfs.kind(location).map(|kind| kind.is_some()).map_err(|e| Error::io("cannot open", location, e))
}

fn open(vfs: Arc<dyn Vfs>, location: &Path, access: Access) -> Result<OfflineDirectory, Error> {
    if !is_there(&*vfs, location)? {
        return Err(Error::InvalidArgument("dblogdir not exists".to_owned()));
    }
    match OfflineDirectory::open(vfs, location, access) {
        Err(Error::Locked { .. }) => Err(Error::InvalidArgument(format!(
            "Log directory \"{}\" is already in use by another process. Operation aborted.",
            location.display()
        ))),
        opened => opened,
    }
}

/// The value of `--epoch`.
fn limit(text: Option<&str>) -> Result<Option<Epoch>, Error> {
    let invalid = || Error::InvalidArgument("invalid value for --epoch option".to_owned());
    let digits = |text: &&str| text.bytes().all(|b| b.is_ascii_digit());
    text.map(|text| Some(text).filter(digits).and_then(|t| t.parse().ok()).map(Epoch).ok_or_else(invalid)).transpose()
}

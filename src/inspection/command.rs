// SPDX-License-Identifier: Apache-2.0
//! From the command line to a subcommand and its exit code (§16.1).

use super::inspect::line;
use super::options::{flag_list, parse, Options};
use super::{dump, inspect, repair, verify};
use crate::datastore::OfflineDirectory;
use crate::error::Error;
use crate::types::Epoch;
use crate::vfs::Vfs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

const USAGE_ERROR: i32 = 1;
const CANNOT_HANDLE: i32 = 64;

/// Runs the tool with the arguments of the program, its name first; returns the exit code. Results go to `out`, all
/// else to the log. `vfs` is the disk that the directory is on.
pub fn run(args: &[String], vfs: Arc<dyn Vfs>, out: &mut dyn Write) -> i32 {
    let program = args.first().map_or("tglogutil", String::as_str);
    let options = match parse(args.get(1..).unwrap_or_default()) {
        Ok(options) => options,
        Err(message) => {
            log::error!("{message}");
            return USAGE_ERROR;
        }
    };
    if options.is("version") {
        line(out, format_args!("tglogutil"));
        return 0;
    }
    if options.is("help") || options.is("h") {
        usage(out, program);
        let _ = write!(out, "{}", flag_list());
        return USAGE_ERROR;
    }
    if options.is("verbose") {
        log::set_max_level(log::LevelFilter::Debug);
    }
    let [subcommand, location, ..] = &options.words[..] else {
        log::error!("missing parameters");
        usage(out, program);
        return USAGE_ERROR;
    };
    let run: Subcommand = match subcommand.as_str() {
        "inspect" => |directory, options, out| inspect::run(directory, limit(options)?, out),
        "repair" => |directory, options, out| repair::run(directory, limit(options)?, options, out),
        "verify" => |directory, options, out| verify::run(directory, options.is("json"), out),
        "dump" => dump::run,
        unknown => {
            log::error!("unknown subcommand: {unknown}");
            usage(out, program);
            return USAGE_ERROR;
        }
    };
    match run_on(vfs, subcommand, Path::new(location), &options, run, out) {
        Ok(exit) => exit,
        Err(error) => {
            log::error!("{error}");
            CANNOT_HANDLE
        }
    }
}

type Subcommand = fn(&OfflineDirectory, &Options, &mut dyn Write) -> Result<i32, Error>;

fn usage(out: &mut dyn Write, program: &str) {
    line(out, format_args!("usage: {program} {{repair | inspect | verify | dump}} [options] <dblogdir>"));
}

/// The directory is looked at only when the options are right.
fn run_on(
    vfs: Arc<dyn Vfs>,
    subcommand: &str,
    location: &Path,
    options: &Options,
    run: Subcommand,
    out: &mut dyn Write,
) -> Result<i32, Error> {
    let prints_entries = subcommand == "dump";
    if prints_entries {
        dump::Filter::new(options)?;
    } else {
        limit(options)?;
    }
    // The output of these is for programs.
    if !prints_entries && !options.is("json") {
        line(out, format_args!("dblogdir: \"{}\"", location.display()));
    }
    if vfs.kind(location).map_err(|e| Error::io("cannot open", location, e))?.is_none() {
        return Err(Error::InvalidArgument("dblogdir not exists".to_owned()));
    }
    let directory = match OfflineDirectory::open(vfs, location) {
        Err(Error::Locked(_)) => {
            return Err(Error::InvalidArgument(format!(
                "Log directory \"{}\" is already in use by another process. Operation aborted.",
                location.display()
            )))
        }
        opened => opened?,
    };
    run(&directory, options, out)
}

/// The value of `--epoch`.
fn limit(options: &Options) -> Result<Option<Epoch>, Error> {
    let invalid = || Error::InvalidArgument("invalid value for --epoch option".to_owned());
    let digits = |text: &&str| text.bytes().all(|b| b.is_ascii_digit());
    match options.text("epoch") {
        None => Ok(None),
        Some(text) => {
            Some(text).filter(digits).and_then(|t| t.parse().ok()).map(|e| Some(Epoch(e))).ok_or_else(invalid)
        }
    }
}

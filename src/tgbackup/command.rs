// SPDX-License-Identifier: Apache-2.0
//! From the command line to what is wanted, and from an error to the exit code.

use super::arguments::{Arguments, Command};
use super::{create, expire, list, restore, verify};
use crate::error::{Error, Result};
use crate::program_output::{Ended, Output};
use crate::vfs::Vfs;
use clap::CommandFactory;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

const DONE: i32 = 0;
/// Wrong use, and what is not done to what was named.
const USAGE: i32 = 1;
/// A backup or a directory cannot be used.
const UNUSABLE: i32 = 2;
/// Another process has the directory or the folder.
const IN_USE: i32 = 3;
/// Something cannot be read or written.
const FAILED: i32 = 4;

/// Runs the program with its arguments, its name first; returns the exit code. Results go to `out`, why it failed to
/// `errors`, and all else to the log. `vfs` is the disk that all is on.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    vfs: Arc<dyn Vfs>,
    out: &mut dyn Write,
    errors: &mut dyn Write,
) -> i32 {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut output = Output::as_asked(&args, out, errors);
    let arguments: Arguments = match output.begin(&args, |arguments: &Arguments| &arguments.about) {
        Ok(arguments) => arguments,
        Err(Ended::Done) => return DONE,
        Err(Ended::Misused(text)) => return misused(&mut output, &text),
        Err(Ended::Failed(text)) => return output.fail(FAILED, &text),
    };
    let Some(command) = &arguments.command else {
        return misused(&mut output, "a command was expected, found none");
    };
    match carry_out(command, &vfs, &mut output) {
        Ok(exit) => exit,
        Err(e) => output.fail(exit_of(&e), &e.to_string()),
    }
}

fn carry_out(command: &Command, vfs: &Arc<dyn Vfs>, output: &mut Output<'_>) -> Result<i32> {
    let absolute = |path: &Path| vfs.absolute(path).map_err(|e| Error::io("cannot look at", path, e));
    match command {
        Command::Create(options) => create::run(vfs, &absolute(&options.dir)?, &absolute(&options.target)?, output),
        Command::List(options) => list::run(vfs, &absolute(&options.target)?, output),
        Command::Verify(options) => verify::run(vfs, &absolute(&options.target)?, options.name.as_deref(), output),
        Command::Restore(options) => restore::run(vfs, options, output),
        Command::Expire(options) => expire::run(vfs, &absolute(&options.target)?, options.keep as usize, output),
    }
}

fn exit_of(error: &Error) -> i32 {
    match error {
        Error::InvalidArgument(_) | Error::NotFound(_) => USAGE,
        Error::Locked { .. } => IN_USE,
        Error::Io { .. } | Error::Blob { .. } => FAILED,
        _ => UNUSABLE,
    }
}

fn misused(output: &mut Output<'_>, text: &str) -> i32 {
    let exit = output.fail(USAGE, text);
    let tool = Arguments::command();
    let names: Vec<&str> = tool.get_subcommands().map(clap::Command::get_name).collect();
    output.complain(&format!("Usage: tgbackup {{{}}} [OPTIONS] ...\ntgbackup --help tells more.\n", names.join(" | ")));
    exit
}

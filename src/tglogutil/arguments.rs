// SPDX-License-Identifier: Apache-2.0
//! The command line of `tglogutil` (§16.1), as clap knows it. Help and man pages are made from what stands here;
//! [`super::gflags`] brings the forms that the original takes into the ones that clap takes.

use crate::directory::Access;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

const FORMS: &str = "\
Options may stand anywhere and take one or two dashes, --name=value or --name value, - or _ inside names, and --noname \
or --name=false to switch one off. The last one of a name counts. Words behind the directory are ignored.

The options of the original that have no meaning here are accepted without effect: --rotate, --output_format, and \
those of glog (--v, --vmodule, --logtostderr, --alsologtostderr, --colorlogtostderr, --stderrthreshold, \
--minloglevel, --log_dir).

Results go to standard output, log lines to standard error.

Exit codes: 0 done and fine; 64 the directory cannot be handled: missing, in use, unreadable, or an --epoch that is no \
number; 1 wrong use, and this text. The subcommands have further ones.";

const INSPECT_CODES: &str = "\
Exit codes: 0 status OK; 1 status auto-repairable: sessions that were never acknowledged, or a damaged tail of such; \
2 status unrepairable: damage in acknowledged sessions, records in an impossible order, a lost epoch file, or a \
directory that is fenced or awaits a base sync; 64 cannot check.";

const REPAIR_CODES: &str = "\
Keep a copy of the directory first. An interrupted repair is run again.

Exit codes: 0 status OK (nothing was changed) or repaired; 16 status unrepairable: a start still refuses the \
directory; 64 cannot handle the directory.";

const COMPACTION_CODES: &str = "\
BLOBs, their ids and the identity of the directory stay. An interrupted compaction leaves a directory that starts as \
before; it is run again.

Exit codes: 0 done, or not wanted at the prompt; 64 cannot handle the directory: damaged, a symbolic link.";

const VERIFY_CODES: &str = "\
Exit codes: 0 everything is fine; 1 warnings: a start would log them; 2 damage: a start refuses the directory, a log \
file is damaged, or a BLOB is missing; 64 cannot check.";

const SETTLE_CODES: &str = "\
A server or replica that does not end in order leaves a commit journal, unless it was started with \
LIMESTONE_COMMIT=direct. A start does the same. An interrupted run is run again.

Exit codes: 0 settled, or there was nothing to settle; 64 cannot settle: the journal is damaged.";

const DUMP_CODES: &str = "\
Exit codes: 0 done; 2 damage ended the reading of a file; 64 cannot read the directory.";

const DIFF_CODES: &str = "\
Compares what a start on either directory would give, key by key, with the BLOBs that entries refer to. A version \
counts where both directories know it: compaction forgets versions. Use it to bring back by hand what a rewind has \
saved below cut_off/; entries that were removed there are shown by `tglogutil dump`.

Exit codes: 0 the same; 1 different; 2 cannot compare.";

/// Looks into the data directory of a stopped server, and repairs it.
#[derive(Debug, Parser)]
#[command(name = "tglogutil", version, rename_all = "snake_case", flatten_help = true)]
#[command(disable_help_subcommand = true, disable_version_flag = true)]
#[command(override_usage = "tglogutil <SUBCOMMAND> [OPTIONS] <DBLOGDIR>", subcommand_value_name = "SUBCOMMAND")]
#[command(after_help = FORMS)]
pub struct Arguments {
    #[command(subcommand)]
    pub subcommand: Command,
    /// Print the name and the version of the tool and end.
    #[arg(long)]
    pub version: bool,
    /// Write the man pages into this directory and end.
    #[arg(long, hide = true, value_name = "DIR")]
    pub generate_man: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the directory one that starts, without taking away anything that was acknowledged.
    #[command(after_help = REPAIR_CODES)]
    Repair(RepairOptions),
    /// Say whether the directory is whole; changes nothing.
    #[command(after_help = INSPECT_CODES)]
    Inspect(InspectOptions),
    /// Read everything that a start reads, and say of each file what it holds; changes nothing.
    #[command(after_help = VERIFY_CODES)]
    Verify(VerifyOptions),
    /// Replace all log files by one with the live entries.
    #[command(after_help = COMPACTION_CODES)]
    Compaction(CompactionOptions),
    /// Print the entries of durable sessions; changes nothing.
    #[command(after_help = DUMP_CODES)]
    Dump(DumpOptions),
    /// List the entries that two directories have differently; changes nothing.
    #[command(after_help = DIFF_CODES)]
    Diff(DiffOptions),
    /// Write what is only in the commit journal to the log files, so that every program can open the directory.
    #[command(after_help = SETTLE_CODES)]
    Settle(SettleOptions),
}

#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct SettleOptions {
    #[command(flatten)]
    pub common: CommonOptions,
}

/// What every subcommand takes.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct CommonOptions {
    /// The data directory.
    pub dblogdir: PathBuf,
    /// Threads that read log files; below 1 counts as 1 [default: one per processor]. `repair` and `dump` without
    /// `--live` take it without effect: they read one file after another.
    #[arg(long, value_name = "N")]
    pub thread_num: Option<i32>,
    /// Say more on standard error.
    #[arg(long)]
    pub verbose: bool,
}

#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct RepairOptions {
    #[command(flatten)]
    pub common: CommonOptions,
    /// Take N as the durable epoch instead of the recorded one; records it where the epoch file is lost or damaged.
    #[arg(long, value_name = "N")]
    pub epoch: Option<String>,
    /// Cut damaged tails off instead of marking their sessions as invalid.
    #[arg(long)]
    pub cut: bool,
    /// Give damaged durable sessions up, and nothing else; the damaged file is kept under another name.
    #[arg(long)]
    pub give_up_damaged: bool,
}

#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct CompactionOptions {
    #[command(flatten)]
    pub common: CommonOptions,
    /// Take N as the durable epoch instead of the recorded one: later sessions are dropped for good, and N is recorded.
    #[arg(long, value_name = "N")]
    pub epoch: Option<String>,
    /// Do not ask.
    #[arg(long)]
    pub force: bool,
    /// Build the result, then delete it.
    #[arg(long)]
    pub dry_run: bool,
    /// An existing, empty directory to build the result in, on any file system [default: a new one beside the data
    /// directory].
    #[arg(long, value_name = "DIR")]
    pub working_dir: Option<PathBuf>,
    /// Keep the original directory beside the new one, under the name with `.backup_` and six characters behind it.
    #[arg(long)]
    pub make_backup: bool,
}

#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct InspectOptions {
    #[command(flatten)]
    pub common: CommonOptions,
    /// Take N as the durable epoch instead of the recorded one.
    #[arg(long, value_name = "N")]
    pub epoch: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct VerifyOptions {
    #[command(flatten)]
    pub common: CommonOptions,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct DumpOptions {
    #[command(flatten)]
    pub common: CommonOptions,
    /// Print a JSON object a line, with keys and values as hexadecimal digits.
    #[arg(long)]
    pub json: bool,
    /// The entries that a start would give, in key order, instead of the log.
    #[arg(long)]
    pub live: bool,
    /// Only entries of this storage.
    #[arg(long, value_name = "ID")]
    pub storage: Option<String>,
    /// Only sessions of these epochs, A..B or one number; either end of the range may be missing. Not with --live.
    #[arg(long, value_name = "A..B")]
    pub epoch: Option<String>,
    /// Only keys that begin with this text, or with these bytes when it begins with 0x.
    #[arg(long, value_name = "PREFIX")]
    pub key_prefix: Option<String>,
}

#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct DiffOptions {
    #[command(flatten)]
    pub common: CommonOptions,
    /// The data directory to compare with.
    #[arg(value_name = "OTHER")]
    pub other: PathBuf,
    /// Print a JSON object a line, with keys and values as hexadecimal digits.
    #[arg(long)]
    pub json: bool,
    /// Leave out what only the other directory has.
    #[arg(long)]
    pub first_only: bool,
}

impl Command {
    pub fn common(&self) -> &CommonOptions {
        match self {
            Command::Repair(options) => &options.common,
            Command::Compaction(options) => &options.common,
            Command::Inspect(options) => &options.common,
            Command::Verify(options) => &options.common,
            Command::Dump(options) => &options.common,
            Command::Diff(options) => &options.common,
            Command::Settle(options) => &options.common,
        }
    }

    /// Whether one JSON object is to say everything.
    pub fn wants_json(&self) -> bool {
        match self {
            Command::Repair(_) | Command::Compaction(_) | Command::Settle(_) => false,
            Command::Inspect(InspectOptions { json, .. }) | Command::Verify(VerifyOptions { json, .. }) => *json,
            Command::Dump(DumpOptions { json, .. }) | Command::Diff(DiffOptions { json, .. }) => *json,
        }
    }

    /// What the command does to the directory.
    pub fn access(&self) -> Access {
        match self {
            Command::Repair(_) | Command::Compaction(_) => Access::Change,
            Command::Inspect(_) | Command::Verify(_) | Command::Dump(_) | Command::Diff(_) => Access::Read,
            Command::Settle(_) => Access::Settle,
        }
    }

    /// Whether standard output is for programs, so that no line of another form may stand there.
    pub fn prints_data(&self) -> bool {
        match self {
            Command::Dump(_) | Command::Diff(_) => true,
            other => other.wants_json(),
        }
    }
}

impl CommonOptions {
    /// How many threads read.
    pub fn threads(&self) -> usize {
        match self.thread_num {
            Some(n) => usize::try_from(n).unwrap_or(1).max(1),
            None => std::thread::available_parallelism().map_or(1, |n| n.get()),
        }
    }
}

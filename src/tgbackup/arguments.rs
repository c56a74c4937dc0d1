// SPDX-License-Identifier: Apache-2.0
//! The command line of the program. Help and man pages are made from what stands here.

use crate::program_output::About;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

const DETAILS: &str = "\
TARGET is a folder of backups. Each is a directory that is named by the time it was begun at and its epoch; it holds \
backup.json, which lists all files with their sizes and checksums, and the files themselves below files/. That is what \
begin_backup() lists, copied to one directory: a restore by the library takes files/, and every command here but \
create and expire takes a directory into which such files were copied by hand for TARGET.

Exit codes: 0 done; 1 wrong use, also a directory that must be empty and is not, and an epoch or time that cannot be \
restored; 2 a backup or the directory is damaged or cannot be used; 3 another process uses the directory or the \
folder of backups; 4 something could not be read or written. With --json every failure is one object with `error` and \
`exit`.";

const CREATE_DETAILS: &str = "\
An engine or a tgreplica that serves DIR goes on meanwhile: it is asked through its socket in DIR, holds the files as \
long as this program lives, and compacts nothing before that. What was acknowledged when it began is in the backup. A \
directory that nobody serves is read under its lock and not changed; a commit journal that is not settled is read as \
if it were.

Files that the last backup in TARGET has with the same content are not stored again, but get a second name (a hard \
link) where the file system can. Each backup can be deleted on its own.

A backup is written under a name of its own and gets its place when all of it is on the disk. What a run left that did \
not end is deleted by the next one.

Exit codes: 0 done; 1 wrong use; 2 DIR is damaged; 3 DIR is used by a process that makes no backups, or TARGET by \
another run; 4 something could not be read or written, or the backup was not held to its end: nothing was left.";

const VERIFY_DETAILS: &str = "\
Reads all files of the backup, or of every one in TARGET, compares them with sizes and checksums, and says what a \
start would make of it.

Exit codes: 0 everything is fine; 1 warnings, which a start would log, or wrong use; 2 damage; 3 TARGET is being \
changed; 4 something could not be read.";

const LIST_DETAILS: &str = "\
NEW is what the backup does not share with the one before it. Exit codes: 0 done; 1 wrong use; 2 a backup cannot be \
read, the others are shown; 4 TARGET cannot be read.";

const RESTORE_DETAILS: &str = "\
Without NAME it is the newest backup, or with --until-epoch and --until-time the newest one that has the point. The \
backup is checked first. An interrupted restore leaves the old content, or is completed by the next start or restore.

With --until-epoch only what sessions up to that epoch wrote counts in the directory, so that later ones of the backup \
are gone at the next start. The epoch must not be below the one that the log was compacted up to, nor above the one of \
the backup: the range is named when it is.

With --until-time it is the last epoch of which is known that it was durable at that time. That is known of the \
moments at which the backups were begun, and second by second from the start of the process that served the directory \
on. A time after the newest backup is refused, because what was written until then may be in none. It is said as of \
which moment the result is.

An engine that starts on the directory begins a run of its own in its history, so that a replica of the former primary \
is not taken for one of it beyond the epoch that was restored.

Exit codes: 0 done; 1 wrong use, DIR is not empty, or the point is in no backup; 2 the backup is damaged; 3 DIR is in \
use; 4 something could not be read or written.";

const EXPIRE_DETAILS: &str = "\
The others stay whole: what they share with a deleted one is theirs as well. Exit codes: 0 done; 1 wrong use; 3 TARGET \
is used by another run; 4 something could not be deleted.";

/// Makes, checks and restores backups of a data directory.
#[derive(Debug, Parser)]
#[command(name = "tgbackup", version, disable_version_flag = true, disable_help_subcommand = true)]
#[command(after_help = DETAILS, subcommand_value_name = "COMMAND", arg_required_else_help = false)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// One JSON document. Failures are told as one, too.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub about: About,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a backup of a data directory, whether it is in use or not.
    #[command(after_help = CREATE_DETAILS)]
    Create(CreateOptions),
    /// Show the backups.
    #[command(after_help = LIST_DETAILS)]
    List(ListOptions),
    /// Check one backup, or all.
    #[command(after_help = VERIFY_DETAILS)]
    Verify(VerifyOptions),
    /// Put a backup in place as a data directory.
    #[command(after_help = RESTORE_DETAILS)]
    #[command(override_usage = "tgbackup restore [OPTIONS] <TARGET> [NAME] <DIR>")]
    Restore(RestoreOptions),
    /// Delete all but the newest backups.
    #[command(after_help = EXPIRE_DETAILS)]
    Expire(ExpireOptions),
}

#[derive(Args, Debug)]
pub struct CreateOptions {
    /// The data directory.
    pub dir: PathBuf,
    /// The folder of backups; it is made when it is not there.
    pub target: PathBuf,
}

#[derive(Args, Debug)]
pub struct ListOptions {
    /// The folder of backups.
    pub target: PathBuf,
}

#[derive(Args, Debug)]
pub struct VerifyOptions {
    /// The folder of backups.
    pub target: PathBuf,
    /// One of them [default: all].
    pub name: Option<String>,
}

#[derive(Args, Debug)]
pub struct RestoreOptions {
    /// The folder of backups, the name of one of them if it is not to be chosen, and the data directory, which is made
    /// when it is not there.
    #[arg(value_name = "TARGET [NAME] DIR", num_args = 2..=3, required = true)]
    pub words: Vec<PathBuf>,
    /// Only what was written up to this epoch.
    #[arg(long, value_name = "N")]
    pub until_epoch: Option<u64>,
    /// Only what was written up to this time, as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "T", conflicts_with = "until_epoch")]
    pub until_time: Option<String>,
    /// Give up the content of a data directory that is not empty.
    #[arg(long)]
    pub replace: bool,
}

#[derive(Args, Debug)]
pub struct ExpireOptions {
    /// The folder of backups.
    pub target: PathBuf,
    /// So many stay.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: u32,
}

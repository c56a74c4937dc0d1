// SPDX-License-Identifier: Apache-2.0
//! The forms of options that gflags takes (§16.1), brought into the ones that clap takes: one or two dashes, `=` or a
//! blank before the value, `-` and `_` alike, `--name`, `--noname` and `--name=false` for booleans, options anywhere,
//! the last of a name counts.

use clap::{ArgAction, Command};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Value,
}

/// Flags that the original takes with every subcommand: without effect where the subcommand does not have them.
const WITHOUT_EFFECT: &[(&str, Kind)] = &[
    ("alsologtostderr", Kind::Bool),
    ("colorlogtostderr", Kind::Bool),
    ("cut", Kind::Bool),
    ("dry_run", Kind::Bool),
    ("force", Kind::Bool),
    ("log_dir", Kind::Value),
    ("logtostderr", Kind::Bool),
    ("make_backup", Kind::Bool),
    ("minloglevel", Kind::Value),
    ("output_format", Kind::Value),
    ("rotate", Kind::Value),
    ("stderrthreshold", Kind::Value),
    ("v", Kind::Value),
    ("vmodule", Kind::Value),
    ("working_dir", Kind::Value),
];
/// The flag that clap adds by itself, and gflags' short one.
const HELP: &[(&str, Kind)] = &[("h", Kind::Bool), ("help", Kind::Bool)];

/// A command line taken apart.
#[derive(Debug, Default)]
pub struct Given {
    /// The words that are no options: the subcommand and its directories.
    pub words: Vec<OsString>,
    /// The last value of each flag; of a boolean "true" or "false".
    flags: BTreeMap<String, OsString>,
}

/// Takes apart the arguments behind the program's name. The error is a line for the user.
pub fn parse(tool: &Command, mut args: impl Iterator<Item = OsString>) -> Result<Given, String> {
    let mut given = Given::default();
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        let flag = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")).filter(|_| bytes != b"-");
        let Some(flag) = flag else {
            given.words.push(arg);
            continue;
        };
        if flag.is_empty() {
            given.words.extend(args.by_ref());
            break;
        }
        let mut parts = flag.splitn(2, |&b| b == b'=');
        let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).replace('-', "_");
        let value = parts.next().map(|value| OsStr::from_bytes(value).to_owned());
        let (name, value) = match (kind(tool, &name), value) {
            (Some(Kind::Bool), None) => (name, "true".into()),
            (Some(Kind::Bool), Some(value)) => match boolean(&value) {
                Some(on) => (name, on.to_string().into()),
                None => return Err(format!("illegal value '{}' specified for flag '{name}'", value.display())),
            },
            (Some(Kind::Value), Some(value)) => (name, value),
            (Some(Kind::Value), None) => {
                let value = args.next().ok_or_else(|| format!("flag '--{name}' is missing its argument"))?;
                (name, value)
            }
            (None, value) => match name.strip_prefix("no").filter(|name| kind(tool, name) == Some(Kind::Bool)) {
                Some(name) if value.is_none() => (name.to_owned(), "false".into()),
                _ => return Err(format!("unknown command line flag '{name}'")),
            },
        };
        given.flags.insert(name, value);
    }
    Ok(given)
}

/// What a flag takes that any subcommand or the tool itself has.
fn kind(tool: &Command, name: &str) -> Option<Kind> {
    let listed = HELP.iter().chain(WITHOUT_EFFECT).find(|(listed, _)| *listed == name).map(|(_, kind)| *kind);
    listed.or_else(|| {
        let commands = std::iter::once(tool).chain(tool.get_subcommands());
        let arg = commands.flat_map(Command::get_arguments).find(|arg| arg.get_long() == Some(name))?;
        Some(if matches!(arg.get_action(), ArgAction::SetTrue) { Kind::Bool } else { Kind::Value })
    })
}

fn boolean(text: &OsStr) -> Option<bool> {
    match text.to_str()?.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "y" | "yes" => Some(true),
        "0" | "f" | "false" | "n" | "no" => Some(false),
        _ => None,
    }
}

impl Given {
    /// Whether a boolean flag is on.
    pub fn is(&self, flag: &str) -> bool {
        self.flags.get(flag).is_some_and(|value| value == "true")
    }

    /// The value of a flag.
    pub fn value(&self, flag: &str) -> Option<&OsStr> {
        self.flags.get(flag).map(OsString::as_os_str)
    }

    /// The same command line for clap. A text that is empty counts as not given, as everywhere in gflags.
    pub fn for_clap(&self, subcommand: &Command) -> Vec<OsString> {
        let own = |name: &str| subcommand.get_arguments().any(|arg| arg.get_long() == Some(name));
        let mut args: Vec<OsString> = vec!["tglogutil".into(), subcommand.get_name().into()];
        for (name, value) in &self.flags {
            let foreign = !own(name) && WITHOUT_EFFECT.iter().any(|(listed, _)| listed == name);
            let boolean = kind(subcommand, name) == Some(Kind::Bool);
            if foreign || value.is_empty() || (boolean && value == "false") {
                continue;
            }
            let mut arg = OsString::from(format!("--{name}"));
            if !boolean {
                arg.push("=");
                arg.push(value);
            }
            args.push(arg);
        }
        args.push("--".into());
        // As many directories as the subcommand takes; further words do not count.
        let directories = subcommand.get_positionals().count();
        args.extend(self.words.iter().skip(1).take(directories).cloned());
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tglogutil::arguments::{self, Arguments, CommonOptions};
    use clap::{CommandFactory, Parser};

    fn given(line: &str) -> Result<Given, String> {
        parse(&Arguments::command(), line.split(' ').map(OsString::from))
    }

    fn understood(line: &str) -> Result<arguments::Command, String> {
        let given = given(line)?;
        let tool = Arguments::command();
        let subcommand = tool.find_subcommand(&given.words[0]).unwrap();
        let parsed = Arguments::try_parse_from(given.for_clap(subcommand)).map_err(|e| e.to_string())?;
        Ok(parsed.subcommand)
    }

    fn repair(line: &str) -> arguments::RepairOptions {
        match understood(line).unwrap() {
            arguments::Command::Repair(options) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn options_may_stand_anywhere_in_every_form() {
        for line in [
            "repair --epoch=7 d",
            "--epoch 7 repair d",
            "repair d -epoch 7",
            "-epoch=7 repair d more",
            "repair --epoch=1 --epoch=7 d",
        ] {
            let found = repair(line);
            assert_eq!(found.epoch.as_deref(), Some("7"), "{line}");
            assert_eq!(found.common.dblogdir.as_os_str(), "d", "{line}");
        }
        for flags in ["--cut", "-cut", "--cut=true", "--cut=1", "--nocut --cut", "--cut=YES"] {
            assert!(repair(&format!("{flags} repair d")).cut, "{flags}");
            assert!(repair(&format!("repair {flags} d")).cut, "{flags}");
        }
        for flags in ["--verbose", "--nocut", "--cut=false", "--cut --nocut"] {
            assert!(!repair(&format!("repair {flags} d")).cut, "{flags}");
        }
        assert!(repair("repair --give-up-damaged d").give_up_damaged);
        assert_eq!(repair("repair --thread-num=3 d").common.thread_num, Some(3));
        assert_eq!(repair("repair --thread_num -3 d").common.thread_num, Some(-3));
        assert_eq!(repair("repair -- --cut").common.dblogdir.as_os_str(), "--cut");
        assert_eq!(repair("repair --epoch= d").epoch, None);
    }

    #[test]
    fn options_of_the_original_are_taken_by_every_subcommand_and_others_only_where_they_mean_something() {
        for flag in
            ["--cut", "--rotate=all", "--output_format x", "--v=40", "--force", "--working_dir=", "--logtostderr"]
        {
            for subcommand in ["inspect", "repair", "verify", "dump"] {
                understood(&format!("{subcommand} {flag} d")).unwrap();
            }
        }
        for line in ["inspect --live d", "repair --json d", "verify --epoch=1 d", "dump --give_up_damaged d"] {
            assert!(understood(line).unwrap_err().contains("unexpected argument"), "{line}");
        }
    }

    #[test]
    fn what_is_no_flag_or_no_value_is_refused() {
        for line in ["--what", "--noepoch", "--nocut=1", "--epoch", "--cut=maybe", "--no", "--n"] {
            assert!(given(line).is_err(), "{line}");
        }
        for value in ["x", "1x", "99999999999"] {
            assert!(understood(&format!("inspect --thread_num={value} d")).is_err(), "{value}");
        }
    }

    #[test]
    fn at_least_one_thread_reads() {
        let threads = |thread_num| CommonOptions { dblogdir: "d".into(), thread_num, verbose: false }.threads();
        assert_eq!([Some(-1), Some(0), Some(1), Some(5)].map(threads), [1, 1, 1, 5]);
        assert!(threads(None) >= 1);
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}

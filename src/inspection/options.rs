// SPDX-License-Identifier: Apache-2.0
//! The command line in the manner of gflags (§16.1): one or two dashes, `=` or a blank before the value, `-` and `_`
//! alike, `--name`, `--noname` and `--name=false` for booleans, options anywhere. No parser at hand takes that form.

use std::collections::BTreeMap;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    Text,
}

/// Name, kind and meaning; those of the last group are accepted because scripts pass them.
const FLAGS: &[(&str, Kind, &str)] = &[
    ("epoch", Kind::Text, "upper limit in place of the recorded durable epoch; for dump a range A..B"),
    ("thread_num", Kind::Int, "accepted, without effect: files are read one after another"),
    ("verbose", Kind::Bool, "say more on stderr"),
    ("h", Kind::Bool, "this text"),
    ("help", Kind::Bool, "this text"),
    ("version", Kind::Bool, "print the name of the tool"),
    ("cut", Kind::Bool, "repair: cut damaged tails instead of marking their sessions"),
    (
        "give_up_damaged",
        Kind::Bool,
        "repair: give up damaged durable sessions; the damaged file is kept under another name",
    ),
    ("json", Kind::Bool, "verify, dump: print JSON"),
    ("live", Kind::Bool, "dump: the entries that a start would give, in key order, instead of the log"),
    ("storage", Kind::Text, "dump: only entries of this storage id"),
    ("key_prefix", Kind::Text, "dump: only keys that begin with this text, or with these bytes when it begins with 0x"),
    ("rotate", Kind::Text, "without effect"),
    ("output_format", Kind::Text, "without effect"),
    ("v", Kind::Int, "without effect"),
    ("vmodule", Kind::Text, "without effect"),
    ("logtostderr", Kind::Bool, "without effect"),
    ("alsologtostderr", Kind::Bool, "without effect"),
    ("colorlogtostderr", Kind::Bool, "without effect"),
    ("stderrthreshold", Kind::Int, "without effect"),
    ("minloglevel", Kind::Int, "without effect"),
    ("log_dir", Kind::Text, "without effect"),
];

/// A command line that was understood.
#[derive(Debug, Default)]
pub struct Options {
    /// The words that are no options; only the first two count.
    pub words: Vec<String>,
    values: BTreeMap<&'static str, String>,
}

/// Reads the arguments behind the program's name. The error is a line for the user.
pub fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')).filter(|_| arg != "-") else {
            options.words.push(arg.clone());
            continue;
        };
        if flag.is_empty() {
            options.words.extend(args.by_ref().cloned());
            break;
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let name = name.replace('-', "_");
        let find = |name: &str| FLAGS.iter().find(|(known, ..)| *known == name);
        let (known, kind, value) = match (find(&name), name.strip_prefix("no").and_then(find)) {
            (Some((known, Kind::Bool, _)), _) => (known, Kind::Bool, value.unwrap_or_else(|| "true".to_owned())),
            (Some((known, kind, _)), _) => {
                let value = value.or_else(|| args.next().cloned());
                (known, *kind, value.ok_or_else(|| format!("flag '--{name}' is missing its argument"))?)
            }
            (None, Some((known, Kind::Bool, _))) if value.is_none() => (known, Kind::Bool, "false".to_owned()),
            _ => return Err(format!("unknown command line flag '{name}'")),
        };
        let value = match kind {
            Kind::Text => Some(value.clone()),
            Kind::Int => value.parse::<i32>().ok().map(|n| n.to_string()),
            Kind::Bool => boolean(&value).map(|b| b.to_string()),
        }
        .ok_or_else(|| format!("illegal value '{value}' specified for flag '{name}'"))?;
        options.values.insert(known, value);
    }
    Ok(options)
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "y" | "yes" => Some(true),
        "0" | "f" | "false" | "n" | "no" => Some(false),
        _ => None,
    }
}

impl Options {
    /// Whether a boolean flag is on.
    pub fn is(&self, flag: &str) -> bool {
        self.values.get(flag).is_some_and(|value| value == "true")
    }

    /// The value of a flag; one that is empty counts as not given.
    pub fn text(&self, flag: &str) -> Option<&str> {
        self.values.get(flag).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// The flags, a line each.
pub fn flag_list() -> String {
    let line = |(name, kind, meaning): &(&str, Kind, &str)| {
        let value = match kind {
            Kind::Bool => "",
            Kind::Int => " <number>",
            Kind::Text => " <text>",
        };
        format!("  --{:<24} {meaning}\n", format!("{name}{value}"))
    };
    FLAGS.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_may_stand_anywhere_in_every_form() {
        for line in ["repair --epoch=7 d", "--epoch 7 repair d", "repair d -epoch 7", "-epoch=7 repair d more"] {
            let found = options(line).unwrap();
            assert_eq!(found.text("epoch"), Some("7"), "{line}");
            assert_eq!(found.words[..2], ["repair", "d"], "{line}");
        }
        for line in ["--cut", "-cut", "--cut=true", "--cut=1", "--nocut --cut", "--cut x"] {
            assert!(options(line).unwrap().is("cut"), "{line}");
        }
        for line in ["x", "--nocut", "--cut=false", "--cut --nocut"] {
            assert!(!options(line).unwrap().is("cut"), "{line}");
        }
        assert!(options("--give-up-damaged").unwrap().is("give_up_damaged"));
        assert!(options("--thread-num=3").is_ok());
        assert_eq!(options("a -- --cut").unwrap().words, ["a", "--cut"]);
        assert_eq!(options("--epoch=").unwrap().text("epoch"), None);
    }

    #[test]
    fn what_is_no_flag_or_no_value_is_refused() {
        for line in ["--what", "--noepoch", "--nocut=1", "--epoch", "--thread_num=x", "--cut=maybe", "--thread_num="] {
            assert!(options(line).is_err(), "{line}");
        }
    }
}

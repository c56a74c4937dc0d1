// SPDX-License-Identifier: Apache-2.0
//! Runs a program under strace and reads back, in order, what it did to files below one directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One call that changed or synced something, once it had returned. A sync counts from its beginning: what was written
/// meanwhile need not be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Open { path: PathBuf, create: bool, exclusive: bool, truncate: bool },
    Write { path: PathBuf, offset: u64, bytes: Vec<u8> },
    SetLen { path: PathBuf, len: u64 },
    Sync { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Link { from: PathBuf, to: PathBuf },
    Unlink { path: PathBuf },
    CreateDir { path: PathBuf },
    RemoveDir { path: PathBuf },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |path: &Path| path.display().to_string();
        match self {
            Step::Open { path, .. } => write!(f, "open {}", name(path)),
            Step::Write { path, offset, bytes } => {
                write!(f, "write {} at {offset} length {}, first {:?}", name(path), bytes.len(), bytes.first())
            }
            Step::SetLen { path, len } => write!(f, "set_len {} to {len}", name(path)),
            Step::Sync { path } => write!(f, "sync {}", name(path)),
            Step::Rename { from, to } => write!(f, "rename {} to {}", name(from), name(to)),
            Step::Link { from, to } => write!(f, "link {} as {}", name(from), name(to)),
            Step::Unlink { path } => write!(f, "unlink {}", name(path)),
            Step::CreateDir { path } => write!(f, "create_dir {}", name(path)),
            Step::RemoveDir { path } => write!(f, "remove_dir {}", name(path)),
        }
    }
}

/// Everything by which a file can change. Calls that are traced and not understood fail the test.
const CALLS: &str = "open,openat,openat2,creat,write,writev,pwrite64,pwritev,pwritev2,truncate,ftruncate,fallocate,\
    fsync,fdatasync,sync_file_range,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,\
    symlinkat,copy_file_range,sendfile,splice";

/// A command that runs `program` under strace; give it arguments and environment, then [`read`] the recording.
pub fn record(program: &Path, recording: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["--follow-forks", "--decode-fds=path", "-xx", "-qq", "--string-limit=16777216"]);
    command.arg(format!("--trace={CALLS}")).arg("--output").arg(recording).arg(program);
    command
}

/// What the recorded program did below `directory`, and the lines that it wrote to `journal`, each with the number of
/// steps that were done before.
pub fn read(recording: &Path, directory: &Path, journal: &Path) -> (Vec<Step>, Vec<(usize, String)>) {
    let text = std::fs::read_to_string(recording).unwrap();
    let mut reader = Reader {
        directory: directory.to_owned(),
        journal: journal.to_owned(),
        positions: BTreeMap::new(),
        begun: BTreeMap::new(),
        steps: Vec::new(),
        lines: Vec::new(),
    };
    for line in text.lines() {
        reader.line(line);
    }
    (reader.steps, reader.lines)
}

struct Reader {
    directory: PathBuf,
    journal: PathBuf,
    /// Where the next `write` to an open file goes.
    positions: BTreeMap<PathBuf, u64>,
    /// Calls that have not returned, by thread.
    begun: BTreeMap<String, String>,
    steps: Vec<Step>,
    lines: Vec<(usize, String)>,
}

/// An argument of a call, as strace writes it.
#[derive(Debug)]
enum Argument {
    /// A descriptor with the path that it has now; none for what is no file or has no name any more.
    File(Option<PathBuf>),
    Text(Vec<u8>),
    Word(String),
}

impl Reader {
    fn line(&mut self, line: &str) {
        let (thread, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            return;
        }
        if let Some(begin) = rest.strip_suffix(" <unfinished ...>") {
            self.begun.insert(thread.to_owned(), begin.to_owned());
            if is_sync(begin) {
                self.call(&format!("{begin}) = 0"));
            }
            return;
        }
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let begin = self.begun.remove(thread).unwrap_or_else(|| panic!("nothing to resume: {line:.200}"));
            let (_, end) = resumed.split_once(" resumed>").unwrap_or_else(|| panic!("not understood: {line:.200}"));
            if is_sync(&begin) {
                assert!(end.ends_with("= 0"), "a sync failed: {line:.200}");
            } else {
                self.call(&format!("{begin}{end}"));
            }
            return;
        }
        self.call(rest);
    }

    fn call(&mut self, call: &str) {
        let Some((head, result)) = call.rsplit_once(" = ") else {
            panic!("not understood: {call:.200}");
        };
        if result.starts_with('-') || result.starts_with('?') {
            return;
        }
        let (name, arguments) = head.split_once('(').unwrap_or_else(|| panic!("not understood: {call:.200}"));
        let arguments = parse(arguments.trim_end().trim_end_matches(')'));
        if name == "openat" || name == "open" {
            return self.opened(name, &arguments, result);
        }
        if let Some(Argument::File(file)) = arguments.first() {
            match file {
                Some(file) if *file == self.journal => return self.journal_line(name, &arguments),
                Some(file) if file.starts_with(&self.directory) => {}
                // The name of the directory itself is durable when the one above it is synced.
                Some(file) if name == "fsync" && self.directory.parent() == Some(file) => {}
                // Of the calls with a directory's descriptor the path decides.
                _ if name.ends_with("at") || name.ends_with("at2") => {}
                _ => return,
            }
        }
        self.change(name, &arguments, result, call);
    }

    fn change(&mut self, name: &str, arguments: &[Argument], result: &str, call: &str) {
        let unknown = || -> ! { panic!("a call that is not understood: {call:.300}") };
        let number = |i: usize| match &arguments[i] {
            Argument::Word(word) => word.parse::<u64>().unwrap_or_else(|_| unknown()),
            _ => unknown(),
        };
        let file = |i: usize| match &arguments[i] {
            Argument::File(Some(path)) => path.clone(),
            _ => unknown(),
        };
        let name_of = |i: usize| match &arguments[i] {
            Argument::Text(text) => PathBuf::from(OsStr::from_bytes(text)),
            _ => unknown(),
        };
        // A path that is relative to the descriptor before it.
        let at = |i: usize| match (&arguments[i], &arguments[i + 1]) {
            (Argument::File(Some(dir)), Argument::Text(text)) => dir.join(OsStr::from_bytes(text)),
            _ => unknown(),
        };
        let steps = match name {
            "pwrite64" => vec![self.written(file(0), number(3), text(&arguments[1]), result)],
            "write" => {
                let path = file(0);
                let at = self.positions.get(&path).copied().unwrap_or(0);
                let step = self.written(path.clone(), at, text(&arguments[1]), result);
                self.positions.insert(path, at + result.parse::<u64>().unwrap());
                vec![step]
            }
            "ftruncate" => vec![Step::SetLen { path: file(0), len: number(1) }],
            "fsync" | "fdatasync" => vec![Step::Sync { path: file(0) }],
            "rename" => vec![Step::Rename { from: name_of(0), to: name_of(1) }],
            "renameat" | "renameat2" => vec![Step::Rename { from: at(0), to: at(2) }],
            "link" => vec![Step::Link { from: name_of(0), to: name_of(1) }],
            "linkat" => vec![Step::Link { from: at(0), to: at(2) }],
            "unlink" => vec![Step::Unlink { path: name_of(0) }],
            "unlinkat" if matches!(&arguments[2], Argument::Word(flags) if flags.contains("REMOVEDIR")) => {
                vec![Step::RemoveDir { path: at(0) }]
            }
            "unlinkat" => vec![Step::Unlink { path: at(0) }],
            "mkdir" => vec![Step::CreateDir { path: name_of(0) }],
            "mkdirat" => vec![Step::CreateDir { path: at(0) }],
            "rmdir" => vec![Step::RemoveDir { path: name_of(0) }],
            _ => unknown(),
        };
        let above = self.directory.parent();
        let inside = |path: &Path| path.starts_with(&self.directory) || Some(path) == above;
        self.steps.extend(steps.into_iter().filter(|step| match step {
            Step::Rename { from, to } | Step::Link { from, to } => inside(from) || inside(to),
            Step::Open { path, .. }
            | Step::Write { path, .. }
            | Step::SetLen { path, .. }
            | Step::Sync { path }
            | Step::Unlink { path }
            | Step::CreateDir { path }
            | Step::RemoveDir { path } => inside(path),
        }));
    }

    fn written(&self, path: PathBuf, offset: u64, mut bytes: Vec<u8>, result: &str) -> Step {
        bytes.truncate(result.parse().unwrap());
        Step::Write { path, offset, bytes }
    }

    fn opened(&mut self, name: &str, arguments: &[Argument], result: &str) {
        let flags = match &arguments[if name == "open" { 1 } else { 2 }] {
            Argument::Word(flags) => flags.clone(),
            other => panic!("flags expected, found {other:?}"),
        };
        // The descriptor's path is absolute, whatever was asked for.
        let Some(Argument::File(Some(path))) = parse(result).into_iter().next() else {
            return;
        };
        let has = |flag: &str| flags.split('|').any(|found| found == flag);
        if has("O_DIRECTORY") || has("O_TMPFILE") || !path.starts_with(&self.directory) {
            return;
        }
        self.positions.insert(path.clone(), 0);
        let (create, exclusive, truncate) = (has("O_CREAT"), has("O_EXCL"), has("O_TRUNC"));
        if create || truncate {
            self.steps.push(Step::Open { path, create, exclusive, truncate });
        }
    }

    fn journal_line(&mut self, name: &str, arguments: &[Argument]) {
        if name == "write" {
            let line = String::from_utf8(text(&arguments[1])).unwrap();
            self.lines.push((self.steps.len(), line));
        }
    }
}

fn is_sync(call: &str) -> bool {
    call.starts_with("fsync(") || call.starts_with("fdatasync(")
}

fn text(argument: &Argument) -> Vec<u8> {
    match argument {
        Argument::Text(bytes) => bytes.clone(),
        other => panic!("bytes expected, found {other:?}"),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).map(|digits| u8::from_str_radix(&digits[..2], 16).unwrap()).collect()
}

/// Takes the arguments of a call apart. Texts are hexadecimal, so nothing in them ends them too early.
fn parse(arguments: &str) -> Vec<Argument> {
    let mut found = Vec::new();
    let mut rest = arguments.trim();
    while !rest.is_empty() {
        let end;
        if let Some(text) = rest.strip_prefix('"') {
            let close = text.find('"').unwrap();
            assert!(!text[close + 1..].starts_with("..."), "a text that strace has shortened");
            found.push(Argument::Text(unhex(&text[..close])));
            end = close + 2;
        } else {
            end = rest.find(", ").unwrap_or(rest.len());
            let word = &rest[..end];
            found.push(match word.split_once('<') {
                Some((_, path)) if word.contains("(deleted)") || !path.starts_with("\\x2f") => Argument::File(None),
                Some((_, path)) => {
                    let path = unhex(path.split_once('>').unwrap().0);
                    Argument::File(Some(PathBuf::from(OsStr::from_bytes(&path))))
                }
                None => Argument::Word(word.to_owned()),
            });
        }
        rest = rest[end..].strip_prefix(',').unwrap_or("").trim_start();
    }
    found
}

// SPDX-License-Identifier: Apache-2.0
//! How the programs read their arguments, print results, and say why they ended.

use clap::{Args, Parser};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

/// What a program can be asked for instead of its work.
#[derive(Debug, Args)]
pub struct About {
    /// Print the name and the version, and end.
    #[arg(long)]
    pub version: bool,
    /// Write the man pages into this directory and end.
    #[arg(long = "generate_man", hide = true, value_name = "DIR")]
    pub generate_man: Option<PathBuf>,
}

/// Why a program ends before it has begun its work.
#[derive(Debug)]
pub enum Ended {
    /// It has printed what was asked for.
    Done,
    /// The arguments are wrong: this is why.
    Misused(String),
    /// The man pages could not be written: this is why.
    Failed(String),
}

/// Where results go and where the reason of a failure, and in which form.
pub struct Output<'a> {
    pub out: &'a mut dyn Write,
    pub errors: &'a mut dyn Write,
    pub json: bool,
}

impl<'a> Output<'a> {
    /// In the form that the arguments ask for.
    pub fn as_asked(args: &[OsString], out: &'a mut dyn Write, errors: &'a mut dyn Write) -> Output<'a> {
        Output { out, errors, json: args.iter().any(|arg| arg == "--json") }
    }

    /// Reads the arguments of the program, its name first, and answers those that ask for no work.
    ///
    /// # Errors
    /// How the program ends, which is left to it.
    pub fn begin<A: Parser>(&mut self, args: &[OsString], about: fn(&A) -> &About) -> Result<A, Ended> {
        let arguments = match A::try_parse_from(args) {
            Ok(arguments) => arguments,
            Err(e) if e.use_stderr() => {
                let text = e.render().to_string();
                let reason = text.trim_start_matches("error: ").lines().next().unwrap_or_default();
                return Err(Ended::Misused(reason.to_owned()));
            }
            Err(help) => {
                self.print(&help.render().to_string());
                return Err(Ended::Done);
            }
        };
        let About { version, generate_man } = about(&arguments);
        if *version {
            self.print(&format!("{} {}\n", A::command().get_name(), env!("CARGO_PKG_VERSION")));
            return Err(Ended::Done);
        }
        match generate_man {
            Some(dir) => Err(match clap_mangen::generate_to(A::command(), dir) {
                Ok(()) => Ended::Done,
                Err(e) => Ended::Failed(format!("cannot write the man pages to {}: {e}", dir.display())),
            }),
            None => Ok(arguments),
        }
    }

    pub fn print(&mut self, text: &str) {
        // There is nowhere to tell that stdout is gone.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }

    /// Says why it ends; with `--json` on stdout as well. Returns the exit code.
    pub fn fail(&mut self, exit: i32, text: &str) -> i32 {
        self.complain(&format!("Error: {text}\n"));
        if self.json {
            self.print(&format!("{}\n", serde_json::json!({ "error": text, "exit": exit })));
        }
        exit
    }

    /// Tells a person.
    pub fn complain(&mut self, text: &str) {
        // There is nowhere to tell that stderr is gone.
        let _ = self.errors.write_all(text.as_bytes()).and_then(|()| self.errors.flush());
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Runs the tool and lays out directories for it.

use crate::engine_run::quick_dir;
use crate::golden_data;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::wal::entry::{encode_end, encode_put, marker, tag};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// What one run showed.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    pub exit: i32,
    pub stdout: Vec<String>,
    pub stderr: String,
}

impl Run {
    /// The lines behind the one that repeats the directory.
    pub fn results(&self) -> &[String] {
        self.stdout.get(1..).unwrap_or_default()
    }

    /// The last line of stdout.
    pub fn status(&self) -> &str {
        self.stdout.last().map_or("", String::as_str)
    }
}

pub fn tool(args: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_tglogutil")).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let stdout = text(&output.stdout).lines().map(str::to_owned).collect();
    Run { exit: output.status.code().unwrap(), stdout, stderr: text(&output.stderr) }
}

/// Runs a subcommand on a directory.
pub fn on(dir: &Path, args: &[&str]) -> Run {
    let mut args = args.to_vec();
    args.push(dir.to_str().unwrap());
    tool(&args)
}

pub fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|line| golden_data::text(line).to_owned()).collect()
}

/// A session with one entry, key and value as given.
pub fn session(epoch: u64, key: &str, value: &str) -> Vec<u8> {
    let mut out = open_session(epoch, key, value);
    encode_end(&mut out, Epoch(epoch));
    out
}

/// The same without its end marker.
pub fn open_session(epoch: u64, key: &str, value: &str) -> Vec<u8> {
    let mut out = marker(tag::BEGIN, Epoch(epoch)).to_vec();
    let version = WriteVersion { major: epoch, minor: 0 };
    encode_put(&mut out, StorageId(1), key.as_bytes(), value.as_bytes(), version, &[]);
    out
}

pub fn epoch_record(epoch: u64) -> [u8; 9] {
    marker(tag::DURABLE, Epoch(epoch))
}

/// A directory of the current version with these log files and this epoch file.
pub fn directory(epoch: &[u8], logs: &[(&str, Vec<u8>)]) -> TempDir {
    let dir = quick_dir();
    let manifest = r#"{"format_version":"1.1","instance_uuid":"u","persistent_format_version":7}"#;
    fs::write(dir.path().join("limestone-manifest.json"), manifest).unwrap();
    fs::write(dir.path().join("epoch"), epoch).unwrap();
    for (name, bytes) in logs {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

/// Content of the files whose names begin with `prefix`, by name.
pub fn files(dir: &Path, prefix: &str) -> Vec<(String, Vec<u8>)> {
    let named = |(path, bytes): (std::path::PathBuf, Vec<u8>)| (path.to_string_lossy().into_owned(), bytes);
    golden_data::tree(dir).into_iter().map(named).filter(|(name, _)| name.starts_with(prefix)).collect()
}

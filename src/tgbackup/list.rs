// SPDX-License-Identifier: Apache-2.0
//! `tgbackup list`.

use super::folder::Folder;
use super::manifest::BackupManifest;
use crate::error::{Error, Result};
use crate::program_output::Output;
use crate::replication::backup_socket::Serves;
use crate::vfs::Vfs;
use serde_json::{json, Value};
use std::path::Path;
use std::sync::Arc;

/// Shows the backups in `target`.
pub fn run(vfs: &Arc<dyn Vfs>, target: &Path, output: &mut Output<'_>) -> Result<i32> {
    let (mut documents, mut exit) = (Vec::new(), 0);
    let mut lines = vec![["NAME", "BEGUN AT", "EPOCH", "FILES", "BYTES", "NEW", "FROM"].map(str::to_owned)];
    for backup in Folder::look(vfs, target)?.backups()? {
        let label = backup.label();
        match backup.manifest {
            Err(e @ Error::Io { .. }) => return Err(e),
            Err(e) => {
                log::error!("{label}: {e}");
                exit = 2;
                documents.push(json!({ "name": label, "error": e.to_string() }));
            }
            Ok(None) => documents.push(json!({ "name": Value::Null, "directory": label })),
            Ok(Some(manifest)) => {
                documents.push(document(&label, &manifest));
                lines.push(line(&label, &manifest));
            }
        }
    }
    match output.json {
        true => output.print(&format!("{}\n", json!({ "backups": documents }))),
        false => output.print(&table(&lines)),
    }
    Ok(exit)
}

/// A backup for programs.
pub fn document(name: &str, manifest: &BackupManifest) -> Value {
    json!({
        "name": name, "begun_at": manifest.begun_at, "epoch": manifest.epoch, "from": manifest.from,
        "directory": manifest.directory, "instance_uuid": manifest.identity.instance_uuid,
        "term": manifest.identity.term, "run": manifest.identity.run, "files": manifest.files.len(),
        "bytes": manifest.bytes(), "new_bytes": manifest.new_bytes(),
    })
}

fn line(name: &str, manifest: &BackupManifest) -> [String; 7] {
    let from = match manifest.from {
        Some(Serves::Engine) => "engine",
        Some(Serves::Replica) => "replica",
        None => "stopped",
    };
    [
        name.to_owned(),
        manifest.begun_at.clone(),
        manifest.epoch.to_string(),
        manifest.files.len().to_string(),
        manifest.bytes().to_string(),
        manifest.new_bytes().to_string(),
        from.to_owned(),
    ]
}

fn table(lines: &[[String; 7]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

// SPDX-License-Identifier: Apache-2.0
//! `tgbackup verify`: whether the files of a backup are as they were written, and what a start would make of them.

use super::copying::Reading;
use super::folder::{Backup, Folder};
use super::manifest::BackupManifest;
use super::source::threads;
use crate::blob::paths;
use crate::directory::{Access, OfflineDirectory};
use crate::error::{Error, Result};
use crate::program_output::Output;
use crate::progress_bar::Progress;
use crate::types::{BlobId, Epoch};
use crate::vfs::{FileKind, Vfs};
use serde_json::{json, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Memory for the index of the trial recovery; beyond it sorted pieces go to unnamed files.
const MEMORY_BYTES: u64 = 256 << 20;
/// No more missing BLOBs than this are named.
const NAMED_BLOBS_MAX: usize = 100;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    pub damage: Vec<String>,
    pub warnings: Vec<String>,
}

/// Checks one backup in `target`, or all.
pub fn run(vfs: &Arc<dyn Vfs>, target: &Path, name: Option<&str>, output: &mut Output<'_>) -> Result<i32> {
    let folder = Folder::open(vfs, target)?;
    let backups = match name {
        Some(name) => vec![folder.find(name)?],
        None => folder.backups()?,
    };
    let (mut documents, mut exit) = (Vec::new(), 0);
    for backup in &backups {
        let mut found = check_files(vfs, backup)?;
        if backup.manifest.is_ok() {
            let epoch = backup.manifest.as_ref().ok().and_then(Option::as_ref).map(|manifest| manifest.epoch);
            let blob = |id| blob_in_set(&backup.files, id);
            try_start(vfs, &backup.files, epoch, &blob, &mut found);
        }
        let (status, code) = match (found.damage.is_empty(), found.warnings.is_empty()) {
            (true, true) => ("OK", 0),
            (true, false) => ("warnings", 1),
            (false, _) => ("damaged", 2),
        };
        exit = exit.max(code);
        let Findings { damage, warnings } = found;
        if !output.json {
            output.print(&format!("{}: {status}\n", backup.label()));
            damage.iter().for_each(|text| output.print(&format!("  damage: {text}\n")));
            warnings.iter().for_each(|text| output.print(&format!("  warning: {text}\n")));
        }
        documents.push(json!({
            "name": backup.label(), "status": status, "damage": damage, "warnings": warnings,
        }));
    }
    if output.json {
        output.print(&format!("{}\n", Value::from_iter([("backups", Value::Array(documents))])));
    }
    Ok(exit)
}

/// Compares the files of a backup with what its manifest says. What cannot be read is damage.
pub fn check_files(vfs: &Arc<dyn Vfs>, backup: &Backup) -> Result<Findings> {
    let mut found = Findings::default();
    let manifest = match &backup.manifest {
        Ok(Some(manifest)) => manifest,
        // There is nothing to compare with.
        Ok(None) => return Ok(found),
        Err(e) => {
            found.damage.push(e.to_string());
            return Ok(found);
        }
    };
    let progress = Progress::new(manifest.bytes());
    for file in &manifest.files {
        let path = backup.files.join(&file.name);
        let mut read = progress.file();
        let watch = &mut |offset: usize| {
            read.at(offset);
            Ok(())
        };
        match (Reading { vfs: &**vfs, path: &path, bytes: None }).content(watch) {
            Err(e) => found.damage.push(e.to_string()),
            Ok(content) if content.bytes != file.bytes => found.damage.push(format!(
                "{} has {} bytes, {} were expected",
                path.display(),
                content.bytes,
                file.bytes
            )),
            Ok(content) if content.sha256 != file.sha256 => {
                let (is, was) = (&content.sha256, &file.sha256);
                found.damage.push(format!("{} has the checksum {is}, {was} was expected", path.display()));
            }
            Ok(content) => read.done(content.bytes as usize),
        }
    }
    found.warnings = unknown_files(&**vfs, &backup.files, manifest)?;
    Ok(found)
}

fn unknown_files(vfs: &dyn Vfs, location: &Path, manifest: &BackupManifest) -> Result<Vec<String>> {
    let known: BTreeSet<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    let listed = match vfs.names(location) {
        Ok(listed) => listed,
        // Then all its files are missing, which has been said.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(Error::io("cannot list", location, e)),
    };
    let unknown = listed.iter().filter(|(name, _)| !name.to_str().is_some_and(|name| known.contains(name)));
    Ok(unknown.map(|(name, _)| format!("{} is no file of the backup", location.join(name).display())).collect())
}

/// What a start would make of the files in `location`, which must bring back everything up to `epoch` when that is
/// known. `blob` says where a BLOB is.
pub fn try_start(
    vfs: &Arc<dyn Vfs>,
    location: &Path,
    epoch: Option<Epoch>,
    blob: &dyn Fn(BlobId) -> PathBuf,
    found: &mut Findings,
) {
    let mut attempt = || -> Result<()> {
        let directory = OfflineDirectory::open(vfs.clone(), location, Access::Read)?;
        let verdict = directory.verdict(threads(), Some(MEMORY_BYTES))?;
        found.damage.extend(verdict.refusals().map(ToString::to_string));
        found.warnings.extend(verdict.warnings);
        let Ok(recovered) = verdict.outcome else { return Ok(()) };
        let durable = recovered.durable.unwrap_or_default();
        if let Some(epoch) = epoch.filter(|epoch| *epoch != durable) {
            found.damage.push(format!("a start finds everything up to epoch {durable}, {epoch} was expected"));
        }
        let (mut missing, mut cursor) = (BTreeSet::new(), recovered.snapshot.cursor());
        while let Some(row) = cursor.next()? {
            for id in row.blobs.iter() {
                let path = blob(id);
                let kind = vfs.kind(&path).map_err(|e| Error::io("cannot look for", &path, e))?;
                if kind != Some(FileKind::File) && missing.len() < NAMED_BLOBS_MAX {
                    missing.insert(id);
                }
            }
        }
        let text = |id: BlobId| format!("BLOB {id}, to which a live entry refers, is missing");
        found.damage.extend(missing.into_iter().map(text));
        Ok(())
    };
    if let Err(e) = attempt() {
        found.damage.push(e.to_string());
    }
}

/// Where a BLOB is among the files of a backup.
fn blob_in_set(files: &Path, id: BlobId) -> PathBuf {
    files.join(paths::file(Path::new(""), id).file_name().unwrap_or_default())
}

// SPDX-License-Identifier: Apache-2.0
//! Restores: a power cut, the death of the process, or a failure at every call. Afterwards the directory holds the old
//! content or the new one, never a mixture; and from the first deletion on, a program that knows nothing of interrupted
//! restores refuses it.

use crate::faults::each_fault;
use crate::power_cuts::losses;
use crate::sweep::sweep;
use limestone_core::backup::{FileToRestore, Phase};
use limestone_core::datastore::{Datastore, Settings};
use limestone_core::types::{BlobId, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, Loss, SimFs};
use limestone_core::wal::manifest;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const LOCATION: &str = "/log";
const BACKUP: &str = "/backup";

type Content = BTreeMap<String, String>;

fn open(fs: &SimFs, location: &str) -> Result<Arc<Datastore>, String> {
    Datastore::open(Settings::new(location).vfs(Arc::new(fs.clone()))).map_err(|e| e.to_string())
}

/// Writes `rows`, each with a BLOB of the same content, over two channels and several epochs.
fn fill(fs: &SimFs, location: &str, rows: &[&str]) -> Arc<Datastore> {
    let store = open(fs, location).unwrap();
    let channels = [store.create_channel().unwrap(), store.create_channel().unwrap()];
    store.ready().unwrap();
    let pool = store.blob_pool();
    for (epoch, row) in (1..).zip(rows) {
        store.switch_epoch(Epoch(epoch)).unwrap();
        let blob = pool.register_data(row.as_bytes()).unwrap();
        let channel = &channels[epoch as usize % 2];
        channel.begin_session().unwrap();
        let version = WriteVersion { major: epoch, minor: 0 };
        let value = blob.to_string();
        channel.add_entry(StorageId(1), row.as_bytes(), value.as_bytes(), version, &[blob]).unwrap();
        channel.end_session().unwrap();
    }
    store.switch_epoch(Epoch(rows.len() as u64 + 1)).unwrap();
    pool.release();
    store
}

/// Keys and the content of their BLOBs, or why there is none.
fn content(fs: &SimFs) -> Result<Content, String> {
    let store = open(fs, LOCATION)?;
    store.ready().map_err(|e| e.to_string())?;
    let files = fs.files();
    let mut content = Content::new();
    let mut cursor = store.snapshot().unwrap().cursor();
    while let Some(row) = cursor.next().unwrap() {
        let id = BlobId(String::from_utf8_lossy(row.value).parse().unwrap());
        let (path, available) = store.blobs().file(id);
        let blob = match files.get(&path) {
            Some(bytes) if available => String::from_utf8_lossy(bytes).into_owned(),
            _ => "no BLOB".to_owned(),
        };
        content.insert(String::from_utf8_lossy(row.key).into_owned(), blob);
    }
    if let Some(left) = files.keys().find(|path| path.starts_with("/log/restoring")) {
        return Err(format!("{} is left", left.display()));
    }
    Ok(content)
}

fn rows(rows: &[&str]) -> Content {
    rows.iter().map(|row| (row.to_string(), row.to_string())).collect()
}

const OLD: [&str; 3] = ["old 1", "old 2", "both"];
const NEW: [&str; 4] = ["new 1", "both", "new 3", "new 4"];

/// A disk with a directory of old content and a backup of new content.
fn prepared() -> SimFs {
    let fs = SimFs::new();
    fill(&fs, LOCATION, &OLD).shutdown();
    let other = fill(&fs, "/other", &NEW);
    let backup = other.begin_detailed_backup(Duration::ZERO).unwrap();
    let files = fs.files();
    for file in backup.files() {
        fs.put(&Path::new(BACKUP).join(&file.destination), &files[&file.source]).unwrap();
    }
    fs.reboot(Loss::KeepUnsynced)
}

#[derive(Clone, Copy, Debug)]
enum Flavour {
    Keep,
    Delete,
    List,
}

/// Restores; the answer and the phase that the data store then shows.
fn restore(fs: &SimFs, flavour: Flavour) -> Result<(Result<(), String>, Phase), String> {
    let store = open(fs, LOCATION)?;
    let from = Path::new(BACKUP);
    let result = match flavour {
        Flavour::Keep => store.restore(from, true),
        Flavour::Delete => store.restore(from, false),
        Flavour::List => {
            let names = fs.files().into_keys().filter_map(|path| Some(path.strip_prefix(from).ok()?.to_owned()));
            let files: Vec<_> = names.map(|name| FileToRestore { source: name.clone(), destination: name }).collect();
            store.restore_files(from, &files)
        }
    };
    let phase = store.restore_progress().phase;
    // The process ends here, or the data store goes on.
    if result.is_ok() {
        store.ready().map_err(|e| e.to_string())?;
    }
    store.shutdown();
    Ok((result.map_err(|e| e.to_string()), phase))
}

const FLAVOURS: [Flavour; 3] = [Flavour::Keep, Flavour::Delete, Flavour::List];

fn cases() -> Vec<(Flavour, u64)> {
    let mut cases = Vec::new();
    for flavour in FLAVOURS {
        let fs = prepared();
        assert_eq!(restore(&fs, flavour).unwrap(), (Ok(()), Phase::Completed));
        assert_eq!(content(&fs).unwrap(), rows(&NEW));
        let backup_is_there = fs.files().keys().any(|path| path.starts_with(BACKUP));
        assert_eq!(backup_is_there, !matches!(flavour, Flavour::Delete));
        let calls = fs.operations();
        cases.extend((1..=calls).map(|n| (flavour, n)));
    }
    cases
}

/// What a program sees that starts on whatever it finds: files of old and new content must never lie under a manifest
/// that it accepts.
fn check_refusal(fs: &SimFs) -> Result<(), String> {
    let files = fs.files();
    let manifest = files.get(Path::new("/log/limestone-manifest.json")).ok_or("there is no manifest")?;
    let usable = manifest::parse(manifest).is_ok_and(|manifest| manifest.is_supported());
    let marked = |mark: &str| files.contains_key(&Path::new("/log/restoring").join(mark));
    if !usable {
        return Ok(());
    }
    let old = ["compaction_catalog", "epoch", "pwal_0000", "pwal_0001"].map(|name| Path::new(LOCATION).join(name));
    if let Some(gone) = old.iter().find(|path| marked("purging") && !files.contains_key(*path)) {
        return Err(format!("{} is gone, yet the manifest can be used", gone.display()));
    }
    let waiting = files.keys().filter(|path| path.starts_with("/log/restoring/files"));
    match waiting.into_iter().find(|path| marked("moving") && !path.ends_with("limestone-manifest.json")) {
        Some(path) => Err(format!("{} is not in place, yet the manifest can be used", path.display())),
        None => Ok(()),
    }
}

/// Old or new content, and which one stays so at further starts.
fn check_image(image: &SimFs, acknowledged: bool) -> Result<(), String> {
    check_refusal(image)?;
    let found = content(image)?;
    let is_new = found == rows(&NEW);
    if !is_new && (acknowledged || found != rows(&OLD)) {
        return Err(format!("the content is {found:?}, acknowledged: {acknowledged}"));
    }
    let again = content(&image.reboot(Loss::DropUnsynced))?;
    if again != found {
        return Err(format!("the content was {found:?} and is {again:?} after a power cut"));
    }
    Ok(())
}

fn check_losses(fs: &SimFs, n: u64, acknowledged: bool) -> Result<(), String> {
    fs.reboots(losses(n)).try_for_each(|(loss, image)| {
        let trace = fs.trace();
        let tail = trace[trace.len().saturating_sub(12)..].join("\n  ");
        check_image(&image, acknowledged).map_err(|reason| format!("{loss:?}: {reason}\n  {tail}"))
    })
}

#[test]
fn power_cut_anywhere_in_a_restore_leaves_the_old_content_or_the_new() {
    sweep(&cases(), |&(flavour, n)| {
        let fs = prepared();
        fs.fail_at(n, Fault::PowerCut);
        let acknowledged = matches!(restore(&fs, flavour), Ok((Ok(()), _)));
        check_losses(&fs, n, acknowledged)
    });
}

#[test]
fn process_that_dies_in_a_restore_leaves_nothing_that_a_later_power_cut_takes() {
    sweep(&cases(), |&(flavour, n)| {
        let fs = prepared();
        fs.fail_at(n, Fault::PowerCut);
        let acknowledged = matches!(restore(&fs, flavour), Ok((Ok(()), _)));
        fs.heal();
        check_image(&fs, acknowledged)
    });
}

#[test]
fn power_cut_while_an_interrupted_restore_is_completed_changes_nothing_about_its_result() {
    let cases: Vec<(Flavour, u64)> =
        cases().into_iter().filter(|(flavour, _)| matches!(flavour, Flavour::Keep)).collect();
    sweep(&cases, |&(flavour, n)| {
        let fs = prepared();
        fs.fail_at(n, Fault::PowerCut);
        if matches!(restore(&fs, flavour), Ok((Ok(()), _))) {
            return Ok(());
        }
        for dies_only in [false, true] {
            let image = if dies_only { fs.reboot(Loss::KeepUnsynced) } else { fs.reboot(Loss::Torn { seed: n }) };
            let undisturbed = image.reboot(Loss::KeepUnsynced);
            let expected = content(&undisturbed)?;
            for m in (1..=undisturbed.operations()).step_by(3) {
                let second = image.reboot(Loss::KeepUnsynced);
                second.fail_at(m, Fault::PowerCut);
                // It ends early, or hits a call that the check itself makes.
                let _ = content(&second);
                let images = [second.reboot(Loss::DropUnsynced), second.reboot(Loss::Torn { seed: m })];
                second.heal();
                for image in images.into_iter().chain([second]) {
                    let found = content(&image).map_err(|reason| format!("cut again at {m}: {reason}"))?;
                    if found != expected {
                        return Err(format!("cut again at {m}: the content is {found:?}, not {expected:?}"));
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn failure_of_any_call_in_a_restore_leaves_the_content_that_its_phase_says() {
    sweep(&cases(), |&(flavour, n)| {
        each_fault(&[Fault::IoError, Fault::SyncLoses, Fault::TornWrite, Fault::NoSpace], |fault| {
            let fs = prepared();
            fs.fail_at(n, fault);
            let answer = restore(&fs, flavour);
            let acknowledged = matches!(answer, Ok((Ok(()), _)));
            check_losses(&fs, n, acknowledged).map_err(|reason| format!("{fault:?}: {answer:?}: {reason}"))?;
            fs.heal();
            let found = content(&fs).map_err(|reason| format!("{fault:?}: {answer:?}: {reason}"))?;
            let expected = match &answer {
                Ok((_, Phase::Completed | Phase::Failed)) => rows(&NEW),
                Ok((_, Phase::Canceled)) => rows(&OLD),
                _ => return Ok(fs),
            };
            if found != expected {
                return Err(format!("{fault:?}: {answer:?}, but the content is {found:?}"));
            }
            Ok(fs)
        })
    });
}

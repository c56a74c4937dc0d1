// SPDX-License-Identifier: Apache-2.0
//! Would upstream open this directory, and with which entries? A strict model of upstream's start (disk format §§3–7,
//! defects included) that shares no code with the crate and changes nothing on disk, and the rules of §13 for a
//! directory that is handed over after a clean shutdown.
#![allow(dead_code)]

pub mod format;

use crate::golden_data::Row;
use format::{Catalog, Entry, Token, Version};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

pub const COMPACTED: &str = "pwal_0000.compacted";

/// What upstream has after `ready()`.
#[derive(Debug)]
pub struct UpstreamStart {
    pub rows: Vec<Row>,
    pub last_epoch: u64,
    pub next_blob_id: u64,
    /// Log files whose bytes upstream would patch, with the patched content.
    pub patched: BTreeMap<String, Vec<u8>>,
}

/// The merge rule of §6.1: the newest write of each key, and the newest clear of each storage.
#[derive(Default)]
pub struct Merge {
    newest: HashMap<(u64, Vec<u8>), Entry>,
    clears: HashMap<u64, Version>,
}

impl Merge {
    /// Takes one entry of a valid session; on equal versions the later call wins.
    pub fn apply(&mut self, entry: Entry) {
        match entry.tag {
            format::ADD_STORAGE => {}
            format::CLEAR | format::REMOVE_STORAGE => {
                let clear = self.clears.entry(entry.storage).or_default();
                *clear = (*clear).max(entry.version);
            }
            _ => {
                let key = (entry.storage, entry.key.clone());
                match self.newest.get(&key) {
                    Some(held) if held.version > entry.version => {}
                    _ => {
                        self.newest.insert(key, entry);
                    }
                }
            }
        }
    }

    fn cleared(&self, entry: &Entry) -> bool {
        self.clears.get(&entry.storage).is_some_and(|clear| entry.version < *clear)
    }

    /// The newest entry per key that no clear hides; removes included if `keep_removes`.
    fn surviving(&self, keep_removes: bool) -> Vec<&Entry> {
        let kept = |e: &&Entry| !self.cleared(e) && (keep_removes || e.tag != format::REMOVE);
        self.newest.values().filter(kept).collect()
    }

    /// The rows of a cursor in the order of §6.2, with a compacted file below the log.
    pub fn rows(&self, compacted: &[Entry], removes_hide_compacted: bool) -> Vec<Row> {
        let mut merged: BTreeMap<([u8; 8], Vec<u8>), &Entry> = BTreeMap::new();
        for entry in compacted.iter().filter(|e| !self.cleared(e)) {
            merged.entry((entry.storage.to_le_bytes(), entry.key.clone())).or_insert(entry);
        }
        for entry in self.surviving(removes_hide_compacted) {
            merged.insert((entry.storage.to_le_bytes(), entry.key.clone()), entry);
        }
        let row = |e: &&Entry| Row { storage: e.storage, key: e.key.clone(), value: e.value.clone() };
        merged.values().filter(|e| e.tag != format::REMOVE).map(row).collect()
    }

    fn max_blob(&self) -> u64 {
        self.surviving(false).iter().flat_map(|e| &e.blobs).copied().max().unwrap_or(0)
    }
}

/// Opens `dir` as upstream would, without changing it. `Err` holds the reason of the refusal.
pub fn upstream_start(dir: &Path) -> Result<UpstreamStart, String> {
    check_manifest(dir)?;
    let catalog = load_catalog(dir)?;
    let durable = durable_epoch(dir)?;
    let mut start = UpstreamStart { rows: Vec::new(), last_epoch: durable, next_blob_id: 0, patched: BTreeMap::new() };
    let mut merge = Merge::default();
    for name in log_files(dir) {
        if catalog.detached.contains(&name) || name == COMPACTED {
            continue;
        }
        let bytes = fs::read(dir.join(&name)).unwrap();
        let scan = scan(&bytes, durable, name.len() <= 9, &mut merge).map_err(|e| format!("{name}: {e}"))?;
        start.last_epoch = start.last_epoch.max(scan.max_epoch);
        if scan.bytes != bytes {
            start.patched.insert(name, scan.bytes);
        }
    }
    let compacted = read_compacted(dir)?;
    start.rows = merge.rows(&compacted, !catalog.compacted.is_empty());
    start.next_blob_id = catalog.max_blob.max(merge.max_blob()) + 1;
    Ok(start)
}

/// Regular files of `dir` whose name starts with `pwal_`, in name order.
pub fn log_files(dir: &Path) -> Vec<String> {
    files(dir).into_iter().filter(|name| name.starts_with("pwal_")).collect()
}

fn files(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    names
}

fn check_manifest(dir: &Path) -> Result<(), String> {
    let main = dir.join("limestone-manifest.json");
    let version_of = |path: &Path| fs::read(path).ok().and_then(|bytes| format::manifest_version(&bytes));
    if !main.exists() {
        return Err("version mismatch: version 0, server supports version 1".into());
    }
    match version_of(&main).or_else(|| version_of(&dir.join("limestone-manifest.json.back"))) {
        None => Err("Manifest file exists but is corrupted or cannot be parsed".into()),
        Some(1..=7) => Ok(()),
        Some(version) => Err(format!("logdir version mismatch: version {version}")),
    }
}

fn load_catalog(dir: &Path) -> Result<Catalog, String> {
    let mut catalog = Catalog::default();
    let main = dir.join("compaction_catalog");
    if !main.exists() {
        return Ok(catalog);
    }
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    if let Err(reason) = catalog.read(&read(&main)) {
        let back = dir.join("compaction_catalog.back");
        if !back.exists() {
            return Err(format!("Failed to load compaction catalog file and no backup available. ({reason})"));
        }
        catalog.read(&read(&back))?;
    }
    Ok(catalog)
}

fn durable_epoch(dir: &Path) -> Result<u64, String> {
    let records = |name: &str| format::epoch_records(&fs::read(dir.join(name)).unwrap_or_default());
    if let Some(max) = records("epoch")?.into_iter().max() {
        return Ok(max);
    }
    let mut max = 0;
    for name in files(dir).iter().filter(|name| name.starts_with("epoch")) {
        max = max.max(records(name)?.into_iter().max().unwrap_or(0));
    }
    Ok(max)
}

struct Scan {
    max_epoch: u64,
    bytes: Vec<u8>,
}

/// The state machine of §5.2 with the policies of a start: mark, report, report, fail-fast.
fn scan(bytes: &[u8], durable: u64, active_name: bool, merge: &mut Merge) -> Result<Scan, String> {
    let (mut idle, mut live, mut max_epoch, mut at) = (true, true, 0, 0);
    let mut patched = bytes.to_vec();
    let broken = |at: usize, reason: String| Err(format!("this pwal file is broken: {reason} (offset {at})"));
    let unexpected = |at: usize, tag: u8| broken(at, format!("unexpected log_entry type {tag}"));
    loop {
        let (token, next) = format::token(bytes, at);
        match token {
            Token::Eof | Token::Short(format::INVALIDATED) => break,
            Token::Data(entry) => {
                if idle {
                    return unexpected(at, entry.tag);
                }
                if live {
                    merge.apply(entry);
                }
            }
            Token::Begin(epoch) => {
                max_epoch = epoch.max(max_epoch);
                idle = false;
                live = epoch <= durable;
                if !live {
                    patched[at] = format::INVALIDATED;
                }
            }
            Token::Invalidated(epoch) => {
                max_epoch = epoch.max(max_epoch);
                (idle, live) = (false, false);
            }
            Token::End { .. } => {
                if idle {
                    return unexpected(at, format::END);
                }
                (idle, live) = (true, false);
            }
            Token::Durable(_) | Token::Short(format::DURABLE) => return unexpected(at, format::DURABLE),
            Token::Short(format::BEGIN) => return broken(at, "unexpected EOF".into()),
            Token::Short(tag) | Token::Unknown(tag) if idle => return unexpected(at, tag),
            Token::Short(_) if live => return broken(at, "unexpected EOF".into()),
            Token::Unknown(tag) if live => return broken(at, format!("unknown log_entry type {tag}")),
            Token::Short(_) | Token::Unknown(_) if active_name => {
                return Err(format!("the end of non-detached file is broken (offset {at})"));
            }
            Token::Short(_) | Token::Unknown(_) => break,
        }
        at = next;
    }
    Ok(Scan { max_epoch, bytes: patched })
}

fn read_compacted(dir: &Path) -> Result<Vec<Entry>, String> {
    let Ok(bytes) = fs::read(dir.join(COMPACTED)) else {
        return Ok(Vec::new());
    };
    let (mut entries, mut at): (Vec<Entry>, usize) = (Vec::new(), 0);
    loop {
        match format::token(&bytes, at) {
            (Token::Eof, _) => return Ok(entries),
            (Token::Data(entry), next) => {
                let place = |e: &Entry| (e.storage.to_le_bytes(), e.key.clone());
                if entries.last().is_some_and(|last| place(last) > place(&entry)) {
                    return Err(format!("{COMPACTED}: Key order violation at offset {at}"));
                }
                entries.push(entry);
                at = next;
            }
            (Token::Begin(_), next) => at = next,
            (token, _) => return Err(format!("{COMPACTED}: {token:?} at offset {at}")),
        }
    }
}

/// What §13 forbids in a directory that upstream takes over after a clean shutdown; empty if all is well.
pub fn handover_violations(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut complain = |text: String| found.push(text);
    let manifest = fs::read(dir.join("limestone-manifest.json")).unwrap_or_default();
    if format::manifest_version(&manifest) != Some(7) {
        complain(format!("the manifest is not one of version 7: {}", String::from_utf8_lossy(&manifest)));
    }
    let mut catalog = Catalog::default();
    let text = fs::read(dir.join("compaction_catalog")).unwrap_or_default();
    if let Err(reason) = catalog.read(&String::from_utf8_lossy(&text)) {
        complain(format!("compaction_catalog: {reason}"));
    }
    if dir.join(COMPACTED).exists() && !catalog.compacted.contains(COMPACTED) {
        complain(format!("{COMPACTED} is there but not in the catalog: removes would be lost"));
    }
    if dir.join(COMPACTED).exists() && dir.join("pwal_0000.compacted.prev").exists() {
        complain("a .prev file beside the compacted file would win over it".into());
    }
    match fs::read(dir.join("epoch")).ok().map(|bytes| format::epoch_records(&bytes)) {
        Some(Ok(records)) if !records.is_empty() => {}
        other => complain(format!("epoch: {other:?}, expected complete records")),
    }
    for name in files(dir) {
        if name.starts_with("epoch.") || name == ".epoch.tmp" || name == "limestone-manifest.json.back" {
            complain(format!("{name} is left behind"));
        }
    }
    if dir.join("sorting").exists() {
        complain("sorting is left behind".into());
    }
    found
}

/// Log files of `dir` that hold anything but whole sessions as this project writes them: begun and ended with the same
/// epoch, none beyond the durable epoch unless it is marked invalid.
pub fn session_violations(dir: &Path) -> Vec<String> {
    let durable = durable_epoch(dir).unwrap_or(0);
    let names = log_files(dir).into_iter().filter(|name| name != COMPACTED);
    names
        .filter_map(|name| sessions(&fs::read(dir.join(&name)).unwrap(), durable).err().map(|e| format!("{name}: {e}")))
        .collect()
}

fn sessions(bytes: &[u8], durable: u64) -> Result<(), String> {
    let (mut open, mut at) = (None, 0);
    loop {
        let (token, next) = format::token(bytes, at);
        match (token, open) {
            // An invalidated session may lack its end marker: it was cut short by a crash.
            (Token::Eof, None | Some(None)) => return Ok(()),
            (Token::Data(_), Some(_)) => {}
            (Token::Begin(epoch), None | Some(None)) if epoch <= durable => open = Some(Some(epoch)),
            (Token::Invalidated(_), None | Some(None)) => open = Some(None),
            (Token::End { epoch, crc_type: 1 }, Some(begun)) if begun.is_none_or(|b| b == epoch) => open = None,
            (token, _) => return Err(format!("{token:?} at offset {at}, durable epoch {durable}")),
        }
        at = next;
    }
}

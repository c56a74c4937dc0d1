// SPDX-License-Identifier: Apache-2.0
//! Opens an image and compares it with what had been acknowledged when the power went.

use crate::workload::ENTRIES;
use limestone_core::datastore::{Datastore, Settings};
use limestone_core::types::StorageId;
use limestone_core::vfs::{Open, SimFs, Vfs};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the journal says up to some moment.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// Epoch of each session that ended or was about to end, by worker and number.
    sessions: BTreeMap<(u64, u64), u64>,
    pub stored: u64,
    pub propagated: u64,
    /// What the mini engine acknowledged: the lines of its file.
    pub acknowledgements: String,
    /// The open backup: up to which epoch, and its files.
    pub backup: Option<(u64, Vec<PathBuf>)>,
}

impl Journal {
    pub fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |i: usize| words[i].parse::<u64>().unwrap();
        match words[0] {
            "session" => drop(self.sessions.insert((number(1), number(2)), number(3))),
            // Numbers of epochs in which nothing was written come again.
            "started" => (self.stored, self.propagated) = (number(1), 0),
            "stored" => self.stored = number(1),
            "propagated" => self.propagated = number(1),
            "backup" => self.backup = Some((number(1), words[2..].iter().map(PathBuf::from).collect())),
            "backup-ends" => self.backup = None,
            _ if number(0) < u64::MAX => {
                self.stored = self.stored.max(number(2));
                self.acknowledgements.push_str(line);
            }
            _ => panic!("not a line of a journal: {line}"),
        }
    }
}

/// Checks that a start on `directory` finds every session up to `epoch` that the journal knows, whole, and no part of
/// any other one.
pub fn check(fs: &SimFs, directory: &Path, journal: &Journal, epoch: u64) -> Result<(), String> {
    let error = |what: &str, e: limestone_core::error::Error| format!("{what}: {e}");
    let store = Datastore::open(Settings::new(directory).vfs(Arc::new(fs.clone()))).map_err(|e| error("open", e))?;
    store.ready().map_err(|e| error("ready", e))?;
    let (mut entries, mut newest) = (BTreeMap::<(u64, u64), BTreeSet<u64>>::new(), BTreeMap::new());
    let mut cursor = store.snapshot().map_err(|e| error("snapshot", e))?.cursor();
    while let Some(entry) = cursor.next().map_err(|e| error("cursor", e))? {
        let key = std::str::from_utf8(entry.key).map_err(|e| e.to_string())?;
        let parts: Vec<&str> = key.split('/').collect();
        if entry.storage == StorageId(2) {
            let number: u64 = std::str::from_utf8(entry.value).unwrap().parse().unwrap();
            newest.insert(parts[1].parse::<u64>().unwrap(), number);
            continue;
        }
        let [worker, session, number] = [0, 1, 2].map(|i: usize| parts[i].parse::<u64>().unwrap());
        for blob in entry.blobs.iter() {
            let path = store.blobs().file(blob).0;
            let content = fs.read(&path, 1 << 20).map_err(|e| format!("the BLOB of {key}: {e}"))?;
            if content != format!("{worker}/{session}").as_bytes() {
                return Err(format!("the BLOB of {key} holds {:?}", String::from_utf8_lossy(&content)));
            }
        }
        let of = String::from_utf8_lossy(&entry.value[..20]).parse::<u64>().map_err(|e| format!("{key}: {e}"))?;
        if journal.sessions.get(&(worker, session)).is_some_and(|&known| known != of) {
            return Err(format!("{key} is of epoch {of}, the journal says otherwise"));
        }
        entries.entry((worker, session)).or_default().insert(number);
    }
    store.shutdown();
    for (session, numbers) in &entries {
        if numbers.len() as u64 != ENTRIES {
            return Err(format!("session {session:?} is there in part: {numbers:?}"));
        }
        if newest.get(&session.0).is_none_or(|&newest| newest < session.1) {
            return Err(format!("session {session:?} is there, its last entry is not: {newest:?}"));
        }
    }
    let lost = journal.sessions.iter().find(|(session, &of)| of <= epoch && !entries.contains_key(session));
    lost.map_or(Ok(()), |(session, of)| {
        Err(format!("session {session:?} of epoch {of} is lost, acknowledged: {epoch}"))
    })
}

/// A directory of its own with the listed files of a backup, as somebody copies them from this image.
pub fn copied(fs: &SimFs, directory: &Path, files: &[PathBuf]) -> Result<SimFs, String> {
    let copy = SimFs::new();
    for path in files {
        let absolute = directory.join(path);
        let file = fs.open(&absolute, Open::Read).map_err(|e| format!("listed {}: {e}", absolute.display()))?;
        let mut bytes = vec![0; file.len().map_err(|e| e.to_string())? as usize];
        file.read_at(0, &mut bytes).map_err(|e| e.to_string())?;
        copy.put(&absolute, &bytes).map_err(|e| e.to_string())?;
    }
    Ok(copy)
}

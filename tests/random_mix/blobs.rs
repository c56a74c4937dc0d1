// SPDX-License-Identifier: Apache-2.0
//! BLOBs whose content follows from what the entry that refers to them says.

use crate::disk::Disk;
use crate::model::{Content, Model, Progress};
use crate::random::Random;
use crate::writer::text;
use limestone_core::blob::{paths, BlobPool};
use limestone_core::datastore::Datastore;
use limestone_core::types::BlobId;
use limestone_core::vfs::{FileKind, Open, Vfs};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PREFIX: &str = "blobs ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    pub id: BlobId,
    nonce: u64,
    len: u64,
}

impl Blob {
    pub fn content(&self) -> Vec<u8> {
        let mut random = Random::new(self.nonce);
        (0..self.len).map(|_| random.below(256) as u8).collect()
    }

    /// As the value of an entry.
    pub fn describe(blobs: &[Blob]) -> String {
        let one = |blob: &Blob| format!("{}:{}:{}", blob.id.0, blob.nonce, blob.len);
        format!("{PREFIX}{}", blobs.iter().map(one).collect::<Vec<_>>().join(" "))
    }

    /// The BLOBs that the value of an entry describes.
    pub fn parse(value: &[u8]) -> Vec<Blob> {
        let value = std::str::from_utf8(value).unwrap_or_default();
        let Some(list) = value.strip_prefix(PREFIX) else { return Vec::new() };
        let one = |text: &str| {
            let numbers: Vec<u64> = text.split(':').map(|number| number.parse().expect("a number")).collect();
            Blob { id: BlobId(numbers[0]), nonce: numbers[1], len: numbers[2] }
        };
        list.split_whitespace().map(one).collect()
    }
}

/// Where the files come from that become BLOBs.
#[derive(Clone)]
pub struct Blobs {
    pub vfs: Arc<dyn Vfs>,
    pub sources: PathBuf,
}

impl Blobs {
    pub fn register(
        &self,
        pool: &BlobPool,
        nonce: u64,
        known: Option<Blob>,
        random: &mut Random,
    ) -> Result<Blob, String> {
        let mut blob = Blob { id: BlobId(0), nonce, len: random.below(3000) };
        blob.id = match (random.below(4), known) {
            (0, Some(known)) => {
                let id = pool.duplicate(known.id).map_err(text)?;
                return Ok(Blob { id, ..known });
            }
            (1, _) => {
                let is_temporary = nonce.is_multiple_of(2);
                let source = self.source(&blob).map_err(|e| e.to_string())?;
                pool.register_file(&source, is_temporary).map_err(text)?
            }
            _ => pool.register_data(&blob.content()).map_err(text)?,
        };
        Ok(blob)
    }

    /// A file with the content of the BLOB; nobody syncs it.
    fn source(&self, blob: &Blob) -> std::io::Result<PathBuf> {
        match self.vfs.create_dir(&self.sources) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let path = self.sources.join(blob.nonce.to_string());
        self.vfs.open(&path, Open::Truncate)?.write_at(0, &blob.content())?;
        Ok(path)
    }
}

/// The BLOB files of a data directory. Looking does not count as calls.
pub fn files(disk: &Disk, location: &Path) -> Result<BTreeMap<u64, Vec<u8>>, String> {
    let root = location.join("blob");
    let mut found = BTreeMap::new();
    match disk.sim() {
        Some(fs) => {
            for (path, bytes) in fs.files().into_iter().filter(|(path, _)| path.starts_with(&root)) {
                if let Some(id) = paths::id_of(path.file_name().unwrap_or_default()) {
                    found.insert(id.0, bytes);
                }
            }
        }
        None => {
            let mut ids = Vec::new();
            paths::visit(&*disk.vfs(), &root, |id| ids.push(id)).map_err(|e| e.to_string())?;
            for id in ids {
                let path = paths::file(&root, id);
                if disk.vfs().kind(&path).map_err(|e| e.to_string())? == Some(FileKind::File) {
                    found.insert(id.0, disk.read(&path).map_err(|e| e.to_string())?);
                }
            }
        }
    }
    Ok(found)
}

/// Everything that a cursor shows; every entry has its BLOBs, with their content.
pub fn read(store: &Datastore, disk: &Disk) -> Result<(Content, BTreeSet<u64>), String> {
    let files = files(disk, store.location())?;
    let (mut content, mut needed) = (Content::new(), BTreeSet::new());
    let mut cursor = store.snapshot().map_err(text)?.cursor();
    while let Some(row) = cursor.next().map_err(text)? {
        let key = String::from_utf8_lossy(row.key).into_owned();
        let described = Blob::parse(row.value);
        let ids: Vec<BlobId> = row.blobs.iter().collect();
        if ids != described.iter().map(|blob| blob.id).collect::<Vec<_>>() {
            return Err(format!("{key} refers to the BLOBs {ids:?}, not to {described:?}"));
        }
        for blob in described {
            needed.insert(blob.id.0);
            match files.get(&blob.id.0) {
                Some(bytes) if *bytes == blob.content() => {}
                found => return Err(format!("{key}: {blob:?} is {:?}", found.map(Vec::len))),
            }
            let failures = disk.failures();
            if !store.blobs().file(blob.id).1 && disk.failures() == failures {
                return Err(format!("{key}: {blob:?} is there and not available"));
            }
        }
        if content.insert((row.storage.0, row.key.to_vec()), row.value.to_vec()).is_some() {
            return Err(format!("a cursor shows {key} twice"));
        }
    }
    Ok((content, needed))
}

/// The largest id that a session refers to which a start has found.
pub fn largest_persisted(model: &Model) -> u64 {
    let settled = model.sessions.iter().filter(|session| session.progress == Progress::Settled);
    let blobs = settled.flat_map(|session| &session.changes).flat_map(|(_, change)| match change {
        crate::model::Change::Put { value, .. } => Blob::parse(value),
        _ => Vec::new(),
    });
    blobs.map(|blob| blob.id.0).max().unwrap_or(0)
}

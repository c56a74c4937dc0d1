// SPDX-License-Identifier: Apache-2.0
//! A base sync as it arrives: whole files, gathered in a folder of their own and checked, so that an interrupted base
//! sync goes on where it stopped. What is in place in the directory is not touched.
//!
//! What the cache of the system shows of a file whose sync failed may never reach the disk, though a later sync
//! succeeds. So the name of a file says how far it has come, and after a failure nothing of it is used again:
//!
//! | name, `<…>` for `<name>.<size>-<crc>.<process>` | meaning | the next base sync |
//! |---|---|---|
//! | `<…>.part` | bytes come in, no sync has been tried | goes on with it in the same process |
//! | `<…>.sync` | all bytes are there, a sync has begun | begins anew |
//! | `<name>` | whole, checked and synced | takes it |

use crate::backup::swap;
use crate::blob::paths;
use crate::directory::{Access, OfflineDirectory};
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::{crashsafe, is_lost_by_disk, FileKind, Open, Vfs, VfsFile};
use crate::wal::history_file::DirectoryHistory;
use crate::wal::{manifest, names};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// What arrives and is not in place yet; ignored by the original.
pub const STAGING_DIR: &str = "replica_staging";

const FOLDER: &str = "base";
/// Bytes that are read at a time when a staged file is checked again.
const READ_BYTES: usize = 256 << 10;

/// Tells this process from those before it, which may have left something.
fn process() -> &'static str {
    static PROCESS: OnceLock<String> = OnceLock::new();
    PROCESS.get_or_init(|| uuid::Uuid::new_v4().simple().to_string())
}

/// Gathers the files of one base sync.
#[derive(Debug)]
pub struct BaseStaging {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    folder: PathBuf,
    current: Option<Incoming>,
    /// Names that are whole and synced.
    whole: BTreeSet<String>,
}

#[derive(Debug)]
struct Incoming {
    name: String,
    path: PathBuf,
    size: u64,
    expected: u32,
    file: Box<dyn VfsFile>,
    written: u64,
    crc: crc32fast::Hasher,
}

/// The name a file is staged under: its own without folders.
fn staged_name(name: &str) -> Option<&str> {
    let is_plain = |name: &str| {
        [names::MANIFEST, names::CATALOG, names::EPOCH].contains(&name)
            || names::is_rotated_epoch(name)
            || names::is_log(name)
    };
    match name.rsplit_once('/') {
        None => is_plain(name).then_some(name),
        Some((_, last)) => {
            let id = paths::id_of(OsStr::new(last))?;
            let expected = paths::file(Path::new(names::BLOB_DIR), id);
            (Path::new(name) == expected).then_some(last)
        }
    }
}

impl BaseStaging {
    /// Opens the folder of the data directory `location`, with whatever an interrupted base sync left.
    pub fn open(vfs: Arc<dyn Vfs>, location: &Path) -> Result<BaseStaging> {
        let folder = location.join(STAGING_DIR).join(FOLDER);
        let failed = |e| Error::io("cannot prepare the directory", &folder, e);
        match vfs.kind(&folder).map_err(failed)? {
            Some(_) => {}
            None => crashsafe::create_dir(&*vfs, &folder).map_err(failed)?,
        }
        Ok(BaseStaging { vfs, location: location.to_owned(), folder, current: None, whole: BTreeSet::new() })
    }

    /// A file that the primary has. Returns from which offset on it is wanted: all of it, the rest, or with `size`
    /// nothing, because it is there, or the directory has the same file.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a name that no data directory has, or one offered before.
    pub fn offer(&mut self, name: &str, size: u64, crc: u32) -> Result<u64> {
        if let Some(current) = &self.current {
            return Err(wrong(name, format!("it is offered while {} is not whole", current.name)));
        }
        let staged = staged_name(name).ok_or_else(|| wrong(name, "no data directory has such a file".to_owned()))?;
        if self.whole.contains(staged) {
            return Err(wrong(name, "it is offered twice".to_owned()));
        }
        if self.has_whole(staged, size, crc)? {
            self.whole.insert(staged.to_owned());
            return Ok(size);
        }
        // The next base sync may have another file of this name.
        let path = self.folder.join(format!("{staged}.{size}-{crc:08x}.{}.part", process()));
        let file = self.vfs.open(&path, Open::Create).map_err(|e| Error::io("cannot create", &path, e))?;
        let mut incoming = Incoming {
            name: staged.to_owned(),
            size,
            expected: crc,
            file,
            written: 0,
            crc: crc32fast::Hasher::new(),
            path,
        };
        incoming.take_up()?;
        let in_place = self.location.join(name);
        if incoming.written == 0 && self.is_same(&in_place, size, crc)? {
            incoming.copy(&*self.vfs, &in_place)?;
        }
        let offset = incoming.written;
        self.current = Some(incoming);
        if offset == size {
            self.file_end()?;
        }
        Ok(offset)
    }

    /// Bytes of the file that was offered last; they come in order.
    pub fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(current) = &mut self.current else {
            return Err(Error::InvalidArgument("base sync: data without a file that is wanted".to_owned()));
        };
        let end = offset.saturating_add(bytes.len() as u64);
        if offset != current.written || end > current.size {
            let (written, size) = (current.written, current.size);
            return Err(wrong(&current.name, format!("expected data from {written} of {size}, found {offset}..{end}")));
        }
        let written = current.file.write_at(offset, bytes);
        written.map_err(|e| Error::io("cannot write", &current.path, e))?;
        current.crc.update(bytes);
        current.written = end;
        Ok(())
    }

    /// All of the file has come: it is checked and synced. After an offer of which nothing was wanted this does
    /// nothing.
    ///
    /// # Errors [`Error::InvalidArgument`] when bytes are missing or wrong; wrong ones are dropped, so that the next
    /// base sync gets the file anew.
    pub fn file_end(&mut self) -> Result<()> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let Incoming { name, path, size, expected, file, written, crc } = current;
        if written != size {
            return Err(wrong(&name, format!("it ends after {written} of {size} bytes")));
        }
        let crc = crc.finalize();
        if crc != expected {
            self.vfs.unlink(&path).map_err(|e| Error::io("cannot delete", &path, e))?;
            return Err(wrong(&name, format!("expected CRC {expected:08x}, found {crc:08x}; it has to come again")));
        }
        let (syncing, whole) = (path.with_extension("sync"), self.folder.join(&name));
        self.vfs.rename(&path, &syncing).map_err(|e| Error::io("cannot rename", &path, e))?;
        file.sync().map_err(|e| Error::io("cannot sync", &syncing, e))?;
        self.vfs.rename(&syncing, &whole).map_err(|e| Error::io("cannot rename", &syncing, e))?;
        self.whole.insert(name);
        Ok(())
    }

    /// Whether an earlier base sync has brought this very file.
    fn has_whole(&self, staged: &str, size: u64, crc: u32) -> Result<bool> {
        self.is_same(&self.folder.join(staged), size, crc)
    }

    fn is_same(&self, path: &Path, size: u64, crc: u32) -> Result<bool> {
        let read = || match self.vfs.open(path, Open::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            opened => {
                let file = opened?;
                let mut found = crc32fast::Hasher::new();
                Ok(file.len()? == size && read_up_to(&*file, size, &mut found)? == size && found.finalize() == crc)
            }
        };
        match read() {
            Err(e) if is_lost_by_disk(&e) => {
                log::warn!("{} cannot be read, and comes anew: {e}", path.display());
                Ok(false)
            }
            read => read.map_err(|e| Error::io("cannot read", path, e)),
        }
    }

    /// Every file has come. Returns where they are staged, each under its own name without folders; what an earlier
    /// base sync left besides is deleted.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when it is not as many as announced, or what came is no data directory.
    pub fn finish(&mut self, files: u64) -> Result<Vec<PathBuf>> {
        if self.current.is_some() || self.whole.len() as u64 != files {
            let found = self.whole.len();
            return Err(Error::InvalidArgument(format!("base sync: expected {files} whole files, found {found}")));
        }
        for needed in [names::MANIFEST, names::CATALOG] {
            if !self.whole.contains(needed) {
                return Err(wrong(needed, "it is missing".to_owned()));
            }
        }
        let failed = |e: io::Error| Error::io("cannot tidy up", &self.folder, e);
        for (name, kind) in self.vfs.names(&self.folder).map_err(failed)? {
            if kind == FileKind::File && !self.whole.contains(&*name.to_string_lossy()) {
                self.vfs.unlink(&self.folder.join(name)).map_err(failed)?;
            }
        }
        self.vfs.sync_dir(&self.folder).map_err(failed)?;
        // An earlier attempt may have failed to make the name of the folder durable.
        self.vfs.sync_dir(crashsafe::parent(&self.folder)).map_err(failed)?;
        Ok(self.whole.iter().map(|name| self.folder.join(name)).collect())
    }
}

impl BaseStaging {
    /// Every file has come: reads them as a start would, before anything else is given up for them. They must be of the
    /// instance `uuid`, and end with an epoch that the primary has stored: `stored` gets it, and says up to where the
    /// primary has said so; it may wait for that.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for what a start would refuse, and for another instance or a later epoch.
    pub fn verify(&mut self, files: u64, uuid: &str, stored: impl FnOnce(Epoch) -> Epoch) -> Result<()> {
        self.finish(files)?;
        let refused = |e| match e {
            e @ Error::Io { .. } => e,
            other => Error::InvalidArgument(format!("base sync: what came cannot be started from: {other}")),
        };
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let directory = OfflineDirectory::open(self.vfs.clone(), &self.folder, Access::Read).map_err(refused)?;
        let recovered = directory.verdict(threads, None)?.outcome.map_err(refused)?;
        let durable = recovered.durable.unwrap_or_default();
        let stored = stored(durable);
        if durable > stored {
            let text = format!("base sync: it ends with epoch {durable}, but the primary has stored {stored} only");
            return Err(Error::InvalidArgument(text));
        }
        let path = self.folder.join(names::MANIFEST);
        let manifest = self.vfs.read(&path, manifest::MAX_BYTES).map_err(|e| Error::io("cannot read", &path, e))?;
        let found = manifest::parse(&manifest).ok().and_then(|manifest| manifest.instance_uuid);
        match found.as_deref() == Some(uuid) {
            true => Ok(()),
            false => Err(Error::InvalidArgument(format!("base sync: expected instance {uuid}, found {found:?}"))),
        }
    }

    /// Every file has come: decides that they, with `history`, are the content of the directory from now on. The next
    /// opening puts them in place; whatever interrupts this, it finds the old content or the new one.
    pub fn install(&mut self, files: u64, history: &DirectoryHistory) -> Result<()> {
        let staged = self.finish(files)?;
        let new = swap::Staging::create(&*self.vfs, &self.location)?;
        for path in staged {
            let target = new.path(path.file_name().unwrap_or_default());
            self.vfs.rename(&path, &target).map_err(|e| Error::io("cannot move", &path, e))?;
        }
        history.save(&*self.vfs, crashsafe::parent(&new.path(OsStr::new(names::HISTORY))))?;
        new.decide()
    }
}

impl Incoming {
    /// Takes up what is there already. A file that cannot be what is offered begins anew.
    fn take_up(&mut self) -> Result<()> {
        let failed = |e| Error::io("cannot read", &self.path, e);
        let len = self.file.len().map_err(failed)?;
        if len <= self.size {
            self.written = read_up_to(&*self.file, len, &mut self.crc).map_err(failed)?;
        }
        let is_other = len > self.size || (len == self.size && self.crc.clone().finalize() != self.expected);
        if is_other {
            self.file.set_len(0).map_err(|e| Error::io("cannot empty", &self.path, e))?;
            (self.written, self.crc) = (0, crc32fast::Hasher::new());
        }
        Ok(())
    }
}

impl Incoming {
    /// Takes all of it from what the directory has under the name: it need not be sent. A copy, because what is in
    /// place may be in the cache of the system only. The caller has checked that it is this very file.
    fn copy(&mut self, vfs: &dyn Vfs, source: &Path) -> Result<()> {
        let from = vfs.open(source, Open::Read).map_err(|e| Error::io("cannot open", source, e))?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let got = from.read_at(self.written, &mut buffer).map_err(|e| Error::io("cannot read", source, e))?;
            let piece = &buffer[..got.min((self.size - self.written) as usize)];
            if piece.is_empty() {
                return Ok(());
            }
            self.file.write_at(self.written, piece).map_err(|e| Error::io("cannot write", &self.path, e))?;
            self.crc.update(piece);
            self.written += piece.len() as u64;
        }
    }
}

/// Reads the beginning of a file, `len` bytes if it has as many; returns how many it has.
fn read_up_to(file: &dyn VfsFile, len: u64, crc: &mut crc32fast::Hasher) -> io::Result<u64> {
    let mut buffer = vec![0; READ_BYTES.min(len as usize)];
    let mut read = 0;
    while read < len {
        let wanted = (len - read).min(READ_BYTES as u64) as usize;
        let got = file.read_at(read, &mut buffer[..wanted])?;
        if got == 0 {
            break;
        }
        crc.update(&buffer[..got]);
        read += got as u64;
    }
    Ok(read)
}

fn wrong(name: &str, what: String) -> Error {
    Error::InvalidArgument(format!("base sync, file {}: {what}", name.escape_default()))
}

#[cfg(test)]
#[path = "staging_tests.rs"]
mod tests;

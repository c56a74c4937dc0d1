// SPDX-License-Identifier: Apache-2.0
//! A base sync as it arrives: whole files, gathered in a folder of their own and checked, so that an interrupted base
//! sync goes on where it stopped. What is in place in the directory is not touched.

use super::STAGING_DIR;
use crate::backup::swap;
use crate::blob::paths;
use crate::error::{Error, Result};
use crate::replication::state_file::{self, ReplicationState};
use crate::vfs::{crashsafe, FileKind, Open, Vfs, VfsFile};
use crate::wal::names;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FOLDER: &str = "base";
/// Bytes that are read at a time when a staged file is checked again.
const READ_BYTES: usize = 256 << 10;

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
    /// nothing, because it is there.
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
        let path = self.folder.join(staged);
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

    /// All of the file has come: it is checked and synced. After an offer of which nothing was wanted this does nothing.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when bytes are missing or wrong; wrong ones are dropped, so that the next base sync gets
    /// the file anew.
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
            file.set_len(0).map_err(|e| Error::io("cannot empty", &path, e))?;
            return Err(wrong(&name, format!("expected CRC {expected:08x}, found {crc:08x}; it has to come again")));
        }
        // Also of an earlier process, whose writes may be in the cache only.
        file.sync().map_err(|e| Error::io("cannot sync", &path, e))?;
        self.whole.insert(name);
        Ok(())
    }

    /// Every file has come. Returns where they are staged, each under its own name without folders; what an earlier base
    /// sync left besides is deleted.
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
        Ok(self.whole.iter().map(|name| self.folder.join(name)).collect())
    }
}

impl BaseStaging {
    /// Every file has come: decides that they, with `state`, are the content of the directory from now on. The next
    /// opening puts them in place; whatever interrupts this, it finds the old content or the new one.
    pub fn install(&mut self, files: u64, state: &ReplicationState) -> Result<()> {
        let staged = self.finish(files)?;
        let new = swap::Staging::create(&*self.vfs, &self.location)?;
        for path in staged {
            let target = new.path(path.file_name().unwrap_or_default());
            self.vfs.rename(&path, &target).map_err(|e| Error::io("cannot move", &path, e))?;
        }
        state.save(&*self.vfs, crashsafe::parent(&new.path(OsStr::new(state_file::NAME))))?;
        new.decide()
    }
}

impl Incoming {
    /// Takes up what is there already. A file that cannot be what is offered begins anew.
    fn take_up(&mut self) -> Result<()> {
        let failed = |path: &Path, e| Error::io("cannot read", path, e);
        let len = self.file.len().map_err(|e| failed(&self.path, e))?;
        if len <= self.size {
            let mut buffer = vec![0; READ_BYTES.min(len as usize)];
            while self.written < len {
                let wanted = (len - self.written).min(READ_BYTES as u64) as usize;
                let got = self.file.read_at(self.written, &mut buffer[..wanted]).map_err(|e| failed(&self.path, e))?;
                if got == 0 {
                    break;
                }
                self.crc.update(&buffer[..got]);
                self.written += got as u64;
            }
        }
        let is_other = len > self.size || (len == self.size && self.crc.clone().finalize() != self.expected);
        if is_other {
            self.file.set_len(0).map_err(|e| Error::io("cannot empty", &self.path, e))?;
            (self.written, self.crc) = (0, crc32fast::Hasher::new());
        }
        Ok(())
    }
}

fn wrong(name: &str, what: String) -> Error {
    Error::InvalidArgument(format!("base sync, file {}: {what}", name.escape_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Fault, Loss, SimFs};

    const DIR: &str = "/log";

    fn files() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            (names::MANIFEST, b"{}".to_vec()),
            (names::CATALOG, b"catalog".to_vec()),
            ("epoch", vec![4; 9]),
            ("pwal_0000.01795356604107.0", vec![5; 3000]),
            ("pwal_0001", Vec::new()),
            ("blob/dir_07/0000000000000007.blob", vec![6; 1200]),
        ]
    }

    fn fresh() -> SimFs {
        let fs = SimFs::new();
        fs.put(&Path::new(DIR).join(STAGING_DIR).join("x"), b"").unwrap();
        fs
    }

    /// Sends what is wanted; returns the number of bytes that it took.
    fn sync(fs: &SimFs, files: &[(&str, Vec<u8>)]) -> Result<(Vec<PathBuf>, u64)> {
        let mut staging = BaseStaging::open(Arc::new(fs.clone()), Path::new(DIR))?;
        let mut sent = 0;
        for (name, content) in files {
            let mut offset = staging.offer(name, content.len() as u64, crc32fast::hash(content))?;
            while offset < content.len() as u64 {
                let piece = &content[offset as usize..content.len().min(offset as usize + 700)];
                staging.data(offset, piece)?;
                offset += piece.len() as u64;
                sent += piece.len() as u64;
            }
            staging.file_end()?;
        }
        Ok((staging.finish(files.len() as u64)?, sent))
    }

    fn check(fs: &SimFs, staged: &[PathBuf], files: &[(&str, Vec<u8>)]) {
        let found = fs.reboot(Loss::DropUnsynced).files();
        for (name, content) in files {
            let last = name.rsplit('/').next().unwrap();
            let path = staged.iter().find(|path| path.ends_with(last)).expect("staged");
            assert_eq!(found.get(path), Some(content), "{name}");
        }
        assert_eq!(staged.len(), files.len());
    }

    #[test]
    fn a_base_sync_interrupted_anywhere_is_completed_with_the_right_content() {
        let files = files();
        let fs = fresh();
        let before = fs.operations();
        sync(&fs, &files).unwrap();
        for n in before + 1..=fs.operations() {
            for fault in [Fault::PowerCut, Fault::SyncLoses, Fault::NoSpace] {
                let fs = fresh();
                fs.fail_at(n, fault);
                let _ = sync(&fs, &files);
                let images =
                    [Loss::DropUnsynced, Loss::KeepUnsynced, Loss::Torn { seed: n }].map(|loss| fs.reboot(loss));
                for image in images {
                    // Content that a torn write spoilt is found out and comes again with the next attempt.
                    let (staged, _) = (0..files.len()).find_map(|_| sync(&image, &files).ok()).expect("completed");
                    check(&image, &staged, &files);
                }
            }
        }
    }

    #[test]
    fn what_has_come_is_not_sent_again_and_what_has_changed_is() {
        let (fs, mut files) = (fresh(), files());
        let all: u64 = files.iter().map(|(_, content)| content.len() as u64).sum();
        assert_eq!(sync(&fs, &files).unwrap().1, all);
        assert_eq!(sync(&fs, &files).unwrap().1, 0);
        files[3].1 = vec![8; 3000];
        files.remove(4);
        let (staged, sent) = sync(&fs, &files).unwrap();
        assert_eq!(sent, 3000);
        check(&fs, &staged, &files);
        assert!(!fs.files().keys().any(|path| path.ends_with("pwal_0001")), "what is not part of it any more is gone");
    }

    #[test]
    fn names_that_no_data_directory_has_are_refused() {
        let mut staging = BaseStaging::open(Arc::new(fresh()), Path::new(DIR)).unwrap();
        let bad = ["", "x", "..", "../epoch", "/epoch", "pwal_0000/..", "blob/dir_08/0000000000000007.blob", "a/epoch"];
        for name in bad.into_iter().chain(["blob/dir_07/../dir_07/0000000000000007.blob", "epochs", "pwal_/x"]) {
            assert!(matches!(staging.offer(name, 1, 0), Err(Error::InvalidArgument(_))), "{name}");
        }
    }

    #[test]
    fn missing_and_wrong_bytes_are_found_out() {
        let fs = fresh();
        let mut staging = BaseStaging::open(Arc::new(fs.clone()), Path::new(DIR)).unwrap();
        assert_eq!(staging.offer("epoch", 9, 1).unwrap(), 0);
        assert!(staging.offer("pwal_0000", 9, 1).is_err(), "one file at a time");
        assert!(staging.data(1, &[0]).is_err(), "a gap");
        assert!(staging.data(0, &[0; 10]).is_err(), "more than announced");
        staging.data(0, &[0; 9]).unwrap();
        assert!(staging.file_end().is_err(), "another content");
        assert_eq!(staging.offer("epoch", 9, crc32fast::hash(&[1; 9])).unwrap(), 0, "it comes anew");
        staging.data(0, &[1; 8]).unwrap();
        assert!(staging.file_end().is_err(), "a byte is missing");
        assert!(staging.finish(1).is_err());
    }
}

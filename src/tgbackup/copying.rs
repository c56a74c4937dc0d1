// SPDX-License-Identifier: Apache-2.0
//! Reads files with their checksums, and copies them.

use super::manifest::hex;
use crate::error::{Error, Result};
use crate::vfs::{Open, Vfs, VfsFile};
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 256 << 10;
/// A copy is synced whenever so much of it is new, so that no sync takes long.
const SYNC_BYTES: u64 = 64 << 20;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub bytes: u64,
    pub sha256: String,
}

/// A file to read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    pub vfs: &'a dyn Vfs,
    pub path: &'a Path,
    /// Only so many bytes; all when there is none.
    pub bytes: Option<u64>,
}

/// Is told how many bytes of a file have been read, and may end the reading.
pub type Watch<'a> = &'a mut dyn FnMut(usize) -> Result<()>;

impl Reading<'_> {
    /// What the file holds.
    pub fn content(&self, watch: Watch<'_>) -> Result<Content> {
        self.read(watch, |_, _| Ok(()))
    }

    /// Copies it to a new file, whose content is synced when this returns.
    pub fn copy(&self, to: &dyn Vfs, target: &Path, watch: Watch<'_>) -> Result<Content> {
        let failed = |action: &'static str| move |e| Error::io(action, target, e);
        let file = to.open(target, Open::New).map_err(failed("cannot create"))?;
        let mut synced = 0;
        let content = self.read(watch, |offset, piece| {
            file.write_at(offset, piece).map_err(failed("cannot write"))?;
            let end = offset + piece.len() as u64;
            if end - synced >= SYNC_BYTES {
                sync(&*file, synced, end).map_err(failed("cannot sync"))?;
                synced = end;
            }
            Ok(())
        })?;
        sync(&*file, synced, content.bytes).map_err(failed("cannot sync"))?;
        Ok(content)
    }

    fn read(&self, watch: Watch<'_>, mut with: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<Content> {
        let failed = |action: &'static str| move |e| Error::io(action, self.path, e);
        let file = self.vfs.open(self.path, Open::Read).map_err(failed("cannot open"))?;
        let (mut hash, mut offset, mut buffer) = (Sha256::new(), 0_u64, vec![0; PIECE_BYTES]);
        loop {
            let left = self.bytes.map_or(u64::MAX, |bytes| bytes - offset);
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let got = file.read_at(offset, &mut buffer[..wanted]).map_err(failed("cannot read"))?;
            with(offset, &buffer[..got])?;
            hash.update(&buffer[..got]);
            offset += got as u64;
            watch(offset as usize)?;
            if got < wanted || wanted == 0 {
                break;
            }
        }
        match self.bytes {
            Some(bytes) if offset < bytes => {
                let text = format!("it ends after {offset} bytes, {bytes} were expected");
                Err(failed("cannot read")(io::Error::new(io::ErrorKind::UnexpectedEof, text)))
            }
            _ => Ok(Content { bytes: offset, sha256: hex(&hash.finalize()) }),
        }
    }
}

fn sync(file: &dyn VfsFile, from: u64, to: u64) -> io::Result<()> {
    file.sync()?;
    file.release_cache(from, to - from);
    Ok(())
}

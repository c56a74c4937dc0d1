// SPDX-License-Identifier: Apache-2.0
//! How the content of a BLOB comes into its file: written, copied, moved or shared, and synced before it has an id.

use super::{shut_down, BlobStore};
use crate::blob::paths::failed;
use crate::error::Result;
use crate::vfs::{crashsafe, Open, VfsFile};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 256 << 10;

impl BlobStore {
    /// Deletes what a failed registration left. The error that made it fail is the one to report, and a start deletes
    /// what stays.
    fn discard(&self, path: &Path) {
        let _ = self.vfs.unlink(path);
    }

    /// Creates a file that must not exist, lets `fill` write it, and syncs the content. Nothing is left of a failure.
    pub(super) fn create(&self, path: &Path, fill: impl FnOnce(&dyn VfsFile) -> Result<()>) -> Result<()> {
        let file = self.vfs.open(path, Open::New).map_err(|e| failed("cannot create", path, e))?;
        let written = fill(&*file).and_then(|()| file.sync().map_err(|e| failed("cannot sync", path, e)));
        if written.is_err() {
            self.discard(path);
        }
        written
    }

    pub(super) fn copy(&self, source: &Path, path: &Path) -> Result<()> {
        let from = self.vfs.open(source, Open::Read).map_err(|e| failed("cannot open", source, e))?;
        self.create(path, |file| {
            let mut buffer = vec![0; COPY_BYTES];
            let mut offset = 0;
            loop {
                if self.stopping.load(SeqCst) {
                    return Err(shut_down());
                }
                let got = from.read_at(offset, &mut buffer).map_err(|e| failed("cannot read", source, e))?;
                if got > 0 {
                    file.write_at(offset, &buffer[..got]).map_err(|e| failed("cannot write", path, e))?;
                }
                if got < buffer.len() {
                    return Ok(());
                }
                offset += got as u64;
            }
        })
    }

    /// Syncs the content of a file that somebody else has written.
    fn sync_content(&self, path: &Path) -> Result<()> {
        let sync = || self.vfs.open(path, Open::Read)?.sync();
        sync().map_err(|e| failed("cannot sync", path, e))
    }

    /// Moves `source` to `path`. Its writer need not have synced it (W14), so that is done first, while a failure still
    /// changes nothing.
    pub(super) fn take_over(&self, source: &Path, path: &Path) -> Result<()> {
        self.sync_content(source)?;
        self.check_free(path)?;
        match self.vfs.rename(source, path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
                self.copy(source, path)?;
                // There is no moment without a durable name for the content.
                if let Err(e) = self.sync_directory(crashsafe::parent(path)) {
                    self.discard(path);
                    return Err(e);
                }
                if let Err(e) = self.vfs.unlink(source) {
                    log::warn!("{}", failed("copied to another file system, but cannot delete", source, e));
                }
                Ok(())
            }
            Err(e) => Err(failed("cannot move", source, e)),
        }
    }

    /// A rename would replace what is there, whoever put it there.
    fn check_free(&self, path: &Path) -> Result<()> {
        match self.vfs.kind(path).map_err(|e| failed("cannot look at", path, e))? {
            None => Ok(()),
            Some(_) => Err(failed("cannot create", path, io::Error::from_raw_os_error(libc::EEXIST))),
        }
    }

    /// Gives the content of `reference` a second name, or a copy where the file system cannot. The content is synced
    /// again: who wrote it may have been the original, which does not sync moved files.
    pub(super) fn share(&self, reference: &Path, path: &Path) -> Result<()> {
        self.sync_content(reference)?;
        match self.vfs.hard_link(reference, path) {
            Ok(()) => Ok(()),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EMLINK | libc::EPERM | libc::EOPNOTSUPP)) => {
                self.copy(reference, path)
            }
            Err(e) => Err(failed("cannot link", path, e)),
        }
    }
}

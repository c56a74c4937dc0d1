// SPDX-License-Identifier: Apache-2.0
//! The BLOBs that one transaction registers.

use super::store::{BlobStore, Content};
use crate::error::{Error, Result};
use crate::lock_order::{Mutex, Rank};
use crate::types::BlobId;
use std::path::Path;
use std::sync::Arc;

/// The BLOBs of one transaction. Registrations may come from several threads at once; a release belongs after them. A
/// pool that is dropped without a release leaves its files to the next start.
#[derive(Debug)]
pub struct BlobPool {
    store: Arc<BlobStore>,
    /// `None` after the release.
    ids: Mutex<Option<Vec<BlobId>>>,
}

impl BlobPool {
    /// A pool for the BLOBs of one transaction.
    pub fn new(store: Arc<BlobStore>) -> BlobPool {
        BlobPool { store, ids: Mutex::new(Rank::BlobPool, Some(Vec::new())) }
    }

    /// Registers `data` as a new BLOB. Its content is on the disk when this returns, its name when a session that
    /// refers to it has ended.
    ///
    /// # Errors [`Error::Blob`] when the disk refuses; [`Error::WrongState`] after the release, before `ready()` or
    /// after a shutdown.
    pub fn register_data(&self, data: &[u8]) -> Result<BlobId> {
        self.register(Content::Data(data))
    }

    /// Registers the content of a file as a new BLOB. A temporary file is moved, also to another file system; another
    /// one is copied. Errors as for [`Self::register_data`]; then the file is where it was.
    pub fn register_file(&self, file: &Path, is_temporary: bool) -> Result<BlobId> {
        self.register(if is_temporary { Content::Move(file) } else { Content::Copy(file) })
    }

    /// Registers a new BLOB with the content of `reference`, without copying it.
    ///
    /// # Errors
    /// [`Error::UnknownBlob`] when there is no such BLOB; others as for [`Self::register_data`].
    pub fn duplicate(&self, reference: BlobId) -> Result<BlobId> {
        self.register(Content::Share(reference))
    }

    fn register(&self, content: Content<'_>) -> Result<BlobId> {
        if self.ids.lock().is_none() {
            return Err(released());
        }
        let id = self.store.register(content)?;
        if let Some(ids) = &mut *self.ids.lock() {
            ids.push(id);
            return Ok(id);
        }
        self.store.release(&[id]);
        Err(released())
    }

    /// Deletes the BLOBs of this pool that no entry refers to. Calling it again does nothing.
    pub fn release(&self) {
        if let Some(ids) = self.ids.lock().take() {
            self.store.release(&ids);
        }
    }
}

impl Drop for BlobPool {
    fn drop(&mut self) {
        if let Some(ids) = self.ids.get_mut().take() {
            self.store.disown(&ids);
        }
    }
}

fn released() -> Error {
    Error::WrongState("This pool is already released.".to_owned())
}

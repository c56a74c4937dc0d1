// SPDX-License-Identifier: Apache-2.0
//! Changes of names and whole files that a power cut leaves either undone or done. Each function says which sync
//! protects what; nobody else renames or replaces a file of the data directory.

use super::interface::{Open, Vfs, VfsFile};
use std::io;
use std::path::Path;

/// The directory that holds `path`.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Puts `bytes` in place of the file at `path`: the content is synced under `temporary` before the rename makes it
/// authoritative, and the directory is synced before this returns.
pub fn replace(vfs: &dyn Vfs, temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(vfs, &*vfs.open(temporary, Open::Truncate)?, temporary, path, bytes)
}

/// The same with `file`, which was opened empty at `temporary`. It is the file at `path` afterwards.
pub fn replace_with(vfs: &dyn Vfs, file: &dyn VfsFile, temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    file.write_at(0, bytes)?;
    file.sync()?;
    rename(vfs, temporary, path)
}

/// Writes a whole file and syncs its content, but not its name.
pub fn write_new(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = vfs.open(path, Open::Truncate)?;
    file.write_at(0, bytes)?;
    file.sync()
}

/// Renames inside one directory and syncs the directory.
pub fn rename(vfs: &dyn Vfs, from: &Path, to: &Path) -> io::Result<()> {
    vfs.rename(from, to)?;
    vfs.sync_dir(parent(to))
}

/// Deletes a file and syncs its directory; a file that is not there is no error.
pub fn unlink(vfs: &dyn Vfs, path: &Path) -> io::Result<()> {
    match vfs.unlink(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    vfs.sync_dir(parent(path))
}

/// Creates a directory and syncs its parent, so that it outlives a power cut.
pub fn create_dir(vfs: &dyn Vfs, dir: &Path) -> io::Result<()> {
    vfs.create_dir(dir)?;
    vfs.sync_dir(parent(dir))
}

// SPDX-License-Identifier: Apache-2.0
//! Where BLOBs lie (disk format §1.1): `blob/dir_DD/<16 hexadecimal digits>.blob`, DD being the id modulo 100.

use crate::error::Error;
use crate::types::BlobId;
use crate::vfs::{FileKind, Vfs};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// Directories below `blob/` that BLOBs are spread over.
pub const DIRECTORIES: usize = 100;
/// Directories are searched down to this depth, so that a link to a directory above ends somewhere.
const DEPTH_MAX: usize = 16;

const SUFFIX: &str = ".blob";

/// Which of the directories a BLOB belongs to.
pub fn directory_number(id: BlobId) -> usize {
    (id.0 % DIRECTORIES as u64) as usize
}

/// A set of directories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directories(u128);

impl Directories {
    /// Those of these BLOBs.
    pub fn of(ids: &[BlobId]) -> Directories {
        Directories(ids.iter().fold(0, |set, id| set | 1 << directory_number(*id)))
    }

    /// Those of either set.
    pub fn with(self, other: Directories) -> Directories {
        Directories(self.0 | other.0)
    }

    /// Their numbers.
    pub fn numbers(self) -> impl Iterator<Item = usize> {
        (0..DIRECTORIES).filter(move |number| self.0 >> number & 1 == 1)
    }
}

/// The directory of a BLOB; `root` is `blob/`.
pub fn directory(root: &Path, id: BlobId) -> PathBuf {
    root.join(format!("dir_{:02}", directory_number(id)))
}

/// The file of a BLOB.
pub fn file(root: &Path, id: BlobId) -> PathBuf {
    directory(root, id).join(format!("{:016x}{SUFFIX}", id.0))
}

/// The BLOB that a file of this name holds.
pub fn id_of(name: &OsStr) -> Option<BlobId> {
    let digits = name.to_str()?.strip_suffix(SUFFIX)?;
    if digits.len() != 16 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(BlobId)
}

/// Shows the id of every BLOB file below `root` to `visit`, in no order. A missing `root` has none.
pub fn visit(vfs: &dyn Vfs, root: &Path, mut visit: impl FnMut(BlobId)) -> io::Result<()> {
    let mut open = vec![(root.to_owned(), 0)];
    while let Some((dir, depth)) = open.pop() {
        let names = match vfs.names(&dir) {
            Err(e) if depth == 0 && e.kind() == io::ErrorKind::NotFound => return Ok(()),
            names => names?,
        };
        for (name, kind) in names {
            match (kind, id_of(&name)) {
                (FileKind::File, Some(id)) => visit(id),
                (FileKind::Directory, _) if depth < DEPTH_MAX => open.push((dir.join(name), depth + 1)),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The error for an operation on a BLOB file.
pub(super) fn failed(action: &str, path: &Path, source: io::Error) -> Error {
    Error::Blob { message: format!("{action}: {}", path.display()), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::SimFs;

    #[test]
    fn a_path_has_the_id_modulo_100_and_sixteen_digits() {
        let path = |id| file(Path::new("l/blob"), BlobId(id)).display().to_string();
        assert_eq!(path(255), "l/blob/dir_55/00000000000000ff.blob");
        assert_eq!(path(u64::MAX), "l/blob/dir_15/ffffffffffffffff.blob");
    }

    #[test]
    fn only_sixteen_digits_of_either_case_name_a_blob() {
        assert_eq!(id_of(OsStr::new("00000000000000fF.blob")), Some(BlobId(255)));
        for other in ["ff.blob", "00000000000000ff", "+0000000000000ff.blob", "00000000000000ff.BLOB", "x.blob"] {
            assert_eq!(id_of(OsStr::new(other)), None, "{other}");
        }
    }

    #[test]
    fn files_are_found_at_any_depth() {
        let fs = SimFs::new();
        let mut found = Vec::new();
        let root = Path::new("/l/blob");
        visit(&fs, root, |id| panic!("{id} is not there")).unwrap();
        for file in ["dir_01/0000000000000001.blob", "a/b/000000000000000a.blob", "0000000000000003.blob", "dir_02/x"] {
            fs.put(&root.join(file), b"").unwrap();
        }
        visit(&fs, root, |id| found.push(id.0)).unwrap();
        found.sort_unstable();
        assert_eq!(found, [1, 3, 10]);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! `replica_directory`: a number that only this directory has, made once. A primary with several replicas counts each
//! directory once by it, however it is reached. A copy of the directory has it as well, and counts with it as one: the
//! safe side. Without the file the directory gets another number.

use crate::error::{Error, Result};
use crate::replication::secret;
use crate::vfs::{crashsafe, Vfs};
use std::io::ErrorKind;
use std::path::Path;

/// Name of the file in the data directory.
pub const NAME: &str = "replica_directory";
const TEMPORARY: &str = "replica_directory.tmp";
const BYTES_MAX: u64 = 64;

/// The number of the directory; made and durable when it has none. 0, which says nothing, when the disk fails.
pub fn load_or_make(vfs: &dyn Vfs, location: &Path) -> u64 {
    find_or_make(vfs, location).unwrap_or_else(|e| {
        log::warn!("{e}: a primary cannot tell this directory from others and counts it with those as one");
        0
    })
}

fn find_or_make(vfs: &dyn Vfs, location: &Path) -> Result<u64> {
    let path = location.join(NAME);
    match vfs.read(&path, BYTES_MAX) {
        Ok(bytes) => match parse(&bytes) {
            Some(id) => return Ok(id),
            None => log::warn!("{} has no number of 16 hexadecimal digits: another is made", path.display()),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("cannot read", &path, e)),
    }
    let failed = |e| Error::io("cannot write", &path, e);
    let id = u64::from_le_bytes(secret::random().map_err(failed)?).max(1);
    crashsafe::replace(vfs, &location.join(TEMPORARY), &path, format!("{id:016x}\n").as_bytes()).map_err(failed)?;
    Ok(id)
}

fn parse(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end();
    let is_number = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_number.then(|| u64::from_str_radix(text, 16).ok()).flatten().filter(|&id| id != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Loss, SimFs};

    #[test]
    fn a_directory_keeps_its_number_also_over_a_power_cut_and_another_has_another() {
        let fs = SimFs::new();
        let [a, b] = ["/a", "/b"].map(Path::new);
        [a, b].iter().for_each(|dir| crashsafe::create_dir(&fs, dir).unwrap());
        let id = load_or_make(&fs, a);
        assert_ne!(id, load_or_make(&fs, b));
        let fs = fs.reboot(Loss::DropUnsynced);
        assert_eq!(load_or_make(&fs, a), id);
        fs.put(&a.join(NAME), b"not a number").unwrap();
        let other = load_or_make(&fs, a);
        assert!(other != id && load_or_make(&fs, a) == other);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! `replication_confirmed`: the last epoch that a replica of the protocol of the original was known to have. The
//! protocol lets neither side ask the other, so this is all that a later run of the primary has to go by. Runs of the
//! native protocol note as well what their replicas have. The file may be behind the truth, then sessions are sent
//! twice, which does no harm; it is never ahead of it. The original ignores it.

use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::{crashsafe, Vfs};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::Path;

/// Name of the file in the data directory.
pub const NAME: &str = "replication_confirmed";
const TEMPORARY: &str = "replication_confirmed.tmp";
const FORMAT: u32 = 1;
const BYTES_MAX: u64 = 1 << 12;

#[derive(Serialize, Deserialize)]
struct Content {
    format: u32,
    epoch: u64,
}

/// Reads the file; `None` when there is none: no run has replicated.
///
/// # Errors
/// [`Error::BrokenMetadata`] for a file that is not one of ours: nobody may guess what a replica has.
pub fn load(vfs: &dyn Vfs, location: &Path) -> Result<Option<Epoch>> {
    let path = location.join(NAME);
    let bytes = match vfs.read(&path, BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("cannot read", &path, e)),
    };
    match serde_json::from_slice::<Content>(&bytes) {
        Ok(Content { format: FORMAT, epoch }) => Ok(Some(Epoch(epoch))),
        found => {
            let reason =
                found.map_or_else(|e| e.to_string(), |c| format!("format {FORMAT} expected, found {}", c.format));
            Err(Error::BrokenMetadata(format!(
                "{} cannot be used ({reason}): copy the data directory to the replica, then delete this file",
                path.display()
            )))
        }
    }
}

/// Puts the file in place, durably.
pub fn save(vfs: &dyn Vfs, location: &Path, epoch: Epoch) -> Result<()> {
    let path = location.join(NAME);
    let bytes = format!("{{\"format\":{FORMAT},\"epoch\":{epoch}}}\n");
    crashsafe::replace(vfs, &location.join(TEMPORARY), &path, bytes.as_bytes())
        .map_err(|e| Error::io("cannot write", &path, e))
}

/// Notes what the replicas of another protocol have, for a later run by this one. A file that cannot be used is left
/// for that run to refuse.
///
/// # Errors
/// [`Error::Io`].
pub fn note(vfs: &dyn Vfs, location: &Path, epoch: Epoch) -> Result<()> {
    match load(vfs, location) {
        Ok(Some(noted)) if noted == epoch => Ok(()),
        Err(Error::BrokenMetadata(_)) => Ok(()),
        Ok(_) => save(vfs, location, epoch),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Open, SimFs};

    #[test]
    fn what_was_saved_is_read_and_what_is_torn_is_refused_by_name() {
        let fs = SimFs::new();
        let location = Path::new("/log");
        fs.create_dir(location).unwrap();
        assert_eq!(load(&fs, location).unwrap(), None);
        save(&fs, location, Epoch(7)).unwrap();
        save(&fs, location, Epoch(9)).unwrap();
        assert_eq!(load(&fs, location).unwrap(), Some(Epoch(9)));
        fs.open(&location.join(NAME), Open::Existing).unwrap().set_len(5).unwrap();
        let refused = load(&fs, location).unwrap_err().to_string();
        assert!(refused.contains(NAME), "{refused}");
        note(&fs, location, Epoch(3)).unwrap();
        assert!(load(&fs, location).is_err(), "what cannot be used is not made good by another protocol");
    }
}

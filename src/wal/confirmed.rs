// SPDX-License-Identifier: Apache-2.0
//! `replication_confirmed`: the last epoch that a replica of the protocol of the original was known to have, and where
//! that is far behind, up to which one it can have more. The protocol lets neither side ask the other, so this is all
//! that a later run of the primary has to go by. Runs of the native protocol note as well what their replicas have. The
//! first epoch may be behind the truth, then sessions are sent twice, which does no harm; it is never ahead of it. The
//! original ignores the file.

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    set_back: bool,
}

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The replica has everything up to it.
    pub confirmed: Epoch,
    /// No group commit of a later epoch was ever sent; `None` when that is not known.
    pub asked: Option<Epoch>,
    /// The directory was set back to a state before that epoch: the replica has another past, whatever is written now.
    pub set_back: bool,
}

/// What the file says, and whether the last attempt to change it failed.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) noted: Noted,
    pub(crate) failed: bool,
}

/// Reads the file; `None` when there is none: no run has replicated.
///
/// # Errors
/// [`Error::BrokenMetadata`] for a file that is not one of ours: nobody may guess what a replica has.
pub fn load(vfs: &dyn Vfs, location: &Path) -> Result<Option<Noted>> {
    let path = location.join(NAME);
    let bytes = match vfs.read(&path, BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("cannot read", &path, e)),
    };
    match serde_json::from_slice::<Content>(&bytes) {
        Ok(Content { format: FORMAT, epoch, asked, set_back }) => {
            Ok(Some(Noted { confirmed: Epoch(epoch), asked: asked.map(Epoch), set_back }))
        }
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
pub fn save(vfs: &dyn Vfs, location: &Path, noted: Noted) -> Result<()> {
    let path = location.join(NAME);
    let Noted { confirmed, asked, set_back } = noted;
    let content = Content { format: FORMAT, epoch: confirmed.0, asked: asked.map(|asked| asked.0), set_back };
    let written = serde_json::to_vec(&content).map_err(std::io::Error::from).and_then(|mut bytes| {
        bytes.push(b'\n');
        crashsafe::replace(vfs, &location.join(TEMPORARY), &path, &bytes)
    });
    written.map_err(|e| Error::io("cannot write", &path, e))
}

/// Notes what the replicas of another protocol have, for a later run by this one. What that run has to refuse is left
/// to it.
///
/// # Errors
/// [`Error::Io`].
pub fn note(vfs: &dyn Vfs, location: &Path, confirmed: Epoch) -> Result<()> {
    let now = Noted { confirmed, ..Noted::default() };
    match load(vfs, location) {
        Ok(Some(noted)) if noted.set_back || noted == now => Ok(()),
        Err(Error::BrokenMetadata(_)) => Ok(()),
        Ok(_) => save(vfs, location, now),
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
        let known = |confirmed, asked: Option<u64>, set_back| Noted {
            confirmed: Epoch(confirmed),
            asked: asked.map(Epoch),
            set_back,
        };
        for noted in [known(7, None, true), known(9, Some(12), false), known(9, None, false)] {
            save(&fs, location, noted).unwrap();
            assert_eq!(load(&fs, location).unwrap(), Some(noted));
        }
        fs.open(&location.join(NAME), Open::Existing).unwrap().set_len(5).unwrap();
        let refused = load(&fs, location).unwrap_err().to_string();
        assert!(refused.contains(NAME), "{refused}");
        note(&fs, location, Epoch(3)).unwrap();
        assert!(load(&fs, location).is_err(), "what cannot be used is not made good by another protocol");
        save(&fs, location, known(7, None, true)).unwrap();
        note(&fs, location, Epoch(3)).unwrap();
        assert_eq!(load(&fs, location).unwrap(), Some(known(7, None, true)), "nor is a replica with another past");
    }
}

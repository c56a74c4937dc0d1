// SPDX-License-Identifier: Apache-2.0
//! `replica_versions`: the GC boundary and the safe snapshot that the primary switched to last, for the replica's own
//! compaction and its status. Both only grow. A file that is a little old or lost does no harm: a smaller boundary lets
//! fewer BLOBs be deleted, and each session of a primary begins with the present ones. The original ignores it.

use crate::error::{Error, Result};
use crate::lock_order::{Mutex, Rank};
use crate::types::WriteVersion;
use crate::vfs::{crashsafe, Vfs};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::Path;

/// Name of the file in the data directory.
pub const NAME: &str = "replica_versions";
const TEMPORARY: &str = "replica_versions.tmp";
const FORMAT: u32 = 1;
const BYTES_MAX: u64 = 4096;

/// What the primary switched to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchedVersions {
    /// Nobody reads versions below this one, but for the newest of a key.
    pub boundary: Option<WriteVersion>,
    pub safe_snapshot: Option<WriteVersion>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    format: u32,
    /// The versions of another instance do not count.
    instance_uuid: String,
    #[serde(flatten)]
    versions: SwitchedVersions,
}

/// What the file of an instance says; nothing when there is none, or none that can be used.
pub fn load(vfs: &dyn Vfs, location: &Path, uuid: &str) -> SwitchedVersions {
    let path = location.join(NAME);
    let read = match vfs.read(&path, BYTES_MAX) {
        Err(e) if e.kind() == ErrorKind::NotFound => return SwitchedVersions::default(),
        Err(e) => Err(e.to_string()),
        Ok(bytes) => serde_json::from_slice::<Content>(&bytes).map_err(|e| e.to_string()),
    };
    match read {
        Ok(Content { format: FORMAT, instance_uuid, versions }) if instance_uuid == uuid => versions,
        Ok(Content { format: FORMAT, .. }) => SwitchedVersions::default(),
        other => {
            let reason =
                other.map_or_else(|e| e, |found| format!("format {FORMAT} was expected, found {}", found.format));
            log::warn!("{} is not used ({reason}): the primary tells the versions anew", path.display());
            SwitchedVersions::default()
        }
    }
}

/// The versions in memory, and whether the file has them.
#[derive(Debug)]
pub(super) struct Versions(Mutex<State>);

#[derive(Debug)]
struct State {
    now: SwitchedVersions,
    saved: SwitchedVersions,
}

impl Versions {
    pub(super) fn new(saved: SwitchedVersions) -> Versions {
        Versions(Mutex::new(Rank::Versions, State { now: saved, saved }))
    }

    pub(super) fn now(&self) -> SwitchedVersions {
        self.0.lock().now
    }

    /// Takes note of a switch; a smaller version changes nothing.
    pub(super) fn raise(&self, to: SwitchedVersions) {
        let now = &mut self.0.lock().now;
        now.boundary = now.boundary.max(to.boundary);
        now.safe_snapshot = now.safe_snapshot.max(to.safe_snapshot);
    }

    /// Forgets everything.
    pub(super) fn reset(&self) {
        self.0.lock().now = SwitchedVersions::default();
    }

    /// Puts the file in place durably, unless it says the same.
    pub(super) fn save(&self, vfs: &dyn Vfs, location: &Path, uuid: &str) -> Result<()> {
        let mut state = self.0.lock();
        if state.now == state.saved {
            return Ok(());
        }
        let content = Content { format: FORMAT, instance_uuid: uuid.to_owned(), versions: state.now };
        let mut bytes = serde_json::to_vec(&content).expect("numbers and words are always JSON");
        bytes.push(b'\n');
        let path = location.join(NAME);
        let replaced = crashsafe::replace(vfs, &location.join(TEMPORARY), &path, &bytes);
        replaced.map_err(|e| Error::io("cannot write", &path, e))?;
        state.saved = state.now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Loss, SimFs};

    fn boundary(major: u64) -> SwitchedVersions {
        SwitchedVersions { boundary: Some(WriteVersion { major, minor: 1 }), safe_snapshot: None }
    }

    #[test]
    fn versions_only_grow_and_are_found_by_the_same_instance_after_a_power_cut() {
        let (fs, location) = (SimFs::new(), Path::new("/log"));
        fs.create_dir(location).unwrap();
        assert_eq!(load(&fs, location, "a"), SwitchedVersions::default());
        let versions = Versions::new(SwitchedVersions::default());
        versions.raise(boundary(7));
        versions.raise(boundary(5));
        versions.raise(SwitchedVersions { boundary: None, safe_snapshot: Some(WriteVersion { major: 3, minor: 0 }) });
        let expected = SwitchedVersions { safe_snapshot: Some(WriteVersion { major: 3, minor: 0 }), ..boundary(7) };
        assert_eq!(versions.now(), expected);
        crashsafe::create_dir(&fs, location).unwrap_or_default();
        fs.sync_dir(Path::new("/")).unwrap();
        versions.save(&fs, location, "a").unwrap();
        let before = fs.operations();
        versions.save(&fs, location, "a").unwrap();
        assert_eq!(fs.operations(), before, "it is written when it changes only");
        let fs = fs.reboot(Loss::DropUnsynced);
        assert_eq!(load(&fs, location, "a"), expected);
        assert_eq!(load(&fs, location, "b"), SwitchedVersions::default());
        fs.put(&location.join(NAME), b"{").unwrap();
        assert_eq!(load(&fs, location, "a"), SwitchedVersions::default());
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Names that were given to epochs. They live in a file of their own, which the original ignores and whose loss costs
//! no data: a damaged one is put aside with a warning.

use crate::error::{Error, Result};
use crate::lock_order::{Mutex, Rank};
use crate::types::Epoch;
use crate::vfs::{crashsafe, Vfs};
use crate::wal::names;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// All tags together take no more than this in their file.
const FILE_BYTES_MAX: usize = 16 << 20;
const FORMAT_VERSION: u32 = 1;
/// So many damaged files are kept beside each other; a start that finds one more replaces none of them.
const DAMAGED_MAX: u32 = 100;

/// A name for an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochTag {
    pub name: String,
    pub comments: String,
    /// The last durable epoch when the tag was registered.
    pub epoch: Epoch,
    /// When it was registered, in nanoseconds since 1970.
    pub registered_unix_ns: i64,
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Document {
    format_version: u32,
    /// Of the list as JSON without blanks.
    sha256: String,
    tags: Vec<EpochTag>,
}

#[derive(Debug)]
pub(super) struct Tags {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Loaded(BTreeMap<String, EpochTag>),
    /// Nothing may be written over what is there.
    Unreadable(String),
    /// The directory may be somebody else's.
    Closed(BTreeMap<String, EpochTag>),
}

impl State {
    fn load(vfs: &dyn Vfs, location: &Path) -> State {
        match load(vfs, location) {
            Ok(tags) => State::Loaded(tags),
            Err(error) => {
                log::warn!("epoch tags cannot be used in this run, no data is affected: {error}");
                State::Unreadable(error.to_string())
            }
        }
    }
}

impl Tags {
    /// Reads the tags of a directory whose lock is held.
    pub(super) fn open(vfs: Arc<dyn Vfs>, location: &Path) -> Tags {
        let state = State::load(&*vfs, location);
        Tags { vfs, location: location.to_owned(), state: Mutex::new(Rank::Tags, state) }
    }

    /// Reads the tags again, after a restore has replaced the content of the directory.
    pub(super) fn reload(&self) {
        *self.state.lock() = State::load(&*self.vfs, &self.location);
    }

    /// All tags in the order of their names.
    pub(super) fn list(&self) -> Vec<EpochTag> {
        match &*self.state.lock() {
            State::Loaded(tags) | State::Closed(tags) => tags.values().cloned().collect(),
            State::Unreadable(_) => Vec::new(),
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<EpochTag> {
        match &*self.state.lock() {
            State::Loaded(tags) | State::Closed(tags) => tags.get(name).cloned(),
            State::Unreadable(_) => None,
        }
    }

    /// False when there is a tag with this name already.
    pub(super) fn register(&self, name: &str, comments: &str, epoch: Epoch) -> Result<bool> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let registered_unix_ns = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        let tag = EpochTag { name: name.to_owned(), comments: comments.to_owned(), epoch, registered_unix_ns };
        self.change(|tags| {
            if tags.contains_key(name) {
                return false;
            }
            tags.insert(tag.name.clone(), tag);
            true
        })
    }

    /// False when there is no tag with this name.
    pub(super) fn unregister(&self, name: &str) -> Result<bool> {
        self.change(|tags| tags.remove(name).is_some())
    }

    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        if let State::Loaded(tags) = &mut *state {
            *state = State::Closed(std::mem::take(tags));
        }
    }

    /// Makes a change durable and then visible, unless it changes nothing.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, EpochTag>) -> bool) -> Result<bool> {
        let mut state = self.state.lock();
        let tags = match &mut *state {
            State::Loaded(tags) => tags,
            State::Unreadable(reason) => {
                return Err(Error::WrongState(format!("epoch tags cannot be changed in this run: {reason}")));
            }
            State::Closed(_) => {
                return Err(Error::WrongState("epoch tags cannot be changed after shutdown()".to_owned()));
            }
        };
        let mut next = tags.clone();
        if !change(&mut next) {
            return Ok(false);
        }
        let bytes = encode(&next);
        if bytes.len() > FILE_BYTES_MAX {
            let message = format!("all epoch tags together would take {} bytes, at most {FILE_BYTES_MAX}", bytes.len());
            return Err(Error::InvalidArgument(message));
        }
        let path = self.location.join(names::TAGS);
        let temporary = self.location.join(names::TAGS_TEMPORARY);
        crashsafe::replace(&*self.vfs, &temporary, &path, &bytes)
            .map_err(|e| Error::io("cannot write the epoch tags", &path, e))?;
        *tags = next;
        Ok(true)
    }
}

fn checksum(tags: &[EpochTag]) -> String {
    use sha2::{Digest, Sha256};
    let list = serde_json::to_vec(tags).expect("tags are plain data");
    Sha256::digest(&list).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encode(tags: &BTreeMap<String, EpochTag>) -> Vec<u8> {
    let tags: Vec<EpochTag> = tags.values().cloned().collect();
    let document = Document { format_version: FORMAT_VERSION, sha256: checksum(&tags), tags };
    let mut bytes = serde_json::to_vec_pretty(&document).expect("tags are plain data");
    bytes.push(b'\n');
    bytes
}

fn decode(bytes: &[u8]) -> std::result::Result<BTreeMap<String, EpochTag>, String> {
    let document: Document = serde_json::from_slice(bytes).map_err(|e| format!("not a list of tags: {e}"))?;
    if document.format_version != FORMAT_VERSION {
        return Err(format!("format_version is {}, expected {FORMAT_VERSION}", document.format_version));
    }
    let found = checksum(&document.tags);
    if found != document.sha256 {
        return Err(format!("the tags have checksum {found}, expected {}", document.sha256));
    }
    Ok(document.tags.into_iter().map(|tag| (tag.name.clone(), tag)).collect())
}

/// Reads the file; a damaged one gets another name.
fn load(vfs: &dyn Vfs, location: &Path) -> Result<BTreeMap<String, EpochTag>> {
    let path = location.join(names::TAGS);
    let reason = match vfs.read(&path, FILE_BYTES_MAX as u64) {
        Ok(bytes) => match decode(&bytes) {
            Ok(tags) => return Ok(tags),
            Err(reason) => reason,
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => e.to_string(),
        Err(e) => return Err(Error::io("cannot read the epoch tags", &path, e)),
    };
    let kept = put_aside(vfs, &path).map_err(|e| Error::io("cannot put the damaged epoch tags aside", &path, e))?;
    log::warn!(
        "the epoch tags in {} are damaged ({reason}); the file is kept as {} and there are no tags now; no data is \
         affected",
        path.display(),
        kept.display()
    );
    Ok(BTreeMap::new())
}

/// Renames a damaged file to `<name>.damaged.<k>` and gives that path.
fn put_aside(vfs: &dyn Vfs, path: &Path) -> io::Result<PathBuf> {
    for k in 0..DAMAGED_MAX {
        let mut kept = path.as_os_str().to_owned();
        kept.push(format!(".damaged.{k}"));
        let kept = PathBuf::from(kept);
        if vfs.kind(&kept)?.is_none() {
            crashsafe::rename(vfs, path, &kept)?;
            return Ok(kept);
        }
    }
    Err(io::Error::other(format!("{DAMAGED_MAX} damaged ones are kept already: move them away")))
}

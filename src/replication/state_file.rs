// SPDX-License-Identifier: Apache-2.0
//! `replication_state`: whether the directory is a primary's or a replica's, and its terms. A term is the time from one
//! takeover to the next; two directories whose terms agree have the same epochs, as far as each goes. The original
//! ignores the file.
//!
//! An engine that starts on a replica's directory takes over: that begins a new term, which is on the disk before the
//! first session. From then on the former primary is refused, and its directory can only follow if it has nothing of
//! what came after the takeover.

use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::{crashsafe, Vfs};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::Path;

/// Name of the file in the data directory.
pub const NAME: &str = "replication_state";
const TEMPORARY: &str = "replication_state.tmp";
const FORMAT: u32 = 1;
/// Room for far more takeovers than there will be.
const MAX_BYTES: u64 = 1 << 20;
/// Beyond this many terms the oldest are forgotten; a replica that is still in one of them needs a base sync.
pub const HISTORY_MAX: usize = 1024;

/// What a directory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// An engine writes to it.
    Primary,
    /// It follows a primary; an engine that starts on it takes over.
    Replica,
}

/// A term and the first epoch that may have been written in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    pub term: u64,
    pub first_epoch: u64,
}

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationState {
    format: u32,
    pub role: Role,
    /// The present term.
    pub term: u64,
    /// All terms, the present one last.
    pub history: Vec<Term>,
}

impl ReplicationState {
    /// The state of a directory that was never a replica's: everything in it belongs to the first term.
    pub fn first_primary() -> ReplicationState {
        ReplicationState {
            format: FORMAT,
            role: Role::Primary,
            term: 1,
            history: vec![Term { term: 1, first_epoch: 0 }],
        }
    }

    /// The state of a directory that follows a primary with this history.
    ///
    /// # Errors
    /// When the history is empty, too long or not ascending.
    pub fn replica_of(history: Vec<Term>) -> std::result::Result<ReplicationState, String> {
        let term = history.last().map_or(0, |last| last.term);
        let state = ReplicationState { format: FORMAT, role: Role::Replica, term, history };
        state.check().map(|()| state)
    }

    /// What a start of an engine makes of it: a replica's directory begins a new term above `durable`.
    pub fn taken_over(mut self, durable: Epoch) -> ReplicationState {
        if self.role == Role::Replica {
            self.role = Role::Primary;
            self.term += 1;
            self.history.push(Term { term: self.term, first_epoch: durable.0.saturating_add(1) });
            let surplus = self.history.len().saturating_sub(HISTORY_MAX);
            self.history.drain(..surplus);
        }
        self
    }

    /// The first epoch that a directory which stopped in `term` may not have; `None` while `term` goes on.
    pub fn end_of_term(&self, term: u64) -> Option<Epoch> {
        self.history.iter().find(|next| next.term > term).map(|next| Epoch(next.first_epoch))
    }

    /// Reads the file; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::BrokenMetadata`] for a file that is not one of ours: replication must not guess.
    pub fn load(vfs: &dyn Vfs, location: &Path) -> Result<Option<ReplicationState>> {
        let path = location.join(NAME);
        let bytes = match vfs.read(&path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("cannot read", &path, e)),
        };
        let parsed = serde_json::from_slice::<ReplicationState>(&bytes).map_err(|e| e.to_string());
        let state = parsed.and_then(|state| state.check().map(|()| state)).map_err(|reason| {
            Error::BrokenMetadata(format!(
                "{} cannot be used ({reason}): restore it from the other side, or delete it to let this directory \
                 begin anew, after which replicas need a base sync",
                path.display()
            ))
        })?;
        Ok(Some(state))
    }

    /// Puts the file in place, durably.
    pub fn save(&self, vfs: &dyn Vfs, location: &Path) -> Result<()> {
        let path = location.join(NAME);
        let mut bytes = serde_json::to_vec(self).expect("numbers and words are always JSON");
        bytes.push(b'\n');
        crashsafe::replace(vfs, &location.join(TEMPORARY), &path, &bytes)
            .map_err(|e| Error::io("cannot write", &path, e))
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format {FORMAT} was expected, found {}", self.format));
        }
        if self.history.len() > HISTORY_MAX {
            return Err(format!("{} terms were found, at most {HISTORY_MAX} expected", self.history.len()));
        }
        if self.term == 0 || self.history.last().map(|last| last.term) != Some(self.term) {
            return Err(format!("the history was expected to end with term {}", self.term));
        }
        let ascending = |pair: &[Term]| pair[0].term < pair[1].term && pair[0].first_epoch <= pair[1].first_epoch;
        match self.history.windows(2).all(ascending) {
            true => Ok(()),
            false => Err("terms and their first epochs were expected to ascend".to_owned()),
        }
    }
}

/// To be called when an engine has started on the directory and before its first session: takes over from the primary
/// that the directory followed. Returns the state, which may not have a file when there was none.
pub fn start_engine(vfs: &dyn Vfs, location: &Path, durable: Epoch) -> Result<ReplicationState> {
    let Some(before) = ReplicationState::load(vfs, location)? else {
        return Ok(ReplicationState::first_primary());
    };
    let role = before.role;
    let state = before.taken_over(durable);
    if role == Role::Replica {
        state.save(vfs, location)?;
        log::info!("takeover: this directory was a replica's up to epoch {durable} and begins term {}", state.term);
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Open, SimFs};

    fn directory() -> SimFs {
        let fs = SimFs::new();
        fs.create_dir(Path::new("/log")).unwrap();
        fs
    }

    #[test]
    fn the_state_is_read_back_as_written() {
        let (fs, location) = (directory(), Path::new("/log"));
        assert_eq!(ReplicationState::load(&fs, location).unwrap(), None);
        for state in [
            ReplicationState::first_primary(),
            ReplicationState::replica_of(vec![Term { term: 1, first_epoch: 0 }, Term { term: 4, first_epoch: 9 }])
                .unwrap(),
        ] {
            state.save(&fs, location).unwrap();
            assert_eq!(ReplicationState::load(&fs, location).unwrap(), Some(state));
        }
    }

    #[test]
    fn an_engine_on_a_replicas_directory_begins_a_term_above_what_is_durable() {
        let (fs, location) = (directory(), Path::new("/log"));
        ReplicationState::replica_of(vec![Term { term: 3, first_epoch: 5 }]).unwrap().save(&fs, location).unwrap();
        let state = start_engine(&fs, location, Epoch(41)).unwrap();
        assert_eq!((state.role, state.term), (Role::Primary, 4));
        assert_eq!(state.history, [Term { term: 3, first_epoch: 5 }, Term { term: 4, first_epoch: 42 }]);
        assert_eq!(state.end_of_term(3), Some(Epoch(42)));
        assert_eq!(state.end_of_term(4), None);
        // A later start of the same engine goes on in its term.
        assert_eq!(start_engine(&fs, location, Epoch(50)).unwrap(), state);
    }

    #[test]
    fn a_directory_without_the_file_is_a_primarys_in_its_first_term() {
        let (fs, location) = (directory(), Path::new("/log"));
        assert_eq!(start_engine(&fs, location, Epoch(7)).unwrap(), ReplicationState::first_primary());
        assert!(fs.list(location).unwrap().is_empty(), "nothing is written without need");
    }

    #[test]
    fn what_is_not_a_state_is_refused_with_a_reason() {
        let (fs, location) = (directory(), Path::new("/log"));
        for text in [
            "",
            "{}",
            r#"{"format":2,"role":"primary","term":1,"history":[{"term":1,"first_epoch":0}]}"#,
            r#"{"format":1,"role":"primary","term":1,"history":[]}"#,
            r#"{"format":1,"role":"other","term":1,"history":[{"term":1,"first_epoch":0}]}"#,
            r#"{"format":1,"role":"replica","term":2,"history":[{"term":1,"first_epoch":0}]}"#,
            r#"{"format":1,"role":"replica","term":1,"history":[{"term":2,"first_epoch":0},{"term":1,"first_epoch":0}]}"#,
        ] {
            let path = location.join(NAME);
            fs.open(&path, Open::Truncate).unwrap().write_at(0, text.as_bytes()).unwrap();
            let error = ReplicationState::load(&fs, location).unwrap_err();
            assert!(matches!(&error, Error::BrokenMetadata(text) if text.contains(NAME)), "{error}");
        }
        assert!(ReplicationState::replica_of(Vec::new()).is_err());
    }
}

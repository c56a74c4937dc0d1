// SPDX-License-Identifier: Apache-2.0
//! What a workload asked for, and what may and must be there after a crash. Every session writes two markers that
//! nothing overwrites, its first and its last entry, so that the recovered content tells which sessions survived; the
//! whole content must then be the merge of exactly these sessions.

use limestone_core::datastore::Commit;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Holds the markers; never cleared.
pub const MARKERS: u64 = 1;

pub type Key = (u64, Vec<u8>);
pub type Content = BTreeMap<Key, Vec<u8>>;
pub type SessionId = usize;
/// Major and minor.
pub type Version = (u64, u64);

#[derive(Clone, Debug)]
pub enum Change {
    Put { storage: u64, key: Vec<u8>, value: Vec<u8> },
    Remove { storage: u64, key: Vec<u8> },
    Clear { storage: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// `end_session` was not called.
    Open,
    /// `end_session` was called and did not succeed.
    Ending,
    /// `end_session` succeeded.
    Ended,
    /// A start did not find it; it must never come back.
    Discarded,
    /// A start found it; it must stay.
    Settled,
}

#[derive(Clone, Debug)]
pub struct Session {
    pub epoch: u64,
    /// Its epoch was durable already when it began, because no epoch was switched to since the start.
    pub covered: bool,
    pub progress: Progress,
    pub changes: Vec<(Version, Change)>,
}

#[derive(Debug, Default)]
pub struct Model {
    pub sessions: Vec<Session>,
    /// The largest epoch reported as STORED, shared with the callback.
    pub acknowledged: Arc<AtomicU64>,
    /// How commits become durable.
    pub commit: Commit,
}

impl Clone for Model {
    /// A model of its own, which the callback of the first does not change.
    fn clone(&self) -> Model {
        let acknowledged = Arc::new(AtomicU64::new(self.acknowledged()));
        Model { sessions: self.sessions.clone(), acknowledged, commit: self.commit }
    }
}

pub fn first_marker(id: SessionId) -> Vec<u8> {
    format!("session {id:06} first").into_bytes()
}

pub fn last_marker(id: SessionId) -> Vec<u8> {
    format!("session {id:06} last").into_bytes()
}

impl Model {
    /// Starts from content that was durable before the workload.
    pub fn with_base(base: &Content) -> Model {
        let mut model = Model::default();
        let id = model.begin(0);
        for ((storage, key), value) in base {
            let change = Change::Put { storage: *storage, key: key.clone(), value: value.clone() };
            model.sessions[id].changes.push(((0, 0), change));
        }
        model.sessions[id].progress = Progress::Settled;
        model
    }

    pub fn begin(&mut self, epoch: u64) -> SessionId {
        let covered = epoch <= self.acknowledged();
        self.sessions.push(Session { epoch, covered, progress: Progress::Open, changes: Vec::new() });
        self.sessions.len() - 1
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// The result of the merge rule (disk format §6.1) over these sessions.
    pub fn merge(&self, visible: &BTreeSet<SessionId>) -> Content {
        let mut cleared: BTreeMap<u64, Version> = BTreeMap::new();
        let mut newest: BTreeMap<Key, (Version, Option<&Vec<u8>>)> = BTreeMap::new();
        for (version, change) in visible.iter().flat_map(|id| &self.sessions[*id].changes) {
            let (key, value) = match change {
                Change::Put { storage, key, value } => ((*storage, key.clone()), Some(value)),
                Change::Remove { storage, key } => ((*storage, key.clone()), None),
                Change::Clear { storage } => {
                    let at = cleared.entry(*storage).or_default();
                    *at = (*at).max(*version);
                    continue;
                }
            };
            let place = newest.entry(key).or_insert((*version, value));
            if *version >= place.0 {
                *place = (*version, value);
            }
        }
        let lives = |storage: &u64, version: &Version| cleared.get(storage).is_none_or(|at| version >= at);
        newest
            .into_iter()
            .filter(|((storage, _), (version, _))| lives(storage, version))
            .filter_map(|(key, (_, value))| Some((key, value?.clone())))
            .collect()
    }

    /// The sessions that `content` shows, or what is wrong with it.
    pub fn check(&self, content: &Content, last_epoch: u64) -> Result<BTreeSet<SessionId>, String> {
        let visible = self.visible(content)?;
        let expected = self.merge(&visible);
        if let Some(key) = expected.keys().chain(content.keys()).find(|key| expected.get(key) != content.get(key)) {
            return Err(format!(
                "storage {} key {:?} is {:?}, expected {:?}",
                key.0,
                String::from_utf8_lossy(&key.1),
                content.get(key).map(|value| brief(value)),
                expected.get(key).map(|value| brief(value)),
            ));
        }
        let acknowledged = self.acknowledged();
        let newest = visible.iter().map(|id| self.sessions[*id].epoch).max().unwrap_or(0);
        for (id, session) in self.sessions.iter().enumerate() {
            let name = format!("session {id} of epoch {} ({:?})", session.epoch, session.progress);
            let there = visible.contains(&id);
            match session.progress {
                Progress::Settled if !there => return Err(format!("{name} was there before and is gone")),
                Progress::Discarded if there => return Err(format!("{name} was discarded before and is back")),
                Progress::Open if there => return Err(format!("{name} is there though it never ended")),
                Progress::Open if session.epoch <= newest && !session.covered => {
                    return Err(format!("{name} never ended, yet a session of epoch {newest} is there"));
                }
                Progress::Ended if session.epoch <= acknowledged && !there => {
                    return Err(format!("{name} is gone though epoch {acknowledged} was acknowledged"));
                }
                Progress::Ended | Progress::Ending if session.epoch <= newest && !session.covered && !there => {
                    return Err(format!("{name} is gone though a session of epoch {newest} is there"));
                }
                _ => {}
            }
            let counts = matches!(session.progress, Progress::Ended | Progress::Settled);
            if counts && session.epoch <= acknowledged && last_epoch < session.epoch {
                return Err(format!("last_epoch is {last_epoch}, below the acknowledged {name}"));
            }
        }
        Ok(visible)
    }

    fn visible(&self, content: &Content) -> Result<BTreeSet<SessionId>, String> {
        let mut visible = BTreeSet::new();
        for (id, session) in self.sessions.iter().enumerate() {
            let shown = |key: Vec<u8>| content.contains_key(&(MARKERS, key));
            let is_base = session.changes.first().is_some_and(|(version, _)| *version == (0, 0));
            match (shown(first_marker(id)), shown(last_marker(id))) {
                _ if is_base => drop(visible.insert(id)),
                (true, true) => drop(visible.insert(id)),
                (false, false) => {}
                (first, last) => {
                    return Err(format!(
                        "session {id} of epoch {} ({:?}) is half there: first entry {first}, last entry {last}",
                        session.epoch, session.progress
                    ));
                }
            }
        }
        Ok(visible)
    }

    /// A start has shown what is there: that is final. Epochs count from `last_epoch` on.
    pub fn settle(&mut self, visible: &BTreeSet<SessionId>, last_epoch: u64) {
        self.acknowledged.store(last_epoch, Ordering::SeqCst);
        for (id, session) in self.sessions.iter_mut().enumerate() {
            session.progress = if visible.contains(&id) { Progress::Settled } else { Progress::Discarded };
        }
    }
}

fn brief(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(&value[..value.len().min(40)]).into_owned();
    format!("{text} ({} bytes)", value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(model: &mut Model, epoch: u64, progress: Progress) -> SessionId {
        let id = model.begin(epoch);
        model.sessions[id].covered = false;
        for (at, key) in [first_marker(id), last_marker(id)].into_iter().enumerate() {
            let put = Change::Put { storage: MARKERS, key, value: Vec::new() };
            model.sessions[id].changes.push(((epoch, 1 + at as u64), put));
        }
        model.sessions[id].progress = progress;
        id
    }

    fn verdict(
        epochs: &[(u64, Progress)],
        acknowledged: u64,
        there: &[SessionId],
    ) -> Result<BTreeSet<SessionId>, String> {
        let mut model = Model::default();
        for (epoch, progress) in epochs {
            session(&mut model, *epoch, *progress);
        }
        model.acknowledged.store(acknowledged, Ordering::SeqCst);
        let content = model.merge(&there.iter().copied().collect());
        model.check(&content, 100)
    }

    #[test]
    fn the_model_accepts_what_may_be_lost_and_rejects_what_may_not() {
        use Progress::*;
        let two = [(1, Ended), (2, Ended)];
        assert!(verdict(&two, 0, &[]).is_ok());
        assert!(verdict(&two, 1, &[0]).is_ok());
        assert!(verdict(&two, 1, &[0, 1]).is_ok());
        assert!(verdict(&two, 1, &[]).unwrap_err().contains("acknowledged"));
        assert!(verdict(&two, 0, &[1]).unwrap_err().contains("gone though a session"));
        assert!(verdict(&[(1, Ending)], 0, &[0]).is_ok());
        assert!(verdict(&[(1, Open)], 0, &[0]).unwrap_err().contains("never ended"));
        assert!(verdict(&[(1, Open), (1, Ended)], 0, &[1]).unwrap_err().contains("never ended"));
        assert!(verdict(&[(1, Discarded)], 0, &[0]).unwrap_err().contains("is back"));
        assert!(verdict(&[(1, Settled)], 0, &[]).unwrap_err().contains("was there before"));
    }

    #[test]
    fn the_model_rejects_half_a_session_and_unknown_content() {
        let mut model = Model::default();
        let id = session(&mut model, 1, Progress::Ended);
        let mut content = model.merge(&BTreeSet::from([id]));
        content.remove(&(MARKERS, last_marker(id)));
        assert!(model.check(&content, 1).unwrap_err().contains("half there"));
        content.insert((9, b"unknown".to_vec()), Vec::new());
        content.remove(&(MARKERS, first_marker(id)));
        assert!(model.check(&content, 1).unwrap_err().contains("storage 9"));
    }
}

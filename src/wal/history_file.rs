// SPDX-License-Identifier: Apache-2.0
//! `limestone-history.json`: the history of a data directory on its disk, and whether an engine writes to it or a
//! primary. It is replaced as a whole, never changed in place, and the original ignores it.
//!
//! Who opens a directory and does not know the file leaves traces all the same: the original writes its snapshot at
//! each start, and after an orderly shutdown the durable epoch has moved. What was written from then on is nobody's run
//! that could be in common with another directory: it gets a run of its own.

use super::claim::Claim;
use super::history::{History, Run, RunId};
use super::names;
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::{crashsafe, Vfs};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::Path;

const FORMAT: u32 = 1;
/// A list of the greatest length has about 60 KB.
const MAX_BYTES: u64 = 1 << 20;

/// Who writes to a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// An engine.
    Primary,
    /// It follows a primary; an engine that starts on it takes over.
    Replica,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryHistory {
    format: u32,
    /// The instance UUID of the directory it belongs to.
    pub instance: String,
    pub role: Role,
    /// The largest term that the directory has been in or has been told of.
    pub term: u64,
    /// Empty when nothing is known, as of a replica of version 1.0.0.
    pub history: History,
    /// The durable epoch at the orderly shutdown after which nobody has started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
    /// A base sync has begun that is not in place: what the directory holds is too old, or nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_base_sync: bool,
    /// What the directory has above this epoch has been saved and goes: whoever opens it as a replica's completes that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cut_above: Option<u64>,
    /// Why no engine may start: another primary has taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced: Option<String>,
    /// What the directory claims as long as its runs would say too much, or too little: its last run is of a term that
    /// others may not know of and may have begun as well, or the directory is going back to where it leaves that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claimed: Option<Claim>,
    /// The last epoch that the primary has told its engine of, as this replica, which lacked it, was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reported: Option<u64>,
    /// It was empty when it began to follow a primary that had everything up to this epoch, maybe in the place of a
    /// directory that counted for some of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) counts_from: Option<u64>,
}

/// `replication_state` of version 1.0.0, as far as it still counts: it knew terms by their numbers only.
#[derive(Deserialize)]
struct Former {
    format: u32,
    role: Role,
    term: u64,
}

/// A directory whose history is to be read or changed. The caller holds its lock.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub vfs: &'a dyn Vfs,
    pub location: &'a Path,
    /// The instance UUID of the manifest.
    pub instance: &'a str,
}

impl DirectoryHistory {
    /// That of a directory of which nothing is known, in its first term.
    pub fn unknown(instance: &str, role: Role) -> DirectoryHistory {
        let history = History::default();
        DirectoryHistory {
            format: FORMAT,
            instance: instance.to_owned(),
            role,
            term: 1,
            history,
            left: None,
            awaits_base_sync: false,
            cut_above: None,
            fenced: None,
            claimed: None,
            reported: None,
            counts_from: None,
        }
    }

    /// Reads what a file or a backup says.
    ///
    /// # Errors
    /// Says what was expected and what was found.
    pub fn parse(bytes: &[u8]) -> std::result::Result<DirectoryHistory, String> {
        let file: DirectoryHistory = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if file.format != FORMAT {
            return Err(format!("format {FORMAT} was expected, found {}", file.format));
        }
        file.history.check()?;
        match file.history.runs().last() {
            Some(last) if last.term > file.term => Err(format!("term {} is below that of the last run", file.term)),
            _ => Ok(file),
        }
    }

    /// The text of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("numbers and words are always JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Reads the file, or that of version 1.0.0; `None` when there is none of this instance. Changes nothing.
    ///
    /// # Errors
    /// [`Error::BrokenMetadata`] for a file that is not one of ours: what wrote the directory must not be guessed.
    pub fn load(place: Place<'_>) -> Result<Option<DirectoryHistory>> {
        let found = match read(place, names::HISTORY, DirectoryHistory::parse)? {
            Some(file) => Some(file),
            None => read(place, names::FORMER_HISTORY, |bytes| former(bytes, place.instance))?,
        };
        Ok(found.filter(|file| file.instance == place.instance))
    }

    /// Puts the file in place, durably.
    pub fn save(&self, vfs: &dyn Vfs, location: &Path) -> Result<()> {
        let path = location.join(names::HISTORY);
        crashsafe::replace(vfs, &location.join(names::HISTORY_TEMPORARY), &path, &self.encode())
            .map_err(|e| Error::io("cannot write", &path, e))
    }

    /// What a directory that is opened has behind it, also when it was opened by somebody who does not know the file.
    /// `durable` is its durable epoch.
    fn opened(place: Place<'_>, durable: Epoch) -> Result<DirectoryHistory> {
        let Some(mut file) = DirectoryHistory::load(place)? else {
            return Ok(DirectoryHistory::unknown(place.instance, Role::Primary));
        };
        let left = file.left.take().map(Epoch);
        // Before the first start the snapshot tells nothing.
        let has_trace = exists(place, names::FOREIGN_SNAPSHOT)? && exists(place, names::HISTORY)?;
        if has_trace || left.is_some_and(|left| durable > left) {
            // After a crash nobody knows where it began: with the last run, at the earliest.
            let first = left.unwrap_or_else(|| Epoch(file.run().map_or(0, |run| run.first_epoch)));
            log::warn!(
                "{}: a program that does not record its runs has opened the directory: what it holds from epoch \
                 {first} on is not taken for that of any other directory",
                place.location.display()
            );
            file.begin_foreign(first.min(durable.next()));
        }
        Ok(file)
    }

    /// What the directory holds of the epochs from `first` on is about to be given up, or guessed: it is no longer, or
    /// not for certain, what the runs wrote that any other directory knows. It gets a run of its own, which is on the
    /// disk when this returns. To be called before the change, so that a crash in between claims too little only.
    ///
    /// # Errors
    /// [`Error::BrokenMetadata`] or [`Error::Io`]; then the change must not be made.
    pub fn disown(place: Place<'_>, first: Epoch) -> Result<()> {
        match DirectoryHistory::load(place)? {
            Some(mut file) if !file.history.is_empty() => {
                file.begin_foreign(first);
                file.save(place.vfs, place.location)
            }
            // It claims nothing.
            _ => Ok(()),
        }
    }

    /// What the directory has from `first` on is nobody else's. It claims no more than before: a directory that awaits
    /// a base sync has been told of a term that it has nothing of.
    fn begin_foreign(&mut self, first: Epoch) {
        let term = self.run().map_or(self.term, |run| run.term);
        self.history.begin(RunId::random(), term, first);
    }

    /// Puts the file in place and takes away what others left, in this order.
    fn settle(&self, place: Place<'_>) -> Result<()> {
        self.save(place.vfs, place.location)?;
        forget_others(place)
    }

    /// An engine starts: its run, with `first_epoch` as the first that it may write to, is on the disk when this
    /// returns. On a replica's directory that is a takeover and begins a term.
    ///
    /// # Errors [`Error::WrongState`] when the directory was fenced, awaits a base sync or is known to be behind its
    /// primary; [`Error::BrokenMetadata`] or [`Error::Io`]. Nothing is changed then.
    pub fn begin_run(place: Place<'_>, durable: Epoch, first_epoch: Epoch) -> Result<DirectoryHistory> {
        let mut file = DirectoryHistory::opened(place, durable)?;
        file.check_start(place.location, Some(durable))?;
        if file.role == Role::Replica {
            file.promote(durable);
            log::info!("takeover: this directory was a replica's up to epoch {durable} and begins term {}", file.term);
        }
        file.history.begin(RunId::random(), file.term, first_epoch);
        file.settle(place)?;
        Ok(file)
    }

    /// Whether an engine may start on the directory at `location`, whose history this is. `durable` is its durable
    /// epoch, if it can be known.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it was fenced, awaits a base sync, is being rewound, or is a replica's that is known
    /// to be behind its primary; says what can be done.
    pub fn check_start(&self, location: &Path, durable: Option<Epoch>) -> Result<()> {
        let dir = location.display();
        if let Some(reason) = &self.fenced {
            return Err(Error::WrongState(format!(
                "{dir}: another primary has taken over from this one ({reason}); serve the directory with tgreplica, \
                 so that it follows that one, or, if what it has must count, call: tgreplica promote --force {dir}"
            )));
        }
        if self.awaits_base_sync {
            return Err(Error::WrongState(format!(
                "{dir}: a base sync into this replica has begun and is not complete, so what is here is too old, or \
                 nothing; let it be completed, or, if what is here must count, call: tgreplica promote --force {dir}"
            )));
        }
        if let Some(last) = self.cut_above {
            return Err(Error::WrongState(format!(
                "{dir}: a rewind to epoch {last} has begun and is not complete; serve the directory with tgreplica, \
                 which completes it, or call: tgreplica promote {dir}"
            )));
        }
        let lack = durable.filter(|_| self.role == Role::Replica).and_then(|durable| self.known_lack(durable));
        match lack {
            None => Ok(()),
            Some(lack) => Err(Error::WrongState(format!(
                "{dir} is a replica's, and {lack}; serve it with tgreplica, so that it gets the rest, or, if what is \
                 here must count, call: tgreplica promote --force {dir}"
            ))),
        }
    }

    /// A replica starts. The file is written only when it says something new.
    ///
    /// # Errors
    /// [`Error::BrokenMetadata`] or [`Error::Io`].
    pub fn open_replica(place: Place<'_>, durable: Epoch, is_empty: bool) -> Result<DirectoryHistory> {
        let before = DirectoryHistory::load(place)?;
        let mut file = DirectoryHistory::opened(place, durable)?;
        if before.is_none() && is_empty {
            return forget_others(place).map(|()| file);
        }
        if file.role == Role::Primary && file.history.is_empty() {
            // Written by an engine that recorded no runs: nothing else has what it has.
            file.history.begin(RunId::random(), file.term, Epoch(0));
        }
        match before.as_ref() == Some(&file) && exists(place, names::HISTORY)? {
            true => forget_others(place)?,
            false => file.settle(place)?,
        }
        Ok(file)
    }

    /// Begins a term with a run, which is returned: the directory is a primary's from now on, with all up to `durable`,
    /// and not fenced any more.
    pub fn promote(&mut self, durable: Epoch) -> RunId {
        let claim = self.claim(durable);
        self.role = Role::Primary;
        self.term += 1;
        self.fenced = None;
        self.awaits_base_sync = false;
        self.cut_above = None;
        self.claimed = Some(claim);
        (self.reported, self.counts_from) = (None, None);
        let run = RunId::random();
        self.history.begin(run, self.term, durable.next());
        run
    }

    /// The same beyond a term that others may have begun.
    pub fn promote_above(&mut self, durable: Epoch, others: u64) -> RunId {
        self.term = self.term.max(others);
        self.promote(durable)
    }

    /// Whether this is a primary's directory, and not so many replicas as are needed are known to have its term.
    pub fn is_unknown(&self) -> bool {
        self.role == Role::Primary && self.claimed.is_some()
    }

    /// So many replicas as are needed have noted its term.
    pub fn become_known(&mut self) {
        self.claimed = None;
    }

    /// What the directory has, for comparison with others; `durable` is its durable epoch. Nothing of one that was
    /// given up, and nothing that counts of one that was empty and has not everything yet.
    pub fn claim(&self, durable: Epoch) -> Claim {
        match self.claimed {
            _ if self.is_given_up() => Claim::default(),
            _ if self.is_filling(durable) => Claim { term: 0, epoch: durable.0 },
            Some(claimed) => claimed.up_to(durable),
            None => Claim::by(&self.history, durable),
        }
    }

    /// The same directory when it claims this until it follows somebody else.
    pub fn claiming(self, claim: Claim) -> DirectoryHistory {
        DirectoryHistory { claimed: Some(claim), ..self }
    }

    /// All that the primary of the present term began with.
    pub fn term_began_with(&self) -> Epoch {
        let first = self.history.runs().iter().find(|run| run.term == self.term);
        Epoch(first.map_or(0, |run| run.first_epoch.saturating_sub(1)))
    }

    /// What the directory is when it follows a primary with this history, all up to its own durable epoch being in
    /// common.
    pub fn following(instance: &str, term: u64, history: History) -> DirectoryHistory {
        DirectoryHistory { term, history, ..DirectoryHistory::unknown(instance, Role::Replica) }
    }

    /// The same directory when a base sync into it begins.
    pub fn awaiting_base_sync(self) -> DirectoryHistory {
        DirectoryHistory { role: Role::Replica, awaits_base_sync: true, ..self }
    }

    /// The same directory when a rewind begins that leaves nothing above `last`: a replica's, whatever it was.
    pub fn cutting(self, last: Epoch) -> DirectoryHistory {
        // The run that tells of the term goes when the directory has nothing of it, and not what the term began with.
        let claimed = Some(self.claim(last));
        DirectoryHistory { role: Role::Replica, cut_above: Some(last.0), left: None, fenced: None, claimed, ..self }
    }

    /// Above which epoch nothing is to stay.
    pub fn cut_above(&self) -> Option<Epoch> {
        self.cut_above.map(Epoch)
    }

    /// The same directory when nothing above `last` is left.
    pub fn cut(mut self, last: Epoch) -> DirectoryHistory {
        self.history.cut(last);
        DirectoryHistory { cut_above: None, ..self }
    }

    /// The same directory when it is given up for a base sync, because what it has in common with its primary cannot be
    /// told from the rest.
    pub fn given_up(self) -> DirectoryHistory {
        DirectoryHistory { history: History::default(), left: None, fenced: None, ..self.awaiting_base_sync() }
    }

    /// Whether the directory has nothing in common with anybody and waits for a base sync.
    pub fn is_given_up(&self) -> bool {
        self.awaits_base_sync && self.history.is_empty()
    }

    /// The run that the directory is in.
    pub fn run(&self) -> Option<&Run> {
        self.history.runs().last()
    }

    /// Notes an orderly end: what is durable beyond `durable` at the next start was written by somebody else. The run
    /// has not written to epochs before `first_written`, as may be known now, and nobody else knows the run.
    pub fn leave(&mut self, durable: Epoch, first_written: Option<Epoch>) {
        self.left = Some(durable.0);
        if let Some(first) = first_written {
            self.history.raise_last(first);
        }
    }

    /// What a restore makes of the history of a backup and that of the directory it goes to: the content is the
    /// backup's, while no term is forgotten and who was fenced stays so.
    pub fn restored(
        backup: Option<DirectoryHistory>,
        instance: &str,
        before: Option<DirectoryHistory>,
    ) -> Option<Self> {
        let backup = backup.filter(|file| file.instance == instance);
        let Some(before) = before.filter(|file| file.instance == instance) else { return backup };
        let mut file = backup.unwrap_or_else(|| DirectoryHistory::unknown(instance, before.role));
        file.term = file.term.max(before.term);
        file.fenced = file.fenced.or(before.fenced);
        if before.role == Role::Replica {
            file.role = Role::Replica;
        }
        (file.left, file.cut_above) = (None, None);
        Some(file)
    }
}

fn read(
    place: Place<'_>,
    name: &str,
    parse: impl Fn(&[u8]) -> std::result::Result<DirectoryHistory, String>,
) -> Result<Option<DirectoryHistory>> {
    let path = place.location.join(name);
    let bytes = match place.vfs.read(&path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("cannot read", &path, e)),
    };
    parse(&bytes).map(Some).map_err(|reason| {
        Error::BrokenMetadata(format!(
            "{} cannot be used ({reason}): restore it from a backup, or delete it to let the history of this \
             directory begin anew, after which replicas need a new copy",
            path.display()
        ))
    })
}

/// Terms that were known by their numbers prove nothing. What an engine wrote is a run of its own; of a replica nothing
/// is known.
fn former(bytes: &[u8], instance: &str) -> std::result::Result<DirectoryHistory, String> {
    let former: Former = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if former.format != 1 || former.term == 0 {
        return Err(format!("format 1 and a term were expected, found {} and {}", former.format, former.term));
    }
    Ok(DirectoryHistory { term: former.term, ..DirectoryHistory::unknown(instance, former.role) })
}

fn exists(place: Place<'_>, name: &str) -> Result<bool> {
    let path = place.location.join(name);
    match place.vfs.kind(&path) {
        Ok(kind) => Ok(kind.is_some()),
        Err(e) => Err(Error::io("cannot look at", &path, e)),
    }
}

/// Takes away the file of version 1.0.0 and the trace of the original.
fn forget_others(place: Place<'_>) -> Result<()> {
    for name in [names::FORMER_HISTORY, names::FOREIGN_SNAPSHOT] {
        if exists(place, name)? {
            let path = place.location.join(name);
            crashsafe::unlink(place.vfs, &path).map_err(|e| Error::io("cannot delete", &path, e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "history_file_tests.rs"]
mod tests;

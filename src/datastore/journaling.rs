// SPDX-License-Identifier: Apache-2.0
//! The commit journal of a running data store: what sessions hand to it when they end, and what surrounds it.

use super::short_turns;
use crate::blob::paths::Directories;
use crate::blob::BlobStore;
use crate::directory::ManifestOnDisk;
use crate::error::{catch_panic, Error, Result};
use crate::lock_order::{Condvar, Mutex};
use crate::vfs::Vfs;
use crate::wal::epoch_file::EpochFile;
use crate::wal::journal::{self, Fill, Host, Journal, JournalId, LogFile};
use crate::wal::session_file::{Ended, SessionFile};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

/// Whoever makes epochs durable. Calls come from the threads of the journal.
pub(super) trait Leads: Send + Sync {
    /// Completes every epoch that can be completed, and tells about it.
    fn lead(&self) -> Result<()>;
    /// Stops all acknowledgement for good.
    fn poison(&self, error: Error) -> Error;
}

/// What sessions and rotations need of the journal.
#[derive(Debug)]
pub(super) struct Journaling {
    pub(super) journal: Arc<Journal>,
    surroundings: Arc<Surroundings>,
    pub(super) bell: Bell,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread that commits is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Complete the epochs that have ended.
    Advance,
    /// Write a group: much has gathered.
    Group,
}

/// Wakes the thread that commits.
#[derive(Debug, Default)]
pub(super) struct Bell {
    state: Mutex<Rung>,
    changed: Condvar,
    /// What is asked for and was not begun, for those who need no lock to find that: many end sessions, and whoever
    /// commits would stand in line behind them.
    advance: AtomicBool,
    group: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rung {
    advance: bool,
    group: bool,
    /// Times that it was rung, and up to which of them all is done.
    asked: u64,
    done: u64,
    ended: bool,
}

impl Bell {
    pub(super) fn ring(&self, what: Ask) {
        let is_asked = match what {
            Ask::Advance => &self.advance,
            Ask::Group => &self.group,
        };
        if is_asked.load(SeqCst) {
            return;
        }
        let mut state = self.state.lock();
        is_asked.store(true, SeqCst);
        state.asked += 1;
        let already = state.advance || state.group;
        match what {
            Ask::Advance => state.advance = true,
            Ask::Group => state.group = true,
        }
        if !already {
            self.changed.notify_all();
        }
    }

    /// What is asked for; `None` at the end.
    fn wait(&self) -> Option<Rung> {
        let mut state = self.state.lock();
        while !state.advance && !state.group && !state.ended {
            self.changed.wait(&mut state);
        }
        let asked = *state;
        (state.advance, state.group) = (false, false);
        self.advance.store(false, SeqCst);
        self.group.store(false, SeqCst);
        (!state.ended).then_some(asked)
    }

    fn done(&self, asked: u64) {
        self.state.lock().done = asked;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits until all is done that was asked for before this call, or the end.
    fn wait_until_done(&self) {
        let mut state = self.state.lock();
        let asked = state.asked;
        while state.done < asked && !state.ended {
            self.changed.wait(&mut state);
        }
    }
}

#[derive(Debug)]
struct Surroundings {
    manifest: Arc<ManifestOnDisk>,
    blobs: Arc<BlobStore>,
    /// Where the BLOBs are that sessions refer to which are not yet in a group.
    unsynced: Mutex<Directories>,
    leads: Weak<dyn Leads>,
}

impl Host for Surroundings {
    fn before_group(&self) -> Result<()> {
        let unsynced = std::mem::take(&mut *self.unsynced.lock());
        // A session that counts has its BLOBs (W14).
        self.blobs.sync_names(unsynced)
    }

    fn set_in_use(&self, journal: Option<&JournalId>) -> Result<()> {
        self.manifest.set_journal(journal)
    }

    fn failed(&self, error: Error) {
        if let Some(leads) = self.leads.upgrade() {
            leads.poison(error);
        }
    }
}

impl Journaling {
    /// Starts the thread that settles; nothing is written before the first group.
    pub(super) fn start(
        vfs: Arc<dyn Vfs>,
        location: &Path,
        settings: journal::Settings,
        epoch_file: Arc<Mutex<EpochFile>>,
        surroundings: (Arc<ManifestOnDisk>, Arc<BlobStore>, Weak<dyn Leads>),
    ) -> Result<Arc<Journaling>> {
        let (manifest, blobs, leads) = surroundings;
        let surroundings = Arc::new(Surroundings { manifest, blobs, unsynced: Mutex::default(), leads });
        let journal = Arc::new(Journal::new(vfs, location, settings, surroundings.clone(), epoch_file));
        journal.start()?;
        let (bell, thread) = (Bell::default(), Mutex::default());
        Ok(Arc::new(Journaling { journal, surroundings, bell, thread }))
    }

    /// Starts the thread that commits and calls back.
    pub(super) fn commit_in_background(self: &Arc<Self>, leads: &Arc<dyn Leads>) -> Result<()> {
        let (journaling, leads) = (self.clone(), leads.clone());
        let commit = move || {
            short_turns::take();
            journaling.commit_when_asked(&*leads);
        };
        let thread = std::thread::Builder::new().name("lstone_commit".to_owned()).spawn(commit);
        let failed = |source| Error::Io { message: "cannot start the thread that commits".to_owned(), source };
        *self.thread.lock() = Some(thread.map_err(failed)?);
        Ok(())
    }

    fn commit_when_asked(&self, leads: &dyn Leads) {
        while let Some(rung) = self.bell.wait() {
            let work = || -> Result<()> {
                // The group of an epoch takes what has gathered as well.
                if rung.advance {
                    leads.lead()?;
                }
                if rung.group {
                    self.journal.make_room().map_err(|e| leads.poison(e))?;
                }
                Ok(())
            };
            // Whatever fails poisons the data store, which says so to every caller.
            if let Err(panic) = catch_panic("the thread that commits and calls back", work) {
                leads.poison(panic);
            }
            self.bell.done(rung.asked);
        }
    }

    /// Waits while too much waits for the next group. One thread writes, which is given a processor soon: of many that
    /// wait, any other is given one late.
    pub(super) fn wait_for_room(&self) -> Result<()> {
        self.bell.ring(Ask::Group);
        self.journal.wait_for_room()
    }

    /// Waits until what has ended by now is stored and told. Not for a callback.
    pub(super) fn drain(&self) {
        self.bell.ring(Ask::Advance);
        self.bell.wait_until_done();
    }

    /// Ends the threads, settles everything and puts the journal away. After a failure, or when that fails, the next
    /// start does it.
    ///
    /// # Errors
    /// When not all is settled: nobody knows what is in the files, so nothing may be acknowledged any more.
    pub(super) fn close(&self) -> Result<()> {
        self.bell.end();
        let thread = self.thread.lock().take();
        // A callback may shut down.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            // Its panics are caught.
            let _ = thread.join();
        }
        self.journal.close()
    }

    /// Takes a session that has ended and is not on the disk. `known` is what was returned for the file before; one
    /// that was opened anew is another one. Returns how much waits for the next group.
    pub(super) fn add(
        &self,
        file: &mut SessionFile,
        ended: Ended,
        blobs: Directories,
        known: &mut Option<Arc<LogFile>>,
    ) -> Result<Fill> {
        if blobs != Directories::default() {
            // Before the session can be in a group.
            let mut unsynced = self.surroundings.unsynced.lock();
            *unsynced = unsynced.with(blobs);
        }
        self.journal.add_ended(file, ended, known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_while_it_is_done_is_done_again() {
        let bell = Bell::default();
        for what in [Ask::Advance, Ask::Group] {
            bell.ring(what);
            bell.ring(what);
            let rung = bell.wait().unwrap();
            assert_eq!((rung.advance, rung.group), (what == Ask::Advance, what == Ask::Group));
            // It has begun: what is asked for now may be something else.
            bell.ring(what);
            // Looked at first: whoever waits for what nobody has asked for waits for ever.
            let state = *bell.state.lock();
            assert_eq!((state.advance, state.group), (rung.advance, rung.group));
            bell.done(rung.asked);
            let again = bell.wait().unwrap();
            assert!(again.asked > rung.asked && (again.advance, again.group) == (rung.advance, rung.group));
            bell.done(again.asked);
            bell.wait_until_done();
        }
        bell.end();
        assert!(bell.wait().is_none());
    }
}

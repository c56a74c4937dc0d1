// SPDX-License-Identifier: Apache-2.0
//! The primary's side of the native protocol: keeps a session with each replica whenever there can be one, sends what
//! the replica lacks and then everything as it ends, and tells the data store what is propagated. Owns the threads and
//! sockets of it; what a message means is in `native`. Promises that the engine never waits for it, but for a bounded
//! time in [`Primary::shutdown`], and that no thread is left behind by that.

mod attempt;
mod base_set;
mod base_sync;
mod blobs;
mod catch_up;
mod connection;
mod core;
mod digest_desk;
mod digests;
mod end;
mod events;
mod feed;
mod group;
mod keeper;
mod lane;
mod members;
mod queue;
mod session;
mod taps;

use self::group::Group;
use self::keeper::Keeper;
use self::members::Members;
use crate::datastore::Datastore;
use crate::error::{catch_panic, Error, Result};
use crate::lock_order::Mutex;
use crate::replication::digests::MakesDigests;
use crate::replication::settings::{Replica, ReplicationSettings};
use crate::replication::status::{ListedReplica, Status};
use crate::types::Epoch;
use crate::wal::history_file::DirectoryHistory;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Replication of a data store that is ready. To be shut down before the data store is.
pub struct Primary {
    members: Arc<Members>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Primary {
    /// Begins to replicate; never waits for the replica. `state` is what the start of the engine made of the
    /// directory's role; `digests` answers replicas that compare both sides.
    ///
    /// # Errors
    /// [`Error::Io`] when the system gives no threads.
    pub fn start(
        store: Arc<Datastore>,
        settings: ReplicationSettings,
        state: DirectoryHistory,
        digests: Arc<dyn MakesDigests>,
    ) -> Result<Primary> {
        let members = Arc::new(Members::new(Group::new(store, settings, state, digests)));
        let primary = Primary { members: members.clone(), threads: Mutex::default() };
        // Of its own for each replica: one that takes nothing holds up nobody else.
        let kept = members.all().iter().try_for_each(|member| primary.keep(member));
        let begun = kept.and_then(|()| primary.spawn("repl_policy", move || members.watch()));
        // What has started already ends, without anybody waiting for replicas.
        begun.inspect_err(|_| primary.members.stop()).map(|()| primary)
    }

    /// Keeps a session with the replica from now on.
    fn keep(&self, member: &Arc<Keeper>) -> Result<()> {
        let (connecting, watching) = (member.clone(), member.clone());
        self.spawn("repl_connect", move || connecting.keep_connected())?;
        self.spawn("repl_watch", move || watching.watch())
    }

    /// Has one more replica, until replication ends; never waits for it. It counts when it has said what it has.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when it cannot be told from another one; [`Error::WrongState`] when replication has
    /// ended; [`Error::Io`] when the system gives no threads.
    pub fn add_replica(&self, replica: Replica) -> Result<()> {
        let (line, name) = (replica.to_string(), replica.name.clone());
        let member = self.members.add(replica)?;
        if let Err(e) = self.keep(&member) {
            // What has started of it ends.
            let _ = self.members.remove(&name);
            return Err(e);
        }
        log::info!("replication: replica {line} is added until the shutdown; {}", self.members.describe());
        Ok(())
    }

    /// Has the replica of this name no more, until replication ends: it does not count, no log is kept for it, and a
    /// session with it ends.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when there is none of that name; [`Error::WrongState`] when those that are left could
    /// never be enough, or replication has ended.
    pub fn remove_replica(&self, name: &str) -> Result<()> {
        self.members.remove(name)?;
        log::info!("replication: replica {name} is removed until the shutdown; {}", self.members.describe());
        Ok(())
    }

    /// The replicas, how they stand, and how many of them must have an epoch.
    pub fn replicas(&self) -> (Vec<ListedReplica>, usize) {
        self.members.list()
    }

    /// What all replicas are known to have; 0 as long as one of them has said nothing.
    pub fn confirmed_by_all(&self) -> Epoch {
        self.members.confirmed_by_all()
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let (store, what) = (self.members.group.store.clone(), format!("the thread {name}"));
        let body = move || {
            session::mark_own_thread();
            if let Err(panic) = catch_panic(&what, body) {
                store.fail(panic);
            }
        };
        // A shutdown takes the threads when it has said that nothing begins any more.
        let mut threads = self.threads.lock();
        if self.members.group.is_stopping() {
            return Err(Error::WrongState("replication ends".to_owned()));
        }
        let failed = |source| Error::Io { message: format!("cannot start the thread {name}"), source };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(failed)?;
        // Those of replicas that are no more.
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// What is going on.
    pub fn status(&self) -> Status {
        self.members.status()
    }

    /// Ends replication. A replica that is connected, or with which an attempt is under way, gets time to confirm what
    /// is stored, see [`ReplicationSettings::shutdown_patience`]; what it has not confirmed then is said in the log.
    /// Calling it again does nothing. May be called from within a callback; on a thread of replication it waits neither
    /// for the replica nor for the threads to end.
    pub fn shutdown(&self) {
        let group = &self.members.group;
        if !group.is_stopping() {
            self.members.drain(group.settings.shutdown_patience());
            self.members.stop();
        }
        // A callback on one of the threads that end now may have called this: they end when it returns.
        if session::is_own_thread() {
            return;
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // Its panics are caught.
            let _ = thread.join();
        }
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl std::fmt::Debug for Primary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Primary({:?})", self.status())
    }
}

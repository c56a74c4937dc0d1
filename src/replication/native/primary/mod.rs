// SPDX-License-Identifier: Apache-2.0
//! The primary's side of the native protocol: keeps a session with the replica whenever there can be one, sends what the
//! replica lacks and then everything as it ends, and tells the data store what is propagated. Owns the threads and
//! sockets of it; what a message means is in `native`. Promises that the engine never waits for it, but for a bounded
//! time in [`Primary::shutdown`], and that no thread is left behind by that.

mod base_sync;
mod blobs;
mod connection;
mod core;
mod end;
mod lane;
mod live;
mod queue;
mod session;

use self::core::Core;
use self::end::End;
use self::session::Session;
use crate::datastore::Datastore;
use crate::error::{Error, Result};
use crate::replication::net::backoff::Backoff;
use crate::replication::settings::ReplicationSettings;
use crate::replication::state_file::ReplicationState;
use crate::replication::status::Status;
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Attempts that follow each other at once because each prepares the next, before the time between grows all the same.
const PLANNED_MAX: u32 = 3;

/// Replication of a data store that is ready. To be shut down before the data store is.
pub struct Primary {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Primary {
    /// Begins to replicate; never waits for the replica. `state` is what the start of the engine made of the
    /// directory's role.
    ///
    /// # Errors
    /// [`Error::Io`] when the system gives no threads.
    pub fn start(store: Arc<Datastore>, settings: ReplicationSettings, state: ReplicationState) -> Result<Primary> {
        let core = Arc::new(Core::new(store, settings, state));
        let primary = Primary { core: core.clone(), threads: Mutex::default() };
        primary.spawn("repl_connect", {
            let core = core.clone();
            move || keep_connected(&core)
        })?;
        primary.spawn("repl_watch", move || core.watch())?;
        Ok(primary)
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let body = || {
            session::mark_own_thread();
            body();
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|source| {
            // What has started already ends.
            self.core.stop();
            Error::Io { message: format!("cannot start the thread {name}"), source }
        })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// What is going on.
    pub fn status(&self) -> Status {
        self.core.status()
    }

    /// Ends replication. A replica that is connected gets time to confirm what is stored, see
    /// [`ReplicationSettings::shutdown_patience`]; what it has not confirmed then is said in the log. Calling it again does nothing. May be called from within a
    /// callback; on a thread of replication it does not wait for the threads to end.
    pub fn shutdown(&self) {
        if !self.core.is_stopping() {
            // What this very thread should hear it would wait for in vain.
            let patience = match session::is_own_thread() {
                true => Duration::ZERO,
                false => self.core.settings.shutdown_patience(),
            };
            self.core.drain(patience);
            self.core.stop();
        }
        // A callback on one of the threads that end now may have called this: they end when it returns.
        if session::is_own_thread() {
            return;
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                log::error!("replication: a thread panicked");
            }
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

/// One session after the other until replication ends.
fn keep_connected(core: &Arc<Core>) {
    let mut backoff = Backoff::new(core.settings.timeout);
    let mut planned = 0;
    while !core.is_stopping() {
        let session = match Session::new(core.clone()) {
            Ok(session) => Arc::new(session),
            Err(end) => {
                core.failed(&end, Duration::ZERO);
                core.sleep(backoff.next());
                continue;
            }
        };
        if !core.begin(&session) {
            break;
        }
        let begun = Instant::now();
        let end = session.run();
        let streamed = core.end(&session, &end, begun.elapsed());
        if streamed {
            backoff.reset();
        }
        match end {
            End::NotShippable { oldest, .. } => core.raise_oldest_shippable(oldest),
            End::Stopped => break,
            _ => {}
        }
        planned = if end.is_part_of_the_plan() { planned + 1 } else { PLANNED_MAX };
        if planned >= PLANNED_MAX {
            planned = 0;
            core.sleep(backoff.next());
        }
    }
    core.stopped();
}

// SPDX-License-Identifier: Apache-2.0
//! Reads the log files of a running engine again and again, but for what may still be cut off, behind everything else
//! that is done on the machine. One that does not hold any more what it held is said, and stays as it is: nobody here
//! can tell what it should hold.

use crate::compaction::step_back;
use crate::datastore::Datastore;
use crate::error::{catch_panic, Error, Result};
use crate::lock_order::{Condvar, Mutex};
use crate::scrub::{keep, Damage, Host, Known, Scrubbed, Scrubbing};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

const THREAD_NAME: &str = "lstone_scrub";

/// The thread, from the start to the shutdown. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Scrubber {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Of one run of the engine.
#[derive(Debug)]
struct Shared {
    store: Weak<Datastore>,
    location: PathBuf,
    scrubbed: Arc<Scrubbed>,
    stopping: AtomicBool,
    stopped: Mutex<bool>,
    signal: Condvar,
}

impl Scrubber {
    /// Begins; the store is told what comes of it.
    ///
    /// # Errors
    /// When the system gives no thread; the engine works without.
    pub(super) fn start(store: &Arc<Datastore>, scrubbing: Scrubbing) -> Result<Scrubber> {
        let shared = Arc::new(Shared {
            store: Arc::downgrade(store),
            location: store.location().to_owned(),
            scrubbed: store.scrubbed().clone(),
            stopping: AtomicBool::new(false),
            stopped: Mutex::default(),
            signal: Condvar::new(),
        });
        let (own, vfs) = (shared.clone(), store.shared_vfs());
        let body = move || {
            let work = || {
                step_back();
                keep(&*own, (vfs, &own.location), scrubbing);
            };
            if let Err(panic) = catch_panic(THREAD_NAME, work) {
                log::error!("{panic}; the log files are not scrubbed any more");
            }
        };
        let failed = |source| Error::Io { message: format!("cannot start the thread {THREAD_NAME}"), source };
        let thread = std::thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(body).map_err(failed)?;
        Ok(Scrubber { shared, thread: Some(thread) })
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        *self.shared.stopped.lock() = true;
        self.shared.signal.notify_all();
        // Its panics are caught.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Host for Shared {
    /// The directory is open as long as this is.
    type Opening = ();

    fn opening(&self) -> Option<()> {
        Some(())
    }

    fn is_open_as(&self, (): &()) -> bool {
        !self.is_stopping()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    fn sleep(&self, time: Duration) {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.signal.wait_for(&mut stopped, time);
        }
    }

    fn settled_bytes(&self, name: &str) -> u64 {
        self.store.upgrade().map_or(0, |store| store.settled_bytes(name))
    }

    fn scrubbed(&self) -> &Scrubbed {
        &self.scrubbed
    }

    fn damaged(&self, damage: &Damage, (): &()) {
        if let Some(store) = self.store.upgrade() {
            store.found_damage(damage);
        }
    }

    fn knows(&self, known: &Arc<Known>, (): &()) {
        if let Some(store) = self.store.upgrade() {
            store.know(known);
        }
    }
}

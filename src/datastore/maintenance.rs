// SPDX-License-Identifier: Apache-2.0
//! The thread that waits for operators to ask for an online compaction: whoever makes the file `ctrl/start_compaction`
//! does (public API §16.4).

use super::compactor::{Compactor, Outcome};
use crate::directory::CompactionRequest;
use crate::lock_order::{Condvar, Mutex};
use crate::vfs::Vfs;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// As in the original.
const THREAD_NAME: &str = "cmpctn_worker";
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The thread, from the start to the shutdown.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    signal: Arc<Signal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Signal {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Maintenance {
    /// Starts the thread. When that fails, it is logged: the data store works without.
    pub(super) fn start(&self, vfs: Arc<dyn Vfs>, location: &Path, compactor: Arc<Compactor>) {
        let signal = self.signal.clone();
        *signal.ended.lock() = false;
        let request = CompactionRequest::new(vfs, location);
        let thread = std::thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(move || {
            log::info!("online compaction worker started...");
            work(&signal, request, &compactor);
        });
        match thread {
            Ok(thread) => *self.thread.lock() = Some(thread),
            Err(e) => log::error!("cannot start the thread {THREAD_NAME}, compaction cannot be asked for: {e}"),
        }
    }

    /// Ends the thread and waits for it; a running compaction must have been told to stop.
    pub(super) fn stop(&self) {
        *self.signal.ended.lock() = true;
        self.signal.changed.notify_all();
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread {THREAD_NAME} panicked");
        }
    }
}

fn work(signal: &Signal, mut request: CompactionRequest, compactor: &Compactor) {
    loop {
        let mut ended = signal.ended.lock();
        if !*ended {
            signal.changed.wait_for(&mut ended, LOOK_EVERY);
        }
        if *ended {
            return;
        }
        drop(ended);
        if !compactor.may_start() {
            continue;
        }
        let result = match (request.take(), compactor.is_postponed()) {
            (true, _) => compactor.run(),
            (false, true) => compactor.run_postponed(),
            (false, false) => continue,
        };
        match result {
            Ok(Outcome::Done | Outcome::NothingToDo | Outcome::Postponed) => {}
            Err(e) => log::error!("failed to compact with online: {e}"),
        }
    }
}

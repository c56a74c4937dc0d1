// SPDX-License-Identifier: Apache-2.0
//! The thread that compacts: when operators ask for it with the file `ctrl/start_compaction` (public API §16.4), and
//! when the log has grown and the settings say so.

use super::compactor::{Compactor, Outcome};
use super::settings::Settings;
use crate::compaction::{behind_others, Policy};
use crate::directory::CompactionRequest;
use crate::error::{catch_panic, Error, Result};
use crate::lock_order::{Condvar, Mutex};
use crate::vfs::Disk;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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
    pub(super) fn start(&self, settings: &Settings, compactor: Arc<Compactor>) {
        let signal = self.signal.clone();
        *signal.ended.lock() = false;
        let request = CompactionRequest::new(settings.vfs.clone(), &settings.location);
        let background = settings.self_compaction.map(|rule| {
            let policy = Policy::new(rule);
            Background { compactor: compactor.clone(), location: settings.location.clone(), policy, is_put_off: false }
        });
        let thread = std::thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(move || {
            log::info!("online compaction worker started...");
            if let Err(panic) = catch_panic(THREAD_NAME, || work(&signal, request, &compactor, background)) {
                compactor.failed(panic);
            }
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
        // Its panics are caught.
        let _ = thread.map(JoinHandle::join);
    }
}

fn work(signal: &Signal, mut request: CompactionRequest, compactor: &Compactor, mut background: Option<Background>) {
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
        let result = match (request.take(), compactor.is_postponed(), &mut background) {
            (true, ..) => compactor.run(),
            (false, true, _) => compactor.run_postponed(),
            (false, false, Some(background)) => background.look(),
            (false, false, None) => continue,
        };
        match result {
            Ok(Outcome::Done | Outcome::NothingToDo | Outcome::Postponed) => {}
            Err(_) if compactor.is_stopping() => log::info!("the compaction was broken off by the shutdown"),
            // That was said.
            Err(Error::Corrupted(_)) if compactor.known().is_damaged() => {}
            Err(e) => log::error!("failed to compact with online: {e}"),
        }
    }
}

/// Compacts without being asked.
struct Background {
    compactor: Arc<Compactor>,
    location: PathBuf,
    policy: Policy,
    /// Which was said, and is not said again at each attempt.
    is_put_off: bool,
}

impl Background {
    fn look(&mut self) -> Result<Outcome> {
        let Some(sizes) = self.compactor.sizes()? else { return Ok(Outcome::NothingToDo) };
        let due = self.compactor.has_epochs() && self.policy.is_due(sizes, Disk::of(&self.location), &self.location);
        if !due {
            return Ok(Outcome::NothingToDo);
        }
        if !self.is_put_off {
            log::info!(
                "the log has grown to {} bytes beside {} compacted ones and is compacted",
                sizes.log,
                sizes.compacted
            );
        }
        let begun = Instant::now();
        let outcome = behind_others(&self.location, || self.compactor.run_by_itself());
        // After a failure as after a success: not again at once.
        let left = self.compactor.sizes()?.map_or(0, |sizes| sizes.log);
        self.is_put_off = matches!(outcome, Ok(Outcome::Postponed));
        if !self.is_put_off {
            self.policy.ended(begun.elapsed(), left, outcome.is_ok());
        }
        outcome
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Keeps a session with one replica: one after the other, watched over while it lasts, and ended in good order.

use super::attempt;
use super::core::Core;
use super::end::End;
use super::session::Session;
use crate::lock_order::Mutex;
use crate::replication::native::protocol::heartbeat_interval;
use crate::replication::net::backoff::Backoff;
use crate::types::Epoch;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often at least the epochs are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Attempts that follow each other at once because each prepares the next, before the time between grows all the same.
const PLANNED_MAX: u32 = 3;

/// The sessions with one replica.
pub(super) struct Keeper {
    pub(super) core: Arc<Core>,
    session: Mutex<Option<Arc<Session>>>,
    /// From where on the replica needs the log, as far as that is known; also while it is away.
    needs_log_above: Mutex<Option<Epoch>>,
}

impl Keeper {
    pub(super) fn new(core: Core) -> Keeper {
        Keeper { core: Arc::new(core), session: Mutex::default(), needs_log_above: Mutex::default() }
    }

    pub(super) fn session(&self) -> Option<Arc<Session>> {
        self.session.lock().clone()
    }

    /// One session after the other until replication ends.
    pub(super) fn keep_connected(&self) {
        let core = &self.core;
        let mut backoff = Backoff::new(core.settings.timeout);
        let (mut planned, mut was_busy) = (0, false);
        while !core.is_over() {
            core.attempts();
            let begun = Instant::now();
            let (end, progressed) = match Session::new(core.clone()) {
                Ok(session) => self.run(Arc::new(session)),
                Err(end) => (end, false),
            };
            core.failed(&end, begun.elapsed());
            // One that begins to answer is soon ready, however long it was away.
            if progressed || (end.is_busy() && !was_busy) {
                backoff.reset();
            }
            was_busy = end.is_busy();
            match &end {
                End::NotShippable { oldest, .. } => core.raise_oldest_shippable(*oldest),
                End::Stopped => break,
                End::Fenced => return,
                End::Refused(reason) if end.is_fenced() => {
                    core.group.fence(&reason.text);
                    return;
                }
                _ => {}
            }
            planned = if end.is_part_of_the_plan() { planned + 1 } else { PLANNED_MAX };
            if planned >= PLANNED_MAX {
                planned = 0;
                core.sleep(if matches!(end, End::Unreachable(_)) { backoff.next_away() } else { backoff.next() });
            }
        }
        core.drop_base_set();
        if core.is_leaving() {
            core.stopped();
        }
    }

    /// Returns why the session ended, and whether the replica made any progress in it.
    fn run(&self, session: Arc<Session>) -> (End, bool) {
        *self.session.lock() = Some(session.clone());
        // Whoever stops replication sees the session, or this sees that it is stopped.
        let end = match (self.core.is_leaving(), self.core.group.is_fenced()) {
            (true, _) => End::Stopped,
            (_, true) => End::Fenced,
            _ => attempt::run(&session),
        };
        *self.session.lock() = None;
        (end, session.has_progressed())
    }

    /// Ends the session because nothing goes on; the threads end soon.
    pub(super) fn stop(&self) {
        match self.session() {
            Some(session) if self.core.is_leaving() => session.say_goodbye(),
            Some(session) => session.finish(End::Fenced),
            None => {}
        }
        self.core.events.wake();
    }

    /// It is no replica any more: ends the session, and lets go what is held for it.
    pub(super) fn dismiss(&self) {
        self.core.dismiss();
        self.stop();
    }

    /// From where on the replica needs the log, if that is known.
    pub(super) fn needs_log_above(&self) -> Option<Epoch> {
        *self.needs_log_above.lock()
    }

    /// What the thread does that watches over the session.
    pub(super) fn watch(&self) {
        let core = &self.core;
        let timeout = core.settings.timeout.as_millis() as u64;
        let wait = WATCH_INTERVAL.min(Duration::from_millis(heartbeat_interval(timeout)));
        let mut seen = 0;
        while !core.is_over() {
            if let Some(session) = self.session() {
                session.tick();
                if let Some(confirmed) = session.confirmed() {
                    *self.needs_log_above.lock() = Some(confirmed);
                }
            }
            core.drop_stale_base_set();
            if core.has_dropped_base_set() {
                // The replica has nothing that the log could go on from.
                *self.needs_log_above.lock() = None;
            }
            seen = core.events.wait(seen, Instant::now() + wait);
        }
    }
}

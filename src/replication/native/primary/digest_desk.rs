// SPDX-License-Identifier: Apache-2.0
//! Where the question of a session's replica lies that compares both sides, until it is answered or over.

use super::end::End;
use crate::lock_order::{Condvar, Mutex};
use crate::replication::digests::{DigestWanted, DigestWork};
use crate::replication::native::protocol::message::DigestMessage;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// For so long a digest waits for the replica to take the next piece.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// The question of a session's replica.
#[derive(Debug, Default)]
pub(super) struct Digests {
    desk: Mutex<Desk>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Desk {
    /// Nobody has begun with it.
    asked: Option<(u64, DigestWanted)>,
    /// The one that is answered, and what the work on it looks at.
    open: Option<(u64, DigestWork)>,
    /// Up to where the replica has taken the answer to it.
    taken: u64,
    thread: Option<JoinHandle<()>>,
    is_closed: bool,
}

impl Desk {
    /// Ends the question that is answered, if it is this one.
    fn end(&mut self, ended: impl Fn(u64) -> bool) {
        if let Some((_, work)) = self.open.take_if(|(number, _)| ended(*number)) {
            work.stop.store(true, SeqCst);
        }
    }
}

impl Digests {
    /// The session has ended. Never waits.
    pub(super) fn close(&self) {
        let mut desk = self.desk.lock();
        desk.is_closed = true;
        desk.end(|_| true);
        self.bell.notify_all();
    }

    /// Waits for the end of the thread, after [`Self::close`].
    pub(super) fn join(&self) {
        let thread = self.desk.lock().thread.take();
        // Its panics are caught.
        let _ = thread.map(JoinHandle::join);
    }

    /// Takes what the replica says; `spawn` starts the thread that answers.
    pub(super) fn hear(
        &self,
        asks: DigestMessage,
        spawn: impl FnOnce() -> Result<JoinHandle<()>, End>,
    ) -> Result<(), End> {
        let mut desk = self.desk.lock();
        match asks {
            DigestMessage::Want { number, wanted } => {
                desk.end(|_| true);
                desk.asked = Some((number, wanted));
                if desk.thread.is_none() && !desk.is_closed {
                    desk.thread = Some(spawn()?);
                }
            }
            DigestMessage::Next { number, offset } if desk.open.as_ref().is_some_and(|(open, _)| *open == number) => {
                desk.taken = desk.taken.max(offset);
            }
            DigestMessage::End { number } => {
                desk.end(|open| open == number);
                desk.asked.take_if(|(asked, _)| *asked == number);
            }
            _ => {}
        }
        self.bell.notify_all();
        Ok(())
    }

    /// The question has its answer.
    pub(super) fn answered(&self, number: u64) {
        self.desk.lock().end(|open| open == number);
    }

    /// The next question; `None` when the session has ended.
    pub(super) fn next(&self) -> Option<(u64, DigestWanted, DigestWork)> {
        let mut desk = self.desk.lock();
        loop {
            if desk.is_closed {
                return None;
            }
            if let Some((number, wanted)) = desk.asked.take() {
                let work = DigestWork::default();
                (desk.open, desk.taken) = (Some((number, work.clone())), 0);
                return Some((number, wanted, work));
            }
            self.bell.wait(&mut desk);
        }
    }

    /// Waits until the replica has taken so much of the answer; false when it wants no more of it.
    pub(super) fn is_taken(&self, number: u64, offset: u64) -> bool {
        let (mut desk, deadline) = (self.desk.lock(), Instant::now() + TAKEN_WITHIN);
        loop {
            match &desk.open {
                Some((open, _)) if *open == number && desk.taken >= offset => return true,
                Some((open, _)) if *open == number => {}
                _ => return false,
            }
            if self.bell.wait_until(&mut desk, deadline).timed_out() {
                return false;
            }
        }
    }
}

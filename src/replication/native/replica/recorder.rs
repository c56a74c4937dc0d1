// SPDX-License-Identifier: Apache-2.0
//! Makes epochs durable beside everything else of a session: while one is recorded, the sessions of the next are
//! received and synced.

use crate::lock_order::{Condvar, Mutex};
use crate::types::Epoch;

/// What is asked of the thread that records epochs.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    asked: Mutex<Asked>,
    /// Something was asked for.
    wake: Condvar,
    /// The thread has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Asked {
    epoch: Option<Epoch>,
    closed: bool,
    running: bool,
}

/// Says that the thread has ended, also when it panics.
struct Running<'a>(&'a Recorder);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.asked.lock().running = false;
        self.0.ended.notify_all();
    }
}

impl Recorder {
    /// Asks for the record of `epoch`, which takes the place of an earlier one.
    pub(super) fn record(&self, epoch: Epoch) {
        self.asked.lock().epoch = Some(epoch);
        self.wake.notify_one();
    }

    /// To be called before the thread that runs this begins.
    pub(super) fn begin(&self) {
        self.asked.lock().running = true;
    }

    /// Takes nothing more; when this returns, everything that was asked for is recorded, unless the disk failed.
    pub(super) fn finish(&self) {
        let mut asked = self.asked.lock();
        asked.closed = true;
        self.wake.notify_one();
        while asked.running {
            self.ended.wait(&mut asked);
        }
    }

    /// The thread that was to run this did not begin.
    pub(super) fn give_up(&self) {
        drop(Running(self));
    }

    fn next(&self) -> Option<Epoch> {
        let mut asked = self.asked.lock();
        while asked.epoch.is_none() && !asked.closed {
            self.wake.wait(&mut asked);
        }
        asked.epoch.take()
    }

    /// Hands every epoch that is asked for to `each`, which records it, until this is finished or `each` says false.
    pub(super) fn run(&self, mut each: impl FnMut(Epoch) -> bool) {
        let _running = Running(self);
        while let Some(epoch) = self.next() {
            if !each(epoch) {
                return;
            }
        }
    }
}

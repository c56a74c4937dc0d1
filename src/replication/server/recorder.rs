// SPDX-License-Identifier: Apache-2.0
//! Makes epochs durable beside everything else of a session: while one is recorded, the sessions of the next are received
//! and synced.

use super::node::{Active, End, Node};
use crate::types::Epoch;
use parking_lot::{Condvar, Mutex};

/// What is asked of the thread that records epochs.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    asked: Mutex<Asked>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Asked {
    epoch: Option<Epoch>,
    closed: bool,
}

impl Recorder {
    /// Asks for the record of `epoch`, which takes the place of an earlier one.
    pub(super) fn record(&self, epoch: Epoch) {
        self.asked.lock().epoch = Some(epoch);
        self.wake.notify_one();
    }

    /// Lets the thread end. What is being recorded is completed.
    pub(super) fn close(&self) {
        self.asked.lock().closed = true;
        self.wake.notify_one();
    }

    fn next(&self) -> Option<Epoch> {
        let mut asked = self.asked.lock();
        while asked.epoch.is_none() && !asked.closed {
            self.wake.wait(&mut asked);
        }
        match asked.closed {
            true => None,
            false => asked.epoch.take(),
        }
    }

    /// Records and confirms until it is closed.
    pub(super) fn run(&self, node: &Node, active: &Active) -> Result<(), End> {
        while let Some(epoch) = self.next() {
            active.store.record(epoch).map_err(|e| End::Told(node.failed(&e)))?;
            node.board.durable();
            let actions = active.session.lock().recorded(epoch, node.now());
            active.carry_out(actions)?;
        }
        Ok(())
    }
}

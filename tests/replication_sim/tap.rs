// SPDX-License-Identifier: Apache-2.0
//! What the data store tells a primary's session, and the words that both sides share.

use crate::setup::{Sabotage, Setup};
use limestone_core::datastore::{EndedSession, Tap};
use limestone_core::replication::native::protocol::message::{Code, Reason};
use limestone_core::types::{Epoch, WriteVersion};
use limestone_core::wal::history::{History, Run, RunId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// Events of the tap beyond which a replica is put back to catch-up.
pub const QUEUE_MAX: usize = 16;

pub enum Event {
    Session(EndedSession),
    Switched,
    Stored(Epoch, Option<Epoch>),
}

#[derive(Default)]
pub struct Queue(pub Mutex<VecDeque<Event>>);

impl Queue {
    fn push(&self, event: Event) {
        self.0.lock().unwrap().push_back(event);
    }
}

/// Tells the links of a primary.
pub struct Fan(pub Vec<Arc<Queue>>);

impl Tap for Fan {
    fn session_ended(&self, session: EndedSession) {
        self.0.iter().for_each(|queue| queue.push(Event::Session(session.clone())));
    }
    fn switched(&self, _: Epoch) {
        self.0.iter().for_each(|queue| queue.push(Event::Switched));
    }
    fn stored(&self, stored: Epoch, last_written: Option<Epoch>) -> Option<Epoch> {
        self.0.iter().for_each(|queue| queue.push(Event::Stored(stored, last_written)));
        None
    }
    fn boundary(&self, _: WriteVersion) {}
    fn safe_snapshot(&self, _: WriteVersion) {}
}

/// What a step of a process came to.
pub type Step = Result<(), String>;

/// An honest peer never breaks the protocol; other reasons to end a session are part of life.
pub fn expected(reason: Reason) -> Step {
    match reason.code {
        Code::BUSY | Code::TIMEOUT | Code::UNKNOWN_SESSION | Code::FENCED | Code::DIVERGED => Ok(()),
        _ => Err(format!("a session ended with {reason}")),
    }
}

/// With the mistake, runs cannot be told apart.
pub fn seen(history: &History, setup: Setup) -> History {
    match setup.sabotage {
        Some(Sabotage::CompareNumbersOnly) if !history.is_empty() => {
            let only = Run { id: RunId(1), term: 1, first_epoch: 0 };
            History::new(vec![only], false).expect("one run is a history")
        }
        _ => history.clone(),
    }
}

// SPDX-License-Identifier: Apache-2.0
//! What the primary says to the question of somebody who compares both sides; only the last message is held.

use crate::lock_order::{Condvar, Mutex};
use crate::replication::native::protocol::message::DigestMessage;
use std::time::Duration;

/// For so long a message is waited for at a time.
const POLL: Duration = Duration::from_millis(100);

/// What the primary said last about a question.
#[derive(Debug, Default)]
pub(super) struct Answers {
    last: Mutex<(u64, Option<DigestMessage>)>,
    bell: Condvar,
}

impl Answers {
    /// The primary has said this. What belongs to an earlier question counts for nothing.
    pub(super) fn put(&self, message: DigestMessage) {
        let (DigestMessage::Work { number, .. }
        | DigestMessage::Piece { number, .. }
        | DigestMessage::Failed { number, .. }) = &message
        else {
            return;
        };
        let mut last = self.last.lock();
        if last.0 == *number {
            last.1 = Some(message);
            self.bell.notify_all();
        }
    }

    /// A new question is open, and only what belongs to it counts.
    pub(super) fn expect(&self, number: u64) {
        *self.last.lock() = (number, None);
    }

    /// What was said since the last call; waits a moment for it.
    pub(super) fn take(&self) -> Option<DigestMessage> {
        let mut last = self.last.lock();
        if last.1.is_none() {
            self.bell.wait_for(&mut last, POLL);
        }
        last.1.take()
    }
}

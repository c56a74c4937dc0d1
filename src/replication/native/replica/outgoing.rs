// SPDX-License-Identifier: Apache-2.0
//! The sending end of a connection, shared by the threads that answer on it: frames go out one after the other.

use crate::lock_order::{Mutex, Rank};
use crate::replication::native::protocol::message::Message;
use crate::replication::native::protocol::seal::Seal;
use crate::replication::native::sender::Sender;
use crate::replication::net::connection::{Closer, WriteHalf};
use std::io;
use std::sync::Arc;

/// A handle of it; all of one connection send in one order.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    sender: Arc<Mutex<Sender>>,
    closer: Closer,
}

impl Outgoing {
    pub(super) fn new(write: WriteHalf) -> Outgoing {
        let closer = write.closer();
        Outgoing { sender: Arc::new(Mutex::new(Rank::Outgoing, Sender::new(write))), closer }
    }

    /// Sends within the deadline of the half.
    pub(super) fn send(&self, message: &Message) -> io::Result<()> {
        self.sender.lock().send(message)
    }

    /// From the next message on each is sealed.
    pub(super) fn set_seal(&self, seal: Option<Seal>) {
        self.sender.lock().set_seal(seal);
    }

    /// Says that nothing more comes.
    pub(super) fn end(&self) {
        self.sender.lock().end();
    }

    /// What ends the connection, also while something is being sent.
    pub(super) fn closer(&self) -> Closer {
        self.closer.clone()
    }
}

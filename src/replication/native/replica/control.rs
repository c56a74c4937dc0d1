// SPDX-License-Identifier: Apache-2.0
//! The control connection of a session: heartbeats both ways, the primary's epochs, the end.

use super::end::End;
use super::incoming::{Incoming, Next};
use super::node::Node;
use super::session::Session;
use crate::replication::native::protocol::heartbeat_interval;
use crate::replication::native::protocol::message::Message;
use std::time::Duration;

/// How long a read may take, so that heartbeats go out in time.
pub(super) fn interval(node: &Node) -> Duration {
    Duration::from_millis((heartbeat_interval(node.timeout_ms()) / 2).max(1))
}

/// Serves the connection until the session ends, and says why it did.
pub(super) fn run(node: &Node, session: &Session, incoming: &mut Incoming) -> End {
    loop {
        let next = match incoming.next() {
            Ok(next) => next,
            // Half a heartbeat: the rest is waited for as long as the primary is not lost.
            Err(End::Lost(_)) if incoming.is_inside_message() && session.ended().is_none() => Next::Idle,
            Err(end) => return session.ended().unwrap_or(end),
        };
        if let Some(end) = session.ended() {
            return end;
        }
        let mut told = false;
        let step = match next {
            Next::Message(message) => {
                session.heard(node.now());
                node.board.heard();
                told = matches!(message, Message::Heartbeat { .. });
                let step = session.machine.lock().on_control(message, node.now());
                step.map_err(End::of_reason)
            }
            Next::Closed => return End::Lost("the control connection was closed".to_owned()),
            Next::Idle => Ok(None),
        };
        let done = step.and_then(|action| session.carry_out(action)).and_then(|()| session.tick(node.now()));
        if let Err(end) = done {
            return end;
        }
        let durable = session.store.durable();
        if told {
            let (switched, stored, written) = session.machine.lock().primary_epochs();
            node.board.epochs(switched, stored, written, durable);
        } else {
            node.board.tick(durable);
        }
        if let Err(e) = node.note_told(session) {
            return End::Told(node.failed(&e));
        }
    }
}

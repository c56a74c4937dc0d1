// SPDX-License-Identifier: Apache-2.0
//! The replica as a whole: its start and its end.

use super::connection;
use super::node::{Node, Options};
use crate::lock_order::{Rank, RwLock};
use crate::replication::net::limits::Limits;
use crate::replication::net::listener::Listener;
use crate::replication::replica_store::{Fault, StandbyStore};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;

/// A primary has a log connection for each of its channels.
const CONNECTIONS_MAX: usize = 10_001;
/// What a connection takes: itself and a file of the log.
const DESCRIPTORS_EACH: u64 = 2;

/// A running replica. Dropping it stops it.
#[derive(Debug)]
pub struct Replica {
    node: Arc<Node>,
    listener: Listener,
}

impl Replica {
    /// Serves primaries that connect to `listener`.
    ///
    /// # Errors
    /// When the system gives no thread or socket.
    pub fn start(listener: TcpListener, store: Arc<StandbyStore>, options: Options) -> io::Result<Replica> {
        let limits = match options.limits {
            Some(limits) => limits,
            None => Limits::of_this_process(DESCRIPTORS_EACH, CONNECTIONS_MAX)?,
        };
        let node = Arc::new(Node {
            store,
            fault: Fault::default(),
            options,
            registry: Arc::default(),
            recording: RwLock::new(Rank::Recording, ()),
            stopping: AtomicBool::new(false),
        });
        let listener = {
            let (node, panicked) = (node.clone(), node.clone());
            let serve = move |connection, guest: &_| connection::serve(&node, connection, guest);
            Listener::start(listener, limits, serve, move |panic| panicked.store.fail(panic))?
        };
        Ok(Replica { node, listener })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// How many connections a primary holds.
    pub fn held(&self) -> usize {
        self.node.registry.held()
    }

    /// Calls say the same, as long as this lives.
    pub fn held_source(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let registry = self.node.registry.clone();
        move || registry.held()
    }

    /// Says in the log what has failed, unless it does already.
    pub fn say_failure(&self) {
        self.node.fault.note_of_store(self.node.store.failure());
    }

    /// Ends all connections and waits for their threads. What was acknowledged is on the disk already.
    pub fn stop(&mut self) {
        self.node.stopping.store(true, SeqCst);
        self.listener.stop();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop();
    }
}

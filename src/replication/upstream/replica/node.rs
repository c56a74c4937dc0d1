// SPDX-License-Identifier: Apache-2.0
//! The replica as a whole: what its connections share, its start and its end.

use super::connection;
use super::registry::Registry;
use crate::replication::net::limits::Limits;
use crate::replication::net::listener::Listener;
use crate::replication::replica_store::StandbyStore;
use crate::replication::upstream::protocol::reader::Budget;
use parking_lot::RwLock;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

/// A primary has a log connection for each of its channels.
const CONNECTIONS_MAX: usize = 10_001;
/// What a connection takes: itself and a file of the log.
const DESCRIPTORS_EACH: u64 = 2;

/// Bounds of a replica.
#[derive(Clone, Debug)]
pub struct Options {
    /// For the first message, for a stall inside a message, and for a reply that the peer does not take. Default: 10 s.
    pub timeout: Duration,
    /// Whether peers elsewhere are served: the protocol cannot tell who they are. Default: no.
    pub allow_remote: bool,
    /// Connections at a time. Default: what the process's limit of descriptors allows.
    pub limits: Option<Limits>,
    /// What the messages being received may hold in memory together. Default: 1 GiB.
    pub budget: Budget,
}

impl Default for Options {
    fn default() -> Options {
        Options { timeout: Duration::from_secs(10), allow_remote: false, limits: None, budget: Budget::default() }
    }
}

/// A running replica. Dropping it stops it.
#[derive(Debug)]
pub struct Replica {
    node: Arc<Node>,
    listener: Listener,
}

/// What the connections share.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) store: Arc<StandbyStore>,
    pub(super) options: Options,
    pub(super) registry: Arc<Registry>,
    /// Held for reading while a session is appended, for writing while an epoch is recorded: a session is either whole
    /// in the log when the record is made, or knows that the record covers it.
    pub(super) recording: RwLock<()>,
    stopping: AtomicBool,
}

impl Node {
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }
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
            options,
            registry: Arc::default(),
            recording: RwLock::new(()),
            stopping: AtomicBool::new(false),
        });
        let listener = {
            let node = node.clone();
            Listener::start(listener, limits, move |connection, guest| connection::serve(&node, connection, guest))?
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

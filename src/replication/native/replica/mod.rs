// SPDX-License-Identifier: Apache-2.0
//! A running replica of the native protocol: listens, serves one primary at a time with a thread for each connection,
//! and carries out what the session logic in [`crate::replication::native`] asks for. Promises that an epoch is
//! acknowledged only when it is on the disk, that the end of any connection ends its session and nothing of it beyond
//! the durable epoch stays, that nothing a peer does ends the program or makes it wait for ever, and that a failed disk
//! does end it.

mod answers;
mod backup;
mod board;
mod compaction;
mod connection;
mod control;
mod data;
mod digests;
mod end;
mod incoming;
mod node;
mod options;
mod outgoing;
mod recorder;
mod rewind;
mod rewinds;
mod scrubber;
mod session;
mod syncer;

pub use options::{Compaction, Options};

use crate::directory::{Cut, Keep};
use crate::error::{catch_panic, Result};
use crate::replication::backup_socket::Held;
use crate::replication::digests::{DigestWanted, Tell};
use crate::replication::net::limits::Limits;
use crate::replication::net::listener::Listener;
use crate::replication::secret::Secret;
use crate::replication::status::Status;
use crate::types::Epoch;
use crate::vfs::Vfs;
use node::Node;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A session needs one connection for each lane and three more, and the next one may begin while the last one ends.
const CONNECTIONS_MAX: usize = 256;
/// What a connection takes: itself, the handles of it that end it, and a file of the log.
const DESCRIPTORS_EACH: u64 = 4;

/// A replica that serves. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    node: Arc<Node>,
    listener: Listener,
    /// Its threads beside those of connections.
    maintenance: Vec<JoinHandle<()>>,
}

/// Opens the directory; [`Opened::serve`] begins.
#[derive(Debug)]
pub struct Opened(Arc<Node>);

/// Opens the directory of a replica, locks it and puts it right.
pub fn open(vfs: Arc<dyn Vfs>, location: &Path, options: Options) -> Result<Opened> {
    Ok(Opened(Arc::new(Node::new(vfs, location, options)?)))
}

impl Opened {
    /// Lets the directory go back to the highest common point with a primary that went another way from there. What it
    /// has above is saved below `cut_off/` first, of which so much is kept. Without this such a primary is refused.
    pub fn allow_rewind(self, keep: Keep) -> Opened {
        self.0.allow_rewind(keep);
        self
    }

    /// Serves primaries that connect to `listener`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn serve(self, listener: TcpListener) -> io::Result<Server> {
        let Opened(node) = self;
        let limits = Limits::of_this_process(DESCRIPTORS_EACH, CONNECTIONS_MAX)?;
        let listener = {
            let (node, panicked) = (node.clone(), node.clone());
            let serve = move |connection, guest: &_| connection::serve(&node, connection, guest);
            Listener::start(listener, limits, serve, move |panic| panicked.panicked(panic))?
        };
        let mut server = Server { node, listener, maintenance: Vec::new() };
        server.spawn("replica-compact", compaction::work)?;
        if let Some(scrubbing) = server.node.options.scrubbing {
            server.spawn("replica-scrub", move |node| scrubber::work(node, scrubbing))?;
        }
        Ok(server)
    }
}

impl Server {
    fn spawn(&mut self, name: &str, work: impl FnOnce(&Arc<Node>) + Send + 'static) -> io::Result<()> {
        let (node, thread) = (self.node.clone(), name.to_owned());
        let body = move || {
            if let Err(panic) = catch_panic(&thread, || work(&node)) {
                node.panicked(&panic);
            }
        };
        self.maintenance.push(std::thread::Builder::new().name(name.to_owned()).spawn(body)?);
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// The status document.
    pub fn status(&self) -> Status {
        self.node.status()
    }

    /// Calls give the status document as long as this lives.
    pub fn status_source(&self) -> impl Fn() -> Status + Send + Sync + 'static {
        let node = self.node.clone();
        move || node.status()
    }

    /// Calls begin a backup of the directory, as long as this lives.
    pub fn backup_source(&self) -> impl Fn() -> std::result::Result<Held, String> + Send + 'static {
        let node = self.node.clone();
        move || node.begin_backup()
    }

    /// Calls get a digest from the primary, as long as this lives; see [`CompareSocket::start`].
    pub fn digest_source(&self) -> impl Fn(DigestWanted, Tell<'_>) -> std::result::Result<(), String> + Send + 'static {
        let node = self.node.clone();
        move |wanted, tell| digests::ask(&node, wanted, tell)
    }

    /// Calls say up to which epoch everything is durable, as long as this lives.
    pub fn durable_source(&self) -> impl Fn() -> Epoch + Send + 'static {
        let node = self.node.clone();
        move || node.durable()
    }

    /// Takes another secret for connections that come from now on.
    pub fn set_secret(&self, secret: Secret) {
        self.node.set_secret(secret);
    }

    /// The last epoch that is durable here.
    pub fn durable(&self) -> Epoch {
        self.node.durable()
    }

    /// The failure of the disk after which nothing is acknowledged any more. After [`Self::stop`] the log has a line
    /// that says so.
    pub fn failure(&self) -> Option<String> {
        self.node.failure()
    }

    /// How the first session of a primary ended, if one has.
    pub fn first_session(&self) -> Option<std::result::Result<(), String>> {
        self.node.outcome()
    }

    /// What was cut off last since this began.
    pub fn rewound(&self) -> Option<Cut> {
        self.node.rewound()
    }

    /// Ends all connections and waits for their threads; what came is on the disk then, and the directory closed.
    pub fn stop(&mut self) {
        self.node.stop();
        self.listener.stop_accepting();
        for thread in self.maintenance.drain(..) {
            // Its panics are caught.
            let _ = thread.join();
        }
        self.listener.stop();
        self.node.close_store();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

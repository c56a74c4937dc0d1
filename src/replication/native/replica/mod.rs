// SPDX-License-Identifier: Apache-2.0
//! A running replica of the native protocol: listens, serves one primary at a time with a thread for each connection,
//! and carries out what the session logic in [`crate::replication::native`] asks for. Promises that an epoch is acknowledged only when
//! it is on the disk, that the end of any connection ends its session and nothing of it beyond the durable epoch stays,
//! that nothing a peer does ends the program or makes it wait for ever, and that a failed disk does end it.

mod board;
mod compaction;
mod connection;
mod control;
mod data;
mod end;
mod incoming;
mod node;
mod recorder;
mod session;
mod syncer;

pub use node::Options;

use crate::error::Result;
use crate::replication::net::transport;
use crate::replication::status::Status;
use crate::types::Epoch;
use crate::vfs::Vfs;
use node::Node;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A session needs one connection for each lane and three more; strangers get what is left.
const CONNECTIONS_MAX: usize = 256;
/// How often the accepting thread looks whether it shall end.
const POLL: Duration = Duration::from_millis(50);

/// A replica that serves. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    node: Arc<Node>,
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
    streams: Arc<Mutex<Streams>>,
}

/// Connections that are being served.
#[derive(Debug, Default)]
struct Streams {
    next: u64,
    open: BTreeMap<u64, (TcpStream, Option<JoinHandle<()>>)>,
}

/// Opens the directory; [`Opened::serve`] begins.
#[derive(Debug)]
pub struct Opened(Arc<Node>);

/// Opens the directory of a replica, locks it and puts it right.
pub fn open(vfs: Arc<dyn Vfs>, location: &Path, options: Options) -> Result<Opened> {
    Ok(Opened(Arc::new(Node::new(vfs, location, options)?)))
}

impl Opened {
    /// Serves primaries that connect to `listener`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn serve(self, listener: TcpListener) -> io::Result<Server> {
        let Opened(node) = self;
        let address = listener.local_addr()?;
        let streams: Arc<Mutex<Streams>> = Arc::default();
        let acceptor = {
            let (node, streams) = (node.clone(), streams.clone());
            let name = "replica-accept".to_owned();
            std::thread::Builder::new().name(name).spawn(move || accept(&node, &streams, &listener))?
        };
        let maintenance = {
            let node = node.clone();
            std::thread::Builder::new().name("replica-compact".to_owned()).spawn(move || compaction::work(&node))
        };
        let threads = std::iter::once(Ok(acceptor)).chain([maintenance]).collect::<io::Result<Vec<_>>>();
        let threads = threads.inspect_err(|_| node.stop())?;
        Ok(Server { node, address, threads, streams })
    }
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The status document.
    pub fn status(&self) -> Status {
        self.node.status()
    }

    /// Calls give the status document as long as this lives.
    pub fn status_source(&self) -> impl Fn() -> Status + Send + 'static {
        let node = self.node.clone();
        move || node.status()
    }

    /// The last epoch that is durable here.
    pub fn durable(&self) -> Epoch {
        self.node.durable()
    }

    /// The failure of the disk after which nothing is acknowledged any more.
    pub fn failure(&self) -> Option<String> {
        self.node.failure()
    }

    /// How the first session of a primary ended, if one has.
    pub fn first_session(&self) -> Option<std::result::Result<(), String>> {
        self.node.outcome()
    }

    /// Ends all connections and waits for their threads; what came is on the disk then.
    pub fn stop(&mut self) {
        self.node.stop();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
        let open = std::mem::take(&mut self.streams.lock().open);
        for (stream, _) in open.values() {
            transport::close(stream);
        }
        for (_, thread) in open.into_values() {
            let _ = thread.map(JoinHandle::join);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(node: &Arc<Node>, streams: &Arc<Mutex<Streams>>, listener: &TcpListener) {
    while !node.is_stopping() {
        match transport::accept(listener, POLL) {
            Ok(None) => {}
            Ok(Some((stream, peer))) => {
                if let Err(e) = admit(node, streams, stream, peer) {
                    log::warn!("replication: the connection from {peer} is not served: {e}");
                }
            }
            Err(e) => {
                log::error!("replication: cannot accept connections: {e}");
                std::thread::sleep(POLL);
            }
        }
    }
}

fn admit(node: &Arc<Node>, streams: &Arc<Mutex<Streams>>, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let mut held = streams.lock();
    if held.open.len() >= CONNECTIONS_MAX {
        return Err(io::Error::other(format!("there are {} connections, the most that are allowed", held.open.len())));
    }
    let number = held.next;
    held.next += 1;
    held.open.insert(number, (stream.try_clone()?, None));
    let spawned = {
        let (node, streams) = (node.clone(), streams.clone());
        std::thread::Builder::new().name(format!("replica-{number}")).spawn(move || {
            connection::serve(&node, stream, peer);
            let entry = streams.lock().open.remove(&number);
            // The last handle of the socket: the peer sees the end now.
            drop(entry);
        })
    };
    match spawned {
        Ok(thread) => {
            // The lock has been held since the entry was made, so the thread has not taken it away yet.
            if let Some((_, handle)) = held.open.get_mut(&number) {
                *handle = Some(thread);
            }
            Ok(())
        }
        Err(e) => {
            held.open.remove(&number);
            Err(e)
        }
    }
}

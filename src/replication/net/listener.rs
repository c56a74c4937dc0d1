// SPDX-License-Identifier: Apache-2.0
//! Accepts connections and gives each a thread. A peer is a stranger until what it sent has shown what it is for;
//! strangers have few places, the oldest of them goes when another comes, and nothing that they do takes a place, a
//! descriptor or a line of the log from the primary. A process without descriptors accepts later; that ends nothing.

use super::connection::{Closer, Connection};
use super::dial::resolve;
use super::limits::Limits;
use super::tally::Tally;
use crate::error::{catch_panic, Error};
use crate::lock_order::{Condvar, Mutex};
use crate::replication::settings::Endpoint;
use crate::vfs::descriptor::{above_standard_streams, is_exhausted};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How many connections may wait to be accepted, as far as the system allows.
const BACKLOG: i32 = 4096;
/// How often the accepting thread looks whether it shall end.
const POLL: Duration = Duration::from_millis(50);
/// No BLOB directory, buffer or recursion of a connection's thread needs more.
const STACK_BYTES: usize = 512 << 10;

/// Listens on the first address of the endpoint that can be bound. Port 0 lets the system choose.
pub fn listen(endpoint: &Endpoint) -> io::Result<TcpListener> {
    let mut problems = Vec::new();
    for address in resolve(endpoint)? {
        match listen_address(address) {
            Ok(listener) => return Ok(listener),
            Err(e) => problems.push(format!("{address}: {e}")),
        }
    }
    Err(io::Error::new(ErrorKind::AddrNotAvailable, problems.join("; ")))
}

fn listen_address(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A replica that is restarted must not wait for connections of the former one to expire.
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    above_standard_streams(socket.into())
}

/// Accepts a connection; `None` when none comes before the timeout, or the peer gave up before it was accepted.
pub fn accept(listener: &TcpListener, timeout: Duration) -> io::Result<Option<Connection>> {
    SockRef::from(listener).set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
    match listener.accept() {
        // What the peer has closed meanwhile cannot be set up any more.
        Ok((stream, _)) => match Connection::new(stream) {
            Ok(connection) => Ok(Some(connection)),
            Err(e) if is_exhausted(&e) => Err(e),
            Err(_) => Ok(None),
        },
        Err(e) => match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(None),
            ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset => Ok(None),
            _ => Err(e),
        },
    }
}

/// Serves what connects until it is stopped.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    guests: Mutex<Guests>,
    left: Condvar,
    turned_away: Tally,
    stopping: AtomicBool,
    #[cfg(test)]
    panics: AtomicBool,
}

#[derive(Debug, Default)]
struct Guests {
    next: u64,
    known: usize,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    closer: Closer,
    thread: Option<JoinHandle<()>>,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Stranger,
    Known,
    /// Its connection is closed, its thread ends.
    SentAway,
}

/// The place of one connection; dropping it gives it back.
#[derive(Debug)]
pub struct Guest {
    shared: Arc<Shared>,
    number: u64,
    peer: SocketAddr,
}

impl Guest {
    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// It has shown what it is for, and takes no stranger's place any more. Again does nothing.
    ///
    /// # Errors
    /// What to say when there are as many of those as there may be, or it was sent away before.
    pub fn admit(&self) -> Result<(), String> {
        let mut guests = self.shared.guests.lock();
        let known_max = self.shared.limits.known_max;
        let full = guests.known >= known_max;
        let Some(open) = guests.open.get_mut(&self.number) else {
            return Err("the listener is being stopped".to_owned());
        };
        match open.standing {
            Standing::Known => Ok(()),
            Standing::SentAway => Err("it gave its place to others that came later".to_owned()),
            Standing::Stranger if full => {
                Err(format!("{known_max} connections are served, as many as the process's limit of descriptors allows"))
            }
            Standing::Stranger => {
                open.standing = Standing::Known;
                guests.known += 1;
                Ok(())
            }
        }
    }

    /// Whether its place was given to another one that came later.
    pub fn is_sent_away(&self) -> bool {
        let guests = self.shared.guests.lock();
        guests.open.get(&self.number).is_none_or(|open| open.standing == Standing::SentAway)
    }

    /// It is not served, for this reason; the log gets one line for many of those.
    pub fn turned_away(&self, reason: impl std::fmt::Display) {
        self.shared.turned_away.note(format!("{}: {reason}", self.peer));
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut guests = self.shared.guests.lock();
        if guests.open.remove(&self.number).is_some_and(|open| open.standing == Standing::Known) {
            guests.known -= 1;
        }
        self.shared.left.notify_all();
    }
}

impl Listener {
    /// Calls `serve` for each connection, on a thread of its own, and `panicked` when nobody can come any more because
    /// the thread that accepts them has panicked.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        listener: TcpListener,
        limits: Limits,
        serve: impl Fn(Connection, &Guest) + Send + Sync + 'static,
        panicked: impl FnOnce(&Error) + Send + 'static,
    ) -> io::Result<Listener> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            limits,
            guests: Mutex::default(),
            left: Condvar::new(),
            turned_away: Tally::default(),
            stopping: AtomicBool::new(false),
            #[cfg(test)]
            panics: AtomicBool::new(false),
        });
        let acceptor = {
            let (shared, serve) = (shared.clone(), Arc::new(serve));
            let name = "replica-accept".to_owned();
            let accept = move || {
                let accepted = catch_panic("the thread that accepts connections", || shared.accept(&listener, &serve));
                if let Err(panic) = accepted {
                    panicked(&panic);
                }
            };
            std::thread::Builder::new().name(name).spawn(accept)?
        };
        Ok(Listener { shared, address, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more.
    pub fn stop_accepting(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        if let Some(acceptor) = self.acceptor.take() {
            // Its panics are caught.
            let _ = acceptor.join();
        }
    }

    /// Ends all connections and waits for their threads. Again does nothing.
    pub fn stop(&mut self) {
        self.stop_accepting();
        let open = std::mem::take(&mut self.shared.guests.lock().open);
        open.values().for_each(|open| open.closer.close());
        for open in open.into_values() {
            let _ = open.thread.map(JoinHandle::join);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn accept<F: Fn(Connection, &Guest) + Send + Sync + 'static>(
        self: &Arc<Self>,
        listener: &TcpListener,
        serve: &Arc<F>,
    ) {
        // Given up for a moment when there is no descriptor left, so that who waits is not a stranger for ever.
        let mut spare = spare_descriptor();
        while !self.stopping.load(SeqCst) {
            #[cfg(test)]
            assert!(!self.panics.load(SeqCst), "on purpose");
            match accept(listener, POLL) {
                Ok(None) => {}
                Ok(Some(connection)) => {
                    let peer = connection.peer();
                    if let Err(e) = self.admit(connection, serve) {
                        self.turned_away.note(format!("{peer}: {e}"));
                    }
                }
                Err(e) => {
                    self.turned_away.note(format!("connections cannot be accepted at the moment: {e}"));
                    let made_room =
                        is_exhausted(&e) && (spare.take().is_some() | self.guests.lock().send_oldest_away());
                    if !made_room {
                        std::thread::sleep(POLL);
                    }
                    continue;
                }
            }
            if spare.is_none() {
                spare = spare_descriptor();
            }
            if let Some(line) = self.turned_away.due() {
                log::warn!("replication: a connection was not served: {line}");
            }
        }
    }

    fn admit<F: Fn(Connection, &Guest) + Send + Sync + 'static>(
        self: &Arc<Self>,
        connection: Connection,
        serve: &Arc<F>,
    ) -> io::Result<()> {
        let mut guests = self.guests.lock();
        let strangers_max = self.limits.strangers_max;
        while guests.count(Standing::Stranger) >= strangers_max && guests.send_oldest_away() {}
        // Those that were sent away are on their way; there are never more than as many again.
        let crowded = |guests: &mut Guests| guests.count(Standing::SentAway) >= strangers_max;
        if self.left.wait_while_for(&mut guests, crowded, POLL).timed_out() && crowded(&mut guests) {
            return Err(io::Error::other("too many connections at a time"));
        }
        let number = guests.next;
        guests.next += 1;
        let guest = Guest { shared: self.clone(), number, peer: connection.peer() };
        let open = Open { closer: connection.closer(), thread: None, standing: Standing::Stranger };
        guests.open.insert(number, open);
        drop(guests);
        let serve = serve.clone();
        let body = move || serve(connection, &guest);
        // Without a thread the place is given back at once.
        let thread =
            std::thread::Builder::new().name(format!("replica-{number}")).stack_size(STACK_BYTES).spawn(body)?;
        // The thread may have ended already.
        if let Some(open) = self.guests.lock().open.get_mut(&number) {
            open.thread = Some(thread);
        }
        Ok(())
    }
}

fn spare_descriptor() -> Option<File> {
    File::open("/dev/null").and_then(above_standard_streams).ok()
}

impl Guests {
    fn count(&self, standing: Standing) -> usize {
        self.open.values().filter(|open| open.standing == standing).count()
    }

    /// Closes the connection of the stranger that has been there longest; false when there is none.
    fn send_oldest_away(&mut self) -> bool {
        let Some(open) = self.open.values_mut().find(|open| open.standing == Standing::Stranger) else {
            return false;
        };
        open.standing = Standing::SentAway;
        open.closer.close();
        true
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;

// SPDX-License-Identifier: Apache-2.0
//! The threads of the replica: one that accepts, one for each connection. A connection is served strictly in order, and
//! its reply is sent before its next message is read.

use super::incoming::{self, Source};
use super::registry::{Holding, Refusal, Registry, Wanted};
use super::session::{Blobs, Collect, Session, SinkError, Skip};
use crate::error::Error;
use crate::replication::net::transport;
use crate::replication::replica_store::{LaneLog, StandbyStore};
use crate::replication::upstream::protocol::codec::Message;
use crate::replication::upstream::protocol::connection::{Action, Connection};
use crate::replication::upstream::protocol::reader::{Budget, Incoming, Reader, WireError};
use crate::types::Epoch;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the accepting thread looks whether it shall end.
const POLL: Duration = Duration::from_millis(50);
/// A restarted primary waits at most this long until the end of its former connections was seen.
const TAKEOVER_WAIT_MAX: Duration = Duration::from_secs(2);
/// No BLOB directory, buffer or recursion needs more.
const STACK_BYTES: usize = 256 << 10;

/// Bounds of a replica.
#[derive(Clone, Debug)]
pub struct Options {
    /// For the first message, for a stall inside a message, and for a reply that the peer does not take. Default: 10 s.
    pub timeout: Duration,
    /// Connections at a time; more are closed at once. Default: 1024.
    pub connections_max: usize,
    /// What the messages being received may hold in memory together. Default: 1 GiB.
    pub budget: Budget,
}

impl Default for Options {
    fn default() -> Options {
        Options { timeout: Duration::from_secs(10), connections_max: 1024, budget: Budget::default() }
    }
}

/// A running replica. Dropping it stops it.
#[derive(Debug)]
pub struct Replica {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<StandbyStore>,
    options: Options,
    registry: Arc<Registry>,
    /// Held for reading while a session is appended, for writing while an epoch is recorded: a session is either whole
    /// in the log when the record is made, or knows that the record covers it.
    recording: RwLock<()>,
    streams: Mutex<Streams>,
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct Streams {
    next: u64,
    open: BTreeMap<u64, (TcpStream, Option<JoinHandle<()>>)>,
}

/// Why a connection was closed.
#[derive(Debug, thiserror::Error)]
enum Closed {
    /// The peer did something that it must not.
    #[error("{0}")]
    Misuse(String),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("the disk failed, nothing is acknowledged any more: {0}")]
    Store(#[from] Error),
}

impl From<io::Error> for Closed {
    fn from(e: io::Error) -> Closed {
        Closed::Wire(e.into())
    }
}

impl From<SinkError> for Closed {
    fn from(e: SinkError) -> Closed {
        match e {
            SinkError::Wire(e) => Closed::Wire(e),
            SinkError::Store(e) => Closed::Store(e),
        }
    }
}

impl Replica {
    /// Serves primaries that connect to `listener`.
    ///
    /// # Errors
    /// When the system gives no thread or socket.
    pub fn start(listener: TcpListener, store: Arc<StandbyStore>, options: Options) -> io::Result<Replica> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            store,
            options,
            registry: Arc::default(),
            recording: RwLock::new(()),
            streams: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let acceptor = {
            let shared = shared.clone();
            let name = "replica-accept".to_owned();
            std::thread::Builder::new().name(name).spawn(move || shared.accept(&listener))?
        };
        Ok(Replica { shared, address, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections a primary holds.
    pub fn held(&self) -> usize {
        self.shared.registry.held()
    }

    /// Ends all connections and waits for their threads. What was acknowledged is on the disk already.
    pub fn stop(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        if let Some(acceptor) = self.acceptor.take() {
            // A thread that panicked has said so.
            let _ = acceptor.join();
        }
        let open = std::mem::take(&mut self.shared.streams.lock().open);
        for (stream, _) in open.values() {
            transport::close(stream);
        }
        for (_, thread) in open.into_values() {
            let _ = thread.map(JoinHandle::join);
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn accept(self: &Arc<Shared>, listener: &TcpListener) {
        while !self.stopping.load(SeqCst) {
            match transport::accept(listener, POLL) {
                Ok(None) => {}
                Ok(Some((stream, peer))) => {
                    if let Err(e) = self.admit(stream, peer) {
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

    fn admit(self: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let mut streams = self.streams.lock();
        if streams.open.len() >= self.options.connections_max {
            let message = format!("there are {} connections, the most that are allowed", streams.open.len());
            return Err(io::Error::other(message));
        }
        let number = streams.next;
        streams.next += 1;
        streams.open.insert(number, (stream.try_clone()?, None));
        let shared = self.clone();
        let name = format!("replica-{number}");
        let thread = std::thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || {
            shared.serve(&stream, peer);
            shared.streams.lock().open.remove(&number);
        });
        match thread {
            Ok(thread) => {
                // The lock is held since the entry was made, so the thread has not taken it away yet.
                if let Some((_, handle)) = streams.open.get_mut(&number) {
                    *handle = Some(thread);
                }
                Ok(())
            }
            Err(e) => {
                streams.open.remove(&number);
                Err(e)
            }
        }
    }

    fn serve(&self, stream: &TcpStream, peer: SocketAddr) {
        let mut served = Served {
            shared: self,
            stream,
            peer,
            connection: Connection::default(),
            holding: None,
            lane: None,
            blobs: Blobs::new(&self.store),
            session: None,
        };
        let closed = served.run();
        let name = served.connection.name();
        let lost = match &served.session {
            Some(session) => format!("; its open session of epoch {} never counts", session.epoch()),
            None => String::new(),
        };
        match closed {
            Ok(()) => log::info!("replication: {name} from {peer} was ended by the primary{lost}"),
            Err(_) if self.stopping.load(SeqCst) => log::info!("replication: {name} from {peer} ends{lost}"),
            Err(Closed::Store(e)) => log::error!("replication: {name} from {peer} is closed: {e}{lost}"),
            Err(reason) => log::warn!("replication: {name} from {peer} is closed: {reason}{lost}"),
        }
        // What it held is given back before the peer is told, so that it may come again at once.
        drop(served);
        incoming::close(stream);
    }
}

/// One connection while it is served.
struct Served<'a> {
    shared: &'a Shared,
    stream: &'a TcpStream,
    peer: SocketAddr,
    connection: Connection,
    holding: Option<Holding>,
    lane: Option<Arc<LaneLog>>,
    blobs: Blobs,
    session: Option<Session>,
}

impl Served<'_> {
    fn run(&mut self) -> Result<(), Closed> {
        let Options { timeout, budget, .. } = &self.shared.options;
        self.stream.set_write_timeout(Some(*timeout))?;
        let mut reader = Reader::new(Source::new(self.stream, *timeout), budget.clone());
        while reader.input().wait()? {
            let action = match reader.next_message()? {
                None => return Ok(()),
                Some(Incoming::Message(message)) => self.connection.on_message(message),
                Some(Incoming::Log(head)) => {
                    let flags = match self.connection.on_log_head(head) {
                        Action::Collect(epoch) => {
                            let session = self.session.get_or_insert_with(|| Session::new(epoch));
                            let store = &self.shared.store;
                            reader.entries(head, &mut Collect { session, blobs: &mut self.blobs, store })?
                        }
                        Action::Skip => reader.entries(head, &mut Skip)?,
                        other => {
                            self.carry_out(other)?;
                            continue;
                        }
                    };
                    self.connection.on_flags(head, flags)
                }
            };
            self.carry_out(action)?;
            if self.connection.is_established() {
                reader.input().established(*timeout)?;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, action: Action) -> Result<(), Closed> {
        let shared = self.shared;
        match action {
            Action::Ignore | Action::Skip | Action::Collect(_) => Ok(()),
            Action::Reply(message) => self.reply(&message),
            Action::Refuse(message, reason) => {
                self.reply(&message)?;
                Err(Closed::Misuse(reason))
            }
            Action::Close(reason) => Err(Closed::Misuse(reason)),
            Action::ClaimControl => {
                let claimed = self.claim(Wanted::Control)?;
                let action = self.connection.control_claimed(claimed);
                self.carry_out(action)
            }
            Action::ClaimChannel(channel) => {
                let claimed = self.claim(Wanted::Channel(channel))?;
                let action = self.connection.channel_claimed(channel, claimed);
                self.carry_out(action)
            }
            Action::Commit(epoch) => {
                let durable = shared.store.durable();
                if epoch < durable {
                    let reason = format!("found GROUP_COMMIT of epoch {epoch}, but epoch {durable} is durable");
                    return Err(Closed::Misuse(reason));
                }
                self.commit(epoch)?;
                self.reply(&Message::Ack)
            }
            Action::EndSession => {
                self.end_session()?;
                self.reply(&Message::Ack)
            }
        }
    }

    fn claim(&mut self, wanted: Wanted) -> Result<Result<(), String>, Closed> {
        let shared = self.shared;
        let deadline = Instant::now() + shared.options.timeout.min(TAKEOVER_WAIT_MAX);
        let discard = || shared.store.discard_beyond_durable();
        match shared.registry.claim(wanted, self.peer.ip(), deadline, discard) {
            Ok(holding) => {
                if let Wanted::Channel(id) = wanted {
                    self.lane = Some(shared.store.lane(holding.lane));
                    log::info!("replication: log channel {id} from {} goes to file {}", self.peer, holding.lane);
                } else {
                    log::info!("replication: the primary at {} has connected", self.peer);
                }
                self.holding = Some(holding);
                Ok(Ok(()))
            }
            Err(Refusal::Held(reason)) => Ok(Err(reason)),
            Err(Refusal::Store(e)) => Err(Closed::Store(e)),
        }
    }

    /// Never waits for the end of a session: the original sends it only after this was acknowledged. A session of such
    /// an epoch that ends later counts when it is whole.
    fn commit(&self, epoch: Epoch) -> Result<(), Closed> {
        let _recording = self.shared.recording.write();
        self.shared.store.sync()?;
        Ok(self.shared.store.record(epoch)?)
    }

    fn end_session(&mut self) -> Result<(), Closed> {
        let (Some(session), Some(lane)) = (self.session.take(), &self.lane) else {
            return Err(Closed::Misuse("a session ends that never began".to_owned()));
        };
        self.blobs.sync_names()?;
        {
            let _recording = self.shared.recording.read();
            session.append_to(lane, self.shared.store.location())?;
        }
        Ok(lane.sync()?)
    }

    fn reply(&mut self, message: &Message) -> Result<(), Closed> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        Ok((&mut &*self.stream).write_all(&bytes)?)
    }
}

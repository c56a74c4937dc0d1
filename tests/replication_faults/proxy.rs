// SPDX-License-Identifier: Apache-2.0
//! A TCP proxy between a primary and a replica that misbehaves on command. It knows the frame borders of the native
//! protocol, so that a connection can be cut exactly between two messages or in the middle of one.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const MAGIC_LEN: usize = 8;
/// Payload length, type, epoch, channel.
const HEADER_LEN: usize = 17;
const CRC_LEN: usize = 4;
const POLL: Duration = Duration::from_millis(2);

/// The way that bytes take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToReplica,
    ToPrimary,
}

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    #[default]
    Pass,
    /// Nothing is read: the sender's buffers fill.
    Stall,
    /// Everything is read and thrown away: the connection looks alive to the sender.
    Swallow,
    /// Each piece waits this long.
    Delay(Duration),
    /// Everything comes this much later; for connections that are made from then on.
    Latency(Duration),
    /// At most this many bytes per second.
    Trickle(u64),
    /// One bit of each piece is turned.
    Garble,
    /// Random bytes are put in front of the next piece.
    Garbage,
}

/// Where a connection is cut, counted in messages of one connection towards the replica; 0 is the opening magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub direction: Direction,
    /// Messages of all connections since the cut was ordered that still pass.
    pub after: u64,
    /// Bytes of the next message that still pass.
    pub inside: usize,
}

#[derive(Debug, Default)]
struct Orders {
    to_replica: Behaviour,
    to_primary: Behaviour,
    cut: Option<Cut>,
    refuse: bool,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    orders: Mutex<Orders>,
    connections: Mutex<Vec<(TcpStream, TcpStream)>>,
    accepted: AtomicU64,
    stop: AtomicBool,
}

/// The proxy; dropping it closes everything.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens on a free port of the loopback address and leads to `target`.
    pub fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            orders: Mutex::default(),
            connections: Mutex::default(),
            accepted: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        thread::spawn(move || accept(&listener, &accepting));
        Proxy { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections somewhere else.
    pub fn set_target(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = target;
    }

    pub fn behave(&self, direction: Direction, behaviour: Behaviour) {
        let mut orders = self.shared.orders.lock().unwrap();
        match direction {
            Direction::ToReplica => orders.to_replica = behaviour,
            Direction::ToPrimary => orders.to_primary = behaviour,
        }
    }

    /// Cuts whichever connection carries the message that the order names; once.
    pub fn cut_at(&self, cut: Cut) {
        self.shared.orders.lock().unwrap().cut = Some(cut);
    }

    /// Whether the ordered cut is still to come.
    pub fn cut_is_pending(&self) -> bool {
        self.shared.orders.lock().unwrap().cut.is_some()
    }

    /// Closes every connection now.
    pub fn cut_all(&self) {
        for (primary, replica) in self.shared.connections.lock().unwrap().drain(..) {
            // Either end may be closed already.
            let _ = primary.shutdown(Shutdown::Both);
            let _ = replica.shutdown(Shutdown::Both);
        }
    }

    /// Drops new connections as soon as they are made.
    pub fn refuse(&self, refuse: bool) {
        self.shared.orders.lock().unwrap().refuse = refuse;
    }

    /// Back to passing everything.
    pub fn heal(&self) {
        *self.shared.orders.lock().unwrap() = Orders::default();
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.cut_all();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stop.load(SeqCst) {
        let Ok((primary, _)) = listener.accept() else {
            thread::sleep(POLL);
            continue;
        };
        shared.accepted.fetch_add(1, SeqCst);
        if shared.orders.lock().unwrap().refuse {
            continue;
        }
        let target = *shared.target.lock().unwrap();
        let Ok(replica) = TcpStream::connect_timeout(&target, Duration::from_secs(1)) else {
            continue;
        };
        primary.set_nonblocking(false).unwrap();
        for stream in [&primary, &replica] {
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        }
        let pair = || (primary.try_clone().unwrap(), replica.try_clone().unwrap());
        shared.connections.lock().unwrap().push(pair());
        let (from, to) = pair();
        let there = shared.clone();
        thread::spawn(move || Pump::new(from, to, Direction::ToReplica, there).run());
        let back = shared.clone();
        thread::spawn(move || Pump::new(replica, primary, Direction::ToPrimary, back).run());
    }
}

/// Carries the bytes of one direction of one connection.
struct Pump {
    from: TcpStream,
    to: TcpStream,
    direction: Direction,
    shared: Arc<Shared>,
    /// Bytes of the present message that have been seen; with those of its header.
    seen: usize,
    header: Vec<u8>,
    /// The opening magic has no header.
    opening: bool,
    /// Where what comes late waits, and how late.
    late: Option<(Duration, Sender<Late>)>,
}

/// Bytes, and when they are due.
type Late = (Instant, Vec<u8>);

/// Writes what is due.
fn write_late(late: &Receiver<Late>, mut to: TcpStream) {
    while let Ok((due, bytes)) = late.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

impl Pump {
    fn new(from: TcpStream, to: TcpStream, direction: Direction, shared: Arc<Shared>) -> Pump {
        let opening = direction == Direction::ToReplica;
        let mut pump = Pump { from, to, direction, shared, seen: 0, header: Vec::new(), opening, late: None };
        if let Behaviour::Latency(time) = pump.behaviour() {
            let (sender, late) = mpsc::channel();
            let to = pump.to.try_clone().unwrap();
            thread::spawn(move || write_late(&late, to));
            pump.late = Some((time, sender));
        }
        pump
    }

    fn behaviour(&self) -> Behaviour {
        let orders = self.shared.orders.lock().unwrap();
        match self.direction {
            Direction::ToReplica => orders.to_replica,
            Direction::ToPrimary => orders.to_primary,
        }
    }

    /// Whether the bytes go their way.
    fn write(&mut self, bytes: &[u8]) -> bool {
        match &self.late {
            Some((time, sender)) => sender.send((Instant::now() + *time, bytes.to_vec())).is_ok(),
            None => self.to.write_all(bytes).is_ok(),
        }
    }

    fn run(mut self) {
        let mut piece = vec![0; 256 << 10];
        while !self.shared.stop.load(SeqCst) {
            let behaviour = self.behaviour();
            if behaviour == Behaviour::Stall {
                thread::sleep(POLL);
                continue;
            }
            let room = match behaviour {
                Behaviour::Trickle(rate) => (rate / 50).clamp(1, piece.len() as u64) as usize,
                _ => piece.len(),
            };
            let got = match self.from.read(&mut piece[..room]) {
                Ok(0) => break,
                Ok(got) => got,
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            match behaviour {
                Behaviour::Swallow => continue,
                Behaviour::Delay(time) => thread::sleep(time),
                Behaviour::Trickle(_) => thread::sleep(Duration::from_millis(20)),
                Behaviour::Garble => piece[got / 2] ^= 0x10,
                Behaviour::Garbage => {
                    if !self.write(&[0xa5; 33]) {
                        break;
                    }
                }
                Behaviour::Pass | Behaviour::Stall | Behaviour::Latency(_) => {}
            }
            let (pass, cut) = self.pass(&piece[..got]);
            if !self.write(&piece[..pass]) || cut {
                break;
            }
        }
        let _ = self.from.shutdown(Shutdown::Both);
        let _ = self.to.shutdown(Shutdown::Both);
    }

    /// Follows the messages in `bytes`; says how many bytes pass, and whether the connection is cut behind them.
    fn pass(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while at < bytes.len() {
            let limit = self.limit();
            if limit.is_some_and(|limit| self.seen >= limit) {
                self.shared.orders.lock().unwrap().cut = None;
                return (at, true);
            }
            let wanted = self.message_len().unwrap_or(self.seen + 1);
            let step = (wanted - self.seen).min(bytes.len() - at);
            let step = limit.map_or(step, |limit| step.min(limit - self.seen));
            if !self.opening && self.header.len() < 4 {
                let header = (4 - self.header.len()).min(step);
                self.header.extend_from_slice(&bytes[at..at + header]);
            }
            at += step;
            self.seen += step;
            if self.message_len() == Some(self.seen) {
                self.message_passed();
            }
        }
        (at, false)
    }

    /// Length of the present message, once that is known.
    fn message_len(&self) -> Option<usize> {
        if self.opening {
            return Some(MAGIC_LEN);
        }
        let length: [u8; 4] = self.header.as_slice().try_into().ok()?;
        Some(HEADER_LEN + u32::from_le_bytes(length) as usize + CRC_LEN)
    }

    /// How many bytes of the present message may pass, when the cut is due in it.
    fn limit(&self) -> Option<usize> {
        let orders = self.shared.orders.lock().unwrap();
        let cut = orders.cut.filter(|cut| cut.direction == self.direction && cut.after == 0)?;
        // A message that began to pass before the order came is let through.
        (self.seen <= cut.inside).then_some(cut.inside)
    }

    fn message_passed(&mut self) {
        self.seen = 0;
        self.header.clear();
        self.opening = false;
        let mut orders = self.shared.orders.lock().unwrap();
        if let Some(cut) = orders.cut.as_mut().filter(|cut| cut.direction == self.direction) {
            cut.after = cut.after.saturating_sub(1);
        }
    }
}

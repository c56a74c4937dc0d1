// SPDX-License-Identifier: Apache-2.0
//! A replica by hand: answers as the original does, keeps every byte it gets, and misbehaves when told.

use limestone_core::replication::upstream::protocol::codec::{flag, Message};
use limestone_core::replication::upstream::protocol::reader::{Budget, Reader};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::peer::DEADLINE;

/// What to do with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What the original answers.
    Usual,
    Bytes(Vec<u8>),
    /// Nothing, and the connection stays.
    Silence,
    Close,
}

type Script = dyn Fn(usize, &Message) -> Answer + Send + Sync;

/// A listening replica without a disk.
pub struct StandIn {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// What came on each connection, in the order of acceptance, and whether it has ended.
    received: Mutex<Vec<(Vec<u8>, bool)>>,
    changed: Condvar,
    script: Box<Script>,
    /// So many bytes at a time are read, and then it rests.
    pace: Option<(usize, Duration)>,
}

struct Tee {
    stream: TcpStream,
    number: usize,
    shared: Arc<Shared>,
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = self.shared.pace.map_or(usize::MAX, |(bytes, rest)| {
            std::thread::sleep(rest);
            bytes
        });
        let most = most.min(buffer.len());
        let read = self.stream.read(&mut buffer[..most]).unwrap_or_default();
        let mut received = self.shared.received.lock().unwrap();
        received[self.number].0.extend(&buffer[..read]);
        received[self.number].1 = read == 0;
        self.shared.changed.notify_all();
        Ok(read)
    }
}

impl StandIn {
    /// Answers as the original.
    pub fn start() -> StandIn {
        StandIn::with(|_, _| Answer::Usual)
    }

    /// `script` gets the number of the connection and each message.
    pub fn with(script: impl Fn(usize, &Message) -> Answer + Send + Sync + 'static) -> StandIn {
        StandIn::listen(TcpListener::bind("127.0.0.1:0").unwrap(), Box::new(script), None)
    }

    /// Answers as the original, behind a link that carries 16 KiB in 50 ms and holds little.
    pub fn slow() -> StandIn {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(8).unwrap();
        let pace = Some((16 << 10, Duration::from_millis(50)));
        StandIn::listen(socket.into(), Box::new(|_, _| Answer::Usual), pace)
    }

    fn listen(listener: TcpListener, script: Box<Script>, pace: Option<(usize, Duration)>) -> StandIn {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { received: Mutex::default(), changed: Condvar::new(), script, pace });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                accepting.received.lock().unwrap().push((Vec::new(), false));
                let tee = Tee { stream: stream.unwrap(), number, shared: accepting.clone() };
                std::thread::spawn(move || serve(tee));
            }
        });
        StandIn { address, shared }
    }

    /// Waits until what came on the connections is as wanted.
    #[track_caller]
    pub fn wait(&self, what: &str, wanted: impl Fn(&[(Vec<u8>, bool)]) -> bool) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + DEADLINE;
        let mut received = self.shared.received.lock().unwrap();
        while !wanted(&received) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} did not come: {received:02x?}");
            received = self.shared.changed.wait_timeout(received, left).unwrap().0;
        }
        received.iter().map(|(bytes, _)| bytes.clone()).collect()
    }

    /// What came on each connection when all have ended.
    #[track_caller]
    pub fn all(&self, connections: usize) -> Vec<Vec<u8>> {
        self.wait("the end of all connections", |all| all.len() == connections && all.iter().all(|(_, ended)| *ended))
    }
}

fn serve(tee: Tee) {
    let (number, shared) = (tee.number, tee.shared.clone());
    let mut out = tee.stream.try_clone().unwrap();
    let mut reader = Reader::new(tee, Budget::default());
    while let Ok(Some(message)) = reader.next_whole() {
        let reply = match (shared.script)(number, &message) {
            Answer::Usual => usual(&message),
            Answer::Bytes(bytes) => bytes,
            Answer::Silence => Vec::new(),
            Answer::Close => {
                out.shutdown(std::net::Shutdown::Both).unwrap();
                return;
            }
        };
        if out.write_all(&reply).is_err() {
            return;
        }
    }
}

fn usual(message: &Message) -> Vec<u8> {
    let mut reply = Vec::new();
    match message {
        Message::SessionBegin { .. } => Message::SessionBeginAck { secret: Vec::new() }.encode(&mut reply),
        Message::LogEntry { flags, .. } if flags & (flag::END | flag::FLUSH) == 0 => {}
        _ => Message::Ack.encode(&mut reply),
    }
    reply
}

// SPDX-License-Identifier: Apache-2.0
//! A connection in three parts that share one descriptor: a half that reads, one that writes, and one that ends it from
//! any thread. Whatever waits here ends at a deadline or when the connection is closed.

use super::deadline::{in_words, Deadline};
use super::tls_stream::{self, Receiving, Sending};
use crate::vfs::descriptor::above_standard_streams;
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

/// How long an idle connection is trusted before the system asks the other end.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_RETRIES: u32 = 3;
/// What is still taken from a peer whose connection is being closed, so that it can read the last reply.
const LINGER_BYTES_MAX: usize = 1 << 20;
const LINGER: Duration = Duration::from_millis(500);

/// A connection that is one piece.
#[derive(Debug)]
pub struct Connection {
    stream: Arc<TcpStream>,
    peer: SocketAddr,
    tls: Option<(Receiving, Sending)>,
}

/// Reads; every call has its deadline.
#[derive(Debug)]
pub struct ReadHalf {
    socket: SocketReader,
    tls: Option<Receiving>,
}

/// Writes; every call has its deadline.
#[derive(Debug)]
pub struct WriteHalf {
    socket: SocketWriter,
    tls: Option<Sending>,
}

#[derive(Debug)]
struct SocketReader {
    stream: Arc<TcpStream>,
    deadline: Deadline,
    /// What the socket is set to.
    set: Option<Duration>,
    count: Option<Arc<AtomicU64>>,
}

#[derive(Debug)]
struct SocketWriter {
    stream: Arc<TcpStream>,
    deadline: Deadline,
}

/// Ends the connection for all threads that use it: their calls return at once.
#[derive(Clone, Debug)]
pub struct Closer(Arc<TcpStream>);

impl Connection {
    /// Small messages go out at once, and a peer that is gone without a word is noticed.
    pub(super) fn new(stream: TcpStream) -> io::Result<Connection> {
        let stream = above_standard_streams(stream)?;
        let peer = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE);
        let keepalive = keepalive.with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(Connection { stream: Arc::new(stream), peer, tls: None })
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What ends it.
    pub fn closer(&self) -> Closer {
        Closer(self.stream.clone())
    }

    /// What waits to be sent beyond so many bytes waits with the caller, not in the system: there nobody knows how much
    /// it is.
    pub fn limit_unsent(&self, bytes: u32) -> io::Result<()> {
        SockRef::from(&*self.stream).set_tcp_notsent_lowat(bytes)
    }

    /// Both halves, with one deadline to begin with.
    pub fn split(self, deadline: Deadline) -> (ReadHalf, WriteHalf) {
        let (receiving, sending) = self.tls.unzip();
        let socket = SocketReader { stream: self.stream.clone(), deadline, set: None, count: None };
        let read = ReadHalf { socket, tls: receiving };
        (read, WriteHalf { socket: SocketWriter { stream: self.stream, deadline }, tls: sending })
    }

    /// The first byte that comes, which stays where it is; `None` when the peer closes before.
    pub fn first_byte(&self, deadline: Deadline) -> io::Result<Option<u8>> {
        let mut byte = [0];
        self.stream.set_read_timeout(Some(deadline.left()?))?;
        let found = self.stream.peek(&mut byte).map_err(in_words)?;
        Ok((found > 0).then_some(byte[0]))
    }

    /// The same connection behind a TLS handshake, all of which has to be over by the deadline. A peer with which that
    /// fails is told why.
    pub(super) fn secure(self, mut state: rustls::Connection, deadline: Deadline) -> io::Result<Connection> {
        let (stream, peer) = (self.stream.clone(), self.peer);
        let (read, write) = self.split(deadline);
        let mut socket = Socket { read, write };
        match tls_stream::handshake(&mut state, &mut socket) {
            Ok(()) => Ok(Connection { stream, peer, tls: Some(tls_stream::split(state)) }),
            Err(e) => {
                close_in_order(socket.read, &mut socket.write);
                Err(e)
            }
        }
    }
}

impl ReadHalf {
    /// Holds for all calls from now on.
    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.socket.deadline = deadline;
    }

    /// From now on `count` grows with every byte that comes, as it is on the way.
    pub fn count(&mut self, count: Arc<AtomicU64>) {
        self.socket.count = Some(count);
    }

    /// Bytes that have come and were not read; with TLS, about as many as they are on the way.
    pub fn waiting_bytes(&self) -> usize {
        self.tls.as_ref().map_or(0, Receiving::waiting_bytes) + self.socket.waiting_bytes()
    }
}

impl SocketReader {
    fn waiting_bytes(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open as long as the stream is borrowed, and FIONREAD writes one integer.
        match unsafe { libc::ioctl(self.stream.as_raw_fd(), libc::FIONREAD, &mut bytes) } {
            0 => bytes.max(0) as usize,
            _ => 0,
        }
    }
}

impl Read for ReadHalf {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.read(&mut self.socket, buffer),
            None => self.socket.read(buffer),
        }
    }
}

impl Read for SocketReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.left()?;
        if self.set != Some(left) {
            self.stream.set_read_timeout(Some(left))?;
            self.set = Some(left);
        }
        let read = (&*self.stream).read(buffer).map_err(in_words)?;
        if let Some(count) = &self.count {
            count.fetch_add(read as u64, SeqCst);
        }
        Ok(read)
    }
}

impl WriteHalf {
    /// Holds for all calls from now on.
    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.socket.deadline = deadline;
    }

    /// What ends the connection.
    pub fn closer(&self) -> Closer {
        Closer(self.socket.stream.clone())
    }

    /// Bytes that were written and that the peer's system has not taken.
    pub fn unsent_bytes(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open as long as the stream is borrowed, and TIOCOUTQ writes one integer.
        match unsafe { libc::ioctl(self.socket.stream.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) } {
            0 => bytes.max(0) as usize,
            _ => 0,
        }
    }

    /// Says that nothing more comes. Fails only when the peer has gone already.
    pub fn end(&mut self) {
        if let Some(tls) = &mut self.tls {
            let _ = tls.end(&mut self.socket);
        }
        let _ = self.socket.stream.shutdown(Shutdown::Write);
    }
}

impl Write for WriteHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.write(&mut self.socket, bytes),
            None => self.socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for SocketWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.deadline.left()?))?;
        (&*self.stream).write(bytes).map_err(in_words)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Both halves of a connection that is not encrypted yet.
struct Socket {
    read: ReadHalf,
    write: WriteHalf,
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read.read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Closer {
    /// Ends it now; the other end sees that. May be called again.
    pub fn close(&self) {
        // Fails only when the peer has ended it already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Ends a connection so that the last reply arrives: closing with bytes unread would take it back.
pub fn close_in_order(mut read: ReadHalf, write: &mut WriteHalf) {
    let mut left = LINGER_BYTES_MAX;
    let mut piece = [0; 4096];
    write.end();
    read.set_deadline(Deadline::after(LINGER));
    while left > 0 {
        // Whatever fails here, the connection is over.
        match read.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(read) => left = left.saturating_sub(read),
        }
    }
    write.closer().close();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::net::deadline::is_timeout;
    use std::net::TcpListener;
    use std::time::Instant;

    fn pair() -> (Connection, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let far = listener.accept().unwrap().0;
        (Connection::new(near).unwrap(), Connection::new(far).unwrap())
    }

    #[test]
    fn what_one_half_writes_the_other_end_reads() {
        let soon = Deadline::after(Duration::from_secs(10));
        let (near, far) = pair();
        assert_eq!(near.peer(), far.stream.local_addr().unwrap());
        let ((_near_read, mut write), (mut read, _far_write)) = (near.split(soon), far.split(soon));
        write.write_all(&[7]).unwrap();
        let mut byte = [0];
        read.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [7]);
    }

    #[test]
    fn single_bytes_do_not_move_a_deadline_for_all_calls() {
        let (near, far) = pair();
        let dripping = std::thread::spawn(move || {
            let (_read, mut write) = near.split(Deadline::Each(Duration::from_secs(10)));
            while write.write_all(&[1]).is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let begun = Instant::now();
        let (mut read, write) = far.split(Deadline::after(Duration::from_millis(60)));
        let error = std::iter::repeat_with(|| read.read(&mut [0])).find_map(|read| read.err()).unwrap();
        assert!(is_timeout(&error) && error.to_string() == "the time is over", "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        write.closer().close();
        drop((read, write));
        dripping.join().unwrap();
    }

    #[test]
    fn a_reader_ends_when_the_connection_is_closed_from_another_thread() {
        let (near, _far) = pair();
        let closer = near.closer();
        let (mut read, _write) = near.split(Deadline::Each(Duration::from_secs(60)));
        let reading = std::thread::spawn(move || read.read(&mut [0]).unwrap());
        closer.close();
        assert_eq!(reading.join().unwrap(), 0);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! TCP with bounds: whatever waits here ends at a deadline or when the socket is closed from another thread.

use crate::replication::settings::Endpoint;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;
/// How long an idle connection is trusted before the system asks the other end.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_RETRIES: u32 = 3;

/// All addresses of the endpoint, IPv4 and IPv6 in the order in which the system gives them.
pub fn resolve(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot resolve \"{}\": {e}", endpoint.host));
    let addresses: Vec<SocketAddr> = match scoped(endpoint) {
        Some(address) => vec![address],
        None => (endpoint.host.as_str(), endpoint.port).to_socket_addrs().map_err(named)?.collect(),
    };
    match addresses.is_empty() {
        true => Err(named(io::Error::new(ErrorKind::NotFound, "it has no address"))),
        false => Ok(addresses),
    }
}

/// An IPv6 address with the interface it belongs to, by name or number.
fn scoped(endpoint: &Endpoint) -> Option<SocketAddr> {
    let (address, interface) = endpoint.host.split_once('%')?;
    let address: Ipv6Addr = address.parse().ok()?;
    let scope = interface.parse().ok().or_else(|| {
        let name = std::ffi::CString::new(interface).ok()?;
        // SAFETY: `name` is a string that ends with a zero.
        Some(unsafe { libc::if_nametoindex(name.as_ptr()) }).filter(|&index| index != 0)
    })?;
    Some(std::net::SocketAddrV6::new(address, endpoint.port, 0, scope).into())
}

/// Connects to the first address of the endpoints that answers; each address gets an equal part of what is left of the
/// time. The error tells of every address that was tried.
pub fn connect(endpoints: &[Endpoint], timeout: Duration) -> io::Result<TcpStream> {
    let deadline = Instant::now() + timeout;
    let mut problems = Vec::new();
    let mut addresses = Vec::new();
    for endpoint in endpoints {
        match resolve(endpoint) {
            Ok(found) => addresses.extend(found),
            Err(e) => problems.push(e.to_string()),
        }
    }
    for (done, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now()) / (addresses.len() - done) as u32;
        match connect_address(*address, left.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(e) => problems.push(format!("{address}: {e}")),
        }
    }
    Err(io::Error::new(ErrorKind::NotConnected, problems.join("; ")))
}

/// Connects to one address.
pub fn connect_address(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.connect_timeout(&SockAddr::from(address), timeout)?;
    let stream = TcpStream::from(socket);
    // A port of this machine that nobody listens on may be given to this very socket, which then talks to itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    prepare(&stream)?;
    Ok(stream)
}

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
    Ok(socket.into())
}

/// Accepts a connection; `None` when none comes before the timeout.
pub fn accept(listener: &TcpListener, timeout: Duration) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    SockRef::from(listener).set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
    match listener.accept() {
        Ok((stream, peer)) => {
            prepare(&stream)?;
            Ok(Some((stream, peer)))
        }
        Err(e) if is_timeout(&e) || is_transient(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Small messages go out at once, and a peer that is gone without a word is noticed.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE);
    let keepalive = keepalive.with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Bounds every read and write on the stream; `None` takes the bound away.
pub fn set_timeouts(stream: &TcpStream, timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|timeout| timeout.max(Duration::from_millis(1)));
    stream.set_read_timeout(timeout)?;
    stream.set_write_timeout(timeout)
}

/// Ends the connection for all threads that use it: their calls return at once.
pub fn close(stream: &TcpStream) {
    // Fails only when the peer has ended it already.
    let _ = stream.shutdown(Shutdown::Both);
}

/// Whether the error says that a bound passed.
pub fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Whether a failed accept says nothing about the listener: the peer gave up before it was accepted.
fn is_transient(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

/// Whether the address belongs to this machine only.
pub fn is_loopback(address: &SocketAddr) -> bool {
    match address.ip() {
        std::net::IpAddr::V4(ip) => ip.is_loopback(),
        std::net::IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    }
}

/// Bytes that have come on a connection and were not read.
pub fn waiting_bytes(stream: &TcpStream) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open as long as the stream is borrowed, and FIONREAD writes one integer.
    match unsafe { libc::ioctl(stream.as_raw_fd(), libc::FIONREAD, &mut bytes) } {
        0 => bytes.max(0) as usize,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn endpoint(host: &str, port: u16) -> Endpoint {
        Endpoint { host: host.to_owned(), port }
    }

    fn exchange(host: &str) {
        let listener = listen(&endpoint(host, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let peer = std::thread::spawn(move || {
            let (mut stream, peer) = accept(&listener, Duration::from_secs(10)).unwrap().expect("a connection");
            assert!(is_loopback(&peer));
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            stream.write_all(&byte).unwrap();
        });
        let mut stream = connect(&[endpoint(host, port)], Duration::from_secs(10)).unwrap();
        assert!(stream.nodelay().unwrap());
        stream.write_all(&[7]).unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [7]);
        peer.join().unwrap();
    }

    #[test]
    fn both_families_and_host_names_connect() {
        exchange("127.0.0.1");
        exchange("localhost");
        // A machine may have IPv6 switched off.
        if listen(&endpoint("::1", 0)).is_ok() {
            exchange("::1");
            exchange("::1%lo");
        }
    }

    #[test]
    fn the_addresses_of_the_list_are_tried_in_turn() {
        let unused = listen(&endpoint("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let listener = listen(&endpoint("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let list = [endpoint("no such host", 1), endpoint("127.0.0.1", unused), endpoint("127.0.0.1", port)];
        assert_eq!(connect(&list, Duration::from_secs(10)).unwrap().peer_addr().unwrap().port(), port);
        let error = connect(&list[..2], Duration::from_secs(10)).unwrap_err().to_string();
        assert!(error.contains("no such host") && error.contains(&unused.to_string()), "{error}");
    }

    #[test]
    fn accepting_and_reading_end_at_their_bound() {
        let listener = listen(&endpoint("127.0.0.1", 0)).unwrap();
        assert!(accept(&listener, Duration::from_millis(20)).unwrap().is_none());
        let port = listener.local_addr().unwrap().port();
        let mut stream = connect(&[endpoint("127.0.0.1", port)], Duration::from_secs(10)).unwrap();
        set_timeouts(&stream, Some(Duration::from_millis(20))).unwrap();
        assert!(is_timeout(&stream.read(&mut [0]).unwrap_err()));
    }

    #[test]
    fn a_reader_ends_when_the_connection_is_closed_from_another_thread() {
        let listener = listen(&endpoint("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = connect(&[endpoint("127.0.0.1", port)], Duration::from_secs(10)).unwrap();
        let mut reader = stream.try_clone().unwrap();
        let reading = std::thread::spawn(move || reader.read(&mut [0]).unwrap());
        close(&stream);
        assert_eq!(reading.join().unwrap(), 0);
    }
}

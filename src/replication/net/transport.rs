// SPDX-License-Identifier: Apache-2.0
//! Plain sockets for the native protocol, which keeps its connections whole.

use super::connection::Connection;
use super::dial;
use crate::replication::settings::Endpoint;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

pub use super::deadline::is_timeout;
pub use super::listener::{accept, listen};

/// Connects to the first address of the endpoints that answers; each address gets an equal part of what is left of the
/// time. The error tells of every address that was tried.
pub fn connect(endpoints: &[Endpoint], timeout: Duration) -> io::Result<TcpStream> {
    let deadline = Instant::now() + timeout;
    let mut problems = Vec::new();
    let mut addresses = Vec::new();
    for endpoint in endpoints {
        match dial::resolve(endpoint) {
            Ok(found) => addresses.extend(found),
            Err(e) => problems.push(e.to_string()),
        }
    }
    for (done, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now()) / (addresses.len() - done) as u32;
        match connect_address(*address, left) {
            Ok(stream) => return Ok(stream),
            Err(e) => problems.push(format!("{address}: {e}")),
        }
    }
    Err(io::Error::new(ErrorKind::NotConnected, problems.join("; ")))
}

/// Connects to one address.
pub fn connect_address(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    dial::connect(address, timeout).and_then(Connection::into_stream)
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

/// Bytes that have come on a connection and were not read.
pub fn waiting_bytes(stream: &TcpStream) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open as long as the stream is borrowed, and FIONREAD writes one integer.
    match unsafe { libc::ioctl(stream.as_raw_fd(), libc::FIONREAD, &mut bytes) } {
        0 => bytes.max(0) as usize,
        _ => 0,
    }
}

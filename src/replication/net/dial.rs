// SPDX-License-Identifier: Apache-2.0
//! The way to a peer that has several addresses. Which one is right shows only at the end of the handshake: one that
//! takes connections and then says nothing, refuses, or is somebody else must not hide the next.

use super::connection::Connection;
use crate::replication::settings::Endpoint;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// The addresses of one peer. An attempt begins with the one that was right last.
#[derive(Debug)]
pub struct Dialer {
    endpoints: Vec<Endpoint>,
    first: usize,
}

impl Dialer {
    /// For a list that is not empty.
    pub fn new(endpoints: Vec<Endpoint>) -> Dialer {
        Dialer { endpoints, first: 0 }
    }

    /// Tries each address in turn, until `open` gives something: it gets the address and a connection, or why there is
    /// none, and goes through the handshake. `timeout` bounds the connecting to all of them together. The errors of all
    /// that were tried otherwise.
    pub fn open<T, E>(
        &mut self,
        timeout: Duration,
        mut open: impl FnMut(&Endpoint, io::Result<Connection>) -> Result<T, E>,
    ) -> Result<T, Vec<E>> {
        let mut errors = Vec::new();
        let count = self.endpoints.len();
        for place in (0..count).map(|step| (self.first + step) % count) {
            let endpoint = &self.endpoints[place];
            let addresses = match resolve(endpoint) {
                Ok(addresses) => addresses,
                Err(e) => {
                    errors.extend(open(endpoint, Err(e)).err());
                    continue;
                }
            };
            for address in addresses {
                let connected = connect(address, timeout / count as u32);
                match open(endpoint, connected.map_err(|e| io::Error::new(e.kind(), format!("{address}: {e}")))) {
                    Ok(opened) => {
                        self.first = place;
                        return Ok(opened);
                    }
                    Err(e) => errors.push(e),
                }
            }
        }
        self.advance();
        Err(errors)
    }

    /// The address that was right last was not: the next attempt begins behind it.
    pub fn advance(&mut self) {
        self.first = (self.first + 1) % self.endpoints.len().max(1);
    }
}

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

/// Connects to one address.
pub fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Connection> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.connect_timeout(&SockAddr::from(address), timeout.max(Duration::from_millis(1)))?;
    let stream = TcpStream::from(socket);
    // A port of this machine that nobody listens on may be given to this very socket, which then talks to itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Connection::new(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::net::listener::listen;
    use std::net::TcpListener;

    fn endpoint(host: &str, port: u16) -> Endpoint {
        Endpoint { host: host.to_owned(), port }
    }

    fn listening(host: &str) -> Option<(TcpListener, Endpoint)> {
        let listener = listen(&endpoint(host, 0)).ok()?;
        let port = listener.local_addr().unwrap().port();
        Some((listener, endpoint(host, port)))
    }

    fn peer(dialer: &mut Dialer, right: u16) -> Result<u16, Vec<String>> {
        dialer.open(Duration::from_secs(10), |_, connected| {
            let port = connected.map_err(|e| e.to_string())?.peer().port();
            (port == right).then_some(port).ok_or_else(|| format!("{port} is not the one"))
        })
    }

    #[test]
    fn both_families_and_host_names_connect() {
        for host in ["127.0.0.1", "localhost", "::1", "::1%lo"] {
            // A machine may have IPv6 switched off.
            let Some((listener, endpoint)) = listening(host) else { continue };
            let found = peer(&mut Dialer::new(vec![endpoint.clone()]), endpoint.port);
            assert_eq!(found, Ok(endpoint.port), "{host}");
            assert!(listener.accept().is_ok());
        }
    }

    #[test]
    fn an_address_that_connects_and_is_not_the_right_one_does_not_hide_the_next() {
        let (_wrong, other) = listening("127.0.0.1").unwrap();
        let (_right, right) = listening("127.0.0.1").unwrap();
        let (gone, unused) = listening("127.0.0.1").unwrap();
        drop(gone);
        let list = vec![endpoint("no such host", 1), unused.clone(), other.clone(), right.clone()];
        let mut dialer = Dialer::new(list);
        assert_eq!(peer(&mut dialer, right.port), Ok(right.port));
        // The right one is the first of the next attempt, and the last of the one after that.
        assert_eq!(dialer.first, 3);
        dialer.advance();
        let errors = peer(&mut dialer, 0).unwrap_err();
        assert_eq!(errors.len(), 4, "{errors:?}");
        assert!(errors[0].contains("no such host") && errors[1].contains(&unused.port.to_string()), "{errors:?}");
        assert!(errors[2].contains("not the one") && errors[3].starts_with(&right.port.to_string()), "{errors:?}");
    }
}

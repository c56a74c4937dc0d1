// SPDX-License-Identifier: Apache-2.0
//! Somebody between the two sides, who knows the protocol and not the secret: relays frame by frame and does something
//! to one of them.

use limestone_core::replication::native::protocol::frame::{FrameKind, HEADER_LEN, MAGIC, TRAILER_LEN};
use limestone_core::replication::native::protocol::seal::MAC_LEN;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;

/// What is done to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The byte at the offset from its start is changed, and the checksum made to fit.
    Change(usize),
    /// The last byte is changed.
    ChangeMac,
    Drop,
    Repeat,
    /// It goes behind the next one of its direction.
    Delay,
    /// Only its first half goes on, and the connection ends.
    Cut,
}

/// A relay that does a deed to one frame of a kind on each connection.
pub struct Relay {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    kind: FrameKind,
    /// So many of the kind are let through first.
    skip: usize,
    deed: Deed,
    done: AtomicBool,
    over: AtomicBool,
}

impl Relay {
    /// Relays to `to`; the frame of the kind that comes after `skip` others of it is the one.
    pub fn start(to: SocketAddr, kind: FrameKind, skip: usize, deed: Deed) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { to, kind, skip, deed, done: AtomicBool::default(), over: AtomicBool::default() });
        let relaying = shared.clone();
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let Ok(far) = TcpStream::connect(relaying.to) else { continue };
                relaying.clone().relay(near.try_clone().unwrap(), far.try_clone().unwrap(), true);
                relaying.clone().relay(far, near, false);
            }
        });
        Relay { address, shared }
    }

    /// Whether it was done.
    pub fn has_done_it(&self) -> bool {
        self.shared.done.load(SeqCst)
    }

    /// From now on nothing is done.
    pub fn let_everything_pass(&self) {
        self.shared.over.store(true, SeqCst);
    }
}

impl Shared {
    fn relay(self: Arc<Self>, mut from: TcpStream, mut to: TcpStream, is_primary: bool) {
        std::thread::spawn(move || {
            // Whatever fails here, the connection is over.
            let _ = self.copy(&mut from, &mut to, is_primary);
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }

    fn copy(&self, from: &mut TcpStream, to: &mut TcpStream, is_primary: bool) -> io::Result<()> {
        if is_primary {
            let mut magic = [0; MAGIC.len()];
            from.read_exact(&mut magic)?;
            to.write_all(&magic)?;
        }
        let (mut held, mut of_the_kind) = (None, 0);
        for number in 0.. {
            // Hello and Identity, and Challenge, have proofs in the place of MACs.
            let mac_len = if number < if is_primary { 2 } else { 1 } { 0 } else { MAC_LEN };
            let mut frame = read_one(from, mac_len)?;
            of_the_kind += usize::from(frame[4] == self.kind as u8);
            let is_it = frame[4] == self.kind as u8 && of_the_kind == self.skip + 1;
            if is_it && !self.over.load(SeqCst) {
                self.done.store(true, SeqCst);
                match self.deed {
                    Deed::Change(offset) => change(&mut frame, offset, mac_len),
                    Deed::ChangeMac => *frame.last_mut().unwrap() ^= 1,
                    Deed::Drop => continue,
                    Deed::Repeat => to.write_all(&frame)?,
                    Deed::Delay => {
                        held = Some(frame);
                        continue;
                    }
                    Deed::Cut => return to.write_all(&frame[..frame.len() / 2]),
                }
            }
            to.write_all(&frame)?;
            if let Some(held) = held.take() {
                to.write_all(&held)?;
            }
        }
        Ok(())
    }
}

fn read_one(from: &mut TcpStream, mac_len: usize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER_LEN];
    from.read_exact(&mut frame)?;
    let len = u32::from_le_bytes(*frame.first_chunk().unwrap()) as usize;
    frame.resize(HEADER_LEN + len + TRAILER_LEN + mac_len, 0);
    from.read_exact(&mut frame[HEADER_LEN..])?;
    Ok(frame)
}

fn change(frame: &mut [u8], offset: usize, mac_len: usize) {
    // Of version 4 it makes version 2.
    frame[offset] ^= 6;
    let end = frame.len() - mac_len - TRAILER_LEN;
    let checksum = crc32fast::hash(&frame[..end]);
    frame[end..end + TRAILER_LEN].copy_from_slice(&checksum.to_le_bytes());
}
